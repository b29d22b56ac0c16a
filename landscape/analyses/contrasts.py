"""Intervals of what is computed from several estimates: differences of networks, means of trainings, interpolations.

This module does not know what was estimated, nor of which network. Two estimates over the same units, such as those of
two networks on the same mini-batches, go up and down together; how much, is known from what each unit adds to each.
`benchmarks/comparisons.py` measures how often each interval covers the truth.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.special import stdtr, stdtrit

from landscape.analyses.intervals import Interval, bounded_mean


@dataclass(frozen=True)
class Quantity:
    """An estimate with its interval over units, and what each unit adds to it.

    Parameters
    ----------
    interval
        The estimate and its interval; the ends are NaN where there is none.
    added
        By the name of the units, what each unit adds, (units,): the estimate is about the truth plus the sum of all
        these. Quantities with an entry of the same name share those units.
    beside
        Variance of the estimate that does not come from these units, such as that over random probes.
    """

    interval: Interval
    added: Mapping[Hashable, np.ndarray] = field(default_factory=dict)
    beside: float = 0.0

    @cached_property
    def variance(self) -> float:
        """The variance of the estimate."""
        return covariance(self, self) + self.beside


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of groups of trainings.

    Attributes
    ----------
    interval
        The sum with its interval, over units alone if no group has several trainings, else over trainings and units.
    between
        For each group, the variance of one training's estimate over trainings; NaN for a single training.
    within
        The variance of the sum over the units that the trainings share, which more trainings do not reduce.
    p
        The two-sided p-value of a sum of 0: the interval leaves 0 out where 1 - p is more than its confidence. NaN
        without an interval.
    """

    interval: Interval
    between: tuple[float, ...]
    within: float
    p: float


def covariance(a: Quantity, b: Quantity) -> float:
    """The covariance of two estimates over the units that they share; 0 if they share none."""
    return sum(_product(a.added[name], b.added[name]) for name in a.added.keys() & b.added.keys())


def combined(parts: Sequence[Quantity], weights: Sequence[float]) -> Quantity:
    """The sum of weight * estimate: a difference with weights 1 and -1, a mean with 1/n each.

    Its interval comes from those of the parts by the method of variance estimates recovery (Zou & Donner 2008, with
    correlations r): an end lies sqrt(sum_ij w_i w_j r_ij d_i d_j) from the sum, d_i being how far the end of part i on
    that side is from its estimate. This keeps the skewness and the bounds of each part: a sum of shares of which none
    was seen has an upper end above 0. The correlations are those of what the units add. A part that no unit moves
    counts as correlated with what it is added to, and as independent of what it is subtracted from.
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
    A group of one training says nothing of other trainings: this one counts as the only one that there is. The variance
    has two parts: that over trainings, s^2 / T for each group, and that of what shared units do to all trainings alike,
    which is the variance over units less the trainings' own part of it, already in s^2 (two-way random effects;
    Satterthwaite's degrees of freedom, Student's t). An end is the further one of this interval's and of `combined`'s
    for the trainings as they are, so that two trainings that happen to agree are not trusted.

    bounds: of the sum of the values of one unit, if the mean of these values over units is the estimate, as it is for
    shares. If all share the same units, the interval over units is then `bounded_mean`, which is narrower.
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
        reach = float(-stdtrit(freedom, (1 - confidence) / 2) * np.sqrt(variance))
        interval = Interval(z, float(np.minimum(low, z - reach)), float(np.maximum(high, z + reach)))
        p = float(np.maximum(p, 2 * stdtr(freedom, -abs(z) / np.sqrt(variance)))) if variance else p
    return Contrast(interval, tuple(between), within, p)


def _over_units(total: Quantity, bounds: tuple[float, float] | None, confidence: float) -> Interval:
    """The interval over units: `bounded_mean` where it can be computed.

    A unit that was not seen is taken to be no more extreme than those that were seen, or, if all of these were 0, than
    the bounds.
    """
    if bounds is None or len(total.added) != 1 or total.beside or np.isnan(total.interval.low):
        return total.interval
    (added,) = total.added.values()
    each = total.interval.estimate + len(added) * added
    if each.min() < bounds[0] - 1e-9 or each.max() > bounds[1] + 1e-9:  # not shares, since they were interpolated
        return total.interval
    most = float(np.abs(each).max())
    return bounded_mean(each, *((-most, most) if most > 1e-12 else bounds), confidence=confidence)


def _beyond(interval: Interval, units: int, confidence: float) -> float:
    """The two-sided p of 0, as if the end towards 0 were that of Student's t over this many units; normal for none."""
    z, low, high = interval
    reach, freedom = (z - low if z > 0 else high - z), units - 1 if units > 1 else np.inf
    if np.isnan(reach) or not reach:
        return np.nan if np.isnan(reach) else float(z == 0)
    return float(2 * stdtr(freedom, abs(z) / reach * stdtrit(freedom, (1 - confidence) / 2)))


def _own_part(each: Sequence[Quantity]) -> float:
    """The part of the variance of the mean over trainings due to what units do to each training apart from the others:
    interaction / (units T).
    """
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
    """The sum, unit by unit; the array with fewer units has the first ones."""
    long, short = (a, b) if len(a) >= len(b) else (b, a)
    total = long.copy()
    total[: len(short)] += short
    return total


def _product(a: np.ndarray, b: np.ndarray) -> float:
    """The covariance of the sums of two samples of units, over the units of both."""
    n = min(len(a), len(b))
    return float(a[:n] @ b[:n]) * n / (n - 1) if n > 1 else 0.0
