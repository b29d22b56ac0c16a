"""The loss over the radius in typical, worst and Hessian directions, and what a rescaling changes of the measures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.analyses.intervals import unit_mean
from landscape.analyses.sharpness import MEASURES
from landscape.analyses.survival import UNCHANGED, changes
from landscape.objective.penalised import in_curvature
from landscape.pictures.axes import log_axis
from landscape.pictures.canvas import COLORS, MARKERS, caution_over, new_row, note_above, style
from landscape.store.comparable import caution, differences

WORDS = {"typical": "typical", "worst": "worst", "hessian": "Hessian"}
SHORT = {"average": "average-direction", "worst": "worst-case", "critical": "critical", "eigenvalue": "eigenvalue",
         "trace": "trace"}  # fmt: skip
CUT = 1e4  # times the network's own loss, up to which it is drawn; beyond, nothing of the network is left
SCALE_WORDS = {"elementwise": "elementwise scale", "common": "common scale"}


def plot_profile(sharpness: xr.Dataset, ax: Axes, *, scale: str = "elementwise", title: str | None = None) -> None:
    """The loss of a `sharpness` group over the radius ||u||, mean over mini-batches with 95 % intervals, in each
    direction; a vertical line is the radius of the worst case.
    """
    for i, along in enumerate(WORDS):
        _line(sharpness, ax, along, scale, i, WORDS[along])
    own = float(sharpness["loss"].sel(network="as it is").mean())
    ax.axhline(own, color="0.5", lw=0.8, zorder=0)
    _axes(ax, [sharpness], scale)
    ax.set_title(title or "Loss over the radius")
    ax.legend(frameon=False, fontsize="small", loc="upper left")
    note_above(ax, _note(sharpness))


def _line(sharpness: xr.Dataset, ax: Axes, along: str, scale: str, i: int, label: str) -> None:
    here = sharpness.sel(network="as it is", scale=scale, along=along)
    done = np.flatnonzero(here["done"].values)
    values = here["profile"].isel(batch=done).transpose("radius", "batch").values
    if not done.size:
        return
    mean, low, high = np.array([unit_mean(row) for row in values]).T
    shown = np.where(np.isfinite(mean), mean, np.nan)
    r = here["radius"].values
    ax.plot(r, shown, **style(i), lw=1.6, marker=MARKERS[i], markersize=3.5, label=label)
    ax.fill_between(r, np.maximum(low, 1e-12), high, color=COLORS[i % len(COLORS)], alpha=0.2, linewidth=0)
    gone = ~np.isfinite(mean)
    if gone.any():
        ax.plot(r[gone], np.ones(gone.sum()), "x", color=COLORS[i % len(COLORS)], clip_on=False,
                transform=ax.get_xaxis_transform())  # fmt: skip


def _axes(ax: Axes, groups: list[xr.Dataset], scale: str) -> None:
    radius = {float(group.attrs.get("config", {}).get("radius", np.nan)) for group in groups}
    log_axis(ax, "x")
    own = min(float(group["loss"].sel(network="as it is").mean()) for group in groups)
    low, high = ax.get_ylim()
    if own > 0 and high > CUT * own:
        ax.set_ylim(max(low, own / 3), CUT * own)
    log_axis(ax, "y")
    for at in radius:
        if np.isfinite(at):
            ax.axvline(at, color="0.5", lw=0.8, ls=":", zorder=0)
    unit = "|w_i|" if scale == "elementwise" else r"\|w\|/\sqrt{n}"
    ax.set(xlabel=rf"distance $\|u\|$ in units of ${unit}$", ylabel="loss of the mini-batches")


def plot_survival(sharpness: xr.Dataset, ax: Axes) -> None:
    """The factor by which a rescaling that leaves the outputs the same changes each measure; 1 if it survives."""
    found = changes(sharpness, MEASURES)
    for i, (scale, words) in enumerate(SCALE_WORDS.items()):
        factors = [found[measure, scale][0] for measure in MEASURES]
        places = np.arange(len(MEASURES)) + (0.14 if i else -0.14)
        ax.plot(factors, places, MARKERS[i], color=COLORS[i], markersize=6, label=words.removesuffix(" scale"))
    ax.axvline(1, color="0.4", lw=0.9, zorder=0)
    ax.set_yticks(range(len(MEASURES)), [SHORT[measure] for measure in MEASURES])
    ax.set_ylim(len(MEASURES) - 0.4, -0.6)
    known = [f for f, *_ in found.values() if np.isfinite(f) and f > 0]
    log_axis(ax, "x")
    ax.set_xlim(0.85 * min(*known, 0.94), 1.15 * max(*known, 1.09))
    log_axis(ax, "x")  # its ticks depend on the range
    ax.set(xlabel="rescaled / as it is", title="Under a rescaling of the layers")
    ax.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    layers = len(sharpness.attrs["config"]["rescaled"]["layers"])
    note_above(ax, f"{layers} layers, outputs unchanged; within {UNCHANGED:.0%} of 1 survives")


def draw(group: xr.Dataset, name: str, prefix: str = "", *, quantity: str = "nll") -> dict[str, Figure]:
    """The picture of a `sharpness` group: profiles in both scales, and beside them what a rescaling changes."""
    beside = bool(changes(group, MEASURES))
    figure, axes = new_row(9.6 if not beside else 13.2, 4.2, columns=2 + beside, least=3.0)
    for scale, ax in zip(SCALE_WORDS, axes, strict=False):
        plot_profile(group, ax, scale=scale, title=f"{prefix}{SCALE_WORDS[scale]}\n")
    if beside:
        plot_survival(group, axes[2])
    return {name: figure}


def compare(groups: Mapping[str, xr.Dataset], name: str, *, quantity: str = "nll") -> dict[str, Figure]:
    """The typical and the worst profile of several networks, elementwise."""
    figure, axes = new_row(10.4, 4.4, columns=2)
    for along, ax in zip(("typical", "worst"), axes, strict=True):
        for i, (label, group) in enumerate(groups.items()):
            _line(group, ax, along, "elementwise", i, label)
        _axes(ax, list(groups.values()), "elementwise")
        ax.set_title(f"Along {'random directions' if along == 'typical' else 'the worst direction found'}")
    axes[0].legend(frameon=False, fontsize="small")
    caution_over(figure, caution(differences(groups)))
    return {name: figure}


def _note(sharpness: xr.Dataset) -> str:
    config = sharpness.attrs.get("config", {})
    done = int(sharpness["done"].sel(network="as it is").sum())
    penalty = in_curvature(sharpness).partition(",")[0]
    return ", ".join(
        filter(None, [f"{done} mini-batches of {config.get('batch_size', '?')}", "95 % intervals", penalty])
    )
