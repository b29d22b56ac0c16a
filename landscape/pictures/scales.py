"""The heights that surfaces share: where a scale ends, and where it is logarithmic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib import rcParams
from matplotlib.colors import AsinhNorm, Normalize
from matplotlib.ticker import MaxNLocator

from landscape.runtime.errors import UserError

NEAREST = 25  # points of a grid: those within two steps of the lowest


@dataclass(frozen=True)
class Scale:
    """The values that share one colour scale: contour levels, and whether values above the last share its colour.

    linear: where above 0, the scale is asinh(value / linear): linear up to it, and logarithmic beyond.
    """

    levels: np.ndarray
    cut: bool
    linear: float = 0.0

    @property
    def log(self) -> bool:
        return self.linear > 0

    def height(self, values: Any) -> Any:
        return np.arcsinh(np.asarray(values) / self.linear) if self.log else values

    def label(self, quantity: str) -> str:
        return f"{quantity}\nasinh scale: linear to {self.linear:.2g}, logarithmic beyond" if self.log else quantity

    @property
    def ceiling(self) -> float:
        return float(self.levels[-1])

    @property
    def extend(self) -> Literal["neither", "max"]:
        return "max" if self.cut else "neither"

    @property
    def norm(self) -> Normalize:
        ends = float(self.levels[0]), self.ceiling
        return AsinhNorm(self.linear, *ends) if self.log else Normalize(*ends)


def surface_colors() -> str:
    """The colour map of one kind of quantity, heights: viridis, or that of the user's matplotlib style."""
    return str(rcParams["image.cmap"])


def has_walls(quantity: str) -> bool:
    return "accuracy" not in quantity  # bounded: nothing to cut


def common_scale(
    values: Sequence[np.ndarray],
    levels: int = 16,
    *,
    walls: bool = True,
    error: float = 0.0,
    limits: tuple[float, float] | None = None,
) -> Scale | None:
    """One scale for all arrays, None where nothing is finite: walls would hide the floor, so it ends at
    floor + 4 (median - floor) of each array, whichever is highest. Without walls it does not.

    Where that spans more than two decades above 0, it is that of asinh, in steps of 1, 2, 5. It is linear up to what
    NEAREST points lie below, or one in twelve of a small grid: a logarithm would make a needle of the few that a grid
    has near a minimum, as deep as chance has put one; and up to twice `error`, the standard error at the lowest. Where
    less than a factor of 20 lies beyond, all of it is linear.

    limits: the user's own range, which is linear.
    """
    if limits is not None:
        beyond = any((z[np.isfinite(z)] > limits[1]).any() for z in values)
        return Scale(np.linspace(*limits, levels + 1), beyond)
    finite = [z[np.isfinite(z)] for z in values if np.isfinite(z).any()]
    if not finite:
        return None
    floor = min(float(z.min()) for z in finite)
    highest = max(float(z.max()) for z in finite)
    ceiling = max(float(z.min() + 4 * (np.median(z) - z.min())) for z in finite)
    least = 1e-9 * max(abs(floor), 1e-3)
    cut = walls and highest > ceiling + least
    end = max(ceiling if cut else highest, floor + least)
    resolved = max(float(np.sort(z)[max(1, min(NEAREST, z.size // 12)) - 1]) for z in finite)
    linear = max(resolved, 2 * error)
    if walls and floor > 0 and end > 100 * floor and end > 20 * linear:
        decades = np.arange(np.floor(np.log10(linear)), np.ceil(np.log10(end)) + 1)
        steps = np.outer(10.0**decades, [1, 2, 5]).ravel() if len(decades) <= levels // 2 else 10.0**decades
        first, last = np.searchsorted(steps, linear, side="right") - 1, np.searchsorted(steps, end)
        below = [0.0] if steps[first] > floor else []
        return Scale(np.array([*below, *steps[first : last + 1]]), cut, linear)
    return Scale(np.asarray(MaxNLocator(levels).tick_values(floor, end)), cut)


def values_of(surface: xr.Dataset, quantity: str) -> np.ndarray:
    """(y, x), NaN where not finite."""
    if quantity not in surface:
        known = [str(name) for name, z in surface.data_vars.items() if z.dims == surface["done"].dims]
        raise UserError(f"the surface has no {quantity!r}; it has {', '.join(known)}")
    z = surface[quantity].transpose("y", "x").values
    return np.where(np.isfinite(z), z, np.nan)
