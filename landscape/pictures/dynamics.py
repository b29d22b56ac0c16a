"""What an analysis of features says over a training, against the epochs and against the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from landscape.pictures.axes import log_axis, name_ticks
from landscape.pictures.canvas import (
    MARKERS,
    fitted,
    label_upright,
    legend_outside,
    line_height,
    notes_above,
    room,
    style,
)
from landscape.pictures.look import LOOK, Look
from landscape.pictures.series import by_number

POINTS = ("change of the accuracy",)  # shares, shown in per cent
FAMILIES = (
    "tilt of", "ln gain of attention", "step of the variance", "step of ln amplitude", "CKA", "change of the NLL",
    "change of the accuracy",
)  # fmt: skip


def draw(group: xr.Dataset, name: str, prefix: str = "", *, look: Look = LOOK) -> dict[str, Figure]:
    """The picture of a `dynamics` group: a row for each kind of number, against the checkpoint's number and its NLL."""
    group = group.isel(checkpoint=np.flatnonzero(group["done"].values))
    if not group.sizes["checkpoint"] or not group.sizes["quantity"]:
        return {}
    group, what = by_number(group)
    rows: dict[str, list[int]] = {}
    for i, quantity in enumerate(group["quantity"].values.tolist()):
        rows.setdefault(_family(quantity), []).append(i)
    figure, axes = _rows(group, rows)
    count = group.sizes["checkpoint"]
    sides = (group["number"].values if what is not None else np.arange(count), group["nll"].values)
    for (family, members), row in zip(rows.items(), axes, strict=True):
        for x, ax in zip(sides, row, strict=True):
            for j, i in enumerate(members):
                scale = 100 if family in POINTS else 1
                value, low, high = scale * group["quantities"].values[:, i].T
                label = _within(str(group["quantity"].values[i]), family)
                ax.errorbar(x, value, yerr=[value - low, high - value], **style(j), marker=MARKERS[j % len(MARKERS)],
                            markersize=4, capsize=2, lw=1.2, label=label)  # fmt: skip
            if np.nanmin(group["quantities"].values[:, members]) < 0:
                ax.axhline(0, color="0.3", lw=0.8)
        points = " (points)" if family in POINTS else ""
        label_upright(row[0], family.removesuffix(" of") + points)
        for ax in row:
            ax.tick_params(labelbottom=row[0] is axes[-1][0], labelleft=ax is row[0])
    _name_lines(axes)
    left, right = axes[-1]
    left.set_xlabel(what or ("number of the checkpoint" if what is not None else ""))
    left.xaxis.set_major_locator(MaxNLocator(7 if room(left) > 30 else 4, integer=True))
    if what is None:
        name_ticks(left, [str(label) for label in group["checkpoint"].values])
    right.set_xlabel("NLL (falling)")
    right.xaxis.set_major_locator(MaxNLocator(7 if room(right) > 30 else 3))
    if sides[1].max() > 3 * sides[1].min() > 0:
        log_axis(right, "x")
    right.xaxis.set_inverted(True)
    config = group.attrs.get("config", {})
    figure.suptitle(f"{prefix}{config.get('what', '')} over a training", fontsize=rcParams["axes.titlesize"])
    notes_above(axes[0][0], "", [f"95 % intervals; {count} checkpoints"])
    return {name: figure}


def _rows(group: xr.Dataset, rows: Mapping[str, Sequence[int]]) -> tuple[Figure, list[list[Axes]]]:
    """A figure with two axes for each kind of number, in parts of its own, with room for a legend under each."""
    of = [[_within(str(group["quantity"].values[i]), family) for i in members] for family, members in rows.items()]
    same = all(labels == of[0] for labels in of)
    width, height = fitted(6.4, 1.4 + 2.3 * len(rows))
    lines = [0.0 if same else line_height() / 72 * len(labels) for labels in of]
    figure = Figure(figsize=(width, height + sum(lines)), layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=[height / len(rows) + more for more in lines])
    axes = [list(part.subplots(1, 2, sharey=True)) for part in parts[:, 0]]
    for row in axes[1:]:
        for ax, over in zip(row, axes[0], strict=True):
            ax.sharex(over)
    return figure, axes


def _name_lines(axes: Sequence[Sequence[Axes]]) -> None:
    """One legend below where all rows have the same lines, else one below each."""
    each = [row[1].get_legend_handles_labels()[1] for row in axes]
    same = all(labels == each[0] for labels in each)
    for row in axes[-1:] if same else axes:
        part = row[1].figure
        assert isinstance(part, SubFigure)
        legend_outside(part, row[1], 3)


def _within(quantity: str, family: str) -> str:
    """What the name of a number says besides its family's."""
    return quantity.replace("\n", "").removeprefix(family).removeprefix(" of").strip(" ,") or family


def _family(quantity: str) -> str:
    """What the names of numbers on one axis begin with; the whole name of a number that has an axis of its own."""
    return next((family for family in FAMILIES if quantity.startswith(family)), quantity)
