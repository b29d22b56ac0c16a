"""Axes and marks for values of each block of a network over its depth: the blocks, their types and stages."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from landscape.pictures.canvas import COLORS, MARKERS

TYPES = {"convolution": 0, "attention": 1, "mlp": 2, "pool": 3, "module": 4, "stem": 6}  # marker and colour of each


def block_axis(ax: Axes, group: xr.Dataset, *, label: bool = True) -> None:
    """Blocks by their number from 0 along x; stages are separated by thin lines, and their numbers stand on top."""
    stage = group["stage"].values
    ax.set_xlim(-0.7, len(stage) - 0.3)
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    if label:
        ax.set_xlabel("block, from the input on")
    border_stages(ax, group, horizontal=False)
    if len(set(stage)) > 2:
        for s in sorted(set(stage) - {0}):
            ax.annotate(f"stage {s}" if s == 1 else str(s), (float(np.flatnonzero(stage == s).mean()), 1),
                        xycoords=("data", "axes fraction"), xytext=(0, -2), textcoords="offset points", ha="center",
                        va="top", fontsize="x-small", color="0.35")  # fmt: skip


def border_stages(ax: Axes, group: xr.Dataset, *, horizontal: bool, color: str = "0.8") -> None:
    """A thin line between two stages."""
    for border in np.flatnonzero(np.diff(group["stage"].values)) + 0.5:
        (ax.axhline if horizontal else ax.axvline)(border, color=color, lw=0.8, zorder=0.5)


def by_type(ax: Axes, group: xr.Dataset, values: np.ndarray, *, labels: bool = True, line: bool = True) -> None:
    """Estimates with their intervals, values (block, bound), with a marker and a colour for each type of block.

    An estimate that is NaN has no marker; one whose interval alone is NaN has no bar.
    """
    blocks = np.arange(len(values))
    if line:
        known = np.isfinite(values[:, 0])
        ax.plot(blocks[known], values[known, 0], color="0.7", lw=0.8, zorder=1)
    types = group["block_type"].values
    for which, i in TYPES.items():
        here = (types == which) & np.isfinite(values[:, 0])
        if here.any():
            value, low, high = values[here].T
            ax.errorbar(blocks[here], value, yerr=[value - low, high - value], fmt=MARKERS[i], color=COLORS[i],
                        markersize=4.5, capsize=2, lw=1, label=which if labels else None)  # fmt: skip


def images_of(group: xr.Dataset) -> str:
    """The number of images that a group was computed from."""
    return f"{int(group['fold_images'].values[group['done'].values].sum())} images"
