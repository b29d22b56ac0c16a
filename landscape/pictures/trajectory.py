"""The path of a training around its end, and the loss and the curvature along it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from landscape.objective.penalised import in_curvature
from landscape.pictures.axes import log_axis, name_ticks, symlog
from landscape.pictures.canvas import COLORS, MARKERS, fitted, note_above, style
from landscape.pictures.series import by_number


def plot_polar(trajectory: xr.Dataset, ax: Any, *, title: str | None = None, color: bool = True, i: int = 0,
               label: str | None = None) -> None:  # fmt: skip
    """The path of a `trajectory` group in polar coordinates, its end in the middle, on polar axes: the start is a
    circle, the end a star, and the points between are coloured by their NLL.
    """
    r = trajectory["r"].values
    theta = np.where(np.isfinite(trajectory["theta"].values), trajectory["theta"].values, 0.0)
    ax.plot(theta, r, color=style(i)["color"] if not color else "0.5", linestyle=style(i)["linestyle"], lw=1.3,
            label=label, zorder=2)  # fmt: skip
    nll = trajectory["nll"].values
    known = np.isfinite(nll)
    if color and known.any():
        low, high = nll[known].min(), nll[known].max()
        norm: Normalize = LogNorm(low, high) if 0 < low < high else Normalize()
        points = ax.scatter(theta[known], r[known], c=nll[known], cmap="viridis", norm=norm, s=26, zorder=3,
                            edgecolor="0.3", linewidth=0.4)  # fmt: skip
        bar = ax.figure.colorbar(points, ax=ax, label="negative log-likelihood", shrink=0.7, pad=0.13)
        if 0 < low < high:
            ticks = np.geomspace(low, high, 4)
            bar.set_ticks(ticks.tolist(), labels=_apart(ticks))
            bar.minorticks_off()
    elif not color:
        ax.plot(theta[1:-1], r[1:-1], MARKERS[i % len(MARKERS)], color=style(i)["color"], markersize=3.5)
    ink = style(i)["color"] if not color else COLORS[1]
    ax.plot(theta[0], r[0], "o", markersize=9, markerfacecolor="none", markeredgecolor=ink, zorder=4)
    ax.plot(0, 0, "*", markersize=12, color=ink, markeredgecolor="white", zorder=4, clip_on=False)
    if color and len(r):
        for at, word, place in ((r[0], "start", (-3, 8)), (0.0, "end", (8, 8))):
            ax.annotate(word, (theta[0] if at else 0.0, at), xytext=place, textcoords="offset points",
                        fontsize="small", ha="center" if at else "left", zorder=5,
                        path_effects=[withStroke(linewidth=2, foreground="white")])  # fmt: skip
    widest = np.degrees(np.nanmax(theta)) if len(theta) else 0
    ax.set_thetamin(0)
    ax.set_thetamax(180 if widest > 90 else 90)
    ax.set_rlim(0, 1.05 * max(1.0, np.nanmax(r, initial=1.0)))
    ax.set_rlabel_position(0)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.tick_params(labelsize="small")
    ax.set_title(title or "Path of the training")
    text = "$r = \\|w_t - w_{end}\\| / \\|w_0 - w_{end}\\|$,\nangle to $w_0 - w_{end}$"
    ax.annotate(text, (0.5, 0), xytext=(0, -26), xycoords="axes fraction", textcoords="offset points", ha="center",
                va="top", fontsize="small")  # fmt: skip


def _apart(ticks: np.ndarray) -> list[str]:
    """Numbers with as many digits as tell them apart."""
    for digits in range(2, 7):
        labels = [f"{tick:.{digits}g}" for tick in ticks]
        if len(set(labels)) == len(labels):
            break
    return labels


def plot_along(trajectory: xr.Dataset, ax: Axes, variable: str, *, i: int = 0, label: str = "") -> None:
    """One variable of a `trajectory` group over its checkpoints, with its standard error if it has one."""
    ordered, what = by_number(trajectory)
    at = ordered["number"].values if what is not None else np.arange(ordered.sizes["checkpoint"])
    z = ordered[variable].values
    sem = ordered[f"{variable}_sem"].values if f"{variable}_sem" in ordered else np.full(len(z), np.nan)
    ax.errorbar(at, z, yerr=np.where(np.isfinite(sem), sem, 0), **style(i), marker=MARKERS[i], markersize=4, capsize=2,
                lw=1.3, label=label)  # fmt: skip
    if variable == "eigenvalue":
        bad = ~ordered["converged"].values & np.isfinite(z)
        ax.plot(at[bad], z[bad], MARKERS[i], color=style(i)["color"], markerfacecolor="white", markersize=4, zorder=3)
    if what is None:
        name_ticks(ax, [str(name) for name in ordered["checkpoint"].values])
    else:
        ax.set_xlabel(what or "number of the checkpoint")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def draw(group: xr.Dataset, name: str, prefix: str = "", *, quantity: str = "nll") -> dict[str, Figure]:
    """The picture of a `trajectory` group: the path, the loss and the curvature along it."""
    figure, places = _three_places()
    polar: Any = figure.add_subplot(places[0], projection="polar")
    plot_polar(group, polar, title=f"{prefix}path of the training")
    loss, curvature = figure.add_subplot(places[1]), figure.add_subplot(places[2])
    plot_along(group, loss, "nll")
    loss.set(ylabel="negative log-likelihood", title="Loss\n")
    if np.nanmin(group["nll"].values, initial=np.inf) > 0:
        log_axis(loss, "y")
    note_above(
        loss, f"{group.attrs.get('config', {}).get('objective', {}).get('examples', '?')} examples, standard errors"
    )
    plot_along(group, curvature, "eigenvalue", i=0, label="largest eigenvalue")
    plot_along(group, curvature, "towards_end", i=1, label="towards the end")
    symlog(curvature, np.concatenate([group["eigenvalue"].values, group["towards_end"].values]), "y")
    curvature.axhline(0, color="0.6", lw=0.8, zorder=0)
    curvature.set(ylabel="curvature, $v^T H v$", title="Curvature\n")
    curvature.legend(frameon=False, fontsize="small")
    note_above(curvature, in_curvature(group) or "hollow: not converged" * bool(
        (~group["converged"] & np.isfinite(group["eigenvalue"])).any()))  # fmt: skip
    return {name: figure}


def _three_places() -> tuple[Figure, list[SubplotSpec]]:
    """Three axes in a row; at a page's width the second is above the third, and at a column's width all are stacked."""
    width, height = fitted(13.2, 4.2)
    if width >= 10:
        figure = Figure(figsize=(width, height), layout="constrained")
        row = figure.add_gridspec(1, 3)
        return figure, [row[0, i] for i in range(3)]
    if width >= 5:
        figure = Figure(figsize=(width, 0.75 * width), layout="constrained")
        grid = figure.add_gridspec(2, 2)
        return figure, [grid[:, 0], grid[0, 1], grid[1, 1]]
    figure = Figure(figsize=(width, 2.4 * width), layout="constrained")
    column = figure.add_gridspec(3, 1)
    return figure, [column[i, 0] for i in range(3)]


def compare(groups: Mapping[str, xr.Dataset], name: str, *, quantity: str = "nll") -> dict[str, Figure]:
    """The paths of several trainings, each around its own end."""
    figure = Figure(figsize=fitted(6.4, 5.0), layout="constrained")
    ax: Any = figure.add_subplot(projection="polar")
    for i, (label, group) in enumerate(groups.items()):
        plot_polar(group, ax, color=False, i=i, label=label, title="Paths of trainings, each around its own end")
    widest = max(float(np.degrees(np.nanmax(group["theta"].values, initial=0.0))) for group in groups.values())
    ax.set_thetamax(180 if widest > 90 else 90)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return {name: figure}
