"""Means and variances of values that come in mini-batches, in memory that does not grow with their number."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


class Moments:
    """The mean and the variance over examples, for values of one shape, updated by whole batches, in float64.

    Chan, Golub & LeVeque (1979, eq. 2.1): two sets of m and n examples with means a and b and sums of squared
    deviations S and T together have the mean a + (b - a) n / (m + n) and the sum S + T + (b - a)^2 m n / (m + n).
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: np.ndarray = np.zeros(())
        self._squares: np.ndarray = np.zeros(())

    def add(self, values: ArrayLike) -> None:
        """Add values (examples, ...)."""
        batch = np.asarray(values, np.float64)
        n = len(batch)
        if not n:
            return
        mean = batch.mean(axis=0)
        self._merge(n, mean, np.square(batch - mean).sum(axis=0))

    def merge(self, other: Moments) -> None:
        """Add everything that `other` has seen."""
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
        """The variance over examples, divided by their number less one; NaN for fewer than two."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self._squares / (self.count - 1) if self.count > 1 else self._squares * np.nan)
