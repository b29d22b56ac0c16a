"""Examples in clusters, which share an image and are not independent; means, folds and cuts that keep them whole."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import ArrayLike, NDArray

Members = NDArray[np.int64]


LEAST_UNITS = 8  # fewer clusters, folds, probes or mini-batches say too little about their variation: for them no
# standard error and no interval is given


def numbered(clusters: ArrayLike) -> Members:
    """Cluster labels (N,) as numbers 0, 1, ... in the order of their first members."""
    _, first, inverse = np.unique(np.asarray(clusters), return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def mean_and_sem(values: ArrayLike, clusters: Members) -> tuple[float, float]:
    """The mean of values (N,) and its standard error, where clusters are independent and their members are not.

    The variance is that of sum_c t_c / sum_c n_c, with t_c and n_c the total and the size of cluster c, linearised:
    C / (C - 1) sum_c (t_c - n_c mean)^2 / N^2 (Cochran, Sampling Techniques, eq. 9A.12). For clusters of one it is the
    usual s^2 / N. The error is NaN for fewer than LEAST_UNITS clusters.
    """
    values = np.asarray(values, float)
    if not len(values):
        return np.nan, np.nan
    with np.errstate(invalid="ignore", over="ignore"):
        mean = float(values.mean())
        apart = np.bincount(clusters, weights=values - mean)
        count = len(apart)
        if count < LEAST_UNITS:
            return mean, np.nan
        return mean, float(np.sqrt(count / (count - 1) * np.square(apart).sum()) / len(values))


def standard_error(values: ArrayLike) -> NDArray[np.float64]:
    """The standard error of the mean over independent units, s / sqrt(units), from their values (units, ...).

    It is NaN for fewer than LEAST_UNITS units, or if a value is not finite.
    """
    values = np.asarray(values, float)
    count = len(values)
    if count < LEAST_UNITS:
        return np.full(values.shape[1:], np.nan)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(values.std(axis=0, ddof=1) / np.sqrt(count))


def sem_within(values: ArrayLike, groups: Members) -> float:
    """The standard error of the mean of values (N,) that comes from variation within groups: s_within / sqrt(N).

    It is NaN for fewer than LEAST_UNITS - 1 degrees of freedom, which are values less groups.
    """
    values = np.asarray(values, float)
    sizes = np.bincount(groups)
    freedom = len(values) - len(sizes)
    if freedom < LEAST_UNITS - 1:
        return np.nan
    with np.errstate(invalid="ignore", over="ignore"):
        apart = values - (np.bincount(groups, weights=values) / sizes)[groups]
        return float(np.sqrt(np.square(apart).sum() / freedom / len(values)))


def fold_of(clusters: Members, most: int, units: Members | None = None) -> Members:
    """The fold of each example, (N,): up to `most` folds with about equally many units, and no cluster in two folds.

    units: how many units each example has, (N,); None for one. Clusters of one size are dealt out in turn.
    """
    sizes = np.bincount(clusters, weights=units).astype(np.int64)
    fold = np.empty(len(sizes), np.int64)
    filled = [(0, f) for f in range(min(most, int(np.count_nonzero(sizes))))]
    for c in np.argsort(-sizes, kind="stable"):
        held, f = heapq.heappop(filled)
        fold[c] = f
        heapq.heappush(filled, (held + int(sizes[c]), f))
    return fold[clusters]


def parted(clusters: Members, size: int) -> tuple[int, int] | None:
    """Two examples of one cluster that cuts after every `size` examples would separate; None if there are none."""
    batch = np.arange(len(clusters)) // size
    order = np.argsort(clusters, kind="stable")
    before, after = order[:-1], order[1:]
    apart = np.flatnonzero((clusters[before] == clusters[after]) & (batch[before] != batch[after]))
    return (int(before[apart[0]]), int(after[apart[0]])) if apart.size else None


def jackknife_sem(replicates: ArrayLike) -> NDArray[np.float64]:
    """The standard error by delete-one-fold jackknife, from the values (F, ...) without each of F equally large folds.

    It is sqrt((F - 1) / F sum_f (value_f - their mean)^2) (Efron & Stein 1981), and NaN for fewer than LEAST_UNITS
    folds or if a value is not finite.
    """
    replicates = np.asarray(replicates, float)
    count = len(replicates)
    if count < LEAST_UNITS:
        return np.full(replicates.shape[1:], np.nan)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.sqrt((count - 1) * replicates.var(axis=0))
