"""What all pictures share: colours told apart by every eye and in print, notes beside the axes, and figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import fill, wrap
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.objective.penalty import in_curvature
from landscape.store.comparable import KINDS

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe & Ito


LINES = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)), (0, (8, 3)), (0, (1, 3)))


LINE = 9.5  # points from one small line to the next


MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def style(i: int) -> dict[str, Any]:
    """Colour and line of the i-th curve: of the first 7 told apart by either alone, of the first 49 by both."""
    return {"color": COLORS[i % len(COLORS)], "linestyle": LINES[(i + i // len(COLORS)) % len(LINES)]}


def note_above(ax: Axes, text: str) -> None:
    """Small lines between the axes and their title, which makes room for them."""
    if not text:
        return
    ax.set_title(ax.get_title().rstrip("\n") + "\n" * (text.count("\n") + 1))
    ax.annotate(text, (0, 1.01), xycoords="axes fraction", fontsize="x-small", color="0.35")


def notes_above(ax: Axes, title: str, lines: Iterable[str], caution: str = "") -> None:
    """Small lines between the axes and their title, and over them what must not be overlooked; the title makes room."""
    notes = [line for line in lines if line]
    warned = wrap(caution, 100)
    for i, line in enumerate([*reversed(notes), *reversed(warned)]):
        look: dict[str, Any] = {"color": "0.35"} if i < len(notes) else {"color": COLORS[1], "weight": "bold"}
        ax.annotate(line, (0, 1), xytext=(0, 3 + LINE * i), xycoords="axes fraction", textcoords="offset points",
                    fontsize="x-small", **look)  # fmt: skip
    ax.set_title(title, pad=6 + LINE * (len(notes) + len(warned)))


def note_below(ax: Axes, lines: Iterable[str]) -> None:
    """Small lines under the label of the x axis."""
    text = "\n".join(lines)
    if text:
        ax.annotate(text, (0, 0), xytext=(0, -36), xycoords="axes fraction", textcoords="offset points", va="top",
                    fontsize="x-small", color="0.35", linespacing=1.4)  # fmt: skip


def new_figure(width: float, height: float, **axes: Any) -> tuple[Figure, Any]:
    """A figure of its own, not pyplot's: nothing to close, no display needed."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, figure.add_subplot(**axes)


def new_row(width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    """The same with so many axes in a row."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def caution_over(figure: Figure, text: str) -> None:
    """Over all axes, what must not be overlooked."""
    if text:
        lines = fill(text, int(12 * figure.get_figwidth()))
        figure.suptitle(lines, color=COLORS[1], weight="bold", fontsize="medium")


def filled_lines(phrases: Sequence[str], width: int) -> str:
    """Phrases in lines of at most `width`, which break between them."""
    return fill(", ".join(phrase.replace(" ", "\u00a0") for phrase in phrases), width)


def with_sources(group: xr.Dataset, name: str) -> str:
    """A number of a `trace` or `density` group with its standard error, and what of it stems from what, in words.

    Where that over examples is not known, as in files of before it was computed, that over probes is given as such; one
    of 0 is left out, since none is that well known.
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
    return f"{note}\n{penalty}" if penalty else note


def examples_note(ax: Axes, group: xr.Dataset) -> None:
    config = group.attrs.get("config", {})
    if "batch" in group.dims:
        text = f"{group.sizes['batch']} mini-batches of {config.get('batch_size', '?')}"
    else:
        text = f"{config.get('objective', {}).get('examples', '?')} examples"
    note_above(ax, with_penalty_note(text, in_curvature(group)))


def variant_of(group: xr.Dataset) -> str:
    """The form of the curvature that a group is of, in words."""
    return KINDS.get(group.attrs.get("config", {}).get("kind", ""), "Hessian")
