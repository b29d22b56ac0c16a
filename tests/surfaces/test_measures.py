"""Measures of surfaces whose measures are known in closed form."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given
from hypothesis import strategies as st

from landscape.runtime.errors import UserError
from landscape.surfaces.measures import measure
from landscape.surfaces.remarks import describe_measures

X, Y = np.linspace(-1, 1, 41), np.linspace(-0.7, 0.8, 31)
uneven = np.sort(np.concatenate([[0.0], np.random.default_rng(0).uniform(-1, 1, 40), [-1.0, 1.0]]))


def surface(f, x=X, y=Y, folds=None, penalty=0.0):
    """A group from f(x, y), or f(x) where y is None; folds: additions to the NLL, of mean 0."""
    dims, at = (("x",), (x,)) if y is None else (("y", "x"), np.meshgrid(x, y))
    z = np.asarray(f(*at), float)
    made = {"nll": (dims, z), "loss": (dims, z + penalty), "done": (dims, np.ones(z.shape, bool))}
    if folds is not None:
        made["nll_fold"] = (("fold", *dims), np.array([z + fold(*at) for fold in folds]))
    return xr.Dataset(made, {axis: c for axis, c in (("x", x), ("y", y)) if c is not None})


def values(group, bound="estimate", **options):
    table = measure(group, **options)["measure"].sel(bound=bound)
    return {str(q): float(v) for q, v in zip(table["quantity"].values, table.values, strict=True)}


@given(
    st.floats(0.1, 50), st.floats(0.1, 50), st.floats(-1, 1), st.floats(0.1, 10), st.sampled_from([X, uneven]),
    st.sampled_from([Y, uneven]),
)  # fmt: skip
def test_convex_quadratics(a, b, correlation, c, x, y):
    k = correlation * 0.9 * 2 * np.sqrt(a * b)  # a x^2 + k x y + b y^2 is positive definite
    found = values(surface(lambda x, y: a * x**2 + k * x * y + b * y**2 + c, x, y))
    assert found["positive_curvature"] == pytest.approx(1)
    assert found["negative_curvature"] == 0
    assert found["undefined_curvature"] == 0


@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(-50, 50), st.sampled_from([X, uneven]), st.floats(-9, 9))
def test_any_quadratic_has_the_convexity_of_its_matrix(a, b, k, x, c):
    low, high = np.linalg.eigvalsh([[2 * a, k], [k, 2 * b]])
    assume(min(abs(low), abs(high)) > max(1e-6, 1e-4 * max(abs(low), abs(high))))  # else rounding hides the sign
    found = values(surface(lambda x, y: a * x**2 + k * x * y + b * y**2 + c, x))
    assert found["positive_curvature"] == pytest.approx(float(low > 0))
    assert found["negative_curvature"] == pytest.approx(max(-low, 0) / max(abs(low), abs(high)), abs=1e-6)


@given(st.floats(-1e6, 1e6), st.floats(-5, 5), st.sampled_from([X, uneven]))
def test_what_is_flat_is_neither_convex_nor_concave(c, slope, x):
    for f in (lambda x, y: np.full_like(x, c), lambda x, y: c + slope * x - 3 * y):
        found = values(surface(f, x))
        assert found["positive_curvature"] == found["negative_curvature"] == 0
    valley = values(surface(lambda x, y: c + x**2, x))  # l_min = 0 up to rounding, which is not to be believed
    if abs(c) < 100:
        assert valley["positive_curvature"] == valley["negative_curvature"] == 0


def test_curvature_is_a_share_of_area_not_of_points():
    x = np.concatenate([np.linspace(-1, 0, 5), np.linspace(0, 1, 81)[1:]])
    found = values(surface(lambda x: x**3, x, None))
    inner = (x[2:] - x[:-2]) / 2
    assert found["positive_curvature"] == pytest.approx(inner[x[1:-1] > 0].sum() / inner.sum(), abs=0.1)
    assert found["positive_curvature"] == pytest.approx(0.5, abs=0.1)


@given(st.floats(1, 40), st.floats(1, 40), st.floats(0.01, 0.4))
def test_sharpness_is_the_rise_within_the_radius(a, b, radius):
    group = surface(lambda x, y: a * x**2 + b * y**2 + 3)
    found = values(group, radius=radius)["sharpness"]
    x, y = np.meshgrid(X, Y)
    least = np.max((a * x**2 + b * y**2)[np.hypot(x, y) <= radius * (1 + 1e-9)])
    if radius < 0.15:  # three points of the grid
        assert np.isnan(found)
    else:
        assert found == pytest.approx(least)
    low, high = (values(group, bound, radius=radius)["sharpness"] for bound in ("low", "high"))
    assert low == pytest.approx(least)
    assert low * (1 - 1e-6) <= max(a, b) * radius**2 <= high * (1 + 1e-6)


def test_sharpness_beyond_the_range_is_not_known():
    bowl = surface(lambda x, y: x**2 + y**2 + 1)
    assert np.isnan(values(bowl, radius=0.75)["sharpness"])  # y ends at -0.7
    assert np.isfinite(values(bowl, radius=0.7)["sharpness"])


def test_a_centre_between_grid_points_is_interpolated_and_outside_there_is_none():
    x = np.linspace(-1, 1, 40)
    assert values(surface(lambda x, y: 2 + x + 3 * y, x, x), radius=0.5)["sharpness"] == pytest.approx(
        max((a + 3 * b) for a in x for b in x if np.hypot(a, b) <= 0.5)
    )
    off = values(surface(lambda x, y: 2 + x + 3 * y, x + 3, x))
    assert np.isnan(off["sharpness"])
    assert np.isnan(off["width"])
    even = surface(lambda x, y: 1e-3 + x**2 + y**2, x, x)  # what it has at the centre is not the network's loss
    assert np.isnan(values(even)["width"])
    assert np.isnan(values(even, "high")["width"])
    assert np.isnan(values(even, "high")["sharpness"])


@given(st.floats(4, 40), st.floats(0.1, 1))
def test_the_width_of_a_round_bowl_is_its_radius(a, c):
    group = surface(lambda x, y: a * (x**2 + y**2) + c, X, X)
    found, low, high = (values(group, bound) for bound in ("estimate", "low", "high"))
    truth = np.sqrt(c / a)
    assert low["width"] <= truth <= high["width"] + 0.05**2 / 8 * 2 / truth
    if truth > 0.11:  # two intervals of the grid
        assert found["width"] == pytest.approx(truth, abs=0.05**2 / 8 * 2 / truth + 0.026)
    assert found["width_censored"] == 0


def test_the_width_of_a_cone_is_exact_on_the_axes_and_of_a_line_everywhere():
    assert values(surface(lambda x: 1 + 2 * np.abs(x), uneven, None))["width"] == pytest.approx(0.5)
    fine = np.linspace(-1, 1, 201)
    assert values(surface(lambda x, y: 1 + 2 * np.hypot(x, y), fine, fine))["width"] == pytest.approx(0.5, abs=1e-3)


def test_rays_that_end_before_make_a_lower_bound():
    trough = surface(lambda x, y: 1 + 4 * x**2, X, X)
    found = values(trough)
    assert 0 < found["width_censored"] < 0.5  # rays steeper than arctan 2, and no other
    assert found["width_censored"] == pytest.approx(1 - 2 * np.arctan(2) / np.pi, abs=0.03)
    flat = values(surface(lambda x, y: 1 + 0 * x))
    assert np.isnan(flat["width"])
    assert flat["width_censored"] == 1
    lines = describe_measures(trough.merge(measure(trough)))
    assert any(line.startswith("width >= ") and line.endswith("% of rays end before)") for line in lines)


def test_one_side_only():
    found = values(surface(lambda x: 1 + x, np.linspace(0, 2, 9), None))
    assert found["width"] == pytest.approx(1)
    assert found["width_censored"] == 0


def test_diverged_points_are_walls():
    bowl = surface(lambda x, y: 1 + 0.1 * (x**2 + y**2), X, X)
    for bad in (np.inf, np.nan):
        wall = bowl.assign(nll=bowl["nll"].where(np.hypot(bowl["x"], bowl["y"]) < 0.4, bad))
        found = values(wall)
        assert found["sharpness"] == np.inf
        assert found["width"] == pytest.approx(0.4, abs=0.06)
        assert found["positive_curvature"] == pytest.approx(1)
        assert 0.7 < found["undefined_curvature"] < 0.95
    nothing = values(bowl.assign(nll=bowl["nll"] * np.nan))
    assert all(np.isnan(v) for k, v in nothing.items() if k != "undefined_curvature")


def test_points_not_computed_leave_unknown_what_needs_them():
    bowl = surface(lambda x, y: 1 + 9 * (x**2 + y**2), X, X)
    done = ~((np.abs(bowl["x"]) > 0.9) & (np.abs(bowl["y"]) > 0.9))
    corner = bowl.assign(done=done.transpose("y", "x"), nll=bowl["nll"].where(done))
    found, whole = values(corner), values(bowl)
    assert found["sharpness"] == whole["sharpness"]
    assert found["width"] == whole["width"]
    assert np.isnan(found["positive_curvature"])
    near = bowl.assign(done=bowl["done"] & (np.abs(bowl["x"]) > 0.2))
    assert all(np.isnan(v) for v in values(near).values())


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (5, 2)])
def test_grids_too_small_for_a_hessian(shape):
    x, y = np.linspace(-1, 1, shape[1]), np.linspace(-1, 1, shape[0])
    found = values(surface(lambda x, y: 1 + x**2 + y**2, x, y))
    assert np.isnan(found["positive_curvature"])


def test_standard_errors_of_linear_measures_are_the_textbook_ones():
    """Sharpness of tilted planes is linear in the folds, so its jackknife error is std / sqrt(F)."""
    slopes = np.random.default_rng(1).normal(0, 0.3, 12)
    slopes -= slopes.mean()
    group = surface(lambda x: 5 + 4 * x, X, None, folds=[lambda x, s=s: s * x for s in slopes], penalty=X**2)
    for quantity, sharpness in (("nll", 2), ("loss", 2 + 0.25)):
        found = values(group, "sem", quantity=quantity)
        assert found["sharpness"] == pytest.approx(0.5 * slopes.std(ddof=1) / np.sqrt(12))
        assert values(group, quantity=quantity)["sharpness"] == pytest.approx(sharpness)


def test_standard_errors_cover():
    """Sharpness over many draws of the data scatters as its standard error says, away from ties for the largest."""
    rng = np.random.default_rng(2)
    estimates, errors = [], []
    for _ in range(60):
        examples = 4 + rng.normal(1, 2, (200, 1)) * X + rng.normal(3, 1, (200, 1)) * X**2
        folds = examples.reshape(10, 20, -1).mean(axis=1)
        z = examples.mean(axis=0)
        group = xr.Dataset(
            {"nll": ("x", z), "loss": ("x", z), "done": ("x", np.ones(41, bool)), "nll_fold": (("fold", "x"), folds)},
            {"x": X},
        )
        at = measure(group)["measure"].sel(quantity="sharpness").values
        estimates.append(at[0])
        errors.append(at[1])
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.2)


def test_no_error_without_folds_or_with_few_or_with_folds_that_have_gaps():
    bowl = surface(lambda x: 1 + 9 * x**2, X, None, folds=[lambda x: x**2 / 9, lambda x: -(x**2) / 9] * 4)
    assert np.isfinite(values(bowl, "sem")["width"])
    assert all(np.isnan(v) for v in values(bowl.drop_vars("nll_fold"), "sem").values())
    two = bowl.isel(fold=slice(2))
    assert all(np.isnan(v) for v in values(two, "sem").values())
    assert not any("+-" in line for line in describe_measures(two.merge(measure(two))))
    gaps = bowl.assign(nll_fold=bowl["nll_fold"].where(bowl["x"] != 0))
    assert all(np.isnan(v) for v in values(gaps, "sem").values())


def test_what_no_fold_changes_has_no_error_and_is_not_exact():
    """Of a share of points none of which turns its sign, and of a slope that all folds share, the jackknife gives 0."""
    folds = [lambda x, s=s: s for s in np.linspace(-0.1, 0.1, 9)]
    group = surface(lambda x: 3 + x**2 - 2 * x**4, X, None, folds=folds)
    group = group.merge(measure(group))
    assert 0 < values(group)["positive_curvature"] < 1
    assert np.isnan(values(group, "sem")["positive_curvature"])
    assert np.isnan(values(group, "sem")["sharpness"])
    assert not any("+- 0" in line for line in describe_measures(group))
    stored = group.copy(deep=True)
    stored["measure"].loc[{"bound": "sem"}] = 0.0
    assert describe_measures(stored) == describe_measures(group)


def test_the_order_of_dimensions_does_not_matter():
    bowl = surface(lambda x, y: 1 + 9 * x**2 + 4 * y**2, uneven)
    xr.testing.assert_identical(measure(bowl), measure(bowl.transpose("x", "y")))


def test_words():
    steeper, flatter = lambda x, y: 0.1 * x**2, lambda x, y: -0.1 * x**2
    group = surface(lambda x, y: 1 + 9 * x**2 + 9 * y**2, X, X, folds=[steeper, flatter] * 4)
    lines = describe_measures(group.merge(measure(group)))
    assert lines[0].startswith("in-plane sharpness (within 0.5) 2.25 +- ")
    assert any(line.startswith("positive curvature on 1") for line in lines)
    assert not any("left out" in line or "end before" in line for line in lines)
    assert describe_measures(group) == []


def test_measures_are_of_the_nll_and_say_so():
    """A steep penalty over a flat NLL: of the loss it would be all there is."""
    bowl = surface(lambda x: 1 + 0.04 * x**2, X, None, penalty=9 * X**2)
    table = measure(bowl)["measure"]
    assert table.attrs["of"] == "nll"
    assert values(bowl)["sharpness"] == pytest.approx(0.01)
    assert measure(bowl, quantity="loss")["measure"].attrs["of"] == "loss"
    lambdas = bowl.assign_attrs(config={"objective": {"weight_decay": 0.1, "penalty": "l2"}})
    assert "loss" not in " ".join(describe_measures(lambdas.merge(measure(lambdas))))
    asked = lambdas.merge(measure(lambdas, quantity="loss"))
    assert describe_measures(asked)[-1] == "these of nll + 0.1/2 sum ||p||^2"
    with pytest.raises(UserError, match="quantity='accuracy' is not one of nll, loss"):
        measure(bowl, quantity="accuracy")


def test_measures_that_were_stored_of_the_loss_are_shown_of_the_nll():
    """Files of before: `measure` without a word on what it is of was of the loss with its penalty."""
    bowl = surface(lambda x: 1 + 0.04 * x**2, X, None, penalty=9 * X**2)
    old = measure(bowl, radius=0.25, quantity="loss")
    del old["measure"].attrs["of"]
    assert describe_measures(bowl.merge(old))[0] == "in-plane sharpness (within 0.25) 0.0025"


GRIDS = (3, 5, 11, 21, 41, 81, 161)


def on_grids(f, dims=2, span=1.0, **options):
    """The table of measures (quantity, bound) of f on ever finer grids, by number of points."""
    found = {}
    for n in GRIDS:
        axis = np.linspace(-span, span, n)
        found[n] = measure(surface(f, axis, axis if dims == 2 else None), **options)["measure"]
    return found


@pytest.mark.parametrize("c", [1e-4, 1e-2, 0.3])
def test_a_width_that_the_grid_does_not_resolve_is_bounded_not_told(c):
    """Of 20 (x^2 + 3 y^2) + c: as the grid is refined the bounds close around the truth; no value comes before."""
    angle = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    truth = np.mean(np.sqrt(c / 20 / (np.cos(angle) ** 2 + 3 * np.sin(angle) ** 2)))
    told = {}
    for n, table in on_grids(lambda x, y: 20 * (x**2 + 3 * y**2) + c).items():
        estimate, _, low, high = table.sel(quantity="width").values
        slack = (2 / (n - 1)) ** 2 / truth  # linear between the grid's points
        assert low <= truth <= high + slack
        if np.isnan(estimate):
            assert high - low > truth / 3
        else:
            told[n] = abs(estimate / truth - 1)
    assert not {3, 5} & set(told)
    assert all(error < 0.12 for error in told.values())
    assert c < 0.1 or told[161] < 0.005


def test_a_width_between_points_says_so_in_words():
    sharp = surface(
        lambda x, y: 0.002 + 100 * (x**2 + y**2), X, X, folds=[lambda x, y: 1e-4 * x, lambda x, y: -1e-4 * x] * 4
    )
    (line,) = (line for line in describe_measures(sharp.merge(measure(sharp))) if "width" in line)
    assert line.startswith("width between 0 and 0.0")
    assert line.endswith("the grid is too coarse")
    assert "+-" not in line


def test_a_file_without_bounds_is_measured_anew():
    sharp = surface(lambda x, y: 0.002 + 100 * (x**2 + y**2), X, X)
    old = measure(sharp).sel(bound=["estimate", "sem"])
    old["measure"].loc[{"quantity": "width"}] = [0.0005, 0.0001]
    lines = describe_measures(sharp.merge(old))
    assert any("width between 0" in line for line in lines)


def test_sharpness_converges_as_the_grid_is_refined():
    """Of a quadratic: the larger eigenvalue times r^2 / 2, between the bounds on every grid."""
    f = lambda x, y: 1 + 3 * x**2 + 2 * x * y + 5 * y**2  # noqa: E731
    truth = np.linalg.eigvalsh([[3, 1], [1, 5]])[-1] * 0.5**2
    errors = {}
    for n, table in on_grids(f).items():
        estimate, _, low, high = table.sel(quantity="sharpness").values
        assert low <= truth <= high
        errors[n] = truth - estimate
        assert np.isnan(estimate) == (n < 21)
        assert n < 11 or high - low < 18 / n * truth
    assert errors[161] < 0.02 * truth


def test_curvature_of_a_double_well_converges_as_the_grid_is_refined():
    """(x^2 - 1)^2 is convex beyond 1 / sqrt 3; with y^2 added, so is the surface, and downwards elsewhere."""
    span = 1.5
    convex = 1 - 1 / np.sqrt(3) / span
    x = np.linspace(-span, span, 20001)
    low = np.minimum(12 * x**2 - 4, 2)
    negative = np.mean(np.maximum(-low, 0) / np.maximum(np.abs(low), np.maximum(12 * x**2 - 4, 2)))
    for dims, f, truth in (
        (1, lambda x: (x**2 - 1) ** 2, (convex, 1 - convex)),
        (2, lambda x, y: (x**2 - 1) ** 2 + y**2, (convex, negative)),
    ):
        last = np.inf
        for n, table in on_grids(f, dims, span).items():
            for quantity, right in zip(("positive_curvature", "negative_curvature"), truth, strict=True):
                estimate, _, below, above = table.sel(quantity=quantity).values
                assert n == 3 or below <= right <= above
                assert np.isnan(estimate) == (n == 3)
                assert n == 3 or above - below < 10 / n
                assert n == 3 or abs(estimate - right) < 2 / n
            error = abs(float(table.sel(quantity="positive_curvature", bound="estimate")) - convex)
            assert not error > last + 1 / n
            last = error
        assert last < 0.01


def a_line(f, x, **options):
    group = surface(f, x, None, **options)
    return group.assign_attrs(config={"plane": {"directions": "interpolation"}})


def test_the_barrier_of_a_double_well():
    """16 h x^2 (1 - x)^2 + s x + 1 rises by h above the straight line from 1 to 1 + s, in the middle."""
    slopes = np.random.default_rng(3).normal(0, 0.2, 20)
    slopes -= slopes.mean()
    bump = lambda x: 16 * x**2 * (1 - x) ** 2  # noqa: E731
    for n in (8, 15, 51):  # 15 and 51 have the middle among their points, 8 has not
        k = round((n - 1) / 1.4)
        x = np.arange(n) / k - (n - 1 - k) // 2 / k
        x = np.where(np.abs(x - np.round(x)) < 1e-12, np.round(x), x)
        group = a_line(lambda x: 0.7 * bump(x) + 0.4 * x + 1, x, folds=[lambda x, s=s: s * bump(x) for s in slopes])
        estimate, sem, low, high = measure(group)["measure"].sel(quantity="barrier").values
        assert low == estimate <= 0.7 + 1e-12
        assert estimate == pytest.approx(0.7 * bump(x).clip(0)[(x >= 0) & (x <= 1)].max())
        assert high == pytest.approx(0.7, abs=0.7 * 4 / k**2)
        assert sem == pytest.approx(estimate / 0.7 * slopes.std(ddof=1) / np.sqrt(20))
    assert any(line.startswith("barrier 0.7 +- ") for line in describe_measures(group.merge(measure(group))))


def test_a_valley_has_no_barrier_and_a_wall_an_infinite_one():
    x = np.linspace(-0.5, 1.5, 9)
    valley = a_line(lambda x: 1 + (x - 0.5) ** 2, x, folds=[lambda x: x / 9, lambda x: -x / 9] * 4)
    assert values(valley)["barrier"] == 0
    assert np.isnan(values(valley, "sem")["barrier"])
    assert any(line.startswith("no barrier") for line in describe_measures(valley.merge(measure(valley))))
    wall = a_line(lambda x: np.where(x == 0.5, np.inf, 1.0), x)
    assert values(wall)["barrier"] == np.inf
    unfinished = valley.assign(done=valley["x"] != 0.5)
    off_the_grid = a_line(lambda x: 1 + x, np.linspace(-0.4, 1.5, 9))
    of_no_network = surface(lambda x: 1 + x, x, None)
    assert all(np.isnan(values(group)["barrier"]) for group in (unfinished, off_the_grid, of_no_network))


def test_mistakes():
    with pytest.raises(UserError, match="radius=0"):
        measure(surface(lambda x, y: x), radius=0)
    with pytest.raises(UserError, match="no surface"):
        measure(xr.Dataset({"eigenvalue": ("rank", [1.0])}))
