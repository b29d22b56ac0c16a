"""Pictures from made-up groups: nothing is lost, nothing is invented, nothing raises."""

import matplotlib
import numpy as np
import pytest
import torch
import xarray as xr

from landscape.analyses.summaries import summarize
from landscape.linalg.operators import Rows
from landscape.linalg.quadrature import quadrature
from landscape.pictures import spectra as pictures_of_spectra
from landscape.pictures.canvas import style
from landscape.pictures.look import Look
from landscape.pictures.smoothing import kernel_width, quadrature_cells, reflected_density
from landscape.study import drawing as draw

matplotlib.use("Agg")


def overlay(spectra, curve="ecdf"):
    return pictures_of_spectra.compare(spectra, "spectrum", look=Look(spectra=curve))["spectra"]


def surface(z, done=None):
    z = np.asarray(z, float)
    done = np.ones(z.shape, bool) if done is None else done
    return xr.Dataset(
        {"nll": (("y", "x"), z), "done": (("y", "x"), done)},
        {"x": np.linspace(-1, 1, z.shape[1]), "y": np.linspace(-1, 1, z.shape[0])},
    )


def spectrum(e):
    e = np.asarray(e, float)
    s = xr.Dataset({"eigenvalue": (("batch", "rank"), e), "converged": (("batch", "rank"), np.isfinite(e))})
    return s.merge(summarize(s))


def density(node, weight):
    node, weight = np.asarray(node, float), np.asarray(weight, float)
    done = np.ones(len(node), bool)
    return xr.Dataset(
        {"node": (("probe", "node"), node), "weight": (("probe", "node"), weight), "done": ("probe", done)},
        attrs={"config": {"parameters": 100}},
    )


bowl = np.add.outer(np.linspace(-1, 1, 7) ** 2, np.linspace(-1, 1, 5) ** 2)
wall = np.where(bowl > 1.2, np.inf, bowl)


@pytest.mark.parametrize("z", [bowl, wall, np.full((3, 3), np.nan), np.zeros((3, 3)), [[1.0]], [[1.0, 2.0, 3.0]]])
def test_surfaces_of_every_kind_are_drawn(z, tmp_path):
    for name, figure in draw.draw({"surface": surface(z)}, "net").items():
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_diverged_points_are_shown_as_such_and_unfinished_ones_are_not():
    figure = draw.draw({"surface": surface(wall)})["surface"]
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert any("diverged" in t for t in texts)
    done = np.ones(bowl.shape, bool)
    done[0] = False
    partial = draw.draw({"surface": surface(np.where(done, bowl, np.nan), done)})["surface"]
    texts = [t.get_text() for t in partial.axes[0].texts]
    assert not any("diverged" in t for t in texts)
    assert any("30 of 35 points" in t for t in texts)


def test_density_of_gathered_eigenvalues_is_a_density_on_the_axis_shown():
    rng = np.random.default_rng(0)
    figure = overlay({"a": spectrum(rng.normal(10, 3, (30, 5))), "b": spectrum(-rng.lognormal(0, 1, (30, 5)))},
                     "density")  # fmt: skip
    ax = figure.axes[0]
    for line in [line for line in ax.lines if len(line.get_xdata()) > 500]:
        linear = ax.xaxis.get_transform().transform(np.asarray(line.get_xdata()))
        assert np.trapezoid(line.get_ydata(), linear) == pytest.approx(1, abs=0.02)
    assert ax.get_xlim()[0] < 0 < ax.get_xlim()[1]
    assert len(ax.get_legend().get_texts()) == 2


def ink(ax):
    """x and y of everything above the axis that is drawn in the coordinates of the data."""
    lines = [line.get_xydata() for line in ax.lines if line.get_transform() is ax.transData]
    filled = [path.vertices for shape in ax.collections for path in shape.get_paths()]
    x, y = np.concatenate([*lines, *filled]).T
    return x[y > 0]


def area(ax, x, y):
    return np.trapezoid(y, ax.xaxis.get_transform().transform(np.asarray(x)))


def test_a_density_of_eigenvalues_ends_where_they_end_and_crosses_zero_only_in_its_area():
    rng = np.random.default_rng(1)
    few = np.append(rng.uniform(20, 60, 8), [87.0, -30.0]).reshape(2, 5)
    for e in (few, np.concatenate([-rng.lognormal(4, 1, (16, 5)), rng.lognormal(5, 2, (16, 5))])):
        ax = overlay({"net": spectrum(e)}, "density").axes[0]
        x = ink(ax)
        assert e.min() <= x.min()
        assert x.max() <= e.max()
        assert not ((e[e < 0].max() < x) & (x < e[e > 0].min())).any()
    sides = [line.get_xydata().T for line in ax.lines if len(line.get_xdata()) > 500]
    assert [area(ax, x, y) for x, y in sides] == pytest.approx([0.5, 0.5], abs=0.001)


def test_the_curve_of_a_spectrum_is_the_share_up_to_each_value_over_a_tick_for_each():
    rng = np.random.default_rng(2)
    for e in (rng.normal(3, 4, (12, 5)), np.array([[2.0, 2.0], [-1.0, np.nan]])):
        one = spectrum(e)
        ax = overlay({"net": one}).axes[0]
        (curve,) = (line for line in ax.lines if line.get_drawstyle() == "steps-post")
        x, share = curve.get_data()
        known = np.sort(e[np.isfinite(e)])
        np.testing.assert_allclose(x[1:], known)
        np.testing.assert_allclose(share[1:], np.arange(1, known.size + 1) / known.size)
        assert share[np.searchsorted(x[1:], 0)] == pytest.approx((known < 0).mean())  # its height at 0, the NEP
        assert sorted(x for line in ax.lines if line.get_marker() in "|x" for x in line.get_xdata()) == list(known)


def test_every_eigenvalue_is_marked_and_what_has_not_converged_otherwise():
    one = spectrum([[9.0, -2.0], [7.0, 1.0]])
    one["converged"].values[1, 1] = False
    ax = overlay({"net": one}).axes[0]
    marks = {line.get_marker(): sorted(line.get_xdata()) for line in ax.lines if line.get_marker() in ("|", "x")}
    assert marks == {"|": [-2, 7, 9], "x": [1]}
    assert any("x: not converged, 1" in t.get_text() for t in ax.texts)


def test_the_legend_of_a_spectrum_is_not_on_the_data(tmp_path):
    figure = overlay({name: spectrum([[9.0, -2.0], [7.0, 1.0]]) for name in "abcdefg"})
    figure.savefig(tmp_path / "s.png")
    (ax,) = figure.axes
    assert not ax.get_legend().get_window_extent().overlaps(ax.get_tightbbox(bbox_extra_artists=[]))
    assert len({str(style(i)["linestyle"]) for i in range(7)}) == 7  # told apart in grey
    assert len({str(style(i)) for i in range(49)}) == 49


def test_a_reflected_kernel_density_is_the_density_of_what_has_an_edge():
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(size=20_000))
    at = np.linspace(values.min(), values.max(), 4001)
    density = reflected_density(values, at, kernel_width(values))
    assert np.trapezoid(density, at) == pytest.approx(1, abs=1e-4)
    assert np.abs(density - np.sqrt(2 / np.pi) * np.exp(-(at**2) / 2)).max() < 0.06


def test_cells_of_a_quadrature_hold_its_weights_apart():
    node, weight = np.array([9.0, 0.0, 1.0, 1.5]), np.array([0.005, 0.5, 0.455, 0.04])
    cells, mass = quadrature_cells(node, weight, parameters=1000, widest=0.4, narrowest=0.1)
    np.testing.assert_allclose(cells, [[0, 0.4], [0.6, 1.25], [1.25, 1.9], [8.9, 9.0]])
    np.testing.assert_allclose(mass, [0.5, 0.455, 0.04, 0.005])


@pytest.mark.parametrize("e", [[[1.0, 2]], [[0.0, 0.0]], [[np.nan, np.nan]], [[-5.0, 3e6], [1e-9, 2]], [[2.0, 2.0]]])
@pytest.mark.parametrize("curve", ["ecdf", "density"])
def test_spectra_of_every_kind_are_drawn(e, curve, tmp_path):
    overlay({"net": spectrum(e)}, curve).savefig(tmp_path / "s.png")
    assert (tmp_path / "s.png").stat().st_size > 5000


def test_drawn_density_has_mass_one():
    d = density([[0.0, 1, 10], [0, 2, 11]], [[0.9, 0.05, 0.05]] * 2)
    line = draw.draw({"density": d})["density"].axes[0].lines[0]
    assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(1, abs=0.01)


def test_a_drawn_spectral_density_hides_no_outlier_and_has_no_tails():
    rng = np.random.default_rng(0)
    e = np.concatenate([rng.normal(0, 0.05, 1900), rng.uniform(0, 2, 97), [-4.0, 9.0, 13.19]])
    diagonal, probes = torch.tensor(e), []
    for _ in range(4):
        probes.append(quadrature(Rows(lambda V: V * diagonal), torch.tensor(rng.choice([-1.0, 1.0], e.size)), 40))
    d = density(*map(np.stack, zip(*probes, strict=True)))
    d.attrs["config"]["parameters"] = e.size
    ax, right = draw.draw({"density": d})["density"].axes
    x, y = ax.lines[0].get_data()
    assert np.trapezoid(y, x) == pytest.approx(1, abs=1e-9)
    assert (ink(ax).min(), ink(ax).max()) == pytest.approx((-4, 13.19))
    outliers = np.array([-4.0, 9.0, 13.19])
    beyond = ink(ax)[(ink(ax) < -0.5) | (ink(ax) > 2.5)]
    assert (np.abs(beyond[:, None] / outliers - 1).min(axis=1) < 0.25).all()
    assert (np.interp([-3.99, 9.0, 13.18], x, y) > ax.get_ylim()[0]).all()
    dots = np.concatenate([line.get_xydata() for line in right.lines])
    assert len(dots) == d["node"].size
    np.testing.assert_allclose(np.sort(dots[:, 0]), np.sort(d["node"].values.ravel()))
    assert right.get_ylim()[0] < dots[:, 1].min()
    assert dots[:, 1].max() < right.get_ylim()[1]
    cumulative = np.concatenate([[0], np.cumsum(np.diff(x) * (y[1:] + y[:-1]) / 2)])
    for at in (-1.0, -0.5, 0.5, 1.0, 1.5, 5.0):
        assert np.interp(at, x, cumulative) == pytest.approx((e < at).mean(), abs=0.01)
    assert any("from -4 to 13.19" in t.get_text() for t in ax.texts)


@pytest.mark.parametrize("d", [density([[3.0, np.nan]], [[1.0, 0]]), density([[np.nan] * 2], [[np.nan] * 2])])
def test_densities_of_every_kind_are_drawn(d, tmp_path):
    draw.draw({"density": d})["density"].savefig(tmp_path / "d.png")
    assert (tmp_path / "d.png").stat().st_size > 5000


def test_every_other_group_is_drawn(tmp_path):
    e = np.array([[[9.0, -2], [7, 1]], [[3, 2], [4, -1]]])
    parts = xr.concat([spectrum(one) for one in e], "part").assign_coords(part=["stem", "head"])
    top = xr.Dataset({"eigenvalue": ("rank", [90.0, -3, np.nan]), "residual": ("rank", [0.1, 2, np.nan]),
                      "converged": ("rank", [True, False, False])}, attrs={"config": {"analysis": "top"}})  # fmt: skip
    trace = xr.Dataset({"trace_estimate": ("probe", [3.0, 5, 4]), "trace": 4.0, "trace_sem": 0.6, "products": 9})
    both = trace.assign(trace_sem=1.0, trace_sem_probes=0.6, trace_sem_examples=0.8)
    notes = {name: draw.draw({"trace": t})["trace"].axes[0].texts[-1].get_text() for name, t in
             (("old", trace), ("new", both))}  # fmt: skip
    assert notes["old"].startswith("4 ± 0.6 over probes; ")
    assert notes["new"].startswith("4 ± 1 (0.6 over probes, 0.8 over examples); ")
    series = xr.concat([spectrum(one) for one in e], "checkpoint").assign_coords(checkpoint=["epoch 1", "epoch 20"])
    series.attrs["config"] = {"analysis": "series"}
    groups = {"spectrum_per_layer": parts, "top": top, "top_ggn": top, "trace": trace, "series": series}
    drawn = draw.draw(groups, "net")
    assert drawn.keys() == groups.keys()
    for name, figure in drawn.items():
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    nothing = top.assign(eigenvalue=("rank", [np.nan] * 3))
    draw.draw({"top": nothing})["top"].savefig(tmp_path / "nothing.png")


def test_both_ends_of_a_spectrum_are_told_apart_and_residuals_are_said():
    top = xr.Dataset({"eigenvalue": ("rank", [90.0, 7, 3, -0.5, -3]), "residual": ("rank", [0.1, 0.2, 0.003, 0, 0.1]),
                      "converged": ("rank", [True, True, True, False, True])},
                     attrs={"config": {"analysis": "top", "which": "BE"}})  # fmt: skip
    ax = draw.draw({"top": top})["top"].axes[0]
    drawn = {line.get_label(): list(line.get_ydata()) for line in ax.lines if not line.get_label().startswith("_")}
    assert drawn == {"largest": [90, 7, 3], "smallest": [-3], "smallest not converged": [-0.5]}
    assert len({line.get_marker() for line in ax.lines if line.get_label() in ("largest", "smallest")}) == 2
    assert any("residuals up to 0.2" in t.get_text() for t in ax.texts)
    one = draw.draw({"top": top.assign_attrs(config={"analysis": "top", "which": "LM"})})["top"].axes[0]
    assert [t.get_text() for t in one.get_legend().get_texts()] == ["not converged"]


def test_no_legend_lies_on_data():
    rng = np.random.default_rng(0)
    series = xr.concat([spectrum(rng.normal(1, 3, (8, 5)))] * 3, "checkpoint").assign_coords(checkpoint=list("123"))
    trace = xr.Dataset(
        {"trace_estimate": ("probe", rng.normal(5, 1, 9)), "trace": 5.0, "trace_sem": 0.4, "products": 9}
    )
    groups = {"series": series.assign_attrs(config={"analysis": "series"}), "trace": trace}
    for name, figure in draw.draw(groups).items():
        figure.canvas.draw()
        ax = next(ax for ax in figure.axes if ax.get_legend() is not None)
        assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent()), name


def test_statistics_with_eigenvalues_that_have_not_converged_are_marked():
    e = np.random.default_rng(0).normal(1, 3, (2, 8, 5))
    sure, unsure = (spectrum(one).assign(nll=("batch", np.linspace(1, 2, 8))) for one in e)
    unsure["converged"].values[3, 4] = False
    legend = [t.get_text() for t in overlay({"a": sure, "b": unsure}).axes[0].get_legend().get_texts()]
    assert [text.endswith("*") for text in legend] == [False, True]
    series = xr.concat([sure, unsure], "checkpoint").assign_coords(checkpoint=["1", "2"])
    series.attrs["config"] = {"analysis": "series"}
    drawn = [
        draw.draw({"series": series})["series"],
        draw.compare({"a": {"series": series}, "b": {"series": series}})["series"],
    ]
    for figure in drawn:
        axes = [ax for ax in figure.axes if ax.lines]
        for ax in axes:
            hollow = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
            assert hollow
            assert all(len(line.get_xdata()) == 1 for line in hollow)
        assert any("hollow" in t.get_text() for t in axes[0].texts)
    sure_only = xr.concat([sure, sure], "checkpoint").assign_coords(checkpoint=["1", "2"])
    sure_only.attrs["config"] = {"analysis": "series"}
    assert not any("hollow" in t.get_text() for t in draw.draw({"series": sure_only})["series"].axes[0].texts)


def test_few_mini_batches_have_no_interval_in_pictures(tmp_path):
    few = spectrum([[9.0, -2.0], [7.0, 1.0]])
    figure = overlay({"net": few})
    (label,) = (t.get_text().replace("\u00a0", " ") for t in figure.axes[0].get_legend().get_texts())
    assert label == "net: 25% negative"
    series = xr.concat([few, few], "checkpoint").assign_coords(checkpoint=["1", "2"])
    series.attrs["config"] = {"analysis": "series"}
    draw.draw({"series": series})["series"].savefig(tmp_path / "series.png")
    assert (tmp_path / "series.png").stat().st_size > 5000


def test_a_series_shows_shares_of_zero_whole_and_eigenvalues_over_them():
    positive = xr.concat([spectrum(np.ones((8, 2)))] * 2, "checkpoint").assign_coords(checkpoint=["1", "2"])
    positive.attrs["config"] = {"analysis": "series"}
    figure = draw.draw({"series": positive})["series"]
    eigenvalues, share = figure.axes
    line = next(line for line in share.lines if line.get_marker() == "s")
    np.testing.assert_array_equal(line.get_ydata(), 0)
    figure.canvas.draw()
    at_zero = share.transData.transform((1, 0))[1] - share.bbox.y0
    assert at_zero > line.get_markersize() / 2 * figure.dpi / 72
    assert eigenvalues.get_zorder() > share.get_zorder()
    assert not eigenvalues.patch.get_visible()


def test_series_of_several_files_are_drawn_against_their_losses():
    rng = np.random.default_rng(0)

    def series(*names):
        spectra = [spectrum(rng.normal(1, 3, (8, 5))).assign(nll=("batch", rng.uniform(1, 2, 8))) for _ in names]
        one = xr.concat(spectra, "checkpoint").assign_coords(checkpoint=list(names))
        return one.assign_attrs(config={"analysis": "series"})

    files = {"a": {"series": series("1", "9")}, "b": {"series": series("1", "2", "3")}}
    figures = draw.compare(files)
    assert figures.keys() == {"series"}
    for ax, statistic, unit in zip(figures["series"].axes, ("nep", "ape"), (100, 1), strict=True):
        for bars, groups in zip(ax.containers, files.values(), strict=True):
            estimate, low, high = groups["series"]["summary"].sel(statistic=statistic).transpose("bound", ...).values
            np.testing.assert_allclose(bars.lines[0].get_xdata(), groups["series"]["nll"].mean("batch"))
            np.testing.assert_allclose(bars.lines[0].get_ydata(), unit * estimate)
            ends = np.array([segment[:, 1] for segment in bars.lines[2][0].get_segments()])
            np.testing.assert_allclose(ends, unit * np.stack([low, high], axis=1))


def test_a_series_is_drawn_by_the_numbers_in_its_names():
    """In the shell's order 0, 1, 10, 11, 2 a line would go back; epochs 1 and 10 are nine apart."""
    epochs = [0, 1, 10, 11, 2]
    one = xr.concat([spectrum(np.full((9, 2), 2.0 + n)) for n in epochs], "checkpoint")
    group = one.assign_coords(checkpoint=[f"epoch{n}" for n in epochs]).assign_attrs(config={"analysis": "series"})
    ax = draw.draw({"series": group})["series"].axes[0]
    for bars in ax.containers[:2]:
        assert bars.lines[0].get_xdata().tolist() == [0, 1, 2, 10, 11]
        np.testing.assert_allclose(bars.lines[0].get_ydata(), [2, 3, 4, 12, 13])
    assert ax.get_xlabel() == "epoch"
    named = group.assign_coords(checkpoint=["start", "b", "c", "d", "end"])
    ax = draw.draw({"series": named})["series"].axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["start", "b", "c", "d", "end"]
