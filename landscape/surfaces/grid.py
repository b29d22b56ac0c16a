"""The coordinates of a surface: points per axis, and their range."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from landscape.planes.plane import Extent
from landscape.runtime.errors import UserError


def grid(points: int, low: float, high: float, marks: Sequence[float] = ()) -> np.ndarray:
    """`points` equidistant coordinates from low to high; symmetric to the bit where the range is.

    0, and each of `marks`, is exact where it is one of them up to rounding.
    """
    step = (high - low) / max(points - 1, 1)
    c = (low + high) / 2 + (np.arange(points) - (points - 1) / 2) * step
    for mark in (*marks, 0.0):
        c = np.where(np.abs(c - mark) < 1e-9 * step, mark, c)
    return c


def per_axis(points: int | Sequence[int], dims: int) -> list[int]:
    counts = [points] * dims if isinstance(points, int) else list(points)
    if len(counts) != dims or min(counts) < 1:
        raise UserError(f"points={points}: a surface needs at least 1 point per axis, and as many numbers as axes")
    return counts


def ranges_of(span: Extent, dims: int) -> list[list[float]]:
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
