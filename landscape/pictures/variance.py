"""The variance of feature maps over the depth of a network."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from landscape.pictures.canvas import label_upright, legend_outside, new_figure, notes_above
from landscape.pictures.depth import block_axis, by_type, images_of
from landscape.pictures.look import LOOK, Look


def draw(group: xr.Dataset, name: str, prefix: str = "", *, look: Look = LOOK) -> dict[str, Figure]:
    """The picture of a `variance` group: the level after each block, and what each block adds to it."""
    if "level" not in group or not group["done"].any():
        return {}
    figure, ax = new_figure(6.4, 4.8)
    ax.remove()
    top, below = figure.subplots(2, 1, sharex=True)
    by_type(top, group, group["level"].values)
    relative = group.attrs.get("config", {}).get("definition") != "park-kim"
    top.set_ymargin(0.15)
    label_upright(top, "variance / mean square" if relative else "variance")
    block_axis(top, group, label=False)
    by_type(below, group, group["step"].values, labels=False, line=False)
    below.axhline(0, color="0.3", lw=0.8)
    below.set_ymargin(0.15)
    label_upright(below, "step of the block")
    block_axis(below, group)
    legend_outside(figure, top)
    notes_above(top, f"{prefix}variance of feature maps over positions", [f"95 % intervals over {images_of(group)}"])
    if relative:
        level = group["level"].values[np.isfinite(group["level"].values)]
        top.set_ylim(min(0.0, level.min(initial=0.0)), 1.15 * max(level.max(initial=0.0), 1e-9))
    return {name: figure}
