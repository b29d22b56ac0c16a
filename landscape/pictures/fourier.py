"""Feature maps by frequency, and what each block lets through."""

from __future__ import annotations

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landscape.analyses.fourier import SEEN
from landscape.analyses.transfer import PATHS
from landscape.pictures.axes import log_axis
from landscape.pictures.canvas import MARKERS, label_upright, legend_outside, new_figure, notes_above, style
from landscape.pictures.depth import TYPES, block_axis, by_type, images_of
from landscape.pictures.look import LOOK, Look

WORDS = {"skip": "with skip", "branch": "branch alone"}
LET = {"matrix": "matrices alone", "projected": "with value and output", "skip": "and with skip"}
DEPTH = ListedColormap(matplotlib.colormaps["cividis"](np.linspace(0, 0.85, 256)))  # for every eye; none too light


def draw(group: xr.Dataset, name: str, prefix: str = "", *, look: Look = LOOK) -> dict[str, Figure]:
    """The pictures of a `fourier` group: tilt, power, transfer, what attention passes; or the study's amplitudes."""
    if "tilt" not in group or not group["done"].any():
        return {}
    if group.attrs.get("config", {}).get("definition") == "park-kim":
        return {name: study(group, prefix)}
    figures = {name: tilts(group, prefix), f"{name}_power": powers(group, prefix)}
    if np.isfinite(group["transfer"]).any():
        figures[f"{name}_transfer"] = transfers(group, prefix)
    if np.isfinite(group["gain"]).any():
        figures[f"{name}_attention"] = attention(group, prefix)
    return figures


def tilts(group: xr.Dataset, prefix: str) -> Figure:
    """The tilt of each block, with its skip connection and for its branch alone."""
    figure, ax = new_figure(6.4, 4.6)
    ax.remove()
    shown = [path for path in PATHS if np.isfinite(group["tilt"].sel(path=path)).any()] or ["skip"]
    axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for ax, path in zip(axes, shown, strict=True):
        by_type(ax, group, group["tilt"].sel(path=path).values, line=False)
        ax.axhline(0, color="0.3", lw=0.8)
        ax.set_ymargin(0.15)
        label_upright(ax, f"tilt, {WORDS[path]}")
        block_axis(ax, group, label=ax is axes[-1])
    notes_above(axes[0], f"{prefix}low-pass below 0, high-pass above",
                [f"tilt: mean ln transfer above pi / 2, less that below; {images_of(group)}"])  # fmt: skip
    legend_outside(figure, axes[0])
    return figure


def powers(group: xr.Dataset, prefix: str) -> Figure:
    """The power of the stream after each block by frequency, relative to that at the lowest."""
    figure, ax = new_figure(6.4, 4.0)
    done = group["done"].values
    count = group["fold_images"].values[done].astype(float)
    power = np.tensordot(count / count.sum(), group["power"].values[done], 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        _by_depth(figure, ax, group["frequency"].values, power / power[:, :1])
    ax.set(xlabel="frequency (pi)")
    label_upright(ax, "power / that of the lowest frequency")
    _ratio_axis(ax)
    notes_above(ax, f"{prefix}power of the feature maps",
                [f"mean over channels and all directions, frequency zero apart; {images_of(group)}"])  # fmt: skip
    return figure


def transfers(group: xr.Dataset, prefix: str) -> Figure:
    """The transfer of each block by frequency: a row with skip connection, one for the branch, a column per type."""
    known = np.isfinite(group["transfer"].transpose("block", ...).values).any(axis=(1, 2, 3))
    types = [t for t in TYPES if (known & (group["block_type"].values == t)).any()]
    paths = [p for p in PATHS if np.isfinite(group["transfer"].sel(path=p)).any()]
    figure = new_figure(2.0 + 2.6 * len(types), 4.6)[0]
    figure.clear()
    axes = figure.subplots(len(paths), len(types), sharex=True, sharey="row", squeeze=False)
    for row, path in zip(axes, paths, strict=True):
        for ax, which in zip(row, types, strict=True):
            here = group["block_type"].values == which
            transfer = group["transfer"].sel(path=path, bound="estimate").values
            _by_depth(figure, ax, group["frequency"].values, np.where(here[:, None], transfer, np.nan), bar=False)
            ax.axhline(1, color="0.3", lw=0.8, ls=":")
            if path == paths[0]:
                ax.set_title(which, fontsize="medium")
            if path == paths[-1]:
                ax.set_xlabel("frequency (pi)")
                ax.xaxis.set_major_locator(MaxNLocator(3))
        _ratio_axis(row[0])  # the row shares this axis
        label_upright(row[0], f"transfer, {WORDS[path]}")
    _depth_bar(figure, list(axes.ravel()), len(group["block"]))
    figure.suptitle(f"{prefix}power out over power in, {images_of(group)}", fontsize="medium")
    return figure


def attention(group: xr.Dataset, prefix: str) -> Figure:
    """What the attention of each block passes at frequencies other than zero, over what it passes at zero."""
    figure, ax = new_figure(6.4, 4.0)
    gain = group["gain"].values
    for i, seen in enumerate(SEEN):
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = gain[:, i, 1, 0] / gain[:, i, 0, 0]
        known = np.isfinite(ratio)
        if known.any():
            ax.plot(np.flatnonzero(known), ratio[known], **style(i), marker=MARKERS[i], markersize=4.5, label=LET[seen])
    ax.axhline(1, color="0.3", lw=0.8)
    label_upright(ax, "gain elsewhere / gain at zero")
    log_axis(ax, "y")
    block_axis(ax, group)
    legend_outside(figure, ax)
    notes_above(ax, f"{prefix}what attention lets through",
                [f"power; zero is the mean over positions; below 1 it is smoothed; {images_of(group)}"])  # fmt: skip
    return figure


def study(group: xr.Dataset, prefix: str) -> Figure:
    """The relative log amplitude of Park & Kim by depth, and along frequencies."""
    figure, ax = new_figure(6.4, 5.6)
    ax.remove()
    top, below = figure.subplots(2, 1)
    values = group["relative_log_amplitude"]
    by_type(top, group, values.sel(direction="diagonal").values)
    around = values.sel(direction="all", bound="estimate").values
    top.plot(np.arange(len(around)), around, color="0.3", lw=1, ls="--", zorder=0.9, label="all directions")
    block_axis(top, group)
    label_upright(top, "rel. ln amplitude at pi")
    notes_above(top, f"{prefix}relative ln amplitude, as Park & Kim define it",
                [f"subsampling alone raises it by ln 2 a halving of the map; {images_of(group)}"])  # fmt: skip
    legend_outside(figure, top)
    done = group["done"].values
    count = group["fold_images"].values[done].astype(float)
    diagonal = np.tensordot(count / count.sum(), group["log_diagonal"].values[done], 1)
    steps = np.arange(diagonal.shape[1])
    side = np.minimum(group["height"].values, group["width"].values)
    _by_depth(figure, below, 2 * steps / side[:, None], diagonal - diagonal[:, :1])
    below.set(xlabel="frequency along the diagonal (pi)")
    label_upright(below, "rel. ln amplitude")
    return figure


def _by_depth(figure: Figure, ax: Axes, x: np.ndarray, y: np.ndarray, *, bar: bool = True) -> None:
    for i, (a, b) in enumerate(zip(x, y, strict=True)):
        known = np.isfinite(a) & np.isfinite(b)
        if known.any():
            ax.plot(a[known], b[known], color=DEPTH(i / max(len(y) - 1, 1)), lw=1.1)
    if bar:
        _depth_bar(figure, [ax], len(y))


def _ratio_axis(ax: Axes) -> None:
    """Make the axis logarithmic if ratios range widely."""
    low, high = ax.dataLim.intervaly
    if 0 < 4 * low < high:
        log_axis(ax, "y")


def _depth_bar(figure: Figure, axes: list[Axes], count: int) -> None:
    mapped = ScalarMappable(Normalize(0, max(count - 1, 1)), DEPTH)
    figure.colorbar(mapped, ax=axes, label="block", ticks=MaxNLocator(6, integer=True))
