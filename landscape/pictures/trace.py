"""The trace, as its probes come in."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landscape.objective.clusters import standard_error
from landscape.objective.penalised import in_trace
from landscape.pictures.canvas import (
    COLORS,
    legend_below,
    new_figure,
    note_above,
    own_title,
    room,
    variant_of,
    with_penalty_note,
    with_sources,
)
from landscape.pictures.look import LOOK, Look


def plot_trace(trace: xr.Dataset, ax: Axes, *, title: str | None = None) -> Axes:
    """The estimate of a `trace` group as its probes come in, with one standard error over probes, from the 8th on;
    at the end, where it is known, that over probes and examples.
    """
    estimates = trace["trace_estimate"].values
    count = np.arange(1, len(estimates) + 1)
    mean = np.cumsum(estimates) / count
    sem = np.array([standard_error(estimates[:i]) for i in count])
    ax.set(xlabel="probes", ylabel="trace of the Hessian", title=own_title(title, "Trace of the Hessian"))
    ax.plot(count, estimates, "o", color="0.6", markersize=4, label="one probe")
    ax.plot(count, mean, color=COLORS[0], lw=1.8, label="mean")
    if np.isfinite(sem).any():
        ax.fill_between(
            count, mean - sem, mean + sem, color=COLORS[0], alpha=0.25, linewidth=0, label="standard error (probes)"
        )
    if "trace_sem_examples" in trace and np.isfinite(trace["trace_sem"]):
        ax.errorbar(count[-1], float(trace["trace"]), yerr=float(trace["trace_sem"]), color=COLORS[0], capsize=4,
                    label="standard error (probes and examples)")  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(ax, ncols=2 if room(ax) > 70 else 1)
    config = trace.attrs.get("config", {})
    note_above(
        ax,
        with_penalty_note(
            f"{with_sources(trace, 'trace')}; {config.get('estimator', 'probes')}, {int(trace['products'])} products",
            in_trace(trace),
        ),
    )
    return ax


def plot(group: xr.Dataset, ax: Axes, *, title: str | None = None, look: Look = LOOK) -> Axes:
    """The picture of a `trace` group on axes."""
    return plot_trace(group, ax, title=title)


def draw(group: xr.Dataset, name: str, prefix: str = "", *, look: Look = LOOK) -> dict[str, Figure]:
    """The picture of a `trace` group."""
    figure, ax = new_figure(6.4, 4.0)
    plot_trace(group, ax, title=f"{prefix}trace of the {variant_of(group)}\n")
    return {name: figure}
