"""Intervals of statistics over units that are independent of one another, such as mini-batches.

Values within a unit need not be independent: a unit enters with its sum or its count, as one draw. Each function
returns an `Interval`: estimate, low, high. With fewer than LEAST_UNITS units low and high are NaN.
`benchmarks/intervals.py` measures how often each interval covers the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike
from scipy.special import bdtr, gammaincinv, ndtri, stdtrit

from landscape.objective.clusters import LEAST_UNITS

RESAMPLES = 1999  # of the bootstrap
NEAR, FAR = 0.5, 0.4  # the weights of the prior's two units in `share`


class Interval(NamedTuple):
    """An estimate and the ends of its interval, NaN if there is none."""

    estimate: float
    low: float
    high: float


def share(hits: ArrayLike, trials: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """The share of trials that are hits, sum(hits) / sum(trials), where trials of one unit may depend on each other.

    hits, trials: counts (units,), or a number of trials for all. Units without a trial are left out.

    Each end is a quantile of the Bayesian bootstrap (Rubin 1981), under which the units have random weights of a
    Dirichlet distribution, with a prior of two more units, one all misses and one all hits (a Dirichlet process,
    Ferguson 1973). In the prior the unit on the side of the end weighs 0.5 and the other 0.4; were the trials of a unit
    all alike, weights of 1 and 0 would give Clopper and Pearson's interval, and 0.5 and 0.5 that of Jeffreys (Brown,
    Cai & DasGupta 2001). The quantiles are exact (Imhof 1961). Nothing is assumed of how the trials of a unit depend on
    each other, so that variances above and below the binomial one are allowed for. If no trial is a hit, low is 0 and
    high is not; likewise at the other end.
    """
    hits, trials = _per_unit(hits, trials)
    estimate = float(hits.sum() / trials.sum()) if len(hits) else np.nan
    if len(hits) < LEAST_UNITS:
        return Interval(estimate, np.nan, np.nan)
    tail = (1 - confidence) / 2
    low = 0.0 if not hits.any() else _quantile(hits, trials, NEAR, FAR, tail)
    high = 1.0 if (hits == trials).all() else 1 - _quantile(trials - hits, trials, NEAR, FAR, tail)
    return Interval(estimate, low, high)


def bounded_mean(values: ArrayLike, least: float, most: float, *, confidence: float = 0.95) -> Interval:
    """The mean of one bounded value per unit, such as the difference of two shares over the same mini-batches.

    values: (units,). The interval is that of `share`, with the prior's two units at the bounds.
    """
    hits = np.clip((np.asarray(values, float) - least) / (most - least), 0, 1)
    return Interval(*(least + (most - least) * end for end in share(hits, 1, confidence=confidence)))


def positive_ratio(sums: ArrayLike, counts: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """The mean of positive values, several in a unit, sum(sums) / sum(counts), such as eigenvalues above 0.

    sums, counts: of each unit (units,). Units without a value are part of the sample, and say nothing of the mean.

    This is a ratio estimator with its linearised variance over units (Cochran 1977, sec. 6.3). low is that of Student's
    t for the logarithm. A mean of skewed values is more often too small than too large, and then its estimated variance
    is too small also; high is therefore the furthest of three: that of Student's t for the logarithm; that of a
    lognormal distribution of the units' means (Zou, Huo & Taleb 2009); and that of Hall's transformation (1992), which
    removes the skewness.

    Raises ValueError if the values of a unit that has any sum to 0 or less.
    """
    sums, counts = np.broadcast_arrays(np.asarray(sums, float), np.asarray(counts, float))
    own = sums[counts > 0] / counts[counts > 0]  # the units' means
    if (own <= 0).any():
        raise ValueError("positive_ratio is for positive values")
    estimate = float(sums.sum() / counts.sum()) if len(own) else np.nan
    if len(own) < LEAST_UNITS:
        return Interval(estimate, np.nan, np.nan)
    n, tail = len(sums), (1 - confidence) / 2
    residual = (sums - estimate * counts) / (counts.mean() * estimate)  # relative to the estimate
    spread = float(np.sqrt(residual @ residual / (n - 1)))
    reach = -float(stdtrit(n - 1, tail)) / np.sqrt(n)
    ends = [reach * spread, _lognormal_reach(np.log(own), tail)]
    skewness = float(np.mean(residual**3) / spread**3) if spread else 0.0
    if skewness > 0:
        ends.append(np.log1p(spread * _unskewed(reach, skewness, n)))
    return Interval(estimate, estimate * float(np.exp(-reach * spread)), estimate * float(np.exp(max(ends))))


def mean(sums: ArrayLike, counts: ArrayLike = 1, *, confidence: float = 0.95) -> Interval:
    """The mean of values of either sign, several in a unit, sum(sums) / sum(counts).

    sums, counts: of each unit (units,), or one count for all. The interval is Student's t with the linearised variance
    over units (Cochran 1977, sec. 6.3); for positive and skewed values `positive_ratio` covers better.
    """
    sums, counts = _per_unit(sums, counts)
    n = len(sums)
    estimate = float(sums.sum() / counts.sum()) if n else np.nan
    if n < LEAST_UNITS:
        return Interval(estimate, np.nan, np.nan)
    residual = (sums - estimate * counts) / counts.mean()
    reach = float(-stdtrit(n - 1, (1 - confidence) / 2) * np.sqrt(residual @ residual / (n * (n - 1))))
    return Interval(estimate, estimate - reach, estimate + reach)


def bootstrapped_mean(sums: ArrayLike, counts: ArrayLike = 1, *, confidence: float = 0.95) -> Interval:
    """The mean of skewed values of either sign, sum(sums) / sum(counts), such as changes of the loss of an image.

    sums, counts: of each unit (units,), or one count for all. The interval is the bootstrap-t (Efron & Tibshirani 1993,
    sec. 12.5; second-order accurate, Hall 1988): units are drawn with replacement RESAMPLES times, with a fixed seed,
    and quantiles of (mean* - mean) / standard error* take the place of Student's. If the mean rests on so few units
    that many resamples have none of them, an end is at infinity, and there is no interval.
    """
    sums, counts = _per_unit(sums, counts)
    n = len(sums)
    estimate = float(sums.sum() / counts.sum()) if n else np.nan
    if n < LEAST_UNITS:
        return Interval(estimate, np.nan, np.nan)
    size = counts / counts.mean()
    residual = sums / counts.mean() - estimate * size
    each = np.stack([size, residual, size**2, size * residual, residual**2], axis=1)
    total, away, s2, sr, r2 = np.concatenate([w @ each for w in _resamples(n)]).T
    away = away / total
    spread = np.sqrt(np.maximum(r2 - 2 * away * sr + away**2 * s2, 0)) / total
    alike = spread <= 1e-6 * np.sqrt(residual @ residual) / n  # all units drawn have the same value
    with np.errstate(invalid="ignore", divide="ignore"):
        quantiles = np.nan_to_num(away / np.where(alike, 0, spread), nan=0, posinf=np.inf, neginf=-np.inf)
    tail = round((RESAMPLES + 1) * (1 - confidence) / 2)
    reach = np.sort(quantiles)[[-tail, tail - 1]] * np.sqrt(residual @ residual) / n
    low, high = (float(estimate - x) for x in reach)
    return Interval(estimate, low, high) if np.isfinite(reach).all() else Interval(estimate, np.nan, np.nan)


def unit_mean(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """The mean of one value per unit (units,): as `positive_ratio` if all are above 0, else as `mean`.

    There is no interval if a value is not finite.
    """
    x = np.asarray(values, float)
    if not np.isfinite(x).all():
        return Interval(float(x.mean()), np.nan, np.nan)
    return positive_ratio(x, 1, confidence=confidence) if (x > 0).all() else mean(x, confidence=confidence)


def median(values: Sequence[float] | np.ndarray, *, confidence: float = 0.95) -> Interval:
    """The median of one value per unit, between order statistics interpolated to the confidence asked for.

    values: (units,). Whatever their distribution, an order statistic lies beyond the median with a binomial
    probability; the interpolation is that of Hettmansperger & Sheather (1986). The interval is no wider than from the
    least value to the largest.
    """
    x = np.sort(np.asarray(values, float))
    n = len(x)
    estimate = float(np.median(x)) if n else np.nan
    if n < LEAST_UNITS:
        return Interval(estimate, np.nan, np.nan)
    covered = 1 - 2 * bdtr(np.arange(n // 2), n, 0.5)  # by the interval between the k-th from either end, k from 1
    k = max(1, int((covered >= confidence).sum()))
    if covered[0] <= confidence or k == len(covered):
        return Interval(estimate, float(x[k - 1]), float(x[n - k]))
    part = (covered[k - 1] - confidence) / (covered[k - 1] - covered[k])
    inwards = (n - k) * part / (k + (n - 2 * k) * part)
    low, high = (x[i] + inwards * (x[j] - x[i]) for i, j in ((k - 1, k), (n - k, n - k - 1)))
    return Interval(estimate, float(low), float(high))


def rank_correlation(x: ArrayLike, y: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Spearman's rank correlation of two values of each unit.

    x, y: (units,). The interval is from Fisher's z with the variance (1 + r^2 / 2) / (n - 3) (Bonett & Wright 2000,
    eq. 6). NaN if all values of x, or all of y, are equal.
    """
    ranks = [scipy.stats.rankdata(np.asarray(values, float)) for values in (x, y)]
    n = len(ranks[0])
    if n < 2 or any(np.ptp(r) == 0 for r in ranks):
        return Interval(np.nan, np.nan, np.nan)
    r = float(np.corrcoef(*ranks)[0, 1])
    if n < LEAST_UNITS:
        return Interval(r, np.nan, np.nan)
    inside = float(np.clip(r, -1 + 1 / n**2, 1 - 1 / n**2))  # for equal rank orders z would be infinite
    reach = -float(ndtri((1 - confidence) / 2)) * np.sqrt((1 + inside**2 / 2) / (n - 3))
    low, high = np.tanh(np.arctanh(inside) + np.array([-reach, reach]))
    return Interval(r, float(min(low, r)), float(max(high, r)))


def median_influence(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """What each unit adds to the median, (units,): sign(x - median) / (2 density), the density from the interval.

    All are 0 if there is no interval.
    """
    x = np.asarray(values, float)
    estimate, low, high = median(x)
    sem = (high - low) / (2 * -ndtri(0.025))
    return np.nan_to_num(np.sign(x - estimate) * sem * np.sqrt(len(x)))


@lru_cache(maxsize=1)
def _resamples(n: int) -> list[np.ndarray]:
    """How often each of n units is drawn, RESAMPLES times in parts: the same for all statistics over n units."""
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.uint8)
    return np.array_split(drawn, 20)


def _per_unit(sums: ArrayLike, counts: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    sums, counts = np.broadcast_arrays(np.asarray(sums, float), np.asarray(counts, float))
    return sums[counts > 0], counts[counts > 0]


def _quantile(hits: np.ndarray, trials: np.ndarray, misses: float, all_hits: float, level: float) -> float:
    """A quantile of the share sum(w hits) / sum(w trials), where w are gamma variates of shape 1.

    The prior's units have the mean number of trials, and gamma variates of the shapes `misses` and `all_hits`.
    """
    unit, shape = np.unique(np.stack([hits, trials], axis=1), axis=0, return_counts=True)
    size = trials.mean()
    unit, shape = np.vstack([unit, [[0, size], [size, size]]]) / size, np.append(shape, [misses, all_hits])

    def beyond(p: float) -> float:
        return _probability_below_zero(unit[:, 0] - p * unit[:, 1], shape) - level

    return float(scipy.optimize.brentq(beyond, 1e-12, 1 - 1e-12, xtol=1e-9))


def _probability_below_zero(coefficient: np.ndarray, shape: np.ndarray) -> float:
    """P(sum(coefficient * gamma variates of these shapes) < 0), by Imhof's integral (1961, eq. 3.2) over log u.

    The variates are halves of chi-squared ones with twice the shapes as degrees of freedom.
    """
    size = np.abs(coefficient[coefficient != 0])
    u = np.exp(np.arange(np.log(1e-8 / size.max()), np.log(1e2 / size.min()), 0.02))[:, None] * coefficient
    angle = (shape * np.arctan(u)).sum(axis=1)
    log_modulus = (shape / 2 * np.log1p(u * u)).sum(axis=1)
    return float(0.5 - (np.sin(angle) * np.exp(-log_modulus)).sum() * 0.02 / np.pi)


def _lognormal_reach(logarithms: np.ndarray, tail: float) -> float:
    """How far the upper end of a lognormal mean lies above it, in logarithms (Zou, Huo & Taleb 2009, eq. 4)."""
    n = len(logarithms)
    variance = float(np.var(logarithms, ddof=1))
    beyond = variance / 2 * ((n - 1) / float(2 * gammaincinv((n - 1) / 2, tail)) - 1)
    return float(np.hypot(ndtri(tail) * np.sqrt(variance / n), beyond))


def _unskewed(reach: float, skewness: float, n: int) -> float:
    """The upper end, in standard errors above the mean, at which Hall's (1992) transform of the studentised mean is
    -reach: T + g T^2 / 3 + g^2 T^3 / 27 + g / (6 n), solved for T.
    """
    return float(-3 / skewness * (np.cbrt(1 + skewness * (-reach - skewness / (6 * n))) - 1))
