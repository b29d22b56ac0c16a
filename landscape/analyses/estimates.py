"""A number with its interval and its name: what every analysis makes of its result, and what tables compare."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One number that describes a network, with what is known of its error.

    Parameters
    ----------
    name
        Its name in words, as the heading of a column: "largest eigenvalue".
    symbol
        Its symbol in formulas: "NEP", "tr H"; "" for none.
    value, low, high
        The estimate and its interval at `confidence`; NaN if there is no interval, such as for too few units.
    confidence
        How often such an interval contains the true value.
    sem
        The standard error, if the interval comes from one; otherwise NaN.
    measure
        Its unit of measure: "" for a plain number, "%" if `value` is a share to be shown in per cent.
    n, counts
        The number of units that the error is over, and what they are: 32, "mini-batches".
    how
        How the interval was made: "beta-binomial over mini-batches", "jackknife over folds of the examples".
    note
        What a reader must know about this number: "2 of 160 eigenvalues did not converge"; "" for nothing.
    column
        Whether it gets a column in a table over several files.
    compared
        Whether two networks are compared by the difference of this number or, if it is positive, by the ratio.
    influence
        What each unit adds to it, (units,) in their frozen order (its influence values): the value is about the truth
        plus their mean. NaN for a unit that does not count. With these, networks on the same units are compared in
        pairs; without, as if their units differed.
    """

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    sem: float = math.nan
    symbol: str = ""
    measure: Literal["", "%"] = ""
    confidence: float = 0.95
    n: int = 0
    counts: str = ""
    how: str = ""
    note: str = ""
    column: bool = True
    compared: Literal["difference", "ratio"] = "difference"
    influence: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        """The value with its interval, or else its standard error: "5.0% [2.5%, 9.4%]", "0.0331 +- 0.0036"."""
        if math.isnan(self.value):
            return "-"
        mark = "*" if self.note else ""
        if not math.isnan(self.low):
            return f"{self._shown(self.value)}{mark} [{self._shown(self.low)}, {self._shown(self.high)}]"
        if math.isnan(self.sem):
            return f"{self._shown(self.value)}{mark}"
        if self.measure == "%":
            return f"{100 * self.value:.2f}{mark} +- {100 * self.sem:.2f} %"
        return f"{self.value:.3g}{mark} +- {self.sem:.2g}"

    def _shown(self, value: float) -> str:
        return f"{value:.1%}" if self.measure == "%" else f"{value:.3g}"


def in_place(counts: NDArray[np.bool_], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values of the units that count, in the places of all (units,); NaN for the others."""
    found = np.full(len(counts), np.nan)
    found[counts] = values
    return found
