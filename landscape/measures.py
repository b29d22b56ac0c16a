"""A surface -> numbers that sum it up, each with its standard error over examples."""

from __future__ import annotations

import numpy as np
import xarray as xr

from landscape.errors import UserError
from landscape.penalty import loss_label

QUANTITIES = (
    "sharpness", "positive_curvature", "negative_curvature", "undefined_curvature", "width", "width_censored",
)  # fmt: skip
MEASURABLE = ("nll", "loss")
DIRECTIONS = 72  # rays in a plane: every 5 degrees, the axes and diagonals among them
ROUNDING = 16 * np.finfo(float).eps


def measure(surface: xr.Dataset, *, radius: float = 0.5, quantity: str = "nll") -> xr.Dataset:
    """Sharpness, convexity and width of a `surface` group, of one or two dimensions.

    quantity: "nll", or "loss" for the NLL with the penalty; below, the loss is either.
    The centre is the unperturbed network, (0, 0); its loss is interpolated linearly where it is no grid point.

    sharpness: the largest loss of the grid points within `radius` of the centre, less the centre's, after Keskar et al.
        2017 (arXiv:1609.04836), eq. 3, not divided by 1 + loss. inf where one of them diverged, NaN where the range
        ends before the radius.
    positive_curvature: the share of area where both eigenvalues of the surface's 2 x 2 Hessian, by finite differences
        on the grid's own spacing, are above 0 (1D: the second difference). The area is that of the interior points
        all of whose neighbours are finite.
    negative_curvature: the mean over the same area of max(-l_min, 0) / max(|l_min|, |l_max|): 0 where the surface is
        convex, 1 where its strongest curvature is downwards. |l_min / l_max| of Li et al. 2018 (arXiv:1712.09913),
        sec. 6, made bounded, blind to positive l_min, and taken of the surface instead of the whole Hessian.
    undefined_curvature: the share of the interior's area that the two leave out, beside diverged points.
    width: the distance from the centre at which the loss is twice the centre's, mean over the rays
        every 5 degrees (1D: both sides) that have any range; between grid lines the loss is taken as linear, and a
        ray that meets a diverged point has passed. A ray that ends before counts with its end: then the width is a
        lower bound, and NaN where every ray does.
    width_censored: the share of rays that end before.

    A measure that needs points not computed yet is NaN; points filled in by interpolation count as computed.
    The standard errors are by delete-one-fold jackknife from nll_fold, the folds taken as equally large and the penalty
    as exact (Efron & Stein 1981); NaN without nll_fold, or where a replicate is not finite. Where points tie for the
    largest, that of sharpness is on the large side.

    Returns a Dataset with `measure` (quantity, bound), bound being estimate and sem; merge it into the group. Its
    attributes name what was measured, `of`, and the radius.
    Raises UserError for a radius that is not positive, an unknown quantity, or a group that is no surface.
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
    values = [_measures(_marked(z, done), axes, radius) for z in (loss, *_replicates(surface, dims, loss))]
    table = np.stack([values[0], _jackknife(np.array(values[1:]))], axis=1)
    about = {"long_name": "measures of the surface", "radius": radius, "of": quantity}
    return xr.Dataset(
        {"measure": (("quantity", "bound"), table, about)}, {"quantity": list(QUANTITIES), "bound": ["estimate", "sem"]}
    )


def describe_measures(surface: xr.Dataset) -> list[str]:
    """The measures of a surface in words, one a line, those that are NaN left out.

    Measures stored before they said what they are of were of the loss: those of the NLL are worked out instead.
    """
    if "measure" not in surface:
        return []
    held = surface["measure"]
    if "of" not in held.attrs and "nll" in surface:
        held = measure(surface, radius=held.attrs.get("radius", 0.5))["measure"]
    found = {str(q): held.sel(quantity=q).values for q in held["quantity"].values}
    radius = held.attrs.get("radius")
    within = f" (within {radius:g})" if radius is not None else ""
    ended = float(found.get("width_censored", (0.0,))[0])
    left_out = float(found.get("undefined_curvature", (0.0,))[0])
    lines = []
    for quantity, before, after in (
        ("sharpness", f"sharpness{within} ", ""),
        (
            "positive_curvature",
            "positive curvature on ",
            " of the area" + (f" ({left_out:.1%} left out)" * (left_out > 0)),
        ),
        ("negative_curvature", "negative share of the curvature ", ""),
        ("width", "width >= " if ended > 0 else "width ", f" ({ended:.0%} of rays end before)" if ended > 0 else ""),
    ):
        if quantity in found and not np.isnan(found[quantity][0]):
            lines.append(before + _with_error(*map(float, found[quantity])) + after)
    lines += ["width beyond the range"] if ended == 1 else []
    return lines + ([f"these of {loss_label(surface)}"] if lines and held.attrs.get("of") == "loss" else [])


def _with_error(estimate: float, sem: float) -> str:
    rounding = 1e-9 * max(abs(estimate), 1e-3)
    return f"{estimate:.3g}" + (f" +- {sem if sem > rounding else 0:.2g}" if np.isfinite(sem) else "")


def _marked(z: np.ndarray, done: np.ndarray) -> np.ndarray:
    """inf where diverged, NaN where not computed: NaN losses too are beyond every bound."""
    return np.where(done, np.where(np.isfinite(z), z, np.inf), np.nan)


def _replicates(surface: xr.Dataset, dims: list[str], loss: np.ndarray) -> list[np.ndarray]:
    """The loss without each fold; none where the folds are not known wherever the loss is."""
    if "nll_fold" not in surface or "nll" not in surface:
        return []
    folds = surface["nll_fold"].transpose("fold", *dims).values.astype(float)
    if len(folds) < 2 or not np.isfinite(folds[:, np.isfinite(loss)]).all():
        return []
    with np.errstate(invalid="ignore", over="ignore"):
        penalty = loss - surface["nll"].transpose(*dims).values
        rest = [np.delete(folds, f, axis=0).mean(axis=0) for f in range(len(folds))]
        return [np.where(np.isfinite(loss), z + penalty, loss) for z in rest]


def _jackknife(replicates: np.ndarray) -> np.ndarray:
    n = len(replicates)
    if n < 2:
        return np.full(len(QUANTITIES), np.nan)
    finite = np.isfinite(replicates).all(axis=0)
    sem = np.full(len(QUANTITIES), np.nan)
    sem[finite] = np.sqrt((n - 1) * replicates[:, finite].var(axis=0))
    return sem


def _measures(z: np.ndarray, axes: list[np.ndarray], radius: float) -> list[float]:
    """The values of QUANTITIES, in its order. z: (y, x) or (x,), inf where diverged, NaN where not computed."""
    width, censored = _width(z, axes)
    return [_sharpness(z, axes, radius), *_convexity(z, axes), width, censored]


def _sharpness(z: np.ndarray, axes: list[np.ndarray], radius: float) -> float:
    centre = _at(z, axes, np.zeros((len(axes), 1)))[0]
    slack = radius * (1 + 1e-9)
    if not np.isfinite(centre) or any(
        axis[0] * (1 + 1e-9) > -radius or axis[-1] * (1 + 1e-9) < radius for axis in axes
    ):
        return np.nan
    near = z[np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij"))) <= slack]
    return float(near.max() - centre) if near.size else np.nan  # max keeps NaN


def _convexity(z: np.ndarray, axes: list[np.ndarray]) -> tuple[float, float, float]:
    """Share of positive curvature, mean negative share of the curvature, and the share of area left out."""
    if np.isnan(z).any() or min(z.shape) < 3:
        return np.nan, np.nan, np.nan
    neighbours = np.lib.stride_tricks.sliding_window_view(z, (3,) * z.ndim).reshape(*(n - 2 for n in z.shape), -1)
    usable = np.isfinite(neighbours).all(axis=-1)
    area = np.ones(usable.shape)
    for k, axis in enumerate(axes):
        area *= _along((axis[2:] - axis[:-2]) / 2, k, z.ndim)
    left_out = float(area[~usable].sum() / area.sum())
    if not usable.any():
        return np.nan, np.nan, left_out
    f = np.where(np.isfinite(z), z, 0.0)
    inner = (slice(1, -1),) * z.ndim
    # what rounding in the values, and in the coordinates where the surface is steep, can make of a second difference
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
    low, high = (np.where(np.abs(e) > noise, e, 0.0) for e in (low, high))  # rounding has a sign, but no meaning
    strongest = np.maximum(np.abs(low), np.abs(high))
    negative = np.maximum(-low, 0) / np.where(strongest > 0, strongest, 1.0)
    weight = np.where(usable, area, 0.0) / area[usable].sum()
    return float(((low > 0) * weight).sum()), float((negative * weight).sum()), left_out


def _along(values: np.ndarray, k: int, ndim: int) -> np.ndarray:
    return values.reshape([-1 if i == k else 1 for i in range(ndim)])


def _slope(f: np.ndarray, axis: np.ndarray, k: int) -> np.ndarray:
    """The first derivative along axis k at interior points, exact for parabolas on any spacing."""
    h = np.diff(axis)
    slopes = np.diff(f, axis=k) / _along(h, k, f.ndim)
    before, after = (np.take(slopes, range(*ends), axis=k) for ends in ((0, len(h) - 1), (1, len(h))))
    share = _along(h[:-1] / (h[1:] + h[:-1]), k, f.ndim)
    return before * (1 - share) + after * share


def _width(z: np.ndarray, axes: list[np.ndarray]) -> tuple[float, float]:
    """The distance at which the loss has doubled, mean over the rays, and the share of rays that end before."""
    centre = _at(z, axes, np.zeros((len(axes), 1)))[0]
    if not np.isfinite(centre) or centre <= 0:
        return np.nan, np.nan
    if len(axes) == 1:
        rays = np.array([[1.0], [-1.0]])
    else:
        angle = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
        rays = np.round(np.stack([np.sin(angle), np.cos(angle)], axis=1), 15)
    reached, distances = [], []
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
            distances.append(end)
            continue
        i = int(passed[0])
        if np.isnan(along[i]):
            return np.nan, np.nan
        share = (2 * centre - along[i - 1]) / (along[i] - along[i - 1]) if np.isfinite(along[i]) else 1.0
        distances.append(r[i - 1] + share * (r[i] - r[i - 1]))
    if not reached:
        return np.nan, np.nan
    return float(np.mean(distances)) if any(reached) else np.nan, float(1 - np.mean(reached))


def _at(z: np.ndarray, axes: list[np.ndarray], points: np.ndarray) -> np.ndarray:
    """z interpolated (bi)linearly at points (dimension, n); NaN outside; a neighbour of weight 0 has no say."""
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
