"""What is marked on the contours of a surface: the centre, diverged and computed points, a trajectory, heights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from landscape.pictures.canvas import COLORS
from landscape.surfaces.topology import with_minima

TRAJECTORY = "#E8000B"
MANY_LABELS = 8


def mark_centre(surface: xr.Dataset, ax: Axes) -> None:
    """A cross on the unperturbed network, if it is within the range."""
    x, y = surface["x"].values, surface["y"].values
    if x[0] <= 0 <= x[-1] and y[0] <= 0 <= y[-1]:
        ax.plot(0, 0, "+", color="white", markersize=11, markeredgewidth=3.5, zorder=3.4)
        ax.plot(0, 0, "+", color=COLORS[1], markersize=9, markeredgewidth=2, zorder=3.5)


def mark_grid(surface: xr.Dataset, ax: Axes) -> None:
    """A point on each point of the grid that is done."""
    x, y = np.meshgrid(surface["x"], surface["y"])
    done = surface["done"].transpose("y", "x").values.astype(bool)
    ax.plot(x[done], y[done], ".", color="white", markersize=2.2, markeredgewidth=0, zorder=3, label="grid")


def mark_minima(surface: xr.Dataset, ax: Axes) -> list[str]:
    """If there are several minima inside the grid, a triangle on each, filled if the minimum is beyond the error; and a
    note on them.
    """
    found = with_minima(surface)
    if len(found.get("minimum_nll", ())) < 2:
        return []
    found = found.isel(minimum=np.flatnonzero(~found["minimum_at_edge"].values.astype(bool)))
    at, beyond = found["minimum_at"].values, found["minimum_beyond_error"].values.astype(bool)
    for some, face in ((at[beyond], "white"), (at[~beyond], "none")):
        ax.plot(*some.T, "v", markersize=5.5, markerfacecolor=face, markeredgecolor="black", markeredgewidth=2.0,
                zorder=3.2)  # fmt: skip
        ax.plot(*some.T, "v", markersize=5.5, markerfacecolor=face, markeredgecolor="white", markeredgewidth=0.7,
                zorder=3.3)  # fmt: skip
    return ["triangles: minima, filled beyond the error"] if len(at) else []


def mark_diverged(surface: xr.Dataset, quantity: str, ax: Axes) -> list[str]:
    """Hatch the cells of points that are done and not finite; return a note on them."""
    bad = (surface["done"] & ~np.isfinite(surface[quantity])).transpose("y", "x").values
    if not bad.any():
        return []
    if min(bad.shape) >= 2:
        ax.pcolor(surface["x"], surface["y"], np.where(bad, 1.0, np.nan), cmap=ListedColormap(["white"]), hatch="////",
                  edgecolor="0.5", linewidth=0, shading="nearest", zorder=0.5)  # fmt: skip
    return [f"hatched: diverged, {bad.sum()} points"]


def unsettled(surface: xr.Dataset, *ends: str) -> xr.DataArray:
    """The points where an extreme eigenvalue that was computed (`ends`: high, low) has not converged, or might not be
    the extreme one; none for a map that does not say.
    """
    bad = xr.zeros_like(surface["done"], bool)
    for name in (*(f"converged_{end}" for end in ends), "complete"):
        if name in surface:
            bad = bad | ~surface[name].astype(bool)
    computed = surface["done"].astype(bool)
    if "interpolated" in surface:
        computed = computed & ~surface["interpolated"].astype(bool)
    return bad & computed


def mark_unsettled(surface: xr.Dataset, bad: xr.DataArray, ax: Axes) -> None:
    """Hatch these cells of a map so that its colours can still be seen."""
    cells = bad.transpose("y", "x").values
    if cells.any():
        ax.pcolor(surface["x"], surface["y"], np.where(cells, 1.0, np.nan), cmap=ListedColormap(["none"]), hatch="////",
                  edgecolor="0.3", linewidth=0, shading="nearest", zorder=2)  # fmt: skip


def mark_interpolated(surface: xr.Dataset, ax: Axes) -> list[str]:
    """If points were filled in, a dot on each point that was computed; and a note on them."""
    if "interpolated" not in surface or not surface["interpolated"].any():
        return []
    computed = (surface["done"] & ~surface["interpolated"].astype(bool)).transpose("y", "x").values
    x, y = np.meshgrid(surface["x"], surface["y"])
    ax.plot(x[computed], y[computed], ".", color="black", markersize=2.4, markeredgewidth=0.3, markeredgecolor="white",
            zorder=3, label="computed")  # fmt: skip
    text = f"dots: the {computed.sum()} points computed, others interpolated"
    if "nll_error" in surface:
        error = surface["nll_error"].values[surface["interpolated"].values.astype(bool)]
        if np.isfinite(error).any():
            text += f", error up to {np.nanmax(error[np.isfinite(error)]):.2g}"
    return [text]


Box = tuple[float, float, float, float]  # left, bottom, right, top, as shares of the axes


def mark_trajectory(surface: xr.Dataset, ax: Axes) -> tuple[list[Box], list[str]]:
    """Draw the trajectory, or the checkpoints that the plane goes through; return what is covered by it, and notes."""
    if "trajectory" not in surface or surface.sizes["checkpoint"] == 0:
        return [], []
    path = surface["trajectory"].transpose("checkpoint", "axis").values[:, :2]
    apart = surface.attrs.get("config", {}).get("plane", {}).get("directions") == "checkpoints"
    look: dict[str, Any] = {"color": TRAJECTORY, "path_effects": [withStroke(linewidth=3, foreground="white")]}
    if not apart:
        ax.plot(*path.T, "-", lw=1.3, zorder=4, label="trajectory", **look)
    ax.plot(*(path if apart else path[1:-1]).T, "o", color=TRAJECTORY, markersize=6 if apart else 3.5, zorder=5,
            markeredgecolor="white", markeredgewidth=0.5)  # fmt: skip
    for at, marker, size, name in () if apart else ((path[0], "o", 6, "start"), (path[-1], "*", 11, "end")):
        ax.plot(*at, marker, color="white" if name == "start" else TRAJECTORY, markersize=size, label=name,
                markeredgecolor=TRAJECTORY if name == "start" else "white", markeredgewidth=1, zorder=7)  # fmt: skip
    low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
    inside = ((path >= low) & (path <= high)).all(axis=1)
    names = [str(name) for name in surface["checkpoint"].values] if "checkpoint" in surface.coords else []
    taken = _spread_labels(ax, (path - low) / (high - low), _named(names, len(path), apart))
    notes = ["dots: checkpoints" if apart else "line: trajectory, from start (circle) to end (star)"]
    if "off_plane" in surface and not apart:
        notes.append(f"up to {float(surface['off_plane'].max()):.3g} off the plane")
    if not inside.all():
        notes.append(f"{(~inside).sum()} of {len(path)} checkpoints beyond the range")
    return taken, notes


def _named(names: list[str], count: int, apart: bool) -> list[str]:
    """What stands beside each point of a path: its name, if these are few; and for a trajectory, its start and end."""
    few = names if 0 < len(names) <= MANY_LABELS else [""] * count
    if apart or count < 2:
        return few
    first, last = (f"{name} ({word})" if name else word for name, word in ((few[0], "start"), (few[-1], "end")))
    return [first, *few[1:-1], last]


def _spread_labels(ax: Axes, path: np.ndarray, names: Sequence[str]) -> list[Box]:
    """A label beside each point of a path, in fractions of the axes, where neither the path nor another label is."""
    steps = np.linspace(0, 1, 25)[:, None]
    walked = np.concatenate([path[:1], *(a + (b - a) * steps for a, b in pairwise(path))])
    taken: list[Box] = [(float(x), float(y), float(x), float(y)) for x, y in walked]
    taken += [(float(x) - 0.03, float(y) - 0.03, float(x) + 0.03, float(y) + 0.03) for x, y in path[[0, -1]]]
    for i, ((x, y), name) in enumerate(zip(path, names, strict=False)):
        width, height, gap = 0.017 * len(name) + 0.01, 0.04, 0.035 if i in (0, len(path) - 1) else 0.02
        corners = [
            (x + sx, y + sy) for sx in (gap, -gap - width, -width / 2) for sy in (gap, -gap - height, -height / 2)
        ]
        if not name:
            continue
        boxes = [(left, bottom, left + width, bottom + height) for left, bottom in corners]
        fitting = [box for box in boxes if min(box) >= 0 and max(box) <= 1 and not any(_meet(box, b) for b in taken)]
        if fitting:
            box = fitting[0]
            taken.append(box)
            ax.text(box[0], box[1] + height / 2, name, transform=ax.transAxes, fontsize=7, va="center", zorder=8,
                    path_effects=[withStroke(linewidth=2, foreground="white")])  # fmt: skip
    return taken


def _meet(a: Box, b: Box) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def thin_out(ax: Axes, heights: Sequence[Text], taken: Sequence[Box]) -> None:
    """Keep the heights on the contours, except those that the frame cuts or that other text covers."""
    low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
    kept = [(-0.1, -0.1, 0.0, 1.1), (1.0, -0.1, 1.1, 1.1), (0.0, -0.1, 1.0, 0.0), (0.0, 1.0, 1.0, 1.1), *taken]
    if (low <= 0).all() and (high >= 0).all():
        kept.append((*(-low / (high - low) - 0.03), *(-low / (high - low) + 0.03)))
    for text in heights:
        x, y = (np.array(text.get_position()) - low) / (high - low)
        reach = 0.008 * len(text.get_text()) + 0.012  # they are rotated along their line
        box = (x - reach, y - reach, x + reach, y + reach)
        if any(_meet(box, b) for b in kept):
            text.remove()
        else:
            kept.append(box)
            text.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
