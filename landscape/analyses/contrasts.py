"""Intervals of what is made of several estimates: differences of networks, means of trainings, interpolations.

Of what was estimated, and of which network, nothing is known here. Two estimates over the same units, such as two
networks on the same mini-batches, go up and down together; how much is known by what each unit adds to each of them.
`benchmarks/comparisons.py` measures how often each interval covers the truth.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.stats import t

from landscape.analyses.intervals import Interval, bounded_mean


@dataclass(frozen=True)
class Quantity:
    """An estimate with its interval over units, and what each unit adds to it.

    Parameters
    ----------
    interval
        The estimate and its interval; the ends are NaN where there is none.
    added
        By what the units are, what each unit adds, (units,): the estimate is about the truth plus the sum of all of
        them. Quantities with an entry of the same name share those units.
    beside
        Variance of the estimate that these units do not have, such as that over random probes.
    """

    interval: Interval
    added: Mapping[Hashable, np.ndarray] = field(default_factory=dict)
    beside: float = 0.0

    @cached_property
    def variance(self) -> float:
        """Of the estimate."""
        return covariance(self, self) + self.beside


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of groups of trainings.

    Attributes
    ----------
    interval
        Over units alone where no group has several trainings, else over trainings and units.
    between
        The variance over trainings of one training's estimate, of each group; NaN of a single one.
    within
        The variance of the sum over units that the trainings share, and that more trainings do not reduce.
    p
        Of a sum of 0, two-sided: the interval leaves 0 out where 1 - p is more than its confidence. NaN without one.
    """

    interval: Interval
    between: tuple[float, ...]
    within: float
    p: float


def covariance(a: Quantity, b: Quantity) -> float:
    """Of two estimates over the units that they share; 0 without any."""
    return sum(_product(a.added[name], b.added[name]) for name in a.added.keys() & b.added.keys())


def combined(parts: Sequence[Quantity], weights: Sequence[float]) -> Quantity:
    """The sum of weight * estimate: a difference by 1 and -1, a mean by 1/n each.

    Its interval comes from those of the parts by the method of variance estimates recovery (Zou & Donner 2008, with
    correlations r): an end lies as far from the sum as sqrt(sum_ij w_i w_j r_ij d_i d_j), d_i being how far the end of
    part i on that side is from its estimate. What each part has of skewness and of bounds is so kept: a sum of shares
    of which none was seen has an upper end above 0. The correlations are those of what the units add. A part that no
    unit moves counts as correlated with what it is added to, and as independent of what it is subtracted from.
    """
    w, (value, low, high) = np.asarray(weights, float), np.array([part.interval for part in parts], float).T
    to_low, to_high = np.where(w > 0, value - low, high - value), np.where(w > 0, high - value, value - low)
    form = _correlations(parts, w) * np.outer(w, w)
    reach = [float(np.sqrt(np.maximum(d @ form @ d, 0))) for d in (to_low, to_high)]
    estimate = float(w @ value)
    added: dict[Hashable, np.ndarray] = {}
    for x, part in zip(w, parts, strict=True):
        for name, units in part.added.items():
            added[name] = _sum(added.get(name, np.zeros(0)), x * units)
    beside = float(sum(x * x * part.beside for x, part in zip(w, parts, strict=True)))
    return Quantity(Interval(estimate, estimate - reach[0], estimate + reach[1]), added, beside)


def over_trainings(
    groups: Sequence[Sequence[Quantity]],
    weights: Sequence[float],
    *,
    bounds: tuple[float, float] | None = None,
    confidence: float = 0.95,
) -> Contrast:
    """The sum of weight * mean over the trainings of each group.

    Trainings are a sample of those that could have been, and so are the units, which trainings and groups may share.
    Of a group of one training nothing is known of others: it counts as the only one that there is. The variance is that
    over trainings, s^2 / T of each group, and that of what shared units do to all trainings alike: the variance over
    units less the trainings' own part of it, which s^2 has already (two-way random effects; Satterthwaite's degrees of
    freedom, Student's t). An end is the further one of this and of `combined` for the trainings as they are, which
    does not trust two trainings that happen to agree.

    bounds: of the sum of the values of one unit, where these are such that their mean over units is the estimate, as of
    shares. Where all share the same units, the interval over units is then `bounded_mean`, which is narrower.
    """
    means = [combined(each, [1 / len(each)] * len(each)) for each in groups]
    total = combined(means, weights)
    between = [_spread([q.interval.estimate for q in each]) for each in groups]
    several = [(x * x / len(each), s, len(each)) for x, each, s in zip(weights, groups, between, strict=True)
               if len(each) > 1]  # fmt: skip
    own = sum(x * x * _own_part(each) for x, each in zip(weights, groups, strict=True) if len(each) > 1)
    within = max(total.variance - own, 0.0)
    z, low, high = interval = _over_units(total, bounds, confidence)
    units = max((int(np.count_nonzero(u)) for u in total.added.values()), default=0)
    p = _beyond(interval, units, confidence)
    if several:
        parts = [(share * s, count - 1) for share, s, count in several] + [(within, max(units - 1, 1))]
        variance = sum(v for v, _ in parts)
        freedom = variance**2 / sum(v * v / df for v, df in parts) if variance else 1.0
        reach = float(t.isf((1 - confidence) / 2, freedom) * np.sqrt(variance))
        interval = Interval(z, float(np.minimum(low, z - reach)), float(np.maximum(high, z + reach)))
        p = float(np.maximum(p, 2 * t.sf(abs(z) / np.sqrt(variance), freedom))) if variance else p
    return Contrast(interval, tuple(between), within, p)


def _over_units(total: Quantity, bounds: tuple[float, float] | None, confidence: float) -> Interval:
    """`bounded_mean` where it can be had: a unit that was not seen is taken to be no more extreme than those that were,
    or than the bounds where none was anything but 0.
    """
    if bounds is None or len(total.added) != 1 or total.beside or np.isnan(total.interval.low):
        return total.interval
    (added,) = total.added.values()
    each = total.interval.estimate + len(added) * added
    if each.min() < bounds[0] - 1e-9 or each.max() > bounds[1] + 1e-9:  # values that are not shares: interpolated
        return total.interval
    most = float(np.abs(each).max())
    return bounded_mean(each, *((-most, most) if most > 1e-12 else bounds), confidence=confidence)


def _beyond(interval: Interval, units: int, confidence: float) -> float:
    """The two-sided p of 0, as if the end towards 0 were that of Student's t over so many units; normal without any."""
    z, low, high = interval
    reach, freedom = (z - low if z > 0 else high - z), units - 1 if units > 1 else np.inf
    if np.isnan(reach) or not reach:
        return np.nan if np.isnan(reach) else float(z == 0)
    return float(2 * t.sf(abs(z) / reach * t.isf((1 - confidence) / 2, freedom), freedom))


def _own_part(each: Sequence[Quantity]) -> float:
    """Of the variance of the mean over trainings, what units do to each training apart: interaction / (units T)."""
    count = len(each)
    found = sum(q.beside for q in each) / count**2
    for name in {name for q in each for name in q.added}:
        mean = np.zeros(0)
        for q in each:
            mean = _sum(mean, q.added.get(name, np.zeros(0)) / count)
        apart = [_sum(q.added.get(name, np.zeros(0)), -mean) for q in each]
        found += sum(_product(a, a) for a in apart) / (count * (count - 1))
    return found


def _correlations(parts: Sequence[Quantity], weights: np.ndarray) -> np.ndarray:
    r = np.eye(len(parts))
    for i, a in enumerate(parts):
        for j, b in enumerate(parts[:i]):
            if not a.added.keys() & b.added.keys():
                continue
            size = np.sqrt(a.variance * b.variance)
            known = float(np.clip(covariance(a, b) / size, -1, 1)) if size > 0 else float(weights[i] * weights[j] > 0)
            r[i, j] = r[j, i] = known
    return r


def _spread(values: Sequence[float]) -> float:
    return float(np.var(values, ddof=1)) if len(values) > 1 else np.nan


def _sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where one has fewer units, the first ones."""
    long, short = (a, b) if len(a) >= len(b) else (b, a)
    total = long.copy()
    total[: len(short)] += short
    return total


def _product(a: np.ndarray, b: np.ndarray) -> float:
    """The covariance of the sums of two samples of units, over the units of both."""
    n = min(len(a), len(b))
    return float(a[:n] @ b[:n]) * n / (n - 1) if n > 1 else 0.0
