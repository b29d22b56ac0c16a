"""The picture of any group, from its dimensions and attributes alone: for analyses without a picture of their own."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from landscape.pictures.canvas import new_figure, note_above, style
from landscape.pictures.look import LOOK, Look
from landscape.pictures.scales import surface_colors


def draw(group: xr.Dataset, name: str, prefix: str = "", *, look: Look = LOOK) -> dict[str, Figure]:
    """Every real variable over the units: for one dimension a line with a marker for each unit, for two colours.

    A variable NAME_sem beside NAME is its standard error, drawn as bars. Units that are not done are left out.
    """
    figures: dict[str, Figure] = {}
    if "done" not in group:
        return figures
    units = group["done"].dims
    for key, variable in group.data_vars.items():
        values = variable.values
        if variable.dims != units or values.dtype.kind != "f" or str(key).endswith("_sem") or len(units) not in (1, 2):
            continue
        shown = np.where(group["done"].values & np.isfinite(values), values, np.nan)
        label = str(variable.attrs.get("long_name", key))
        figure, ax = new_figure(6.4, 4.0)
        ax.set_title(f"{prefix}{label}\n")
        if len(units) == 1:
            bars = group[f"{key}_sem"].values if f"{key}_sem" in group else None
            x, ticks = _along(group, str(units[0]))
            ax.errorbar(x, shown, yerr=bars, **style(0), marker="o", markersize=4, capsize=3)
            ax.set(xlabel=str(units[0]), ylabel=label)
            if ticks:
                ax.set_xticks(x, ticks, rotation=30, ha="right")
        else:
            drawn = ax.imshow(shown, aspect="auto", origin="lower", cmap=surface_colors())
            figure.colorbar(drawn, ax=ax, label=label)
            ax.set(xlabel=str(units[1]), ylabel=str(units[0]))
        note_above(ax, f"{int(group['done'].sum())} of {group['done'].size} {units[0]}s")
        figures[name if str(key) == name else f"{name}_{key}"] = figure
    return figures


def _along(group: xr.Dataset, dim: str) -> tuple[np.ndarray, list[str]]:
    """The positions of the units, and their names if these are words."""
    coordinate = group[dim].values
    if coordinate.dtype.kind in "iuf":
        return coordinate, []
    return np.arange(len(coordinate)), [str(name) for name in coordinate]
