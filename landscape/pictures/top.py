"""Top eigenvalues by rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landscape.objective.penalised import in_curvature
from landscape.pictures import parts
from landscape.pictures.axes import symlog
from landscape.pictures.canvas import (
    COLORS,
    MARKERS,
    examples_of,
    head,
    legend_below,
    new_figure,
    own_title,
    variant_of,
)
from landscape.pictures.look import LOOK, Look


def plot_top(top: xr.Dataset, ax: Axes, *, title: str | None = None) -> Axes:
    """Eigenvalues of a `top` group by rank, with a colour and a mark for each end of the spectrum, and residuals as
    error bars. The largest residual is given in words, since few can be seen; marks are hollow if not converged.
    """
    e, r = top["eigenvalue"].values, top["residual"].values
    rank = np.arange(1, len(e) + 1)
    ax.set(xlabel="rank", ylabel="eigenvalue")
    if symlog(ax, e, axis="y") is None:
        ax.set_title(own_title(title, "Top eigenvalues of the Hessian"))
        return ax
    ok = top["converged"].values.astype(bool)
    ax.axhline(0, color="0.3", lw=0.8)
    ax.vlines(rank, 0, e, color="0.75", lw=1)
    for i, (end, here) in enumerate(_ends(top).items()):
        look: dict[str, Any] = {"color": COLORS[i], "markersize": 6}
        ax.errorbar(rank[here], e[here], yerr=r[here], fmt="none", ecolor=COLORS[i], capsize=3, lw=1)
        ax.plot(rank[here & ok], e[here & ok], MARKERS[i], **look, label=end)
        if (here & ~ok).any():
            ax.plot(rank[here & ~ok], e[here & ~ok], MARKERS[i], **look, markerfacecolor="white",
                    label=" ".join(filter(None, [end, "not converged"])))  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if any(not label.startswith("_") for label in ax.get_legend_handles_labels()[1]):
        legend_below(ax, ncols=2, handlelength=1.0)
    said = [examples_of(top), f"residuals up to {np.nanmax(r):.2g} (bars)" if np.isfinite(r).any() else ""]
    head(ax, own_title(title, "Top eigenvalues of the Hessian"), ["; ".join(filter(None, said)), in_curvature(top)])
    return ax


def _ends(top: xr.Dataset) -> dict[str, np.ndarray]:
    """The end of the spectrum that each eigenvalue is from; if both were searched, half are from each, as in eigsh."""
    e = top["eigenvalue"].values
    if top.attrs.get("config", {}).get("which") != "BE":
        return {"": np.ones(len(e), bool)}
    largest = np.zeros(len(e), bool)
    largest[np.argsort(-np.where(np.isfinite(e), e, -np.inf), kind="stable")[: len(e) - len(e) // 2]] = True
    return {"largest": largest, "smallest": ~largest}


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
