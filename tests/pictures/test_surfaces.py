"""Pictures of surfaces: what is drawn is what the group holds, and nothing is invented."""

import itertools

import matplotlib
import numpy as np
import pytest
import xarray as xr
from helpers import invoke, refused
from matplotlib.colors import to_rgba
from pictures.grids import X, Y, bowl, line, surface, texts

import landscape as ls
from landscape.pictures.canvas import notes_of
from landscape.pictures.captions import axis_label
from landscape.pictures.maps import eigenvalue_map
from landscape.pictures.scales import common_scale, surface_colors
from landscape.pictures.surfaces import draw_surface, side_by_side
from landscape.study import drawing as draw
from landscape.surfaces.measures import measure

matplotlib.use("Agg")


def bands(ax):
    return [c for c in ax.collections if type(c).__name__ == "FillBetweenPolyCollection"]


def test_contours_lie_where_the_surface_has_their_height():
    """On a plane, of a grid that is not square: every point of every contour is at its level."""
    group = surface(np.add.outer(3 * Y, X), X, Y)
    ax = draw_surface(group, "surface", look=ls.Look(quantity="loss"))["surface"].axes[0]
    contours = [c for c in ax.collections if type(c).__name__ == "QuadContourSet"]
    assert len(contours) == 2
    checked = 0
    for level, segments in zip(contours[1].levels, contours[1].allsegs, strict=True):
        for x, y in itertools.chain.from_iterable(segments):
            assert 3 * y + x + 0.5 == pytest.approx(level)
            checked += 1
    assert checked > 20
    assert ax.get_xlim() == (-0.5, 1.5)
    assert ax.get_ylim() == (0, 1)
    assert ax.get_aspect() == 1


def test_heights_are_written_on_the_contours():
    ax = draw_surface(surface(8 * bowl, X, Y), "surface")["surface"].axes[0]
    contours = [c for c in ax.collections if type(c).__name__ == "QuadContourSet"][1]
    written = {float(t.get_text()) for t in ax.texts if t.get_text().replace(".", "").isdigit()}
    assert len(written) >= 2
    assert all(np.isclose(contours.levels, value, rtol=1e-3).any() for value in written)


def test_the_quantity_asked_for_is_drawn_and_labelled():
    group = surface(bowl, X, Y)
    for quantity, label in (("loss", "NLL + penalty"), ("nll", "NLL")):
        figures = draw_surface(group, "surface", look=ls.Look(quantity=quantity))
        ax, bar = figures["surface"].axes
        assert bar.get_ylabel() == label
        assert ax.collections[0].levels[0] <= float(group[quantity].min()) + 1e-9
        assert label in figures["surface_3d"].axes[0].get_zlabel()
    with pytest.raises(ls.UserError, match="no 'error'; it has nll"):
        draw_surface(group, "surface", look=ls.Look(quantity="error"))


def test_a_penalty_is_named_wherever_it_is_drawn_and_its_share_with_it():
    """NLL x + y over a penalty 2 x: cov(2x, 3x + y) / var(3x + y) = 6 var x / (9 var x + var y)."""
    group = surface(np.add.outer(Y, X), X, Y, objective={"examples": 100, "weight_decay": 0.05, "penalty": "l2"})
    group["penalty"] = 2 * group["x"] + 0 * group["nll"]
    group["loss"] = group["nll"] + group["penalty"]
    share = 6 * X.var() / (9 * X.var() + Y.var())
    drawn = {q: draw_surface(group, "s", look=ls.Look(quantity=q)) for q in ("nll", "loss")}
    words = f"penalty: {share:.0%} of the variance of the heights"
    assert words in texts(drawn["loss"]["s"].axes[0]).replace("\n", " ")
    assert words in texts(drawn["loss"]["s_3d"].axes[0])
    assert drawn["loss"]["s"].axes[1].get_ylabel() == "NLL + 0.05/2 sum ||p||^2"
    assert not any("penalty" in texts(figure.axes[0]) for figure in drawn["nll"].values())
    unasked, nll = draw.draw({"s": group})["s"], drawn["nll"]["s"]
    np.testing.assert_array_equal(*(figure.axes[0].collections[0].levels for figure in (unasked, nll)))
    curve = draw_surface(group.isel(y=0, drop=True), "s", look=ls.Look(quantity="loss"))["s"].axes[0]
    assert "penalty: 67% of the variance" in texts(curve)
    measured = group.merge(measure(group), combine_attrs="override")
    of_nll = texts(draw_surface(measured, "s", look=ls.Look(quantity="loss"))["s"].axes[0]).replace("\n", " ")
    assert "measures are of the NLL" in of_nll
    assert "measures are" not in texts(draw_surface(measured, "s")["s"].axes[0])
    both = side_by_side({"a": group, "b": group}, look=ls.Look(quantity="loss"))
    assert all(words in texts(ax).replace("\n", " ") for ax in both.axes[:2])


def test_the_scale_ends_where_walls_begin_and_nowhere_else():
    whole = common_scale([np.array([0.0, 1, 2, 3])])
    assert not whole.cut
    assert whole.levels[0] <= 0
    assert 3 <= whole.levels[-1] < 3.5
    walled = common_scale([np.array([0.0, 1, 1, 1e9, np.inf, np.nan])])
    assert walled.cut
    assert 4 <= walled.ceiling < 5
    assert common_scale([np.array([np.nan, np.inf])]) is None
    assert len(common_scale([np.full(4, 7.0)]).levels) >= 2


def test_a_scale_shows_the_minimum_of_every_surface():
    """h_i = s_i (x^2 + y^2): of the flat one nothing is cut; of the steep one what lies above, but not its floor."""
    c = np.linspace(-1, 1, 21)
    flat = np.add.outer(c**2, c**2)
    alone = common_scale([flat])
    assert not alone.cut
    both = common_scale([flat, 20 * flat])
    assert both.cut
    assert 2 <= both.ceiling < 2.5 + 8 * 20 * np.sort(flat.ravel())[24]
    steep = (20 * flat < both.ceiling).mean()
    assert 25 / flat.size < steep < 1
    needle = common_scale([1000 * flat + np.where(flat > 0.5, 1e6, 0)])  # a narrow valley between walls
    assert (1000 * flat < needle.ceiling).sum() >= 25
    assert needle.ceiling < 1e5


def test_a_logarithmic_scale_is_one_above_the_minimum():
    values = np.array([0.03, 0.5, 7.0, 900.0])
    assert not common_scale([values]).log
    steep = common_scale([values], log=True, error=0.05)
    assert steep.log
    assert steep.cut
    assert steep.levels[0] == pytest.approx(0.03)
    assert steep.ceiling == pytest.approx(0.03 + 4 * (3.75 - 0.03))
    np.testing.assert_allclose(steep.value(steep.height(values)), values)
    assert steep.height(0.03) == 0
    shifted = common_scale([values - 5], log=True, error=0.05)  # below 0 too
    np.testing.assert_allclose(shifted.height(values - 5), steep.height(values))
    group = surface(np.exp(9 * bowl) / 50, X, Y).assign_attrs(config={"objective": {"weight_decay": 0}})
    figures = draw_surface(group, "surface", look=ls.Look(scale="log"))
    bar = figures["surface"].axes[1]
    assert [t.get_text() for t in bar.get_yticklabels()] == [f"{v:.3g}" for v in bar.get_yticks()]
    assert "log above" in bar.get_ylabel()
    both = side_by_side({"a": group, "b": group}, look=ls.Look(scale="log"))
    assert "log above" in both.axes[-1].get_ylabel()
    assert "log" not in draw_surface(group, "surface")["surface"].axes[1].get_ylabel()


def test_a_minimum_that_one_point_hits_is_no_needle():
    """40 (x^2 + y^2) on a grid that has the minimum, of 1e-4: on a logarithmic scale one point has 60 % of it."""
    c = np.linspace(-1, 1, 21)
    z = 40 * np.add.outer(c**2, c**2) + 1e-4
    for error in (0.0, 0.3):
        group = surface(z).assign(nll_sem=(("y", "x"), np.full(z.shape, error)))
        figures = draw_surface(group, "surface", look=ls.Look(scale="log"))
        low, high = figures["surface_3d"].axes[0].get_zlim()
        scale = common_scale([z], error=error, log=True)
        assert scale.linear == pytest.approx(max(np.sort(z.ravel())[24] - z.min(), 2 * error))
        lowest, next_to_it = scale.height(np.sort(z.ravel())[[0, 1]])
        assert next_to_it - lowest < 0.25 * (high - low)
        assert "log above" in figures["surface"].axes[1].get_ylabel()
    curve = draw_surface(surface(np.append(z[10], 900.0)), "curve", look=ls.Look(scale="log"))["curve"].axes[0]
    assert "log above" in curve.get_ylabel()
    assert curve.get_yscale() == "function"


def test_accuracy_is_drawn_as_it_is():
    peak = xr.where(surface(bowl, X, Y)["nll"] < 0.5, 0.99, 0.001)
    group = surface(bowl, X, Y).assign(accuracy=peak.transpose("y", "x"))
    ax = draw_surface(group, "surface", look=ls.Look(quantity="accuracy"))["surface"].axes[0]
    assert ax.collections[0].levels[-1] == pytest.approx(1, abs=0.05)
    both = side_by_side({"a": group, "b": surface(bowl, X, Y)}, look=ls.Look(quantity="accuracy"))
    assert both.axes[0].collections[0].levels[-1] == pytest.approx(1, abs=0.05)
    assert "above" not in both.axes[-1].get_ylabel()


def test_side_by_side_is_one_scale_above_each_lowest():
    low, high = surface(bowl, X, Y), surface(100 + 3 * bowl, X, Y)
    figure = side_by_side({"low": low, "high": high}, look=ls.Look(quantity="loss"))
    filled = [next(c for c in ax.collections if type(c).__name__ == "QuadContourSet") for ax in figure.axes[:2]]
    np.testing.assert_array_equal(filled[0].levels, filled[1].levels)
    assert filled[0].norm.vmin == filled[1].norm.vmin
    assert filled[0].norm.vmax == filled[1].norm.vmax
    assert filled[0].levels[-1] >= np.ptp(bowl)
    assert "low, lowest 0.6" in figure.axes[0].get_title()
    assert "high, lowest 101" in figure.axes[1].get_title()
    assert len(figure.axes) == 3  # one colour bar
    # the same height has the same colour in both
    for height in np.linspace(0.1, np.ptp(bowl), 5):
        colors = [c.to_rgba(height) for c in filled]
        assert colors[0] == colors[1]
    relief = side_by_side({"low": low, "high": high}, relief=True)
    assert relief.axes[0].get_zlim() == relief.axes[1].get_zlim()
    assert relief.axes[0].get_zlim()[0] == 0
    many = side_by_side({str(i): low for i in range(5)})
    assert len(many.axes) == 6
    with pytest.raises(ls.UserError, match="only surfaces of two dimensions are drawn side by side; line"):
        side_by_side({"low": low, "line": surface(line, X)})


def test_a_curve_has_the_bands_of_its_standard_errors_and_accuracy_beside():
    group = surface(line, X)
    group["loss"][2], group["nll"][2] = np.inf, np.inf
    figure = draw_surface(group, "surface", look=ls.Look(quantity="loss"))["surface"]
    ax, right = figure.axes
    (curve,) = [one for one in ax.lines if one.get_label().startswith("NLL")]
    finite = np.isfinite(group["loss"].values)
    np.testing.assert_allclose(curve.get_ydata()[finite], line[finite] + 0.5)
    assert np.isnan(curve.get_ydata()[2])
    vertices = np.concatenate([path.vertices for path in bands(ax)[0].get_paths()])
    for i in np.flatnonzero(finite):
        at = vertices[np.isclose(vertices[:, 0], X[i]), 1]
        assert at.min() == pytest.approx(line[i] + 0.5 - 0.1 * line[i])
        assert at.max() == pytest.approx(line[i] + 0.5 + 0.1 * line[i])
    (crosses,) = [one for one in ax.lines if "diverged" in one.get_label()]
    np.testing.assert_array_equal(crosses.get_xdata(), [X[2]])
    assert right.get_ylabel() == "accuracy (%)"
    np.testing.assert_allclose(right.lines[0].get_ydata()[finite], 50)
    assert bands(right)[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(52)
    alone = draw_surface(group.drop_vars(["accuracy", "nll_sem"]), "surface")["surface"]
    assert len(alone.axes) == 1
    assert not bands(alone.axes[0])
    assert "standard error" not in texts(alone.axes[0])


def test_a_trajectory_goes_from_circle_to_star_with_labels_that_do_not_meet():
    path = np.array([[1.2, 0.9], [0.8, 0.5], [0.4, 0.2], [0.02, 0.03], [0, 0]])
    names = [f"epoch {i}" for i in range(5)]
    group = surface(bowl, X, Y, plane={"directions": "pca"}).assign(
        trajectory=(("checkpoint", "axis"), path), explained=("axis", [0.834, 0.1]),
        off_plane=("checkpoint", np.arange(5)),
    ).assign_coords(checkpoint=names)  # fmt: skip
    figure = draw_surface(group, "surface")["surface"]
    ax = figure.axes[0]
    drawn = {one.get_label(): one for one in ax.lines}
    np.testing.assert_array_equal(np.transpose(drawn["trajectory"].get_data()), path)
    assert drawn["start"].get_marker() == "o"
    assert drawn["end"].get_marker() == "*"
    np.testing.assert_array_equal(np.ravel(drawn["end"].get_data()), path[-1])
    assert ax.get_xlabel() == "principal component 1 (83.4% of variance)"
    assert ax.get_xlim() == (-0.5, 1.5)
    assert "4 off the plane" in texts(ax)
    figure.canvas.draw()
    boxes = [t.get_window_extent() for t in ax.texts if t.get_text().startswith("epoch")]
    assert len(boxes) >= 3
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    far = group.assign(trajectory=group["trajectory"] * 3)
    assert "checkpoints beyond the range" in texts(draw_surface(far, "surface")["surface"].axes[0])


def test_computed_points_of_an_adaptive_surface_are_dots():
    filled = np.zeros(bowl.shape, bool)
    filled[::2] = True
    group = surface(bowl, X, Y).assign(interpolated=(("y", "x"), filled), nll_error=(("y", "x"), 0.03 * filled))
    ax = draw_surface(group, "surface")["surface"].axes[0]
    (dots,) = [one for one in ax.lines if one.get_label() == "computed"]
    assert sorted(zip(*dots.get_data(), strict=True)) == sorted((x, y) for x in X for y in Y[1::2])
    assert "the 18 points computed, others interpolated, error up to 0.03" in texts(ax).replace("\n", " ")
    whole = draw_surface(surface(bowl, X, Y), "surface")["surface"].axes[0]
    assert not any(one.get_label() == "computed" for one in whole.lines)


def test_diverged_points_are_hatched_each_in_its_cell():
    z = bowl.copy()
    z[0, 0], z[4, 8] = np.inf, np.nan
    ax = draw_surface(surface(z, X, Y), "surface")["surface"].axes[0]
    (cells,) = [c for c in ax.collections if c.get_hatch()]
    shown = ~np.ma.getmaskarray(cells.get_array())
    np.testing.assert_array_equal(shown.reshape(z.shape), ~np.isfinite(z))
    assert "2 points" in texts(ax)


def test_the_centre_is_marked_only_where_it_is():
    def marks(group):
        return [one for one in draw_surface(group, "s")["s"].axes[0].lines if one.get_marker() == "+"]

    assert len(marks(surface(bowl, X, Y))) == 2
    assert not marks(surface(bowl, X + 2, Y))


def test_a_caption_is_two_lines_and_the_rest_is_in_the_description():
    z = bowl.copy()
    z[4, 8] = np.inf
    filled = np.zeros(bowl.shape, bool)
    filled[0, :3] = True
    group = surface(z, X, Y, plane={"normalize": "filter", "directions": "pca"}).assign(
        interpolated=(("y", "x"), filled), nll_error=(("y", "x"), 0.25 * filled),
        trajectory=(("checkpoint", "axis"), np.array([[1.2, 0.9], [9.0, 0.0], [0, 0]])),
    ).assign_coords(checkpoint=list("abc"))  # fmt: skip
    for figure in (draw_surface(group, "s")["s"], side_by_side({"a": group, "b": group})):
        lines = [t for t in figure.axes[0].texts if t.get_gid() == "note"]
        assert 1 <= len(lines) <= 2
        whole = notes_of(figure)
        for words in ("filter-normalised", "diverged", "interpolated", "from start (circle) to end (star)", "beyond"):
            assert words in whole
        assert all(t.get_text().split("; ")[0] in whole for t in lines)


def test_maps_of_eigenvalues_and_gradient():
    group = surface(bowl, X, Y)
    high, low = 10 + bowl, np.add.outer(Y - 0.5, X - 0.5)
    low[0, 0] = np.nan
    group = group.assign(
        eigenvalue_high=(("y", "x"), high), eigenvalue_low=(("y", "x"), low), gradient_norm=(("y", "x"), bowl)
    )
    figures = draw.draw({"surface": group}, "net")
    assert set(figures) == {"surface", "surface_3d", "surface_eigenvalues", "surface_gradient"}
    maps = [ax.collections[0] for ax in figures["surface_eigenvalues"].axes[:3]]
    for drawn, expected in zip(maps, (high, low, np.abs(low / high)), strict=True):
        np.testing.assert_allclose(np.ma.filled(drawn.get_array(), np.nan).reshape(expected.shape), expected)
    assert maps[0].norm(0) == maps[1].norm(0) == 0.5  # 0 in the middle of a scale of two colours, for either end
    assert all(any(line.get_marker() == "+" for line in ax.lines) for ax in figures["surface_eigenvalues"].axes[:3])
    assert (maps[2].norm.vmin, maps[2].norm.vmax) == (0, 1)
    (zero,) = figures["surface_eigenvalues"].axes[1].collections[1:]  # told apart in grey
    assert zero.levels.tolist() == [0]
    assert len(figures["surface_eigenvalues"].axes[0].collections) == 1
    flat = group.isel(y=1, drop=True)
    assert set(draw.draw({"surface": flat})) == {"surface", "surface_eigenvalues", "surface_gradient"}


def test_eigenvalues_that_have_not_converged_are_hatched():
    group = surface(bowl, X, Y)
    converged, complete = np.ones((2, *bowl.shape), bool)
    converged[1, 2] = complete[3, 0] = False
    group = group.assign(
        eigenvalue_high=(("y", "x"), 10 + bowl), eigenvalue_low=(("y", "x"), bowl - 5),
        converged_high=(("y", "x"), converged), converged_low=(("y", "x"), np.ones_like(converged)),
        complete=(("y", "x"), complete),
    )  # fmt: skip
    axes = eigenvalue_map(group, "net").axes[:3]
    for ax, bad in zip(axes, (~(converged & complete), ~complete, ~(converged & complete)), strict=True):
        (hatched,) = (c for c in ax.collections if c.get_hatch())
        assert len(hatched.get_paths()) == bad.sum()
    assert "hatched: not converged, or not surely the extreme one: 2 points" in texts(axes[0])
    (line,) = eigenvalue_map(group.isel(y=1, drop=True), "net").axes
    assert [len(ring.get_xdata()) for ring in line.lines if ring.get_fillstyle() == "none"] == [1, 0]
    settled = eigenvalue_map(group.drop_vars(["converged_high", "converged_low", "complete"]), "net").axes
    assert not any(c.get_hatch() for ax in settled[:3] for c in ax.collections)


@pytest.mark.parametrize(
    ("plane", "labels"),
    [
        ({"directions": "random"}, ("random direction 1", "random direction 2")),
        (
            {"directions": "eigenvectors", "eigenvalues": [81.25, -3.5]},
            ("Hessian eigenvector 1: largest eigenvalue 81.2", "Hessian eigenvector 2: smallest eigenvalue -3.5"),
        ),
        ({"directions": "eigenvectors"}, ("Hessian eigenvector 1", "Hessian eigenvector 2")),
        ({"directions": "pca"}, ("principal component 1", "principal component 2")),
        ({"directions": "checkpoints", "checkpoints": ["a", "b", "c"]}, ("towards b", "towards c")),
        ({"directions": "interpolation", "checkpoints": ["a", "b"]}, ("from a (0) to b (1)", None)),
        ({"directions": "interpolation"}, ("from the first (0) to the second (1)", None)),
        ({}, ("a (along $d_1$)", "b (along $d_2$)")),
    ],
)
def test_axes_say_what_they_are(plane, labels):
    group = surface(bowl, X, Y, plane=plane)
    for axis, label in enumerate(labels):
        assert label is None or axis_label(group, axis) == label


KINDS = {
    "all diverged": surface(np.full((4, 3), np.inf)),
    "none done": surface(np.full((4, 3), np.nan)).assign(done=(("y", "x"), np.zeros((4, 3), bool))),
    "constant": surface(np.zeros((3, 3))),
    "one point": surface([[1.0]]),
    "one row": surface([[1.0, 2, 3]]),
    "walls": surface(np.exp(40 * bowl), X, Y),
    "long": surface(bowl[:2], X * 100, Y[:2]),
    "line": surface(line, X),
    "one point on a line": surface([1.0]),
    "line all diverged": surface(np.full(4, np.nan)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_surfaces_of_every_kind_are_drawn(kind, tmp_path):
    group = KINDS[kind]
    for name, figure in draw.draw({"surface": group}, "net").items():
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 4000
    if "y" in group.dims:
        side_by_side({"a": group, "b": surface(bowl, X, Y)}).savefig(tmp_path / "both.png")


def test_only_what_is_known_is_drawn(tmp_path):
    """A group as import makes it: no errors, no penalty, no plane."""
    bare = surface(bowl, X, Y)[["nll", "loss", "done"]].assign_attrs(config={"source": {"file": "s.csv"}})
    for name, figure in draw.draw({"surface": bare}).items():
        figure.savefig(tmp_path / f"{name}.png")
    ax = draw.draw({"surface": bare})["surface"].axes[0]
    assert "from s.csv" in texts(ax)
    assert "examples" not in texts(ax)
    assert "normalised" not in texts(ax)


def test_colours_in_print_grow_lighter_with_height():
    shades = [to_rgba(matplotlib.colormaps[surface_colors()](v)) for v in np.linspace(0, 1, 9)]
    assert (np.diff([0.3 * r + 0.59 * g + 0.11 * b for r, g, b, _ in shades]) > 0).all()


def test_plot_of_several_files_puts_their_surfaces_on_one_scale(tmp_path):
    ls.save(tmp_path / "a.h5", surface=surface(bowl, X, Y))
    ls.save(tmp_path / "b.h5", surface=surface(2 * bowl, X, Y))
    ls.save(tmp_path / "line.h5", surface=surface(line, X))
    result = invoke(
        "plot", *(tmp_path / f"{n}.h5" for n in ("a", "b", "line")), "--out", tmp_path / "p", "--quantity", "nll"
    )
    assert result.returncode == 0, result.stderr
    written = sorted(p.name for p in (tmp_path / "p").iterdir())
    assert written == ["a-surface.png", "a-surface_3d.png", "all-surfaces.png", "all-surfaces_3d.png", "b-surface.png",
                       "b-surface_3d.png", "line-surface.png"]  # fmt: skip
    refused(invoke("plot", tmp_path / "a.h5", "--out", tmp_path / "p", "--quantity", "error"), "no 'error'")


def test_show_has_the_measures_and_what_was_filled_in(tmp_path):
    filled = np.zeros(bowl.shape, bool)
    filled[0, :3] = True
    group = surface(bowl, X, Y).assign(interpolated=(("y", "x"), filled), nll_error=(("y", "x"), 0.25 * filled))
    ls.save(tmp_path / "a.h5", surface=group.merge(measure(group)))
    shown = invoke("show", tmp_path / "a.h5").stdout
    assert "3 points interpolated, nll_error up to 0.25" in shown
    assert "positive curvature on 1 of the area" in shown
