"""A surface of one dimension: the loss along a line."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from landscape.pictures.canvas import captioned, legend_below, own_title, room, style
from landscape.pictures.captions import (
    axis_label,
    caption,
    error_at_lowest,
    penalty_note,
    quantity_label,
    settings_line,
)
from landscape.pictures.look import LOOK, Look
from landscape.pictures.scales import common_scale, has_walls
from landscape.runtime.errors import UserError


def plot_curve(
    surface: xr.Dataset, ax: Axes, *, title: str | None = None, look: Look = LOOK, name: str | None = None, i: int = 0
) -> Axes:
    """A `surface` group of one dimension: the quantity along the line with a band of one standard error over examples,
    the accuracy (right) if it is known, and diverged points on the upper edge.
    """
    quantity = look.quantity
    if quantity not in surface:
        raise UserError(f"the surface has no {quantity!r}")
    x, z = surface["x"].values, surface[quantity].values
    finite, done = np.isfinite(z), surface["done"].values.astype(bool)
    ax.set(
        xlabel=axis_label(surface, 0),
        ylabel=quantity_label(surface, quantity),
        title=own_title(title, "Loss along a line"),
    )
    drawn = style(i)
    shown = np.where(finite, z, np.nan)
    few: dict[str, Any] = {"marker": "o", "markersize": 3} if len(x) <= 60 else {}
    ax.plot(x, shown, **drawn, lw=1.6, **few, label=name or quantity_label(surface, quantity))
    said = [settings_line(surface)]
    # the penalty is exact, so the error of the loss is the NLL's
    sem = next((f"{q}_sem" for q in (quantity, "nll" if quantity == "loss" else "") if f"{q}_sem" in surface), None)
    if sem is not None and surface[sem].notnull().any():
        error = surface[sem].values
        ax.fill_between(x, shown - error, shown + error, color=drawn["color"], alpha=0.25, linewidth=0)
        said.append("bands: one standard error over examples")
    scale = common_scale([shown], walls=has_walls(quantity), error=error_at_lowest(surface, quantity),
                         limits=look.limits, log=look.scale == "log")  # fmt: skip
    said += penalty_note(surface, quantity, scale)
    if scale is not None and scale.log:
        ax.set_yscale("function", functions=(scale.height, scale.value))
        ax.set_yticks(scale.ticks.tolist(), [f"{level:.3g}" for level in scale.ticks])
        ax.set_ylabel(scale.label(quantity_label(surface, quantity)))
    elif scale is not None and (scale.cut or look.limits is not None):
        margin = 0.05 * (scale.ceiling - float(np.nanmin(shown))) if look.limits is None else 0.0
        ax.set_ylim((float(np.nanmin(shown)) if look.limits is None else look.limits[0]) - margin, scale.ceiling)
        said.append(f"cut at {scale.ceiling:.3g}")
    if (done & ~finite).any():
        ax.plot(x[done & ~finite], np.ones((done & ~finite).sum()), "x", color=drawn["color"], markersize=6,
                transform=ax.get_xaxis_transform(), clip_on=False, zorder=5, label="diverged (inf or NaN)")  # fmt: skip
    if x[0] <= 0 <= x[-1]:
        ax.axvline(0, color="0.6", lw=0.8, zorder=0)
    handles, labels = ax.get_legend_handles_labels()
    if quantity != "accuracy" and "accuracy" in surface and surface["accuracy"].notnull().any():
        right = _accuracy_beside(surface, ax, style(i + 1))
        handles, labels = (a + b for a, b in zip((handles, labels), right.get_legend_handles_labels(), strict=True))
    if len(labels) > 1:
        legend_below(ax, handles=handles, labels=labels, ncols=min(3, len(labels)) if room(ax) > 60 else 1)
    captioned(ax, own_title(title, "Loss along a line"), *caption(said, room(ax)))
    return ax


def _accuracy_beside(surface: xr.Dataset, ax: Axes, drawn: dict[str, Any]) -> Axes:
    right = ax.twinx()
    x, accuracy = surface["x"].values, 100 * surface["accuracy"].values
    right.plot(x, accuracy, **drawn, lw=1.2, label="accuracy (right)")
    if "accuracy_sem" in surface:
        error = 100 * surface["accuracy_sem"].values
        right.fill_between(x, accuracy - error, accuracy + error, color=drawn["color"], alpha=0.2, linewidth=0)
    right.set(ylabel="accuracy (%)", ylim=(0, 104))
    return right
