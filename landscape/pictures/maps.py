"""Maps over the plane of a surface: extreme eigenvalues, the norm of the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landscape.pictures.canvas import new_figure, new_row, note_below, style
from landscape.pictures.captions import axis_label
from landscape.pictures.marks import mark_centre, mark_unsettled, unsettled
from landscape.pictures.scales import surface_colors


def plot_map(surface: xr.Dataset, z: np.ndarray, ax: Axes, *, label: str, kind: str = "plain") -> Axes:
    """z (y, x) as colours, with one cell for each point.

    kind: plain; signed, with 0 in white, and a line where both signs meet; share, from 0 to 1.
    """
    z = np.where(np.isfinite(z), z, np.nan)
    x, y = surface["x"].values, surface["y"].values
    ax.set(xlabel=axis_label(surface, 0, short=True), ylabel=axis_label(surface, 1, short=True), title=label)
    ax.title.set_fontsize("medium")
    if not np.isfinite(z).any():
        ax.annotate("nothing finite", (0.5, 0.5), xycoords="axes fraction", ha="center")
        return ax
    norm: Normalize | None = None
    extend = "neither"
    if kind == "signed":
        bound = float(np.nanquantile(np.abs(z), 0.98)) or 1.0
        extend = _beyond(z, -bound, bound)
        norm = TwoSlopeNorm(0, -bound, bound)
    elif kind == "share":
        norm = Normalize(0, 1)
        extend = _beyond(z, 0, 1)
    colors = {"signed": "PuOr_r", "share": "cividis", "plain": surface_colors()}[kind]
    drawn = ax.pcolormesh(x, y, z, cmap=colors, norm=norm, shading="nearest", rasterized=True)
    if kind == "signed" and min(z.shape) > 1 and np.nanmin(z) < 0 < np.nanmax(z):
        ax.contour(x, y, z, [0.0], colors="black", linewidths=0.8)  # in grey, both signs are dark
    assert ax.figure is not None
    ax.figure.colorbar(drawn, ax=ax, extend=extend)
    if len(x) > 1 and len(y) > 1 and 1 / 3 <= np.ptp(x) / np.ptp(y) <= 3:
        ax.set_aspect("equal")
    ax.set_facecolor("0.85")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    mark_centre(surface, ax)
    return ax


def _beyond(z: np.ndarray, low: float, high: float) -> str:
    under, over = np.nanmin(z) < low, np.nanmax(z) > high
    return "both" if under and over else "min" if under else "max" if over else "neither"


def eigenvalue_map(surface: xr.Dataset, title: str) -> Figure:
    """The extreme Hessian eigenvalues over a surface, and |low / high| as in Li et al. (2018), fig. 7.

    Grey cells are unknown; hatched cells (on a line, rings) have not converged, or are not surely the extreme ones.
    """
    high, low = surface["eigenvalue_high"], surface["eigenvalue_low"]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(low / high)
    panels: list[tuple[Any, str, str, xr.DataArray]] = [
        (high, "largest eigenvalue", "signed", unsettled(surface, "high")),
        (low, "smallest eigenvalue", "signed", unsettled(surface, "low")),
        (ratio, "|smallest / largest|", "share", unsettled(surface, "high", "low")),
    ]
    many = int(panels[-1][3].sum())
    note = f"not converged, or not surely the extreme one: {many} points" if many else ""
    if "y" in surface.dims:
        figure, axes = new_row(12.0, 3.9, columns=3, square=True)
        for ax, (z, label, kind, bad) in zip(axes, panels, strict=True):
            plot_map(surface, z.transpose("y", "x").values, ax, label=label, kind=kind)
            mark_unsettled(surface, bad, ax)
        figure.suptitle(title)
        note_below(axes[0], [f"hatched: {note}"] if note else [])
        return figure
    figure, ax = new_figure(6.4, 4.0)
    x = surface["x"].values
    for i, (z, label, _, bad) in enumerate(panels[:2]):
        ax.plot(x, np.where(np.isfinite(z), z, np.nan), **style(i), marker="o", markersize=3, label=label)
        ax.plot(x[bad], z[bad], "o", markersize=7, fillstyle="none", color="0.3")
    note_below(ax, [f"ringed: {note}"] if note else [])
    ax.axhline(0, color="0.3", lw=0.8)
    ax.set(xlabel=axis_label(surface, 0), ylabel="Hessian eigenvalue", title=title)
    ax.legend(frameon=False, fontsize="small")
    return figure
