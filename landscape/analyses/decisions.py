"""Deciding with errors: many claims at once, and how many trainings would decide one. Numbers alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import nct, t

MOST = 1000  # trainings; more are not said


def holm(p: Sequence[float]) -> list[float]:
    """Each p corrected for all that were looked at (Holm 1979): that any claim is found without ground has a
    probability of at most the level, however they depend on each other. A NaN is a claim that was not looked at.
    """
    values = np.asarray(p, float)
    looked_at = np.flatnonzero(np.isfinite(values))
    order = looked_at[np.argsort(values[looked_at], kind="stable")]
    corrected = np.full(len(values), np.nan)
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(factors * values[order]), 1)
    return [float(value) for value in corrected]


def power(effect: float, variances: Sequence[float], shared: float, trainings: int, level: float) -> float:
    """The probability that so many trainings of each group tell an effect from 0, two-sided at `level`.

    variances: over the trainings of each group; shared: of the effect, over what all trainings have in common. Welch's
    t, its noncentral distribution at Satterthwaite's degrees of freedom.
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
    return float(nct.sf(t.isf(level / 2, freedom), freedom, away))


def trainings_needed(
    effect: float, variances: Sequence[float], shared: float, *, level: float = 0.05, wanted: float = 0.8
) -> float:
    """How many trainings of each group tell such an effect from 0 with a probability of `wanted`.

    Infinite where no number does, because the error that all trainings share is too large: more units would. More than
    MOST are infinite too.
    """
    if not effect or power(effect, variances, shared, MOST, level) < wanted:
        return np.inf
    low, high = 1, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, variances, shared, middle, level) >= wanted else (middle, high)
    return float(high)
