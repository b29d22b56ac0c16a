"""Means and variances of what comes in mini-batches, held in one array whatever their number."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


class Moments:
    """The mean and the variance over examples of values of one shape, by Welford's updates of whole batches.

    Chan, Golub & LeVeque (1979, eq. 2.1): of two sets of m and n examples with means a and b and sums of squared
    deviations S and T, the whole has the mean a + (b - a) n / (m + n) and S + T + (b - a)^2 m n / (m + n). In float64;
    nothing that is held grows with the number of examples.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: np.ndarray = np.zeros(())
        self._squares: np.ndarray = np.zeros(())

    def add(self, values: ArrayLike) -> None:
        """Values (examples, ...)."""
        batch = np.asarray(values, np.float64)
        n = len(batch)
        if not n:
            return
        mean = batch.mean(axis=0)
        self._merge(n, mean, np.square(batch - mean).sum(axis=0))

    def merge(self, other: Moments) -> None:
        """What another has seen."""
        if other.count:
            self._merge(other.count, other.mean, other._squares)

    def _merge(self, n: int, mean: np.ndarray, squares: np.ndarray) -> None:
        total = self.count + n
        apart = mean - self.mean
        self._squares = self._squares + squares + np.square(apart) * (self.count * n / total)
        self.mean = self.mean + apart * (n / total)
        self.count = total

    @property
    def variance(self) -> np.ndarray:
        """Over the examples, divided by one less than their number; NaN for fewer than two."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self._squares / (self.count - 1) if self.count > 1 else self._squares * np.nan)
