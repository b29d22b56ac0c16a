"""Names that matplotlib, a terminal or a file system would take for something else."""

import re

import numpy as np
import pytest
from helpers import invoke
from matplotlib.figure import Figure

import landscape as ls
from landscape.pictures.look import Look
from landscape.pictures.names import drawable, plain, typeset
from landscape.runtime.visible import visible
from landscape.study.drawing import compare, draw

NAMES = [
    "$$",
    "$x_2$",
    r"a\b$",
    r"\frac{",
    "<b>",
    "a'b\"c",
    "two\nlines",
    "_a",
    "\N{DIZZY FACE}",
    "x" * 200,
    "\x1b[31mred",
]


@pytest.fixture(scope="module")
def groups(mlp_module):
    objective = mlp_module
    return {
        "spectrum": ls.hessian_spectrum(objective, k=2, batch_size=5, batches=8),
        "top": ls.hessian_top(objective, k=2),
        "series": ls.hessian_series(dict.fromkeys(NAMES[:4], objective), k=2, batch_size=5, batches=2),
        "surface": ls.evaluate_surface(objective, ls.random_plane(objective.model), points=3, rays=0),
    }


@pytest.fixture(scope="module")
def mlp_module():
    import torch
    from torch import nn

    torch.manual_seed(0)
    x, y = torch.randn(40, 6), torch.randint(0, 2, (40,))
    return ls.Objective(nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 2)), [(x, y)])


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_drawn_letter_by_letter(name):
    """matplotlib's own reading of the text, laid out, is the name; nothing of it a formula."""
    figure = Figure()
    ax = figure.add_subplot()
    ax.plot([0, 1], label=plain(name))
    title = ax.set_title(f"{plain(name)}: $\\lambda$ of it")
    (text,) = ax.legend().get_texts()
    figure.draw_without_rendering()
    said, formula = text._preprocess_math(text.get_text())
    assert not formula
    assert said.replace("\n", "").strip() == visible(name, lines=False).strip()
    assert title._preprocess_math(title.get_text())[1], "and a formula of ours beside it is one"
    assert max(map(len, said.split("\n"))) <= 61


@pytest.mark.filterwarnings("ignore:Glyph")
def test_pictures_of_files_with_such_names(groups):
    for figure in draw(groups, "".join(NAMES)).values():
        figure.draw_without_rendering()
    some = {name: groups[name] for name in ("spectrum", "series")}
    for figure in compare(dict.fromkeys(NAMES[:8], some)).values():
        figure.draw_without_rendering()
        legends = [ax.get_legend() for ax in figure.axes if ax.get_legend()]
        for legend in legends:
            assert not any(text.get_text().startswith("_") for text in legend.get_texts())


def test_what_is_drawn_from_has_the_same_numbers(groups):
    for group in groups.values():
        shown = drawable(group)
        for key in group.data_vars:
            np.testing.assert_array_equal(shown[key].values, group[key].values)
    assert [str(c) for c in drawable(groups["series"])["checkpoint"].values][:2] == [r"\$\$", r"\$x_2\$"]


def test_what_acts_on_a_terminal_is_shown_as_its_escape(groups, tmp_path):
    assert visible("a\x1b[31m\u202eb\udcff\x9b\n") == "a\\x1b[31m\\u202eb\\udcff\\x9b\n"
    assert visible("naïve 损失 \N{DIZZY FACE}\u200d\tx", lines=False) == "naïve 损失 \N{DIZZY FACE}\u200d\\tx"
    ls.save(
        tmp_path / "r.h5",
        **{"spectrum": groups["spectrum"].assign_attrs(config={"analysis": "spectrum", "which": "LM\x1b]0;x\x07"})},
    )
    shown = invoke("show", tmp_path / "r.h5")
    assert "\x1b" not in shown.stdout + shown.stderr
    missing = invoke("show", "\x1b[31mno.h5")
    assert (missing.returncode, "\x1b" in missing.stderr) == (2, False)


def test_a_picture_takes_the_place_of_another_whole(groups, tmp_path, monkeypatch):
    from landscape.pictures.files import save_pictures

    figures = draw({"spectrum": groups["spectrum"]}, "a")
    (path,) = save_pictures(figures, tmp_path, "a")
    before = path.read_bytes()

    def fails(self, place, **_):
        place.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", fails)
    with pytest.raises(KeyboardInterrupt):
        save_pictures(figures, tmp_path, "a")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_title_has_formulas_and_what_is_none_is_drawn_as_it_is():
    assert typeset("a $x^2$ b") == "a $x^2$ b"
    for text in ("$$", "$", r"$\none$", "$x$ and $}$", r"\$$"):
        drawn = typeset(text)
        assert re.sub(r"\\\$", "$", drawn) == re.sub(r"\\\$", "$", text)
        assert typeset(drawn) == drawn, "once and for all"
        figure = Figure()
        figure.text(0, 0, drawn)
        figure.draw_without_rendering()
    assert Look(xlabel="$$").xlabel == r"\$\$"
