"""The scale of heights that surfaces share: where it ends, and where it is logarithmic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib import rcParams
from matplotlib.colors import FuncNorm, Normalize
from matplotlib.ticker import MaxNLocator

from landscape.runtime.errors import UserError

NEAREST = 25  # points of a grid: those within two steps of the lowest


@dataclass(frozen=True)
class Scale:
    """The values that share one colour scale: contour levels, and whether values above the last share its colour.

    linear: if above 0, the scale is asinh((value - floor) / linear): linear up to about this, and logarithmic beyond.
    """

    levels: np.ndarray
    cut: bool
    linear: float = 0.0
    floor: float = 0.0

    @property
    def log(self) -> bool:
        return self.linear > 0

    def height(self, values: Any) -> Any:
        """The heights at which values are drawn."""
        return np.arcsinh((np.asarray(values) - self.floor) / self.linear) if self.log else values

    def value(self, heights: Any) -> Any:
        """The values that are drawn at these heights."""
        return self.floor + self.linear * np.sinh(np.asarray(heights)) if self.log else heights

    def label(self, quantity: str) -> str:
        """The label: what is drawn, and on which scale."""
        return f"{quantity} (log above {self.floor + self.linear:.2g})" if self.log else quantity

    @property
    def ceiling(self) -> float:
        return float(self.levels[-1])

    @property
    def extend(self) -> Literal["neither", "max"]:
        return "max" if self.cut else "neither"

    @property
    def norm(self) -> Normalize:
        ends = float(self.levels[0]), self.ceiling
        return FuncNorm((self.height, self.value), *ends) if self.log else Normalize(*ends)

    @property
    def ticks(self) -> np.ndarray:
        """Some of the levels, including the last."""
        every = max(1, (len(self.levels) - 1) // 6) if self.log else 2
        return self.levels[::-every][::-1]


def surface_colors() -> str:
    """The colour map of one kind of quantity, heights: viridis, or that of the user's matplotlib style."""
    return str(rcParams["image.cmap"])


def has_walls(quantity: str) -> bool:
    """Whether a quantity may rise without bound, so that a scale has to be cut."""
    return "accuracy" not in quantity


def common_scale(
    values: Sequence[np.ndarray],
    levels: int = 16,
    *,
    walls: bool = True,
    error: float = 0.0,
    limits: tuple[float, float] | None = None,
    log: bool = False,
) -> Scale | None:
    """One scale for all arrays; None if nothing is finite.

    Walls would hide the floor, so a linear scale ends where the minima of all can be seen: at the lowest of the arrays'
    own ends, floor + min(4 (median - floor), 4 / f (near - floor)), where near is the value below which a share f of
    the points lies, NEAREST of them or one in twelve of a small grid (a paraboloid spans 1 / f, and half as much more
    at its corners); but no lower than 8 times the near part of the steepest needs. Without walls it ends at the highest
    value.

    log: asinh above the floor, in steps of 1, 2, 5, up to the highest floor + 4 (median - floor). It is linear up to
    near, or up to twice `error`, the standard error at the lowest, if that is more: a logarithm would turn the few
    points that a grid has near a minimum into a needle, whose depth is a matter of chance.

    limits: the user's own range.
    """
    finite = [z[np.isfinite(z)] for z in values if np.isfinite(z).any()]
    if not finite:
        return None
    floors = np.array([z.min() for z in finite])
    middle = np.array([np.median(z) for z in finite]) - floors
    count = np.array([max(1, min(NEAREST, z.size // 12)) for z in finite])
    near = np.array([np.sort(z)[n - 1] for z, n in zip(finite, count, strict=True)]) - floors
    share = np.maximum(count - 1, 1) / [z.size for z in finite]
    floor, highest = float(floors.min()), max(float(z.max()) for z in finite)
    least = 1e-9 * max(abs(floor), 1e-3)
    own = floors + np.where(near > 0, np.minimum(4 * middle, 4 / share * near), 4 * middle)
    end = max(float(own.min()), float((floors + 8 * near).max())) if not log else float((floors + 4 * middle).max())
    cut = walls and highest > end + least
    low, high = limits if limits is not None else (floor, max(end if cut else highest, floor + least))
    cut = highest > high if limits is not None else cut
    linear = max(float(near.max()), 2 * error, 1e-6 * (high - low))
    if log and walls and high - floor > 2 * linear:
        decades = np.arange(np.floor(np.log10(linear)), np.ceil(np.log10(high - floor)) + 1)
        steps = floor + np.outer(10.0**decades, [1, 2, 5]).ravel()
        inside = steps[(steps > floor + 0.5 * linear) & (steps < high - 1e-9 * abs(high))]
        return Scale(np.array([low, *inside[inside > low], high]), cut, linear, floor)
    return Scale(np.linspace(low, high, levels + 1) if limits else _round_levels(low, high, levels), cut)


def _round_levels(low: float, high: float, levels: int) -> np.ndarray:
    """Levels from below `low` to above `high`; every other one, and so the first and the last, is a round number."""
    round_ones = MaxNLocator(levels // 2, steps=[1, 2, 5, 10]).tick_values(low, high)
    return np.linspace(round_ones[0], round_ones[-1], 2 * len(round_ones) - 1)


def values_of(surface: xr.Dataset, quantity: str) -> np.ndarray:
    """(y, x), NaN where not finite."""
    if quantity not in surface:
        known = [str(name) for name, z in surface.data_vars.items() if z.dims == surface["done"].dims]
        raise UserError(f"the surface has no {quantity!r}; it has {', '.join(known)}")
    z = surface[quantity].transpose("y", "x").values
    return np.where(np.isfinite(z), z, np.nan)
