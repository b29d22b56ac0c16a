"""The coordinates of a surface: points per axis, and their range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from landscape.runtime.errors import UserError

if TYPE_CHECKING:  # planes import torch, and a grid does not
    from landscape.planes.plane import Extent

COARSEST = 5  # the least number of intervals of the longest axis on the coarsest level


def grid(points: int, low: float, high: float, marks: Sequence[float] = ()) -> np.ndarray:
    """`points` equidistant coordinates from low to high, exactly symmetric if the range is.

    0 and each of `marks` are exact if they are among the coordinates up to rounding.
    """
    step = (high - low) / max(points - 1, 1)
    c = (low + high) / 2 + (np.arange(points) - (points - 1) / 2) * step
    for mark in (*marks, 0.0):
        c = np.where(np.abs(c - mark) < 1e-9 * step, mark, c)
    return c


def per_axis(points: int | Sequence[int], dims: int) -> list[int]:
    """The number of points along each axis. Raises UserError unless there is one number, or one for each axis."""
    counts = [points] * dims if isinstance(points, int) else list(points)
    if len(counts) != dims or min(counts) < 1:
        raise UserError(f"points={points}: a surface needs at least 1 point per axis, and as many numbers as axes")
    return counts


def ranges_of(span: Extent, dims: int) -> list[list[float]]:
    """(low, high) of each axis. Raises UserError for a range that is empty, not finite, or of other axes."""
    try:
        values = np.array(span, float)
    except ValueError:  # ranges of different lengths
        values = np.full(3, np.nan)
    if values.ndim == 0:
        if not (np.isfinite(values) and values > 0):
            raise UserError(f"span={span} must be a finite number above 0, or a range of two")
        return [[-float(values), float(values)]] * dims
    ranges = np.broadcast_to(values, (dims, 2)) if values.shape in ((2,), (dims, 2)) else None
    if ranges is None or not (np.isfinite(ranges).all() and (ranges[:, 0] < ranges[:, 1]).all()):
        raise UserError(f"span={span} is not a range (low, high) with low below high, or one for each of {dims} axes")
    return ranges.tolist()


def strides(shape: Sequence[int]) -> list[int]:
    """The distances between points on the levels of a grid above the grid itself, from the finest to the coarsest."""
    found, stride = [], 1
    while (max(shape) - 1) // (2 * stride) >= COARSEST:
        stride *= 2
        found.append(stride)
    return found


def along(n: int, stride: int) -> np.ndarray:
    """Every stride-th of n points counted from the middle one, and both ends.

    A point nearer to an end than half a stride is left out. The points of a stride are among those of half that stride.
    """
    inner = np.arange((n - 1) // 2 % stride, n, stride)
    inner = inner[(2 * inner >= stride) & (2 * (n - 1 - inner) >= stride)]
    return np.unique([0, *inner, n - 1])


def lattice(shape: Sequence[int], stride: int) -> np.ndarray:
    """A mask of the points of a grid that are on the level of this stride."""
    mask = np.zeros(tuple(shape), bool)
    mask[np.ix_(*(along(n, stride) for n in shape))] = True
    return mask


def coarse_to_fine(shape: Sequence[int]) -> np.ndarray:
    """The rank of each point of a grid by levels: 0 for the middle, 1 for the rest of the coarsest level, and so on."""
    levels = [*reversed(strides(shape)), 1]
    order = np.full(tuple(shape), len(levels))
    for place, stride in reversed(list(enumerate(levels, 1))):
        order[lattice(shape, stride)] = place
    order[tuple((n - 1) // 2 for n in shape)] = 0
    return order
