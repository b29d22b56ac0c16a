"""What all pictures share: colours that every eye can tell apart, in print too; notes beside the axes; and figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import fill, wrap
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import rcParams, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.transforms import ScaledTranslation

from landscape.objective.penalised import in_curvature
from landscape.pictures.look import Look
from landscape.pictures.names import typeset
from landscape.store.comparable import KINDS


class _Colors(Sequence[str]):
    """Okabe & Ito's colours, which every eye can tell apart; or those of the user's own matplotlib style."""

    def _held(self) -> Sequence[str]:
        own = rcParams["axes.prop_cycle"]
        colors: list[str] = own.by_key().get("color", []) if own != rcParamsDefault["axes.prop_cycle"] else []
        return colors or OKABE_ITO

    def __getitem__(self, i: Any) -> Any:
        return self._held()[i]

    def __len__(self) -> int:
        return len(self._held())


OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
COLORS = _Colors()
LINES = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)), (0, (8, 3)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
NOTE: dict[str, Any] = {"fontsize": "x-small", "color": "0.35", "gid": "note"}


def style(i: int) -> dict[str, Any]:
    """Colour and line of the i-th curve: either alone distinguishes the first 7, and both together the first 49."""
    return {"color": COLORS[i % len(COLORS)], "linestyle": LINES[(i + i // len(COLORS)) % len(LINES)]}


def own_title(title: str | None, own: str) -> str:
    """The title that was given, which may be "", or else the picture's own."""
    return own if title is None else title


def points_of(size: str | float) -> float:
    """A size of text in points, in the current style."""
    return float(FontProperties(size=size).get_size_in_points())


def room(ax: Axes, size: str | float = "x-small") -> int:
    """About how many characters of a size of text fit across the axes, whatever figure they are in."""
    assert ax.figure is not None
    return max(16, int(72 * ax.bbox.width / ax.figure.dpi / (0.54 * points_of(size))))


def line_height() -> float:
    """Points from one small line to the next."""
    return 1.37 * points_of("x-small")


def head(ax: Axes, title: str, lines: Iterable[str] = (), caution: str = "") -> None:
    """The title, under it what must not be overlooked, and then small lines; all broken to fit the axes."""
    across = room(ax)
    notes = [part for line in lines if line for part in wrap(line.replace("+-", "±"), across, break_on_hyphens=False)]
    warned = wrap(caution, int(0.9 * across), break_on_hyphens=False)
    for i, line in enumerate([*reversed(notes), *reversed(warned)]):
        look = NOTE if i < len(notes) else {**NOTE, "color": COLORS[1], "weight": "bold", "gid": "caution"}
        ax.annotate(line, (0, 1), xytext=(0, 3 + line_height() * i), xycoords="axes fraction",
                    textcoords="offset points", **look)  # fmt: skip
    wide = evenly(title.rstrip("\n"), room(ax, rcParams["axes.titlesize"]))
    ax.set_title(wide, pad=6 + line_height() * (len(notes) + len(warned)))


def fill_lines(text: str, width: int) -> str:
    """Each line of a text, broken between words into lines of at most `width`."""
    return "\n".join(fill(line, width, break_on_hyphens=False) for line in text.split("\n"))


def evenly(text: str, width: int) -> str:
    """The same, with no more lines than that takes, and these as alike in length as can be."""
    lines = fill_lines(text, width).count("\n")
    for narrower in range(width - 1, 8, -1):
        if fill_lines(text, narrower).count("\n") > lines:
            return fill_lines(text, narrower + 1)
    return fill_lines(text, width)


def label_upright(ax: Axes, text: str, **look: Any) -> None:
    """The label of the y axis, broken into lines no longer than the axes are high."""
    assert ax.figure is not None
    high = 72 * ax.bbox.height / ax.figure.dpi / (0.56 * points_of(rcParams["axes.labelsize"]))
    ax.set_ylabel(evenly(text, max(8, int(high))), **look)


def captioned(ax: Axes, title: str, lines: Iterable[str], whole: str) -> None:
    """A title over small lines; `whole`, all that they say, goes into the file's description."""
    head(ax, title, lines)
    ax.annotate(whole.replace("+-", "±"), (0, 0), xycoords="axes fraction", visible=False, in_layout=False, gid="whole")


def legend_below(ax: Axes, points: float = 0.0, **look: Any) -> None:
    """The legend under the label of the x axis, or `points` further down, so that it is never on data."""
    assert ax.figure is not None
    down = points + 3.8 * points_of("medium")
    under = ax.transAxes + ScaledTranslation(0, -down / 72, ax.figure.dpi_scale_trans)
    ax.legend(**{"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": under, "borderaxespad": 0,
                 "frameon": False, "fontsize": "small", "handlelength": 2.6, "columnspacing": 1.2, **look})  # fmt: skip


def legend_outside(figure: Figure | SubFigure, ax: Axes, most: int = 4) -> None:
    """The legend of these axes under a whole figure, in as many columns as fit, at most `most`."""
    handles, labels = ax.get_legend_handles_labels()
    if not labels:
        return
    widest = points_of("small") * (0.54 * max(map(len, labels)) + 4.5)
    columns = int(72 * figure.bbox.width / figure.dpi / widest)
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, min(most, columns, len(labels))),
                  frameon=False, fontsize="small")  # fmt: skip


def note_above(ax: Axes, text: str) -> None:
    """Small lines between the axes and their title, which makes room for them."""
    head(ax, ax.get_title(), text.split("\n"))


def notes_above(ax: Axes, title: str, lines: Iterable[str], caution: str = "") -> None:
    """Small lines between the axes and their title, and over them what must not be overlooked; the title makes room."""
    head(ax, title, lines, caution)


def note_below(ax: Axes, lines: Iterable[str], down: float | None = None) -> None:
    """Small lines under the label of the x axis, or `down` points under the axes."""
    text = "\n".join(lines).replace("+-", "±")
    if text:
        down = 3.6 * points_of("medium") if down is None else down
        ax.annotate(text, (0, 0), xytext=(0, -down), xycoords="axes fraction", textcoords="offset points", va="top",
                    linespacing=1.4, **NOTE)  # fmt: skip


def fitted(width: float, height: float) -> tuple[float, float]:
    """The size of a new figure: as given, for a screen, or as wide as the style says, if it does not say matplotlib's
    own width. Text shrinks less than the figure, and therefore so does the height.
    """
    wished = float(rcParams["figure.figsize"][0])
    if wished == rcParamsDefault["figure.figsize"][0]:
        return width, height
    return wished, height * (wished / width) ** 0.75


def new_figure(width: float, height: float, *, square: bool = False, **axes: Any) -> tuple[Figure, Any]:
    """A figure of its own, not pyplot's: nothing to close, no display needed. With `square`, a colour bar is as high as
    axes that keep their proportions.
    """
    figure = Figure(figsize=fitted(width, height), layout="compressed" if square else "constrained")
    return figure, figure.add_subplot(**axes)


def new_row(
    width: float, height: float, columns: int, *, least: float = 2.0, square: bool = False
) -> tuple[Figure, list[Axes]]:
    """The same with `columns` axes in a row, or in several rows if they would be narrower than `least` inches."""
    fits = max(1, min(columns, int(fitted(width, height)[0] / least)))
    rows = -(-columns // fits)
    size = fitted(width * fits / columns, height * rows)
    figure = Figure(figsize=size, layout="compressed" if square else "constrained")
    grid = list(figure.subplots(rows, fits, squeeze=False).ravel())
    for empty in grid[columns:]:
        empty.remove()
    return figure, grid[:columns]


def hide_notes(ax: Axes) -> None:
    """Leave out the small lines: their text stays with the figure, for `notes_of`."""
    notes = [text for text in ax.texts if text.get_gid() == "note"]
    for text in notes:
        text.set_visible(False)
    cautions = [text for text in ax.texts if text.get_gid() == "caution"]
    for i, text in enumerate(cautions):
        text.set_position((0, 3 + line_height() * i))
    if notes and ax.name != "3d":
        ax.set_title(ax.get_title(), pad=6 + line_height() * len(cautions))


def notes_of(figure: Figure) -> str:
    """The small lines of a figure, including those left out."""
    said = []
    for ax in figure.axes:
        kinds = ("caution", "whole" if any(t.get_gid() == "whole" for t in ax.texts) else "note")
        said += [t.get_text() for t in ax.texts if t.get_gid() in kinds]
    return "\n".join(said)


def relabel(ax: Axes, look: Look, *, alone: bool = False) -> None:
    """Replace the picture's own title and labels by the user's; with `alone` also the title of the figure."""
    if look.title is not None:
        over = ax.figure.get_suptitle() if alone and isinstance(ax.figure, Figure) else ""
        if over and isinstance(ax.figure, Figure):
            ax.figure.suptitle(look.title)
        else:
            lines = fill_lines(look.title, room(ax, rcParams["axes.titlesize"]))
            ax.title.set_text(typeset(lines))  # where its pad has it
    for label, change in ((look.xlabel, ax.set_xlabel), (look.ylabel, ax.set_ylabel)):
        if label is not None:
            change(label)


def caution_over(figure: Figure, text: str) -> None:
    """Write what must not be overlooked over all axes."""
    if text:
        lines = fill(text, int(72 * figure.get_figwidth() / (0.62 * points_of("medium"))))
        figure.suptitle(lines, color=COLORS[1], weight="bold", fontsize="medium")


def filled_lines(phrases: Sequence[str], width: int) -> str:
    """Phrases in lines of at most `width`, broken between phrases."""
    return fill(", ".join(phrase.replace(" ", "\u00a0") for phrase in phrases), width)


def with_sources(group: xr.Dataset, name: str) -> str:
    """A number of a `trace` or `density` group with its standard error and where this comes from, in words.

    If the error over examples is not known, as in files older than its computation, that over probes is given by its
    name. An error of 0 is left out, since no number is known that well.
    """

    def known(variable: str) -> float:
        return float(group[variable]) if variable in group else np.nan

    value, total = known(name), known(f"{name}_sem")
    over = {source: known(f"{name}_sem_{source}") for source in ("probes", "examples")}
    if f"{name}_sem_probes" not in group:
        total, over["probes"] = np.nan, total
    named = [f"{sem:.2g} over {source}" for source, sem in over.items() if sem > 0]
    if np.isfinite(total):
        return f"{value:.4g} +- {total:.2g}" + (f" ({', '.join(named)})" if named else "")
    return f"{value:.4g}" + (f" +- {', '.join(named)}" if named else "")


def with_penalty_note(note: str, penalty: str) -> str:
    """A note with the penalty on a line of its own, if there is one."""
    return f"{note}\n{penalty}" if penalty else note


def examples_of(group: xr.Dataset) -> str:
    """What a group was computed from, in words."""
    config = group.attrs.get("config", {})
    if "batch" in group.dims:
        return f"{group.sizes['batch']} mini-batches of {config.get('batch_size', '?')}"
    return f"{config.get('objective', {}).get('examples', '?')} examples"


def examples_note(ax: Axes, group: xr.Dataset) -> None:
    """Write above the axes what a group was computed from."""
    note_above(ax, with_penalty_note(examples_of(group), in_curvature(group)))


def variant_of(group: xr.Dataset) -> str:
    """The form of the curvature in a group, in words."""
    return KINDS.get(group.attrs.get("config", {}).get("kind", ""), "Hessian")
