"""Top eigenvalues by rank."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landscape.pictures import parts
from landscape.pictures.axes import symlog
from landscape.pictures.canvas import COLORS, examples_note, new_figure, own_title, variant_of
from landscape.pictures.look import LOOK, Look


def plot_top(top: xr.Dataset, ax: Axes, *, title: str | None = None) -> Axes:
    """Eigenvalues of a `top` group by rank, each with its residual as an error bar; hollow where not converged."""
    e, r = top["eigenvalue"].values, top["residual"].values
    rank = np.arange(1, len(e) + 1)
    ax.set(xlabel="rank", ylabel="eigenvalue", title=own_title(title, "Top eigenvalues of the Hessian"))
    linear = symlog(ax, e, axis="y")
    if linear is None:
        return ax
    ok = top["converged"].values
    ax.axhline(0, color="0.3", lw=0.8)
    ax.vlines(rank, 0, e, color="0.75", lw=1)
    ax.errorbar(rank, e, yerr=r, fmt="none", ecolor=COLORS[0], capsize=3, lw=1)
    ax.plot(rank[ok], e[ok], "o", color=COLORS[0], label="converged; bar: residual")
    ax.plot(rank[~ok], e[~ok], "o", color=COLORS[0], markerfacecolor="white", label="not converged")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    examples_note(ax, top)
    if not ok.all():
        ax.legend(frameon=False, fontsize="small")
    return ax


def plot(group: xr.Dataset, ax: Axes, *, title: str | None = None, look: Look = LOOK) -> Axes:
    """The picture of a `top` group on axes."""
    return (parts.plot_parts if "part" in group.dims else plot_top)(group, ax, title=title)


def draw(group: xr.Dataset, name: str, prefix: str = "", *, look: Look = LOOK) -> dict[str, Figure]:
    """The picture of a `top` group."""
    if "part" in group.dims:
        return parts.draw(group, name, prefix)
    figure, ax = new_figure(5.6, 3.8)
    plot_top(group, ax, title=f"{prefix}top {variant_of(group)} eigenvalues, whole data\n")
    return {name: figure}
