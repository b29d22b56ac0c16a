"""Numbers that sum up a surface, each with its standard error over examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from landscape.objective.clusters import jackknife_sem, standard_error
from landscape.objective.penalised import loss_label
from landscape.runtime.errors import UserError

QUANTITIES = (
    "sharpness", "positive_curvature", "negative_curvature", "undefined_curvature", "width", "width_censored",
    "width_spread", "barrier",
)  # fmt: skip


MEASURABLE = ("nll", "loss")


BOUNDS = ("estimate", "sem", "low", "high")


DIRECTIONS = 72  # rays in a plane: every 5 degrees, the axes and diagonals among them


ROUNDING = 16 * np.finfo(float).eps


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
    found, *rest = (
        np.array([_sharpness(z, axes, radius), *_convexity(z, axes), *_width(z, axes), _barrier(z, axes[0], line)])
        for z in (_marked(z, done) for z in (loss, *_replicates(surface, dims, loss)))
    )
    sem = jackknife_sem(np.reshape([r[:, 0] for r in rest], (-1, len(QUANTITIES))))
    sem[sem <= _rounding(found[:, 0])] = np.nan
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


def describe_measures(surface: xr.Dataset) -> list[str]:
    """The measures of a surface in words, one a line, without those that are not known.

    Stored measures that do not say which loss they are of, or that have no bounds, are from an earlier version. They
    are measured again, of the NLL unless they name another loss.
    """
    if "measure" not in surface:
        return []
    held = surface["measure"]
    if ("of" not in held.attrs or "low" not in held["bound"]) and "nll" in surface:
        held = measure(surface, radius=held.attrs.get("radius", 0.5), quantity=held.attrs.get("of", "nll"))["measure"]
    radius = held.attrs.get("radius")
    table = held.transpose("quantity", "bound").to_pandas().reindex(index=QUANTITIES, columns=BOUNDS)
    found = {str(quantity): _Measure(*map(float, row)) for quantity, row in zip(table.index, table.values, strict=True)}
    within = f" (within {radius:g})" if radius is not None else ""
    left_out = found["undefined_curvature"].estimate
    lines = [
        found["sharpness"].words(f"in-plane sharpness{within} "),
        found["positive_curvature"].words(
            "positive curvature on ", " of the area" + (f" ({left_out:.1%} left out)" if left_out > 0 else "")
        ),
        found["negative_curvature"].words("negative share of the curvature "),
        *_width_in_words(surface, found),
        _barrier_in_words(found["barrier"]),
    ]
    lines = [line for line in lines if line]
    return (
        _curvatures_in_words(surface)
        + lines
        + ([f"these of {loss_label(surface)}"] if lines and held.attrs.get("of") == "loss" else [])
    )


def _width_in_words(surface: xr.Dataset, found: Mapping[str, _Measure]) -> list[str]:
    ended = found["width_censored"].estimate
    spread = found["width_spread"].estimate
    about = []
    if "width_ray" in surface and np.isnan(found["width"].low):
        evaluations = int(surface["width_ray_evaluations"].sum())
        about.append(f"{surface.sizes['ray']} rays, {evaluations} evaluations, standard deviation {spread:.2g}")
    if ended > 0:
        about.append(f"{ended:.0%} of rays end before")
    after = f" ({'; '.join(about)})" if about else ""
    line = found["width"].words("width >= " if ended > 0 else "width ", after)
    return [line, "width beyond the range" if ended == 1 else ""]


def _curvatures_in_words(surface: xr.Dataset) -> list[str]:
    """Along eigenvectors, v^T H v over the surface's examples and the eigenvalue, which may be of other examples."""
    if "direction_curvature" not in surface:
        return []
    rows = zip(
        "xy",
        *(surface[f"direction_{name}"].values for name in ("curvature", "curvature_sem", "eigenvalue")),
        strict=False,
    )
    return [f"v^T H v along {axis} {_with_error(own, sem)} (eigenvalue {of:.3g})" for axis, own, sem, of in rows]


def _barrier_in_words(barrier: _Measure) -> str:
    if barrier.estimate == 0:
        return "no barrier: nowhere above the straight line between the two losses"
    return barrier.words("barrier ")


@dataclass(frozen=True)
class _Measure:
    estimate: float
    sem: float
    low: float
    high: float

    def words(self, before: str, after: str = "") -> str:
        """The measure in words; nothing if neither its value nor its bounds are known."""
        least = 0.01 * max(abs(self.low), abs(self.high))
        if np.isnan(self.estimate):
            known = self.low < self.high
            return f"{before}between {self.low:.3g} and {self.high:.3g}: the grid is too coarse{after}" * known
        spacing = self.high - self.low > least
        between = f" [{self.low:.3g} to {self.high:.3g} by the grid's spacing]" if spacing else ""
        return before + _with_error(self.estimate, self.sem) + between + after


def _with_error(estimate: float, sem: float) -> str:
    known = np.isfinite(sem) and sem > _rounding(estimate)
    return f"{estimate:.3g}" + (f" +- {sem:.2g}" if known else "")


def _rounding(estimate: ArrayLike) -> NDArray[np.float64]:
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


Bounded = tuple[float, float, float]  # estimate, low and high, as `measure` explains them


UNKNOWN: Bounded = (np.nan, np.nan, np.nan)


def _sharpness(z: np.ndarray, axes: list[np.ndarray], radius: float) -> Bounded:
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


def _convexity(z: np.ndarray, axes: list[np.ndarray]) -> tuple[Bounded, Bounded, Bounded]:
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


def _width(z: np.ndarray, axes: list[np.ndarray]) -> tuple[Bounded, Bounded, Bounded]:
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


def _barrier(z: np.ndarray, x: np.ndarray, line: bool) -> Bounded:
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
