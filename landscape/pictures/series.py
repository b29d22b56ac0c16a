"""Eigenvalues over checkpoints, and against their losses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landscape.analyses.summaries import statistics_of
from landscape.objective.penalised import in_curvature
from landscape.pictures.axes import log_axis, name_ticks, symlog
from landscape.pictures.canvas import (
    MARKERS,
    caution_over,
    filled_lines,
    legend_below,
    new_figure,
    new_row,
    note_above,
    own_title,
    points_of,
    room,
    style,
)
from landscape.pictures.look import LOOK, Look
from landscape.store.comparable import caution, differences, distinctions


def plot_series(series: xr.Dataset, ax: Axes, *, title: str | None = None) -> Axes:
    """The median largest and smallest eigenvalue of each checkpoint of a `series` group, with intervals; and the NEP.

    If the names of the checkpoints differ in one number (epoch1, epoch10), it gives the axis and the order. A point is
    hollow if some of the checkpoint's eigenvalues have not converged.
    """
    series, what = by_number(series)
    names = [str(name) for name in series["checkpoint"].values]
    at = series["number"].values if what is not None else np.arange(len(names))
    statistics = statistics_of(series)
    assert statistics is not None
    summary, unsure = statistics["summary"], statistics["unconverged"].values > 0
    ax.set(
        ylabel="median eigenvalue",
        title=own_title(title, "Hessian eigenvalues over checkpoints"),
    )
    if symlog(ax, series["eigenvalue"].values, axis="y") is None:
        return ax
    for i, statistic in enumerate(("largest", "smallest")):
        values = summary.sel(statistic=statistic).values.T
        _errorbars(ax, at, values, unsure, **style(i), marker="o", capsize=3, label=statistic)
    ax.axhline(0, color="0.3", lw=0.8)
    if what is None:
        name_ticks(ax, names)
    else:
        ax.set_xlabel(what or "number of the checkpoint")
        ax.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    share = ax.twinx()
    values = 100 * summary.sel(statistic="nep").values.T
    _errorbars(share, at, values, unsure, **style(3), marker="s", capsize=3, label="NEP (right)")
    top = max(5.0, 1.2 * float(np.nanmax(values, initial=0)))
    share.set(ylabel="NEP (%)", ylim=(-0.03 * top, top))  # room for the markers of 0
    ax.set_zorder(share.get_zorder() + 1)  # its long bars lie behind those of the eigenvalues
    ax.patch.set_visible(False)
    handles = [*ax.get_legend_handles_labels()[0], *share.get_legend_handles_labels()[0]]
    labels = ["median largest", "median smallest", "NEP (right)"]
    down = 2.5 * points_of("small") if what is None and max(map(len, names)) > 6 else 0.0  # names that stand slanted
    legend_below(ax, down, handles=handles, labels=labels, ncols=3 if room(ax) > 70 else 1)
    note_above(ax, "\n".join(filter(None, [in_curvature(series), _hollow_note(unsure)])))
    return ax


def plot_statistic(series: Mapping[str, xr.Dataset], statistic: str, ax: Axes, *, title: str | None = None) -> Axes:
    """One statistic of the summaries of several `series` groups, with its intervals, against the NLL of their
    mini-batches, so that networks are compared at equal losses. A line follows the order of the checkpoints; a point is
    hollow if some of its eigenvalues have not converged.

    statistic: nep, drawn in per cent; or ape, on a logarithmic axis.
    """
    share = statistic == "nep"
    found = differences(series)
    unsure: list[np.ndarray] = []
    for i, (name, one) in enumerate(series.items()):
        one, _ = by_number(one)
        label = filled_lines([name, *distinctions(found, name)], 32)
        statistics = statistics_of(one)
        assert statistics is not None
        values = statistics["summary"].sel(statistic=statistic).values.T * (100 if share else 1)
        unsure.append(statistics["unconverged"].values > 0)
        _errorbars(ax, one["nll"].mean("batch").values, values, unsure[-1], **style(i),
                   marker=MARKERS[i % len(MARKERS)], markersize=5, capsize=2, lw=1.4, label=label)  # fmt: skip
    ax.set(xlabel="NLL of the mini-batches (falling)")
    log_axis(ax, "x")
    ax.xaxis.set_inverted(True)
    if share:
        ax.set(ylabel="NEP (%)")
        ax.set_ylim(bottom=-0.03 * ax.get_ylim()[1])  # room for the markers of 0
    else:
        ax.set(ylabel="APE")
        log_axis(ax, "y")
    ax.set_title(own_title(title, "Share of negative eigenvalues" if share else "Mean of the positive eigenvalues"))
    penalties = " or ".join(dict.fromkeys(filter(None, map(in_curvature, series.values()))))
    note_above(ax, "\n".join(filter(None, [penalties, _hollow_note(np.concatenate(unsure))])))
    return ax


def _errorbars(ax: Axes, x: np.ndarray, values: np.ndarray, hollow: np.ndarray, **look: Any) -> None:
    """Estimates with intervals, values (bound, point); no bar where a bound is NaN."""
    estimate, low, high = values
    ax.errorbar(x, estimate, yerr=np.abs(np.array([estimate - low, high - estimate])), **look)
    ax.plot(x[hollow], estimate[hollow], look["marker"], color=look["color"], markerfacecolor="white", zorder=3,
            markersize=look.get("markersize"))  # fmt: skip


def _hollow_note(hollow: np.ndarray) -> str:
    return "hollow: with eigenvalues that have not converged" if hollow.any() else ""


def by_number(series: xr.Dataset) -> tuple[xr.Dataset, str | None]:
    """A series in the order of the one number in which its checkpoints' names differ, and what stands before this.

    The number becomes the coordinate `number`. The series as it is, and None, if the names differ in more than that.
    """
    names = [re.split(r"(\d+)", str(name)) for name in series["checkpoint"].values]
    if len(names) < 2 or len({(len(parts), *parts[::2]) for parts in names}) != 1:
        return series, None
    columns = np.array([[int(n) for n in parts[1::2]] for parts in names], dtype=float)
    differing = np.flatnonzero((columns != columns[:1]).any(axis=0))
    if len(differing) != 1 or len(set(columns[:, differing[0]])) != len(names):
        return series, None
    k = int(differing[0])
    return series.assign_coords(number=("checkpoint", columns[:, k])).sortby("number"), names[0][2 * k].strip(" _-.=")


def plot(group: xr.Dataset, ax: Axes, *, title: str | None = None, look: Look = LOOK) -> Axes:
    """The picture of a `series` group on axes."""
    return plot_series(group, ax, title=title)


def draw(group: xr.Dataset, name: str, prefix: str = "", *, look: Look = LOOK) -> dict[str, Figure]:
    """The picture of a `series` group."""
    figure, ax = new_figure(6.4, 4.0)
    plot_series(group, ax, title=f"{prefix}Hessian eigenvalues over checkpoints")
    return {name: figure}


def compare(groups: Mapping[str, xr.Dataset], name: str, *, look: Look = LOOK) -> dict[str, Figure]:
    """NEP and APE of several series against their losses; nothing for a single series, or if one is not finished."""
    series = {label: group for label, group in groups.items() if "summary" in group}
    if len(series) < 2:
        return {}
    figure, axes = new_row(12.0, 4.2, columns=2)
    for statistic, ax in zip(("nep", "ape"), axes, strict=True):
        plot_statistic(series, statistic, ax)
    place: Any = "outside right center" if figure.get_figwidth() > 8 else "outside lower center"
    figure.legend(*axes[0].get_legend_handles_labels(), loc=place, frameon=False)
    caution_over(figure, caution(differences(series)))
    return {name: figure}
