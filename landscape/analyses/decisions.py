"""Deciding with errors: many claims at once, and how many trainings would decide one. It deals with numbers alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy

MOST = 1000  # trainings; a larger number is not reported


def holm(p: Sequence[float]) -> list[float]:
    """Each p-value corrected for all claims that were looked at (Holm 1979).

    The probability that any true null hypothesis is rejected is at most the level, however the claims depend on each
    other. A NaN is a claim that was not looked at.
    """
    values = np.asarray(p, float)
    looked_at = np.flatnonzero(np.isfinite(values))
    order = looked_at[np.argsort(values[looked_at], kind="stable")]
    corrected = np.full(len(values), np.nan)
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(factors * values[order]), 1)
    return [float(value) for value in corrected]


def power(effect: float, variances: Sequence[float], shared: float, trainings: int, level: float) -> float:
    """The probability that this many trainings of each group tell an effect from 0, two-sided at `level`.

    variances: over the trainings of each group. shared: the variance of the effect over what all trainings have in
    common. It is computed from the noncentral distribution of Welch's t at Satterthwaite's degrees of freedom.
    """
    own = np.asarray(variances, float) / trainings
    total = float(own.sum() + shared)
    if total == 0:
        return float(effect != 0)
    if trainings < 2:
        return 0.0
    freedom = float(own.sum()) ** 2 / float(np.square(own).sum() / (trainings - 1)) if own.any() else 1e6
    freedom *= (total / float(own.sum())) ** 2 if own.any() else 1.0
    away = abs(effect) / np.sqrt(total)
    return float(scipy.stats.nct.sf(scipy.stats.t.isf(level / 2, freedom), freedom, away))


def trainings_needed(
    effect: float, variances: Sequence[float], shared: float, *, level: float = 0.05, wanted: float = 0.8
) -> float:
    """How many trainings of each group tell such an effect from 0 with a probability of `wanted`.

    Infinite if no number of trainings does, because the error that all of them share is too large; more units would
    help then. A number above MOST also counts as infinite.
    """
    if not effect or power(effect, variances, shared, MOST, level) < wanted:
        return np.inf
    low, high = 1, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, variances, shared, middle, level) >= wanted else (middle, high)
    return float(high)
