"""What noise and corruptions do to a network: changes by frequency, thresholds by octave, changes by corruption."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from landscape.analyses.paired import between, images
from landscape.pictures.axes import log_axis
from landscape.pictures.canvas import MARKERS, caution_over, head, new_figure, new_row, own_title, style
from landscape.runtime.errors import UserError
from landscape.store.comparable import caution, differences

Groups = Mapping[str, xr.Dataset]
DIFFERENT = {
    "equal-energy": "noise in rings, rms {rms:g} in each",
    "park-kim": "noise in rings as Park & Kim's fig. 2b",
}


def plot_rings(groups: Groups, accuracy: Axes, nll: Axes) -> None:
    """The change of accuracy in points, and of the NLL, under noise in each ring, with intervals over images."""
    _plot_ring_changes({network: 100 * group["accuracy_change"] for network, group in groups.items()}, accuracy)
    _plot_ring_changes({network: group["nll_change"] for network, group in groups.items()}, nll)
    accuracy.set_ylabel("change of accuracy (points)")
    nll.set_ylabel("change of NLL")


def _plot_ring_changes(changes: Mapping[str, xr.DataArray], ax: Axes, first: int = 0) -> None:
    """Changes (frequency, bound) of several networks; first: the number of the first one's look."""
    for i, (network, change) in enumerate(changes.items()):
        beside = 0.012 * (i - (len(changes) - 1) / 2)
        _bars(ax, change["frequency"].values + beside, change.values, first + i, network)
    ax.axhline(0, color="0.3", lw=0.8)
    ax.set(xlabel=r"frequency ($\pi$ rad/pixel)", xlim=(0, 1))


def plot_octaves(groups: Groups, ax: Axes) -> None:
    """The threshold of each octave, with intervals over images; an open triangle if no level sufficed."""
    highest = max(float(group["level"].max()) for group in groups.values())
    for i, (network, group) in enumerate(groups.items()):
        f = group["frequency"].values * 2 ** (0.08 * (i - (len(groups) - 1) / 2))
        values = group["threshold"].values.copy()
        beyond = np.isinf(values[:, 0])
        values[~np.isfinite(values)] = np.nan
        values[np.isinf(group["threshold"].values[:, 2]) & ~beyond, 2] = 1.3 * highest
        _bars(ax, f[~beyond], values[~beyond], i, network)
        ax.plot(f[beyond], np.full(beyond.sum(), 1.3 * highest), "^", color=style(i)["color"], markerfacecolor="none")
    ax.set_xscale("log", base=2)
    log_axis(ax, "y")
    ticks = np.unique(np.concatenate([group["frequency"].values for group in groups.values()]))
    ax.set_xticks(ticks, [f"{f:.2g}" for f in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set(xlabel=r"centre of the octave ($\pi$ rad/pixel)", ylabel="noise threshold (rms)")


def plot_corruptions(groups: Groups, ax: Axes) -> None:
    """The change of accuracy in points under each corruption, averaged over severities."""
    names = list(next(iter(groups.values()))["corruption"].values)
    for i, (network, group) in enumerate(groups.items()):
        y = np.arange(len(names)) + (i - (len(groups) - 1) / 2) * 0.8 / len(groups)
        change = 100 * group["accuracy_change"].sel(bound="estimate")
        mean = change.mean("severity").values
        ax.plot(mean, y, MARKERS[i % len(MARKERS)], color=style(i)["color"], markersize=5, label=network)
        for severity in change["severity"].values:
            ax.plot(change.sel(severity=severity).values, y, "|", color=style(i)["color"], markersize=7, alpha=0.6)
    ax.axvline(0, color="0.3", lw=0.8)
    ax.set_yticks(range(len(names)), [str(name).replace("_", " ") for name in names], fontsize="small")
    ax.grid(axis="y", color="0.9", lw=0.6)
    ax.set_axisbelow(True)
    ax.set(xlabel="change of accuracy (points)", ylim=(len(names) - 0.5, -0.5))


def _bars(ax: Axes, x: np.ndarray, values: np.ndarray, i: int, label: str) -> None:
    """values (points, bound); no bar where a bound is NaN, a point between others."""
    known = np.isfinite(values[:, 0])
    x, (estimate, low, high) = x[known], values[known].T
    bars = np.maximum([estimate - low, high - estimate], 0)
    ax.errorbar(x, estimate, yerr=bars, **style(i), marker=MARKERS[i % len(MARKERS)], markersize=4, capsize=2, lw=1.2,
                label=label)  # fmt: skip


def _kind(group: xr.Dataset) -> str:
    return str(group.attrs.get("config", {}).get("perturbation", "rings"))


def _words(groups: Groups) -> tuple[str, list[str]]:
    """What holds for all of the groups, as a title and small lines."""
    group = next(iter(groups.values()))
    config = group.attrs.get("config", {})
    kind, of = _kind(group), f"{images(group)} images"
    if kind == "rings":
        what = DIFFERENT[config.get("definition", "equal-energy")].format(rms=config.get("rms", np.nan))
        return "noise by frequency", [f"{of}; {what}"]
    if kind == "octaves":
        lines = [f"{of}; noise by which the accuracy falls by {100 * config.get('fall', 0.1):g} points"]
        if any(np.isinf(g["threshold"].values[:, ::2]).any() for g in groups.values()):
            lines.append("triangle, or bar to the top: beyond the highest level")
        return "noise threshold by octave", lines
    return "common corruptions", [f"{of}; strokes: severities 1 to 5, marker: their mean"]


def _drawn(groups: Groups, prefix: str) -> Figure:
    kind = _kind(next(iter(groups.values())))
    title, lines = _words(groups)
    if kind == "rings":
        more = between(*groups.values()) if len(groups) == 2 else None
        figure, axes = new_row(7.4 if more is None else 10.4, 3.5, columns=2 if more is None else 3)
        plot_rings(groups, *axes[:2])
        if more is not None:
            _plot_ring_changes({"": 100 * more}, axes[2], first=len(groups))
            one, other = groups
            axes[2].set_ylabel(f"{other} less {one}:\nchange of accuracy (points)")
        head(axes[0], f"{prefix}{title}", lines)
    else:
        figure, ax = new_figure(*((5.2, 3.8) if kind == "octaves" else (5.6, 5.2)))
        (plot_octaves if kind == "octaves" else plot_corruptions)(groups, ax)
        head(ax, f"{prefix}{title}", lines)
    if len(groups) > 1:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", frameon=False, fontsize="small", ncols=3)
    return figure


def plot(group: xr.Dataset, ax: Axes, *, title: str | None = None) -> Axes:
    """The picture of a `robustness` group on axes; for rings, the change of the accuracy.

    Raises UserError for a group in which nothing is done.
    """
    if "nll_change" not in group:
        raise UserError("no perturbation of this robustness is done; continue it, and draw it then")
    own, lines = _words({"": group})
    if _kind(group) == "rings":
        _plot_ring_changes({"": 100 * group["accuracy_change"]}, ax)
        ax.set_ylabel("change of accuracy (points)")
    else:
        (plot_octaves if _kind(group) == "octaves" else plot_corruptions)({"": group}, ax)
    head(ax, own_title(title, own), lines)
    return ax


def draw(group: xr.Dataset, name: str, prefix: str = "") -> dict[str, Figure]:
    """The picture of a `robustness` group."""
    if "nll_change" not in group:
        return {}
    return {name: _drawn({prefix.removesuffix(": ") or name: group}, prefix)}


def compare(groups: Groups, name: str) -> dict[str, Figure]:
    """Several networks under the same perturbations, in one picture."""
    finished = {label: group for label, group in groups.items() if "nll_change" in group}
    if len(finished) < 2:
        return {}
    figure = _drawn(finished, "")
    if text := caution(differences(finished)):
        caution_over(figure, text)
    return {name: figure}
