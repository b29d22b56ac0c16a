"""Minima and merge trees of surfaces whose topology is known, and against gudhi."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from landscape.analyses.surface import Surface
from landscape.pictures.surfaces import draw_surface
from landscape.surfaces.topology import describe_minima, merge_tree, minima

X, Y = np.linspace(-1, 1, 41), np.linspace(-1, 1, 31)


def surface(z, folds=None, x=X, y=Y):
    z = np.asarray(z, float)
    dims = ("y", "x") if z.ndim == 2 else ("x",)
    made = {"nll": (dims, z), "done": (dims, np.ones(z.shape, bool))}
    if folds is not None:
        made["nll_fold"] = (("fold", *dims), np.asarray(folds))
    return xr.Dataset(made, {"x": x, **({"y": y} if z.ndim == 2 else {})})


def pairs(z):
    """(height of the minimum, height of the saddle) of every minimum that is merged, sorted."""
    tree = merge_tree(z)
    merged = tree.saddle >= 0
    return sorted(zip(z.flat[tree.minimum[merged]].tolist(), z.flat[tree.saddle[merged]].tolist(), strict=True))


heights = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0, 5.0, np.inf]) | st.floats(-3, 3)


@given(arrays(float, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=heights) | arrays(
    float, st.integers(1, 25), elements=heights))  # fmt: skip
@settings(max_examples=200)
def test_persistence_is_gudhis(z):
    """0-dimensional persistence of the sublevel sets of a cubical complex of these cells, plateaus and walls too."""
    complex_ = pytest.importorskip("gudhi").CubicalComplex(top_dimensional_cells=z)
    complex_.compute_persistence()
    found = complex_.persistence_intervals_in_dimension(0).reshape(-1, 2)
    theirs = sorted(map(tuple, found[np.isfinite(found).all(axis=1)].tolist()))
    assert pairs(z) == theirs
    apart = np.isfinite(found[:, 0]) & np.isinf(found[:, 1])
    tree = merge_tree(z)
    assert int((tree.saddle < 0).sum()) == int(apart.sum())


def wells(x, y=None):
    """A double well of barrier 1 along x, the left one deeper by about 0.4."""
    z = (1 - (x / 0.6) ** 2) ** 2 + 0.2 * x / 0.6
    return z if y is None else z + y**2


@pytest.mark.parametrize("dims", [1, 2])
def test_a_double_well(dims):
    z = wells(X) if dims == 1 else wells(*np.meshgrid(X, Y))
    found = minima(surface(z))
    line = wells(X)
    left, right = line[X < 0].min(), line[X > 0].min()
    top = line[np.abs(X) < 0.3].max()
    assert found.sizes["minimum"] == 2
    assert found["minimum_nll"].values.tolist() == pytest.approx([left, right])
    assert found["minimum_at"].values[:, 0].tolist() == pytest.approx([-0.6, 0.6], abs=0.06)
    assert found["minimum_persistence"].values.tolist() == pytest.approx([np.inf, top - right])
    assert found["minimum_parent"].values.tolist() == [-1, 0]
    assert abs(float(found["minimum_saddle_at"][1, 0])) < 0.06
    assert float(found["smad"]) == pytest.approx(((top - left) + (top - right)) / 2), "both first meet at the barrier"
    assert describe_minima(surface(z))[0] == "2 minima inside the grid"


def test_the_smad_takes_the_first_saddle_of_each_minimum():
    """Heights 0 5 1 3 2: 2 meets 1 at 3; then that region meets 0's at 5. (5 - 0 + 3 - 1 + 3 - 2) / 3."""
    z = np.array([0.0, 5, 1, 3, 2])
    found = minima(surface(z, x=np.arange(5.0)))
    assert float(found["smad"]) == pytest.approx((5 + 2 + 1) / 3)
    assert found["minimum_persistence"].values.tolist() == [np.inf, 4, 1]
    assert found["minimum_parent"].values.tolist() == [-1, 0, 1]
    bowl = minima(surface(X**2))
    assert float(bowl["smad"]) == 0
    assert describe_minima(surface(X**2)) == ["1 minimum inside the grid"]
    assert describe_minima(surface(X)) == ["no minima inside the grid (1 more at its edge)"]
    assert Surface().estimates(surface(X))[0].value == 0


def test_walls_and_points_not_computed_part_regions():
    z = wells(X).copy()
    z[np.abs(X) < 0.05] = np.nan
    found = minima(surface(z))
    assert found["minimum_persistence"].values.tolist() == [np.inf, np.inf]
    assert np.isfinite(found["minimum_nll"]).all()
    nothing = minima(surface(np.full(41, np.inf)))
    assert nothing.sizes["minimum"] == 0
    assert np.isnan(float(nothing["smad"]))


def noisy(z, sigma, rng, folds=20, x=X, y=Y):
    """The mean over folds of z and independent noise at every point; of the mean the standard deviation is sigma."""
    each = z + rng.normal(0, sigma * np.sqrt(folds), (folds, *z.shape))
    return surface(each.mean(axis=0), each, x, y)


def test_minima_that_noise_makes_are_told_apart_from_wells():
    """Over 100 draws of examples hardly ever more than the true minima are beyond the error; a well far above it is."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(X[::2], Y[::2])
    told, many = [], []
    for _ in range(100):
        found = minima(noisy(x**2 + y**2, 0.1, rng, x=X[::2], y=Y[::2]))
        told.append(int(found["minimum_beyond_error"].sum()))
        many.append(found.sizes["minimum"])
    assert np.mean(many) > 5, "noise makes minima"
    assert np.mean(np.array(told) > 1) <= 0.05
    wide = [int(minima(noisy(wells(X), 0.02, rng))["minimum_beyond_error"].sum()) for _ in range(50)]
    assert np.mean(np.array(wide) == 2) >= 0.95


def test_standard_errors_are_the_textbook_ones():
    """The persistence of a fixed pair is a mean over folds: std / sqrt(F)."""
    slopes = np.random.default_rng(1).normal(0, 0.1, 12)
    slopes -= slopes.mean()
    z = wells(X)
    found = minima(surface(z, [z + s * X for s in slopes]))
    apart = float(found["minimum_saddle_at"][1, 0] - found["minimum_at"][1, 0])
    sem = abs(apart) * slopes.std(ddof=1) / np.sqrt(12)
    assert float(found["minimum_persistence_sem"][1]) == pytest.approx(sem)
    assert np.isnan(float(found["minimum_persistence_sem"][0]))
    assert np.isnan(minima(surface(z, [z] * 3))["minimum_persistence_sem"]).all(), "three folds say nothing"
    assert not minima(surface(z, [z] * 9))["minimum_beyond_error"][1], "no spread, no knowledge of the error"


def test_estimates_words_and_pictures():
    rng = np.random.default_rng(3)
    group = noisy(wells(*np.meshgrid(X, Y)), 0.02, rng)
    group = group.merge(minima(group))
    count, smad = Surface().estimates(group)
    inside = int((~group["minimum_at_edge"]).sum())
    assert (count.value, count.low, count.high) == (2, 2, inside)
    assert smad.value == pytest.approx(float(group["smad"]))
    assert smad.sem > 0
    assert describe_minima(group)[0].startswith(f"2 of {inside} minima inside the grid beyond the error")
    figures = draw_surface(group, "surface")
    assert "surface_minima" in figures
    assert "surface_minima" not in draw_surface(surface(np.add.outer(Y**2, X**2)), "surface")
