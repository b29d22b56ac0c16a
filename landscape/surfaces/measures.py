"""Numbers that sum up a surface, each with its standard error over examples."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from landscape.objective.clusters import jackknife_sem, standard_error
from landscape.runtime.errors import UserError
from landscape.surfaces import heights

QUANTITIES = (
    "sharpness", "positive_curvature", "negative_curvature", "undefined_curvature", "width", "width_censored",
    "width_spread", "barrier",
)  # fmt: skip
MEASURABLE = ("nll", "loss")
BOUNDS = ("estimate", "sem", "low", "high")
LEAST_WITHIN = 3  # points that a sharpness needs within the radius, along each axis and on each side of the centre
LEAST_INTERIOR = 3  # interior points that a share of curvature needs along each axis
COARSEST = 0.5  # how wide the bounds of a width may be apart, as a share of the width


def measure(surface: xr.Dataset, *, radius: float = 0.5, quantity: str = "nll") -> xr.Dataset:
    """Sharpness, convexity and width of a `surface` group of one or two dimensions, and the barrier along a line.

    Each measure has an estimate, its standard error `sem`, and the bounds `low` and `high`, between which the spacing
    of the grid leaves its value open. The centre is the unperturbed network, at (0, 0); the loss is the `quantity`
    asked for.

    sharpness
        The largest loss of the grid points within `radius` of the centre, minus the loss at the centre: eq. 3 of Keskar
        et al. 2017 (arXiv:1609.04836), not divided by 1 + loss. In words it is "in-plane sharpness", because it does
        not consider directions off the plane, which may be far worse (`landscape.analyses.sharpness` does). It is inf
        if one of these points diverged. It is NaN if the range ends before the radius, or if on some side of the centre
        an axis has fewer than LEAST_WITHIN points within the radius. low is the same rise, but is given even if the
        points are too few; high also counts the corners of every cell that the disc of this radius touches. For a
        convex loss, the true value over the whole disc lies between them. If the centre is not a grid point, its loss
        is interpolated linearly, and there are no bounds.
    positive_curvature
        The share of the area where both eigenvalues of the surface's 2 x 2 Hessian are positive; in one dimension,
        where the second derivative is. Derivatives are finite differences on the grid's own spacing. The area is that
        of the interior points all of whose neighbours are finite. It is NaN with fewer than LEAST_INTERIOR interior
        points along an axis. low and high are the shares that result if each point takes the smallest, or the largest,
        value among itself and its neighbours.
    negative_curvature
        The mean over the same area of max(-l_min, 0) / max(|l_min|, |l_max|), with the eigenvalues l_min and l_max: 0
        where the surface is convex, 1 where its strongest curvature is downwards. This is |l_min / l_max| of Li et al.
        2018 (arXiv:1712.09913), sec. 6, made bounded, set to 0 for positive l_min, and computed from the surface
        instead of the whole Hessian. It is NaN, and has low and high, as positive_curvature does.
    undefined_curvature
        The share of the interior's area that these two leave out, because a point or a neighbour of it diverged.
    width
        The distance from the centre at which the loss has risen to twice its value at the centre, as a mean over rays.
        If the surface has rays that were searched by evaluations of their own, and the loss is the NLL, the mean is
        over these. Otherwise the width is read off the grid, which must contain the centre: along rays every 5 degrees
        (in one dimension, to both sides), without those along which it does not extend; between grid lines the loss
        is taken as linear. A ray that meets a diverged point has doubled there. A ray whose range ends before the loss
        has doubled counts with the distance of that end: then the width is a lower bound, and it is NaN if all rays end
        so. low and high are the means of the nearer and farther ends of the intervals in which the rays double. If
        they differ by more than COARSEST times the width, the grid does not resolve the width, and it is NaN.
    width_censored
        The share of rays whose range ends before the loss has doubled.
    width_spread
        The standard deviation of the distance over the rays.
    barrier
        On a line from one network, at 0, to another, at 1, both on the grid: how far the loss rises above the straight
        line between their two losses, at the grid's points from 0 to 1; 0 if it stays below (Entezari et al. 2022,
        arXiv:2110.06296, eq. 1; for ends of equal loss this is the barrier of Frankle et al. 2020, arXiv:1912.05671,
        sec. 2). high is the top of the parabola through the highest of these points and its neighbours. It is NaN for
        other surfaces.

    A measure that needs points which are not computed yet is NaN. Points filled in by interpolation count as computed.

    The standard errors are by delete-one-fold jackknife over nll_fold (Efron & Stein 1981), with the folds taken as
    equally large and the penalty as exact; that of a width from rays is from width_ray_fold. A standard error is NaN
    with fewer than 8 folds, if a replicate is not finite, for a barrier of 0, and if all replicates are equal. The
    replicates of a share are equal if leaving out a fold changes the sign at no point; other examples may still
    do so. If points tie for the largest loss, the standard error of the sharpness tends to be too large.

    Parameters
    ----------
    surface
        The group.
    radius
        The radius within which the sharpness looks, in units of the plane's coordinates.
    quantity
        The loss to measure: "nll", or "loss" for the NLL with the penalty.

    Returns
    -------
    xarray.Dataset
        `measure` (quantity, bound), to be merged into the group. Along `bound` are estimate, sem, low and high; low and
        high are NaN where a measure has no bounds. Its attributes are `of`, the loss that was measured, and `radius`.

    Raises
    ------
    UserError
        For a radius that is not positive, an unknown quantity, or a group that is no surface.
    """
    if not (np.isfinite(radius) and radius > 0):
        raise UserError(f"radius={radius} must be a finite number above 0")
    if quantity not in MEASURABLE:
        raise UserError(f"quantity={quantity!r} is not one of {', '.join(MEASURABLE)}")
    dims = [axis for axis in ("y", "x") if axis in surface.dims]
    if quantity not in surface or set(surface[quantity].dims) != set(dims) or not dims:
        raise UserError(f"no surface: {quantity} over x, or over y and x, is needed")
    axes = [surface[axis].values.astype(float) for axis in dims]
    if any((np.diff(axis) <= 0).any() for axis in axes):
        raise UserError("the coordinates of a surface must increase")
    loss = surface[quantity].transpose(*dims).values.astype(float)
    done = surface["done"].transpose(*dims).values.astype(bool)
    line = surface.attrs.get("config", {}).get("plane", {}).get("directions") == "interpolation" and len(dims) == 1
    whole_and_replicates = [_marked(z, done) for z in (loss, *_replicates(surface, dims, loss))]
    found, *rest = (_measured(z, axes, radius, line) for z in whole_and_replicates)
    sem = jackknife_sem(np.reshape([r[:, 0] for r in rest], (-1, len(QUANTITIES))))
    sem[sem <= rounding(found[:, 0])] = np.nan
    table = np.stack([found[:, 0], sem, found[:, 1], found[:, 2]], axis=1)
    table[_too_coarse(found, axes, radius), :2] = np.nan
    table[(found[:, 0] == 0) & (np.array(QUANTITIES) == "barrier"), 1] = np.nan
    by_rays = _of_rays(surface) if quantity == "nll" else None
    if by_rays is not None:
        table[[QUANTITIES.index(q) for q in ("width", "width_censored", "width_spread")]] = by_rays
    about = {"long_name": "measures of the surface", "radius": radius, "of": quantity}
    return xr.Dataset(
        {"measure": (("quantity", "bound"), table, about)}, {"quantity": list(QUANTITIES), "bound": list(BOUNDS)}
    )


def _measured(z: np.ndarray, axes: list[np.ndarray], radius: float, line: bool) -> np.ndarray:
    """The estimate, low and high of each of QUANTITIES, (quantity, 3)."""
    rise, barrier = heights.sharpness(z, axes, radius), heights.barrier(z, axes[0], line)
    return np.array([rise, *heights.convexity(z, axes), *heights.width(z, axes), barrier])


def _too_coarse(found: np.ndarray, axes: list[np.ndarray], radius: float) -> np.ndarray:
    """For each of QUANTITIES, whether the grid is too coarse for an estimate, so that at most bounds are known."""
    slack = radius * (1 + 1e-9)
    sides = [((side * axis > 0) & (side * axis <= slack)).sum() for axis in axes for side in (1, -1)]
    few = min(len(axis) for axis in axes) < LEAST_INTERIOR + 2
    width, low, high = found[QUANTITIES.index("width")]
    coarse = {
        "sharpness": min(sides) < LEAST_WITHIN,
        "positive_curvature": few,
        "negative_curvature": few,
        "width": high - low > COARSEST * width,
    }
    return np.array([bool(coarse.get(quantity, False)) for quantity in QUANTITIES])


def _of_rays(surface: xr.Dataset) -> np.ndarray | None:
    """Rows (estimate, sem, low, high) of width, width_censored and width_spread, from the surface's own rays.

    None if it has no rays, or not all are searched.
    """
    if "width_ray" not in surface or not surface.sizes["ray"] or not surface["width_ray_done"].all():
        return None
    width, reached = surface["width_ray"].values, surface["width_ray_reached"].values.astype(bool)
    of_fold = surface["width_ray_fold"].transpose("fold", "ray").values.mean(axis=1)
    sem = float(standard_error(of_fold)) if reached.any() else np.nan
    spread = width.std(ddof=1) if len(width) > 1 else np.nan
    table = np.full((3, len(BOUNDS)), np.nan)
    table[:, 0] = width.mean() if reached.any() else np.nan, 1 - reached.mean(), spread
    table[0, 1] = sem
    return table


def rounding(estimate: ArrayLike) -> NDArray[np.float64]:
    """Standard errors up to this size count as 0: no fold makes a difference."""
    return 1e-9 * np.maximum(np.abs(np.asarray(estimate, float)), 1e-3)


def _marked(z: np.ndarray, done: np.ndarray) -> np.ndarray:
    """The loss with inf where it diverged, be it inf or NaN, and with NaN where it is not computed."""
    return np.where(done, np.where(np.isfinite(z), z, np.inf), np.nan)


def _replicates(surface: xr.Dataset, dims: list[str], loss: np.ndarray) -> list[np.ndarray]:
    """The loss without each fold; none if the folds are not known everywhere that the loss is finite."""
    if "nll_fold" not in surface or "nll" not in surface:
        return []
    folds = surface["nll_fold"].transpose("fold", *dims).values.astype(float)
    if len(folds) < 2 or not np.isfinite(folds[:, np.isfinite(loss)]).all():
        return []
    with np.errstate(invalid="ignore", over="ignore"):
        penalty = loss - surface["nll"].transpose(*dims).values
        rest = [np.delete(folds, f, axis=0).mean(axis=0) for f in range(len(folds))]
        return [np.where(np.isfinite(loss), z + penalty, loss) for z in rest]
