"""The level of noise at which the accuracy has fallen by a given amount, for a group over frequency and level."""

from __future__ import annotations

import numpy as np
import scipy
import xarray as xr

from landscape.analyses import paired
from landscape.analyses.estimates import Estimate
from landscape.objective.clusters import LEAST_UNITS

DRAWS = 1000  # of the bootstrap
Threshold = tuple[float, float, float]


def threshold(levels: np.ndarray, change: np.ndarray, fall: float) -> float:
    """The level at which the change of accuracy, made to fall throughout, reaches -fall.

    levels (L,) rising; change (L,). Between levels the change is linear in their logarithm; between no noise, where
    nothing has changed, and the first level it is linear in the level. inf if the highest level does not suffice. NaN
    if the change at a level is not known. Isotonic regression removes the rises, which are due to chance.
    """
    if not np.isfinite(change).all():
        return np.nan
    falling = scipy.optimize.isotonic_regression(np.minimum(change, 0.0), increasing=False).x
    beyond = np.flatnonzero(falling <= -fall)
    if not beyond.size:
        return np.inf
    i = int(beyond[0])
    if i == 0:
        return float(levels[0] * fall / -falling[0])
    part = (falling[i - 1] + fall) / (falling[i - 1] - falling[i])
    return float(levels[i - 1] * (levels[i] / levels[i - 1]) ** part)


def with_interval(
    levels: np.ndarray, hits: np.ndarray, cluster: np.ndarray, fall: float, *, confidence: float = 0.95, seed: int = 0
) -> Threshold:
    """The threshold and its interval, from changes of hits (L, examples).

    The ends are percentiles of the bootstrap over clusters, which draws the same examples at every level. There is no
    interval for fewer than LEAST_UNITS clusters.
    """
    estimate = threshold(levels, hits.mean(1), fall)
    counts = np.bincount(cluster)
    if len(counts) < LEAST_UNITS or np.isnan(estimate):
        return estimate, np.nan, np.nan
    sums = np.stack([np.bincount(cluster, weights=row) for row in hits])
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(DRAWS):
        drawn = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)))
        found.append(threshold(levels, sums @ drawn / (counts @ drawn), fall))
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail], method="closest_observation")  # an end may be inf
    return estimate, float(low), float(high)


def added_to(result: xr.Dataset, fall: float) -> xr.Dataset:
    """The result with threshold (frequency, bound) for the octaves all of whose levels are done."""
    levels, cluster = result["level"].values.astype(float), result["cluster"].values
    hits = result["hit_change"].transpose("frequency", "level", "example").values.astype(float)
    done = result["done"].transpose("frequency", "level").values.all(1)
    found = np.full((result.sizes["frequency"], 3), np.nan)
    for i in np.flatnonzero(done):
        found[i] = with_interval(levels, hits[i], cluster, fall)
    said = {"long_name": f"rms of the noise by which the accuracy falls by {100 * fall:g} points"}
    return result.assign(threshold=(("frequency", "bound"), found, said))


def estimates(result: xr.Dataset, fall: float) -> list[Estimate]:
    """The threshold of each octave that is done."""
    n = paired.images(result)
    return [
        Estimate(name=f"noise threshold at {f:.2g} pi", value=value, low=low, high=high, n=n, counts="images",
                 how=f"bootstrap over images, of a fall by {100 * fall:g} points", column=False,
                 note="" if np.isfinite(value) else f"the highest level of noise, {float(result['level'][-1]):g}, does "
                 f"not suffice at {f:.2g} pi")
        for f, (value, low, high) in zip(result["frequency"].values, result["threshold"].values, strict=True)
        if not np.isnan(value)
    ]  # fmt: skip
