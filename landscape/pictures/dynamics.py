"""What an analysis of features says over a training, against the epochs and against the losses."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landscape.pictures.axes import log_axis, name_ticks
from landscape.pictures.canvas import MARKERS, fill_lines, head, style
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
    figure = Figure(figsize=(6.4, 1.4 + 2.3 * len(rows)), dpi=150, layout="constrained")
    axes = figure.subplots(len(rows), 2, sharey="row", sharex="col", squeeze=False)
    count = group.sizes["checkpoint"]
    sides = (group["number"].values if what is not None else np.arange(count), group["nll"].values)
    for (family, members), row in zip(rows.items(), axes, strict=True):
        for x, ax in zip(sides, row, strict=True):
            for j, i in enumerate(members):
                scale = 100 if family in POINTS else 1
                value, low, high = scale * group["quantities"].values[:, i].T
                label = str(group["quantity"].values[i]).removeprefix(family).removeprefix(" of").strip(" ,") or family
                ax.errorbar(x, value, yerr=[value - low, high - value], **style(j), marker=MARKERS[j % len(MARKERS)],
                            markersize=4, capsize=2, lw=1.2, label=label)  # fmt: skip
            if np.nanmin(group["quantities"].values[:, members]) < 0:
                ax.axhline(0, color="0.3", lw=0.8)
        points = " (points)" if family in POINTS else ""
        row[0].set_ylabel(fill_lines(family.removesuffix(" of") + points, 26))
    _name_lines(figure, axes[:, 1])
    left, right = axes[-1]
    left.set_xlabel(what or ("number of the checkpoint" if what is not None else ""))
    left.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    if what is None:
        name_ticks(left, [str(label) for label in group["checkpoint"].values])
    right.set_xlabel("NLL of the images (falling)")
    if sides[1].max() > 3 * sides[1].min() > 0:
        log_axis(right, "x")
    right.xaxis.set_inverted(True)
    config = group.attrs.get("config", {})
    head(axes[0, 0], f"{prefix}{config.get('what', '')} over a training", [f"95 % intervals; {count} checkpoints"])
    return {name: figure}


def _name_lines(figure: Figure, axes: np.ndarray) -> None:
    """One legend below where all rows have the same lines, else one beside each."""
    each = [ax.get_legend_handles_labels() for ax in axes]
    if all(labels == each[0][1] for _, labels in each):
        figure.legend(*each[0], loc="outside lower center", frameon=False, fontsize="small", ncols=3)
        return
    figure.set_figwidth(8.6)
    for ax in axes:
        ax.legend(frameon=False, fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))


def _family(quantity: str) -> str:
    """What the names of numbers on one axis begin with; the whole name of a number that has an axis of its own."""
    return next((family for family in FAMILIES if quantity.startswith(family)), quantity)
