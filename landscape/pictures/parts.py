"""Eigenvalues by layer or stage."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.analyses.summaries import statistics_of
from landscape.pictures.axes import symlog
from landscape.pictures.canvas import COLORS, examples_note, new_figure, own_title, variant_of
from landscape.pictures.look import LOOK, Look


def plot_parts(spectrum: xr.Dataset, ax: Axes, *, title: str | None = None) -> Axes:
    """Every eigenvalue of a group computed per layer or stage, one row for each part, first layer on top; with
    mini-batches, also a bar from the median smallest to the median largest.
    """
    names = [str(name) for name in spectrum["part"].values]
    e = spectrum["eigenvalue"].values.reshape(len(names), -1)
    converged = spectrum["converged"].values.reshape(len(names), -1)
    ax.set(xlabel="eigenvalue", title=own_title(title, "Hessian eigenvalues by part"))
    if symlog(ax, e, axis="x") is None:
        return ax
    statistics = statistics_of(spectrum)
    for row, (values, ok) in enumerate(zip(e, converged, strict=True)):
        if statistics is not None:
            ends = statistics["summary"].isel(part=row).sel(statistic=["smallest", "largest"], bound="estimate")
            ax.plot(ends, [row, row], color=COLORS[0], lw=5, alpha=0.3, solid_capstyle="butt")
        for mask, alpha in ((ok, 0.7), (~ok & np.isfinite(values), 0.25)):
            ax.plot(values[mask], np.full(mask.sum(), row), "|", color=COLORS[0], alpha=alpha, markersize=9)
    ax.axvline(0, color="0.3", lw=0.8)
    ax.set_yticks(range(len(names)), names, fontsize="small" if len(names) <= 24 else "xx-small")
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="y", color="0.9", lw=0.6)
    ax.set_axisbelow(True)
    examples_note(ax, spectrum)
    return ax


def draw(group: xr.Dataset, name: str, prefix: str = "", *, look: Look = LOOK) -> dict[str, Figure]:
    """The picture of a group computed per layer or stage."""
    figure, ax = new_figure(6.4, max(3.0, 1.4 + 0.2 * group.sizes["part"]))
    per = group.attrs.get("config", {}).get("per") or "part"
    plot_parts(group, ax, title=f"{prefix}{variant_of(group)} eigenvalues per {per}\n")
    return {name: figure}
