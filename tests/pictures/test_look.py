"""Pictures for papers: formats, widths, fonts, the user's own style, and axes of the user's own."""

import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import xarray as xr
from helpers import invoke, refused
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

import landscape as ls
from landscape.analyses.summaries import summarize
from landscape.pictures.canvas import evenly, label_upright, legend_outside
from landscape.study import drawing
from landscape.study.files import labelled

matplotlib.use("Agg")
X = np.linspace(-1, 1, 7)
bowl = np.add.outer(X**2, 2 * X**2)
COLUMN = 84 / 25.4


def surface():
    grid = {"nll": (("y", "x"), bowl), "loss": (("y", "x"), bowl), "done": (("y", "x"), np.ones(bowl.shape, bool))}
    return xr.Dataset(grid, {"x": X, "y": X}, {"config": {"analysis": "surface"}})


def spectrum(seed=0):
    e = np.random.default_rng(seed).normal(10, 8, (9, 5))
    made = xr.Dataset({"eigenvalue": (("batch", "rank"), e), "converged": (("batch", "rank"), np.ones(e.shape, bool))})
    return made.merge(summarize(made)).assign_attrs(config={"analysis": "spectrum"})


@pytest.fixture
def files(tmp_path):
    for name in ("a", "b"):
        ls.save(tmp_path / f"{name}.h5", surface=surface(), spectrum=spectrum())
    return tmp_path


def drawn(path: Path, *options: object) -> Path:
    result = invoke("plot", *options)
    assert result.returncode == 0, result.stderr
    assert path.exists(), result.stdout
    return path


def pages(pdf: bytes) -> list[list[float]]:
    return [[float(x) for x in box.split()] for box in re.findall(rb"/MediaBox \[ ?([^\]]*?) ?\]", pdf)]


def test_a_figure_of_one_column_is_as_wide_and_its_fonts_are_in_it(files):
    pdf = drawn(files / "f.pdf", files / "a.h5", "--picture", "spectrum", "--width", "single", "--out", files / "f.pdf")
    (box,) = pages(pdf.read_bytes())
    assert box[2] == pytest.approx(72 * COLUMN, abs=0.5)
    assert b"/FontFile2" in pdf.read_bytes()  # TrueType, embedded
    assert b"/Type3" not in pdf.read_bytes()
    assert b"ticks: every eigenvalue" in pdf.read_bytes()  # what a screen has as a note
    svg = drawn(files / "f.svg", files / "a.h5", "--picture", "surface", "--width", "5.5", "--out", files / "f.svg")
    assert 'width="396' in svg.read_text()  # 5.5 x 72
    assert "<text" not in svg.read_text()  # outlines: no font is needed
    png = drawn(files / "f.png", files / "a.h5", "--picture", "surface_3d", "--width", "double", "--dpi", "200",
                "--out", files / "f.png")  # fmt: skip
    with Image.open(png) as image:
        assert image.width == pytest.approx(200 * 174 / 25.4, abs=1)
        assert image.info["dpi"][0] == pytest.approx(200, abs=0.1)


def test_the_same_picture_is_the_same_file(files):
    for name in ("f.pdf", "f.svg"):
        once, again = (
            drawn(files / folder / name, files / "a.h5", "--picture", "spectrum", "--out", files / folder / name)
            for folder in ("1", "2")
        )
        assert once.read_bytes() == again.read_bytes()


def test_every_format_goes_into_a_folder(files):
    for suffix in ("pdf", "svg"):
        invoke("plot", files / "a.h5", "--out", files / "p", "--format", suffix).check_returncode()
        assert sorted(p.name for p in (files / "p").glob(f"*.{suffix}")) == [
            f"a-{name}.{suffix}" for name in ("spectrum", "surface", "surface_3d")
        ]


def test_labels_and_titles_are_the_users(files):
    svg = drawn(
        files / "f.svg", f"{files / 'a.h5'}=ResNet", f"{files / 'b.h5'}=ViT", "--picture", "spectra", "--style",
        write(files / "text.mplstyle", "svg.fonttype: none"), "--title", "Spectra of two", "--xlabel", "curvature",
        "--out", files / "f.svg",
    ).read_text()  # fmt: skip
    for text in ("ResNet", "ViT", "Spectra of two", "curvature"):
        assert text in svg
    assert "Hessian eigenvalue<" not in svg
    refused(invoke("plot", f"{files / 'a.h5'}=N", f"{files / 'b.h5'}=N", "--out", files), "two files are called N")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file_whose_name_has_an_equals_sign_is_a_file(tmp_path):
    odd = tmp_path / "lr=0.1.h5"
    odd.touch()
    assert labelled([odd, tmp_path / "b.h5=B"]) == {"lr=0.1": odd, "B": tmp_path / "b.h5"}


def test_the_users_style_is_obeyed(files, tmp_path):
    style = write(tmp_path / "own.mplstyle", "font.family: serif\nimage.cmap: magma\nfigure.figsize: 4, 3\n"
                  "axes.prop_cycle: cycler('color', ['ff0000', '00ff00'])\n")  # fmt: skip
    look = ls.Look(style=str(style))
    figures = drawing.draw({"surface": surface(), "spectrum": spectrum()}, look=look)
    assert {figure.get_figwidth() for figure in figures.values()} == {4.0}
    contours = next(c for c in figures["surface"].axes[0].collections if type(c).__name__ == "QuadContourSet")
    assert contours.get_cmap().name == "magma"
    ticks = next(line for line in figures["spectrum"].axes[0].lines if line.get_marker() == "|")
    assert matplotlib.colors.to_rgb(ticks.get_color()) == (1, 0, 0)
    pdf = drawn(files / "f.pdf", files / "a.h5", "--picture", "spectrum", "--style", style, "--out", files / "f.pdf")
    assert b"DejaVuSerif" in pdf.read_bytes()
    refused(invoke("plot", files / "a.h5", "--style", "ggplo", "--out", files), "ggplo", "ggplot")
    before = dict(matplotlib.rcParams)
    drawing.draw({"surface": surface()}, look=look)
    assert dict(matplotlib.rcParams) == before


def test_limits_are_those_asked_for():
    with_limits = drawing.draw({"surface": surface()}, look=ls.Look(limits=(0.5, 2)))
    contours = next(c for c in with_limits["surface"].axes[0].collections if type(c).__name__ == "QuadContourSet")
    assert (contours.levels[0], contours.levels[-1]) == (0.5, 2)
    assert with_limits["surface_3d"].axes[0].get_zlim() == (0.5, 2)
    line = surface().isel(y=0, drop=True)
    curve = drawing.draw({"curve": line}, look=ls.Look(limits=(0.5, 2)))["curve"].axes[0]
    assert curve.get_ylim() == (0.5, 2)
    with pytest.raises(ls.UserError, match="the lower limit, then the higher"):
        ls.Look(limits=(2, 0.5))


def test_the_points_of_the_grid_are_marked_on_request():
    ax = drawing.draw({"surface": surface()}, look=ls.Look(mark_points=True))["surface"].axes[0]
    (grid,) = (line for line in ax.lines if line.get_label() == "grid")
    assert sorted(zip(*grid.get_data(), strict=True)) == sorted((x, y) for x in X for y in X)
    plain = drawing.draw({"surface": surface()})["surface"].axes[0]
    assert not [line for line in plain.lines if line.get_label() == "grid"]


def test_pictures_go_into_axes_of_a_figure_of_ones_own():
    figure = Figure(figsize=(COLUMN, 5), layout="constrained")
    above, below = figure.subplots(2, 1)
    assert ls.plot(spectrum(), above, title="(a)") is above
    assert ls.plot(surface(), below, title="(b)", quantity="loss", xlabel="here") is below
    assert above.get_title() == "(a)"
    assert below.get_xlabel() == "here"
    figure.canvas.draw()
    page = figure.bbox
    for ax in (above, below):
        assert ax.get_tightbbox().x1 <= page.x1 + 1
    relief = Figure().add_subplot(projection="3d")
    assert ls.plot(surface(), relief) is relief
    own = ls.plot(spectrum())
    assert pyplot.gcf() is own.figure
    pyplot.close(own.figure)
    with pytest.raises(ls.UserError, match="no picture"):
        ls.plot(xr.Dataset())
    with pytest.raises(ls.UserError, match="'colour' is not a setting of Look"):
        ls.plot(spectrum(), above, colour="red")


def test_one_file_holds_one_picture(files):
    refused(invoke("plot", files / "a.h5", "--out", files / "f.pdf"), "3: spectrum, surface, surface_3d", "--picture")
    refused(invoke("plot", files / "a.h5", "--out", files / "f.pdf", "--picture", "spectra"), "'spectra'", "spectrum")
    assert invoke("plot", files / "a.h5", "--out", files / "study_0.1", "-q").returncode == 0
    assert (files / "study_0.1").is_dir()
    refused(invoke("plot", files / "missing.h5", "--out", files / "f.txt"), "f.txt", ".png, .pdf or .svg")
    refused(invoke("plot", files / "a.h5", "--out", files / "f.pdf", "--format", "svg"), "f.pdf is not a .svg")
    assert not list(files.glob("f.*"))
    drawn(files / "s.pdf", files / "a.h5", files / "b.h5", "--picture", "surfaces", "--out", files / "s.pdf")


def test_legends_and_upright_labels_take_the_room_that_there_is():
    for inches, columns in ((COLUMN, 1), (9.0, 3)):
        figure = Figure(figsize=(inches, 2.5), layout="constrained")
        ax = figure.subplots()
        for i in range(3):
            ax.plot([0, 1], [0, i], label=f"elsewhere over zero, with value {i}")
        legend_outside(figure, ax)
        label_upright(ax, "a label that is longer than the axes of a column are high")
        figure.draw_without_rendering()
        (legend,) = figure.legends
        assert legend._ncols == columns
        for drawn_there in (legend.get_window_extent(), ax.yaxis.label.get_window_extent()):
            assert figure.bbox.x0 <= drawn_there.x0 < drawn_there.x1 <= figure.bbox.x1
            assert figure.bbox.y0 <= drawn_there.y0 < drawn_there.y1 <= figure.bbox.y1
    assert evenly("top 5 (LM) Hessian eigenvalues of 8 mini-batches of 16", 40) == (
        "top 5 (LM) Hessian eigenvalues\nof 8 mini-batches of 16"
    )


def test_a_relief_fills_its_canvas_with_its_labels_on_it():
    group = surface()
    group.attrs["config"] = {"plane": {"directions": "eigenvectors", "eigenvalues": [123.0, -4.56]}}
    for width in ("single", 6.0):
        figure = drawing.draw({"surface": group}, "a", look=ls.Look(width=width))["surface_3d"]
        (ax,) = figure.axes
        figure.canvas.draw()
        parts = [axis.get_tightbbox() for axis in (ax.xaxis, ax.yaxis, ax.zaxis)]
        assert min(p.x0 for p in parts) >= 0
        assert min(p.y0 for p in parts) >= 0
        assert max(p.x1 for p in parts) <= figure.bbox.x1
        assert max(p.y1 for p in parts) < ax.title.get_window_extent().y0
        filled = (max(p.x1 for p in parts) - min(p.x0 for p in parts)) / figure.bbox.width
        assert filled > 0.75


def test_nothing_of_a_picture_lies_beyond_a_column(files):
    """What is asked to be 84 mm wide is not cut: all text is on the page, whose edge is white."""
    for name in ("spectrum", "surface", "surface_3d", "spectra", "surfaces"):
        sources = [files / "a.h5", files / "b.h5"][: 1 + name.endswith(("spectra", "surfaces"))]
        png = files / f"{name}.png"
        drawn(png, *sources, "--picture", name, "--width", "single", "--out", png)
        with Image.open(png) as image:
            pixels = np.asarray(image.convert("L"))
        assert pixels.shape[1] == pytest.approx(300 * COLUMN, abs=1)
        for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
            assert (edge > 250).all(), name
