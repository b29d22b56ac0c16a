"""Measures of heights over a grid, each with the bounds between which the spacing of the grid leaves it open.

`landscape.surfaces.measures.measure` says what each one is. The heights z have one dimension for each of the axes. A
height is inf where the loss diverged, and NaN where it is not computed.
"""

from __future__ import annotations

import numpy as np
import scipy

DIRECTIONS = 72  # rays in a plane: every 5 degrees, the axes and diagonals among them
ROUNDING = 16 * np.finfo(float).eps  # relative error of a difference of heights

Bounded = tuple[float, float, float]  # estimate, low and high, as `measure` explains them
UNKNOWN: Bounded = (np.nan, np.nan, np.nan)


def sharpness(z: np.ndarray, axes: list[np.ndarray], radius: float) -> Bounded:
    """How far the heights within `radius` rise above the centre; high is over the cells that the disc touches."""
    centre = _at(z, axes, np.zeros((len(axes), 1)))[0]
    slack = radius * (1 + 1e-9)
    if not np.isfinite(centre) or any(
        axis[0] * (1 + 1e-9) > -radius or axis[-1] * (1 + 1e-9) < radius for axis in axes
    ):
        return UNKNOWN
    near = z[_distance([np.abs(axis) for axis in axes]) <= slack]
    rise = float(near.max() - centre) if near.size else np.nan  # max keeps NaN
    if not _holds_centre(axes):
        return rise, np.nan, np.nan
    cell = _distance([np.maximum(np.maximum(axis[:-1], -axis[1:]), 0) for axis in axes])
    corners = np.lib.stride_tricks.sliding_window_view(z, (2,) * z.ndim)[cell < radius * (1 - 1e-9)]
    return rise, rise, float(corners.max() - centre) if corners.size else np.nan


def _holds_centre(axes: list[np.ndarray]) -> bool:
    return all(np.abs(axis).min() <= 1e-9 * np.ptp(axis) for axis in axes)


def _distance(along: list[np.ndarray]) -> np.ndarray:
    return np.sqrt(sum(a**2 for a in np.meshgrid(*along, indexing="ij")))


def convexity(z: np.ndarray, axes: list[np.ndarray]) -> tuple[Bounded, Bounded, Bounded]:
    """The share of positive curvature, the mean negative share of the curvature, and the share of area left out."""
    if np.isnan(z).any() or min(z.shape) < 3:
        return UNKNOWN, UNKNOWN, UNKNOWN
    neighbours = np.lib.stride_tricks.sliding_window_view(z, (3,) * z.ndim).reshape(*(n - 2 for n in z.shape), -1)
    usable = np.isfinite(neighbours).all(axis=-1)
    area = np.ones(usable.shape)
    for k, axis in enumerate(axes):
        area *= _along((axis[2:] - axis[:-2]) / 2, k, z.ndim)
    left_out = (float(area[~usable].sum() / area.sum()), np.nan, np.nan)
    if not usable.any():
        return UNKNOWN, UNKNOWN, left_out
    f = np.where(np.isfinite(z), z, 0.0)
    inner = (slice(1, -1),) * z.ndim
    # how large rounding can make a second difference: of the values and, where the surface is steep, of the coordinates
    around = np.where(usable[..., None], neighbours, 0.0)
    amplitude, per_step = np.abs(around).max(axis=-1), np.zeros(usable.shape)
    diagonal = []
    for k, axis in enumerate(axes):
        h = np.diff(axis)
        slopes = np.diff(f, axis=k) / _along(h, k, z.ndim)
        second = np.diff(slopes, axis=k) * _along(2 / (h[1:] + h[:-1]), k, z.ndim)
        diagonal.append(second[tuple(slice(None) if i == k else s for i, s in enumerate(inner))])
        step = np.minimum(h[1:], h[:-1])
        amplitude = amplitude + np.ptp(around, axis=-1) * _along(np.abs(axis[1:-1]) / step, k, z.ndim)
        per_step = per_step + _along(1 / step**2, k, z.ndim)
    noise = ROUNDING * amplitude * per_step
    if z.ndim == 1:
        low = high = diagonal[0]
    else:
        mixed = _slope(_slope(f, axes[0], 0), axes[1], 1)
        mean, half = (diagonal[0] + diagonal[1]) / 2, (diagonal[0] - diagonal[1]) / 2
        root = np.hypot(half, mixed)
        low, high = mean - root, mean + root
    low, high = (np.where(np.abs(e) > noise, e, 0.0) for e in (low, high))  # the sign of rounding means nothing
    strongest = np.maximum(np.abs(low), np.abs(high))
    negative = np.maximum(-low, 0) / np.where(strongest > 0, strongest, 1.0)
    weight = np.where(usable, area, 0.0) / area[usable].sum()
    return _bounded((low > 0).astype(float), usable, weight), _bounded(negative, usable, weight), left_out


def _bounded(values: np.ndarray, usable: np.ndarray, weight: np.ndarray) -> Bounded:
    """The weighted means of the values, and of the least and the largest value among each point and its neighbours."""
    least = scipy.ndimage.minimum_filter(np.where(usable, values, np.inf), 3, mode="nearest")
    largest = scipy.ndimage.maximum_filter(np.where(usable, values, -np.inf), 3, mode="nearest")
    means = [float((np.where(usable, v, 0.0) * weight).sum()) for v in (values, least, largest)]
    return means[0], means[1], means[2]


def _along(values: np.ndarray, k: int, ndim: int) -> np.ndarray:
    return values.reshape([-1 if i == k else 1 for i in range(ndim)])


def _slope(f: np.ndarray, axis: np.ndarray, k: int) -> np.ndarray:
    """The first derivative along axis k at interior points, exact for parabolas on any spacing."""
    h = np.diff(axis)
    slopes = np.diff(f, axis=k) / _along(h, k, f.ndim)
    before, after = (np.take(slopes, range(*ends), axis=k) for ends in ((0, len(h) - 1), (1, len(h))))
    share = _along(h[:-1] / (h[1:] + h[:-1]), k, f.ndim)
    return before * (1 - share) + after * share


def width(z: np.ndarray, axes: list[np.ndarray]) -> tuple[Bounded, Bounded, Bounded]:
    """Width, share of rays that end before the loss has doubled, and spread over the rays, all read off the grid."""
    centre = _at(z, axes, np.zeros((len(axes), 1)))[0]
    if not (_holds_centre(axes) and np.isfinite(centre) and centre > 0):
        return UNKNOWN, UNKNOWN, UNKNOWN
    if len(axes) == 1:
        rays = np.array([[1.0], [-1.0]])
    else:
        angle = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
        rays = np.round(np.stack([np.sin(angle), np.cos(angle)], axis=1), 15)
    reached: list[bool] = []
    distances: list[Bounded] = []
    for ray in rays:
        crossings = [axis / u for axis, u in zip(axes, ray, strict=True) if u != 0]
        end = min(c.max() for c in crossings)
        if end <= 0:
            continue
        r = np.unique(np.concatenate([[0.0], *(c[(c > 0) & (c <= end)] for c in crossings)]))
        along = _at(z, axes, ray[:, None] * r)
        passed = np.flatnonzero(~(along < 2 * centre))
        reached.append(passed.size > 0)
        if not passed.size:
            distances.append((end, end, end))
            continue
        i = int(passed[0])
        if np.isnan(along[i]):
            return UNKNOWN, UNKNOWN, UNKNOWN
        share = (2 * centre - along[i - 1]) / (along[i] - along[i - 1]) if np.isfinite(along[i]) else 1.0
        distances.append((r[i - 1] + share * (r[i] - r[i - 1]), r[i - 1], r[i]))
    if not reached:
        return UNKNOWN, UNKNOWN, UNKNOWN
    width, low, high = np.mean(distances, axis=0) if any(reached) else UNKNOWN
    spread = float(np.std([d for d, _, _ in distances], ddof=1)) if len(distances) > 1 else np.nan
    return (
        (float(width), float(low), float(high)),
        (float(1 - np.mean(reached)), np.nan, np.nan),
        (spread, np.nan, np.nan),
    )


def barrier(z: np.ndarray, x: np.ndarray, line: bool) -> Bounded:
    """How far the loss rises, from x = 0 to 1, above the straight line between its values there."""
    if not line or not {0.0, 1.0} <= set(x):
        return UNKNOWN
    between = (x >= 0) & (x <= 1)
    x, z = x[between], z[between]
    if np.isnan(z).any() or not np.isfinite(z[[0, -1]]).all():
        return UNKNOWN
    above = z - ((1 - x) * z[0] + x * z[-1])
    i = int(np.argmax(above))
    top = float(above[i])
    if i in (0, len(x) - 1) or not np.isfinite(above[i - 1 : i + 2]).all():
        return max(top, 0.0), max(top, 0.0), max(top, 0.0) if np.isfinite(top) else np.nan
    a, b, _ = np.polyfit(x[i - 1 : i + 2] - x[i], above[i - 1 : i + 2] - top, 2)
    return top, top, top + float(b**2 / (-4 * a)) if a < 0 else top


def _at(z: np.ndarray, axes: list[np.ndarray], points: np.ndarray) -> np.ndarray:
    """z interpolated (bi)linearly at points (dimension, n); NaN outside. A neighbour of weight 0 may be inf or NaN."""
    inside = np.ones(points.shape[1], bool)
    total = np.zeros(points.shape[1])
    corners: list[list[tuple[np.ndarray, np.ndarray]]] = []
    for axis, p in zip(axes, points, strict=True):
        slack = 1e-9 * max(float(np.ptp(axis)), abs(float(axis[0])), 1e-300)
        inside &= (p >= axis[0] - slack) & (p <= axis[-1] + slack)
        i = np.clip(np.searchsorted(axis, p, side="right") - 1, 0, max(len(axis) - 2, 0))
        step = axis[i + 1] - axis[i] if len(axis) > 1 else np.ones(len(p))
        share = np.clip((p - axis[i]) / step, 0, 1)
        share = np.where(share < 1e-9, 0.0, np.where(share > 1 - 1e-9, 1.0, share))
        corners.append([(i, 1 - share), (np.minimum(i + 1, len(axis) - 1), share)])
    for corner in np.ndindex(*(2,) * len(axes)):
        index = tuple(corners[k][c][0] for k, c in enumerate(corner))
        weight = np.prod([corners[k][c][1] for k, c in enumerate(corner)], axis=0)
        total += np.where(weight > 0, np.where(weight > 0, z[index], 0.0) * weight, 0.0)
    return np.where(inside, total, np.nan)
