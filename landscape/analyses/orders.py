"""Orders of things by several kinds of evidence with errors: ranks, how far they agree, and on what."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy

from landscape.analyses.intervals import Interval

DRAWS = 2000


class Ranks(NamedTuple):
    """Ranks from 0, first, to 1, last: of the estimates (evidence, things), and of draws within their errors (draws,
    evidence, things). NaN where a kind of evidence says nothing of a thing.
    """

    estimate: np.ndarray
    drawn: np.ndarray


def ranks(values: np.ndarray, *, seed: int = 0, confidence: float = 0.95) -> Ranks:
    """The ranks of values (evidence, things, 3), given as estimate, low and high; the least value comes first.

    The draws are normal about the estimates, with standard errors from the intervals, and independent of each other. A
    value without an interval is taken as exact.
    """
    estimate, low, high = np.moveaxis(np.asarray(values, float), -1, 0)
    sem = np.nan_to_num((high - low) / 2 / scipy.stats.norm.isf((1 - confidence) / 2))
    rng = np.random.default_rng(seed)
    drawn = estimate + sem * rng.normal(size=(DRAWS, *estimate.shape))
    return Ranks(_ranked(estimate), _ranked(drawn))


def together(of: Ranks) -> Ranks:
    """The mean of the ranks of each thing, ranked again (Borda's count), as one kind of evidence.

    NaN for a thing of which no evidence says anything.
    """

    def mean(each: np.ndarray) -> np.ndarray:
        count = np.isfinite(each).sum(axis=-2, keepdims=True)
        return np.where(count, np.nansum(each, axis=-2, keepdims=True) / np.maximum(count, 1), np.nan)

    return Ranks(*(_ranked(mean(each)) for each in of))


def interval(of: Ranks, *, confidence: float = 0.95) -> np.ndarray:
    """Estimate, low and high (evidence, things, 3) of the ranks: quantiles of the draws."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(of.drawn, [tail, 1 - tail], axis=0, method="closest_observation")
    return np.stack([of.estimate, low, high], axis=-1)


def concordance(of: Ranks) -> Interval:
    """Kendall's W of the kinds of evidence that rank anything, over the things that all of these rank.

    It is 0 for no agreement and 1 if all orders are the same. The interval is over the draws. NaN for fewer than three
    things.
    """
    said = np.isfinite(of.estimate).any(1)
    of = Ranks(of.estimate[said], of.drawn[:, said])
    known = np.isfinite(of.estimate).all(0)
    if known.sum() < 3 or said.sum() < 2:
        return Interval(np.nan, np.nan, np.nan)
    return _over_draws(_kendalls_w(_ranked(of.estimate[:, known])), _kendalls_w(_ranked(of.drawn[..., known])))


def correlation(of: Ranks, evidence: int, order: np.ndarray) -> Interval:
    """Kendall's tau of one kind of evidence with an order (things,), with its interval over the draws."""
    known = np.isfinite(of.estimate[evidence])
    if known.sum() < 3:
        return Interval(np.nan, np.nan, np.nan)
    found = [
        scipy.stats.kendalltau(row, order[known])[0]
        for row in (of.estimate[evidence, known], *of.drawn[:, evidence, known])
    ]
    return _over_draws(np.array(found[0]), np.array(found[1:]))


def agreed(of: Ranks) -> np.ndarray:
    """The share of the draws in which every kind of evidence that ranks both puts one thing before another.

    (things, things); NaN where fewer than two kinds of evidence rank both.
    """
    known = np.isfinite(of.estimate)
    both = known[:, :, None] & known[:, None, :]
    with np.errstate(invalid="ignore"):
        before = of.drawn[..., :, None] < of.drawn[..., None, :]
    share = (before | ~both).all(axis=1).mean(axis=0)
    return np.where(both.sum(0) >= 2, share, np.nan)


def _ranked(values: np.ndarray) -> np.ndarray:
    """Ranks from 0 to 1 along the last axis, equal values in the middle of theirs; NaN stays, and so becomes a single
    value.
    """
    known = np.isfinite(values)
    count = known.sum(axis=-1, keepdims=True)
    place = scipy.stats.rankdata(np.where(known, values, np.inf), axis=-1)
    return np.where(known & (count > 1), (place - 1) / np.maximum(count - 1, 1), np.nan)


def _kendalls_w(ranked: np.ndarray) -> np.ndarray:
    """W = 12 S / (m^2 (n^3 - n)) of ranks (..., m, n) from 0 to 1 (Kendall & Babington Smith 1939)."""
    m, n = ranked.shape[-2:]
    sums = (1 + ranked * (n - 1)).sum(axis=-2)
    return np.asarray(12 * np.square(sums - m * (n + 1) / 2).sum(axis=-1) / (m**2 * (n**3 - n)))


def _over_draws(estimate: np.ndarray, drawn: np.ndarray, confidence: float = 0.95) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    if low == high:  # if no draw changes an order, that does not prove that none could
        low = high = np.nan
    return Interval(float(estimate), float(low), float(high))
