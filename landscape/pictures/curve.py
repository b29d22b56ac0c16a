"""A surface of one dimension: what the loss is along a line."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from landscape.pictures.canvas import note_below, own_title, room, style
from landscape.pictures.captions import axis_label, error_at_lowest, packed, penalty_note, quantity_label, settings_line
from landscape.pictures.look import LOOK, Look
from landscape.pictures.scales import common_scale, has_walls
from landscape.runtime.errors import UserError
from landscape.surfaces.measures import describe_measures
from landscape.surfaces.topology import describe_minima


def plot_curve(
    surface: xr.Dataset, ax: Axes, *, title: str | None = None, look: Look = LOOK, name: str | None = None, i: int = 0
) -> Axes:
    """A `surface` group of one dimension: the quantity along the line with a band of one standard error over examples,
    the accuracy (right) where it is known, and diverged points on the upper edge.
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
    ax.plot(x, shown, **drawn, lw=1.6, **few, label=name or quantity)
    below = []
    # the penalty is exact, so the error of the loss is the NLL's
    sem = next((f"{q}_sem" for q in (quantity, "nll" if quantity == "loss" else "") if f"{q}_sem" in surface), None)
    if sem is not None and surface[sem].notnull().any():
        error = surface[sem].values
        ax.fill_between(x, shown - error, shown + error, color=drawn["color"], alpha=0.25, linewidth=0)
        below.append("bands: one standard error over examples")
    scale = common_scale([shown], walls=has_walls(quantity), error=error_at_lowest(surface, quantity))
    if look.limits is not None:
        ax.set_ylim(*look.limits)
        scale = None
    below += penalty_note(surface, quantity, scale)
    if scale is not None and scale.log:
        ax.set_yscale("asinh", linear_width=scale.linear)
        ticks = scale.levels[scale.levels <= np.nanmax(shown)]
        ax.set_yticks(ticks.tolist(), [f"{level:g}" for level in ticks])
        ax.set_ylabel(scale.label(quantity_label(surface, quantity)))
    elif scale is not None and scale.cut:
        margin = 0.05 * (scale.ceiling - float(np.nanmin(shown)))
        ax.set_ylim(float(np.nanmin(shown)) - margin, scale.ceiling)
        below.append(f"curve cut at {scale.ceiling:.4g}")
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
        ax.legend(
            handles, labels, frameon=False, fontsize="small", ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 0.98)
        )
    note_below(
        ax, packed([settings_line(surface), *below, *describe_measures(surface), *describe_minima(surface)], room(ax))
    )
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
