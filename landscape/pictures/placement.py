"""The order in which attention may replace convolutions, by each kind of evidence."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landscape.analyses.placement import in_order
from landscape.pictures.canvas import COLORS, MARKERS, head, legend_outside, new_figure, own_title
from landscape.runtime.errors import UserError


def plot_placement(placement: xr.Dataset, ax: Axes) -> None:
    """The place of each block in every order, with intervals over images; blocks are in the order of all evidence."""
    names = in_order(placement, "together")
    shown = placement.sel(block=names)
    orders, count = [str(o) for o in placement["order"].values], len(names)
    for i, order in enumerate(orders):
        estimate, low, high = 1 + (count - 1) * shown["rank"].sel(order=order).values.T
        if not np.isfinite(estimate).any():
            continue  # this evidence was not asked for
        y = np.arange(count) + (i - (len(orders) - 1) / 2) * 0.15
        look: dict[str, Any] = {
            "fmt": MARKERS[i],
            "color": COLORS[i] if order != "study" else "0.35",
            "markersize": 4.5,
        }
        if order == "study":
            ax.errorbar(estimate, y, markerfacecolor="white", label="study's rule", **look)
            continue
        bars = np.maximum([estimate - low, high - estimate], 0)
        ax.errorbar(estimate, y, xerr=bars, capsize=2, lw=1.1, label=order, **look)
    for border in range(count - 1):
        ax.axhline(border + 0.5, color="0.9", lw=0.6)
    ax.set_yticks(range(count), names, fontsize="small" if count <= 20 else "xx-small")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="place in the order, the first to replace at 1", ylim=(count - 0.5, -0.5), xlim=(0.5, count + 0.5))


def _notes(placement: xr.Dataset) -> list[str]:
    value, low, high = placement["concordance"].values
    interval = f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else ""
    agreement = f"agreement of the evidence: W = {value:.2f}{interval}" if np.isfinite(value) else ""
    return [agreement, "bars: 95 % over images"]


def plot(group: xr.Dataset, ax: Axes, *, title: str | None = None) -> Axes:
    """The picture of a `placement` group on axes. Raises UserError if nothing of it is done."""
    if "rank" not in group:
        raise UserError("no evidence of this placement is done; continue it, and draw it then")
    plot_placement(group, ax)
    ax.legend(frameon=False, fontsize="small")
    head(ax, own_title(title, "which convolution first"), _notes(group))
    return ax


def draw(group: xr.Dataset, name: str, prefix: str = "") -> dict[str, Figure]:
    """The picture of a `placement` group."""
    if "rank" not in group:
        return {}
    figure, ax = new_figure(5.4, max(3.2, 1.8 + 0.36 * group.sizes["block"]))
    plot_placement(group, ax)
    head(ax, f"{prefix}which convolution first", _notes(group))
    legend_outside(figure, ax, 3)
    return {name: figure}
