"""The spectral density."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.objective.clusters import mean_and_sem, numbered
from landscape.objective.penalised import in_trace
from landscape.pictures.axes import squeeze, stretch, symlog, symlog_ticks
from landscape.pictures.canvas import COLORS, captioned, label_upright, new_figure, own_title, variant_of
from landscape.pictures.look import LOOK, Look
from landscape.pictures.smoothing import MANY, NARROWEST, quadrature_cells

WIDEST = 12  # and a cell of a quadrature reaches no further than the spectrum divided by this
UNKNOWN = 1000  # parameters, where a file does not say


def plot_density(density: xr.Dataset, ax: Axes, *, title: str | None = None) -> Axes:
    """The spectral density on a log scale, averaged over probes, with a band of one standard error across probes (or
    across mini-batches) if there are enough; and every node as a dot (right), with its weight in eigenvalues.

    What a Lanczos run resolves, each probe sees at the same place. The density is drawn in steps, not as a smooth
    curve: each node's weight is spread over its cell, as in `quadrature_cells`, so that the density ends at the extreme
    Ritz values and its integral is 1.
    """
    ax.set(xlabel="Hessian eigenvalue", ylabel="spectral density")
    ax.set_title(own_title(title, "Spectral density of the Hessian"))
    linear = symlog(ax, _finished(density)[0], axis="x")
    found = density_steps(density)
    if linear is None or found is None:
        return ax
    node, weight, mean, sem = found.node, found.weight, found.mean, found.sem
    band = ""
    if len(found.edges):
        ax.plot(np.repeat(found.edges, 2)[1:-1], np.repeat(mean, 2), color=COLORS[0], lw=1.2)
        if np.isfinite(sem).all():
            band = f"; band: standard error over {found.over}"
            low, high = (np.append(end, end[-1]) for end in (np.maximum(mean - sem, 0), mean + sem))
            ax.fill_between(found.edges, low, high, step="post", color=COLORS[0], alpha=0.3, linewidth=0)
        ax.set_yscale("log", nonpositive="clip")
        ax.set_ylim(0.3 * mean[mean > 0].min(), 3 * mean.max())
    _plot_nodes(ax, node, weight, found.parameters)
    ax.axvline(0, color="0.3", lw=0.8)
    ends = f"Ritz values from {np.nanmin(node):.4g} to {np.nanmax(node):.4g}"
    lines = [f"{len(node)} probes of {node.shape[1]} steps; {ends}{band}", in_trace(density)]
    how = (
        f"steps: nodes spread half-way to the next, {100 * found.widest:.0f} % at most; "
        f"those of up to {MANY:.0f} eigenvalues {100 * found.widest * WIDEST / NARROWEST:.0f} %"
    )
    captioned(ax, own_title(title, "Spectral density of the Hessian"), lines, "; ".join(filter(None, [*lines, how])))
    return ax


@dataclass(frozen=True)
class Steps:
    """A spectral density in steps: edges (m + 1,), its mean and standard error (m,) over the probes that are done, and
    their nodes and weights (probes, nodes).
    """

    edges: np.ndarray
    mean: np.ndarray
    sem: np.ndarray
    over: str
    node: np.ndarray
    weight: np.ndarray
    widest: float
    parameters: int | None


def _finished(density: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    weight = density["weight"].values
    done = density["done"].values & np.isfinite(weight).all(axis=1)
    return density["node"].values[done], done


def density_steps(density: xr.Dataset) -> Steps | None:
    """The steps of a `density` group, with each node's weight spread over its cell; None if no node is finite."""
    node, done = _finished(density)
    weight = density["weight"].values[done]
    if not np.isfinite(node).any():
        return None
    linear, _ = symlog_ticks(node[np.isfinite(node)])
    batch = density["batch"].values[done] if "batch" in density else np.full(len(node), -1)
    by_batch = bool((batch >= 0).all())
    unit = numbered(batch) if by_batch else np.arange(len(node))
    n = density.attrs.get("config", {}).get("parameters")
    width = float(np.ptp(squeeze(node[np.isfinite(node)], linear)))
    cells = []
    for x, w in zip(node, weight, strict=True):
        known = np.isfinite(x)
        u, mass = quadrature_cells(squeeze(x[known], linear), w[known], parameters=n or UNKNOWN, widest=width / WIDEST,
                                   narrowest=width / NARROWEST)  # fmt: skip
        cells.append((stretch(u, linear), mass))
    edges, per_probe = _steps(cells)
    mean = per_probe.mean(axis=0)
    sem = np.array([mean_and_sem(column, unit)[1] for column in per_probe.T])
    over = "mini-batches" if by_batch else "probes"
    return Steps(edges, mean, sem, over, node, weight, width / WIDEST, n)


def _steps(cells: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Edges (m + 1,) and, for each probe, the density between them (probes, m), 0 outside of its cells."""
    edges = np.unique(np.concatenate([ends.ravel() for ends, _ in cells]))
    middle = (edges[:-1] + edges[1:]) / 2
    density = np.zeros((len(cells), len(middle)))
    for row, (ends, mass) in zip(density, cells, strict=True):
        wide = ends[:, 1] > ends[:, 0]
        (left, right), mass = ends[wide].T, mass[wide]
        if not len(mass):
            continue
        cell = np.clip(np.searchsorted(left, middle, side="right") - 1, 0, None)
        inside = (middle >= left[cell]) & (middle < right[cell])
        row[inside] = (mass / (right - left))[cell[inside]]
    return edges if len(middle) else edges[:0], density


def _plot_nodes(ax: Axes, node: np.ndarray, weight: np.ndarray, n: int | None) -> None:
    known = np.isfinite(node)
    node, weight = node[known], weight[known] * (n or 1)
    right = ax.twinx()
    least = 1e-3 if n else 1e-3 * float(weight.max())
    right.set_yscale("log")
    right.vlines(node, least, np.maximum(weight, least), color="0.55", lw=0.4, alpha=0.5)
    for mask, marker in ((weight >= least, "."), (weight < least, "v")):
        right.plot(node[mask], np.maximum(weight[mask], least), marker, color="0.35", markersize=3, alpha=0.7)
    right.set_ylim(0.6 * least, 3 * float(weight.max()))
    label_upright(right, "weight of a node (dot), in eigenvalues" if n else "weight of a node (dot)", color="0.35")
    right.tick_params(axis="y", colors="0.35", which="both")
    ax.set_zorder(right.get_zorder() + 1)
    ax.patch.set_visible(False)


def plot(group: xr.Dataset, ax: Axes, *, title: str | None = None, look: Look = LOOK) -> Axes:
    """The picture of a `density` group on axes."""
    return plot_density(group, ax, title=title)


def draw(group: xr.Dataset, name: str, prefix: str = "", *, look: Look = LOOK) -> dict[str, Figure]:
    """The picture of a `density` group."""
    figure, ax = new_figure(6.4, 4.0)
    plot_density(group, ax, title=f"{prefix}spectral density of the {variant_of(group)}")
    return {name: figure}
