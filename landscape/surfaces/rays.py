"""Where the loss has doubled, searched along rays from the network by separate evaluations instead of on a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from landscape.objective.clusters import standard_error
from landscape.store.units import Index, Work, each_not_done

RAY_VARIABLES = (
    "width_ray", "width_ray_sem", "width_ray_fold", "width_ray_reached", "width_ray_evaluations", "width_ray_done",
)  # fmt: skip
PRECISION = 0.02  # how wide the final bracket may be, as a share of the radius; within it the crossing is interpolated
FIRST = 2.0**-10  # the first radius tried, as a share of the range
LEAST = 2.0**-40  # the least radius tried, as a share of the range: float32 weights resolve no doubling nearer


@dataclass(frozen=True)
class Point:
    """The NLL at a point, over all examples and over those of each fold."""

    nll: float
    folds: np.ndarray


def search_width(
    evaluate: Callable[[tuple[float, ...]], Point],
    limits: Sequence[Sequence[float]],
    centre: Point,
    *,
    rays: int = 8,
    workers: int = 1,
    partial: xr.Dataset | None = None,
    work: Work | None = None,
) -> xr.Dataset:
    """The distance at which the NLL is twice the network's own, along rays from (0, 0) at equal angles.

    From FIRST of the range on, the radius is doubled until the NLL has passed twice the centre's value (or halved, if
    it has passed there already). The interval between the last two radii is then bisected, in log r, down to PRECISION
    of the radius; within it log NLL is taken as linear in log r. A diverged point has passed. So what is found is the
    first crossing at a resolution of a factor of two, it does not depend on any grid, and it takes about 15 evaluations
    a ray.

    Parameters
    ----------
    evaluate
        Gives the NLL at coordinates (x,) or (x, y).
    limits
        (low, high) of each axis; a ray ends where this range does.
    centre
        The NLL at (0, 0).
    rays
        The number of rays, 360 / rays degrees apart, the first along x; on a line there are two, to both sides. Rays
        along which there is no range are left out.
    workers
        The number of rays searched side by side.
    partial
        An earlier, unfinished result, whose rays are kept.
    work
        When to store and when to stop; a unit is a ray.

    Returns
    -------
    xarray.Dataset
        Along `ray`, with ray_angle in degrees: width_ray, the distance; width_ray_fold (fold, ray), the same for each
        fold of the examples to first order, r_f = r - (L_f(r) - 2 L_f(0)) / L'(r), NaN if the loss jumps to infinity;
        width_ray_sem, their standard error (delta method); width_ray_reached, False if the ray ends before the NLL has
        doubled, in which case width_ray is the distance of its end; width_ray_evaluations; and width_ray_done. There
        are no rays if the NLL at (0, 0) is not a finite number above 0, or if (0, 0) is not within the range.
    """
    directions = _directions(rays, limits) if 0 < centre.nll < math.inf else {}
    folds = len(centre.folds)
    result = _begun(_empty(list(directions), folds), partial)
    scale = max(abs(end) for ends in limits for end in ends)
    units = list(directions.values())

    def compute(indices: list[Index]) -> None:
        (index,) = indices
        ray, end = units[index[0]]
        seen: dict[float, Point] = {}

        def passed(r: float) -> bool:
            seen[r] = evaluate(tuple(float(r * u) for u in ray))
            return not seen[r].nll < 2 * centre.nll

        low, high = _bracket(passed, end, scale)
        width, of_fold, sem = low, np.full(folds, low), math.nan
        if high is not None and low == 0:
            of_fold = np.full(folds, np.nan)
        elif high is not None:
            width, of_fold = _crossing(centre, seen[low], seen[high], low, high)
            sem = float(standard_error(of_fold))
        result["width_ray"].values[index] = width
        result["width_ray_fold"].values[:, index[0]] = of_fold
        result["width_ray_sem"].values[index] = sem
        result["width_ray_reached"].values[index] = high is not None
        result["width_ray_evaluations"].values[index] = len(seen)

    work = work or Work()
    each_not_done(
        result, compute, work.saving(lambda unfinished: (work.save or _nowhere)(_as_variables(unfinished))),
        workers=workers, unit="ray",
    )  # fmt: skip
    return _as_variables(result)


def _nowhere(_: xr.Dataset) -> None:
    """Store nothing."""


def _directions(rays: int, limits: Sequence[Sequence[float]]) -> dict[float, tuple[np.ndarray, float]]:
    """By angle in degrees: the unit vector along x (and y), and the distance at which the range ends."""
    angles = 360.0 * np.arange(rays) / rays if len(limits) == 2 else np.array([0.0, 180.0])
    if any(not low <= 0 <= high for low, high in limits):
        return {}
    found = {}
    for angle in angles if rays else ():
        turn = math.radians(angle)
        ray = np.round([math.cos(turn), math.sin(turn)][: len(limits)], 15)
        end = min((high if u > 0 else low) / u for u, (low, high) in zip(ray, limits, strict=True) if u != 0)
        if end > 0:
            found[float(angle)] = (ray, float(end))
    return found


def _bracket(passed: Callable[[float], bool], end: float, scale: float) -> tuple[float, float | None]:
    """A radius that has not passed and one that has, at most PRECISION apart.

    It is (0, r) if even the least radius, r, has passed, and (end, None) if none has.
    """
    low, high = 0.0, min(FIRST * scale, end)
    while not passed(high):
        low, high = high, min(2 * high, end)
        if low == end:
            return end, None
    while low == 0.0:
        if passed(high / 2):
            high /= 2
            if high < LEAST * scale:
                return 0.0, high
        else:
            low = high / 2
    while high > (1 + PRECISION) * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if passed(middle) else (middle, high)
    return low, high


def _crossing(centre: Point, below: Point, above: Point, low: float, high: float) -> tuple[float, np.ndarray]:
    """Where the NLL is twice the centre's, between the bracket's ends; and the same for each fold, to first order."""
    if not math.isfinite(above.nll):
        return high, np.full(len(centre.folds), np.nan)
    share = math.log(2 * centre.nll / below.nll) / math.log(above.nll / below.nll)
    r = low * (high / low) ** share
    slope = (above.nll - below.nll) / (high - low)
    part = (r - low) / (high - low)
    excess = (1 - part) * below.folds + part * above.folds - 2 * centre.folds
    return r, r - (excess - excess.mean()) / slope


def _empty(angles: Sequence[float], folds: int) -> xr.Dataset:
    n = len(angles)
    text = "distance at which the nll is twice the centre's"
    variables: dict[str, Any] = {
        "width_ray": ("ray", np.full(n, np.nan), {"long_name": text}),
        "width_ray_sem": ("ray", np.full(n, np.nan), {"long_name": "standard error of width_ray over examples"}),
        "width_ray_fold": (("fold", "ray"), np.full((folds, n), np.nan), {"long_name": f"{text}, of a fold"}),
        "width_ray_reached": ("ray", np.zeros(n, bool), {"long_name": "doubled within the range"}),
        "width_ray_evaluations": ("ray", np.zeros(n, np.int64), {"long_name": "evaluations spent"}),
        "done": ("ray", np.zeros(n, bool), {"long_name": "searched"}),
    }
    return xr.Dataset(variables, {"ray_angle": ("ray", np.array(angles, float), {"units": "degrees"})})


def _as_variables(result: xr.Dataset) -> xr.Dataset:
    return result.rename(done="width_ray_done").drop_attrs(deep=False)


def _begun(empty: xr.Dataset, partial: xr.Dataset | None) -> xr.Dataset:
    """The rays to search: those of `partial` if they are the same rays, or else `empty`, none of them done."""
    result = empty
    if partial is not None and set(RAY_VARIABLES) <= partial.data_vars.keys():
        kept = partial[list(RAY_VARIABLES)].rename(width_ray_done="done").copy(deep=True)
        same = np.array_equal(kept["ray_angle"].values, empty["ray_angle"].values)
        if same and kept["width_ray_fold"].shape == empty["width_ray_fold"].shape:
            result = kept.drop_vars([name for name in kept.coords if name != "ray_angle"])
    return result.assign_attrs(config={"analysis": "width"})
