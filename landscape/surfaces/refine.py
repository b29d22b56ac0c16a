"""The same picture from fewer points: a grid is refined where interpolation misses, and interpolated elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy
import xarray as xr
from numpy.typing import NDArray

from landscape.surfaces.grid import lattice, strides

Mask = NDArray[np.bool_]


NEIGHBOURS = 30  # computed points that a filled-in one is interpolated from
GAIN = 0.5  # each level halves the distances, and is assumed to at least halve the misses of interpolation
SAFETY = 1.5  # the reported error, in such misses: one covers 94 to 100 % of the points of random smooth functions


def refine(result: xr.Dataset, compute: Callable[[Mask], None], tolerance: float) -> None:
    """Compute some points of a surface, level by level, and fill in the others, in place.

    Each level halves the distance between points; the first two are computed whole. A point of a finer level is
    computed if the interpolation at a point near it (within two of its steps) on the level before missed the computed
    value by more than twice the larger of `tolerance` and nll_sem, or if the value there is not finite. All other
    points are filled in from the computed points nearest to them, by the cubic radial-basis interpolant of sqrt(nll),
    which is closer to a plane than nll is. Their nll_error comes from the misses near them, which are larger than those
    of the finer level wherever the surface is smooth on its scale.

    Where nll_sem is the larger of the two, above all on steep walls, `tolerance` is not kept. To keep it there would
    take twice the points (for a ResNet-20 on 256 examples, 51 x 51, tolerance 0.1: 64 % of them instead of 31 %) for
    detail below the statistical error. More examples lower nll_sem, and with it the error that is left to
    interpolation.

    Parameters
    ----------
    result
        nll, nll_sem, done, interpolated, nll_error and any other variables on the grid, which are filled in the same
        way.
    compute
        A function that computes, and marks as done, the points of a mask (of the grid's shape) that are not done yet.
        Which points are chosen depends on computed values alone, so that an interrupted refinement continues as it
        would have. If `compute` leaves points undone because its budget is spent, nothing is filled in.
    tolerance
        The error in nll that is accepted at points filled in.
    """
    shape = result["done"].shape
    stride = max(strides(shape), default=1)
    known = lattice(shape, stride)
    compute(known)
    if not result["done"].values[known].all():
        return
    error = np.full(shape, np.nan)  # at computed points the miss, at others the miss expected from those near
    before: Mask | None = None
    while stride > 1:
        stride //= 2
        level = lattice(shape, stride) & ~lattice(shape, 2 * stride)
        todo = level
        if before is not None:
            expected = _largest_around(np.where(before, error, -np.inf), 2 * stride)
            error[level] = expected[level]
            todo = level & ~(GAIN * expected <= np.maximum(tolerance, _nearest(known, result["nll_sem"].values)))
        predicted = _interpolated(known, _root(result["nll"].values, known), todo)
        compute(todo)
        if not result["done"].values[todo].all():
            return
        found = result["nll"].values[todo]
        error[todo] = np.where(
            np.isfinite(found), np.abs(_unroot(predicted, result["nll"].values, known) - found), np.inf
        )
        known |= todo
        before = level
    _fill(result, known, error)


def _largest_around(values: np.ndarray, reach: int) -> np.ndarray:
    padded = np.pad(values, reach, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1,) * values.ndim)
    return windows.max(axis=tuple(range(values.ndim, 2 * values.ndim)))


def _nearest(known: Mask, values: np.ndarray) -> np.ndarray:
    """At every point, the value of the nearest computed one; 0 if that is not finite."""
    _, nearest = scipy.spatial.KDTree(np.argwhere(known)).query(np.argwhere(np.ones(known.shape, bool)))
    return np.nan_to_num(values[known], posinf=0.0)[nearest].reshape(known.shape)


def _root(nll: np.ndarray, known: Mask) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.sqrt(nll - _floor(nll, known))


def _unroot(root: np.ndarray, nll: np.ndarray, known: Mask) -> np.ndarray:
    return np.sign(root) * root**2 + _floor(nll, known)


def _floor(nll: np.ndarray, known: Mask) -> float:
    """0, or the least computed value if that is negative, as the user's own loss may be."""
    return float(np.min(nll[known], where=np.isfinite(nll[known]), initial=0.0))


def _interpolated(known: Mask, values: np.ndarray, at: Mask) -> np.ndarray:
    """`values` (..., *grid) interpolated at the points of `at`, from the known points where they are finite."""
    columns = values.reshape(-1, *known.shape)
    usable = known & np.isfinite(columns).all(axis=0)
    axes = [axis for axis, n in enumerate(known.shape) if n > 1]
    from_, to = np.argwhere(usable)[:, axes], np.argwhere(at)[:, axes]
    out = np.full((len(columns), len(to)), np.nan)
    if len(to) and len(from_) > len(axes):
        try:
            spline = scipy.interpolate.RBFInterpolator(
                from_, columns[:, usable].T, kernel="cubic", neighbors=min(NEIGHBOURS, len(from_))
            )
            out = spline(to).T
        except np.linalg.LinAlgError:  # the neighbours lie on a line, beside a diverged region
            pass
    return out.reshape(*values.shape[: values.ndim - known.ndim], -1)


def _fill(result: xr.Dataset, known: Mask, error: np.ndarray) -> None:
    rest = ~known
    result["nll_error"].values[:] = np.where(rest, SAFETY * error, 0.0)
    dims = result["done"].dims
    if rest.any():
        nll = result["nll"].values.copy()
        for name in map(str, result.data_vars):
            variable = result[name]
            if name in ("done", "interpolated", "nll_error") or variable.dims[-len(dims) :] != dims:
                continue
            if variable.dtype == bool:  # flags of computed points are not interpolated
                continue
            if name == "nll_fold":
                folds = np.stack([_root(fold, known) for fold in variable.values])
                filled = np.stack(
                    [
                        _unroot(f, fold, known)
                        for f, fold in zip(_interpolated(known, folds, rest), variable.values, strict=True)
                    ]
                )
            elif name == "nll":
                filled = _unroot(_interpolated(known, _root(nll, known), rest), nll, known)
            else:
                filled = _interpolated(known, variable.values, rest)
            if name == "accuracy":
                filled = filled.clip(0, 1)
            elif name.endswith("_sem") or name.startswith("residual"):
                filled = filled.clip(0)
            variable.values[..., rest] = filled
    result["interpolated"].values[:] = rest
    result["done"].values[:] = True
