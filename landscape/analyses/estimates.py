"""A number with its interval and its name: what every analysis makes of its result, and all that tables compare."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One number of a network, with what is known of its error.

    Parameters
    ----------
    name
        What it is, in words that head a column: "largest eigenvalue".
    symbol
        As formulas have it: "NEP", "tr H"; "" for none.
    value, low, high
        The estimate and its interval at `confidence`; NaN where there is none, such as below the least number of units.
    confidence
        How often such an interval holds what it is of.
    sem
        The standard error, where the interval comes from one; NaN elsewhere.
    measure
        Its unit of measure: "" for a plain number, "%" where `value` is a share that is shown in per cent.
    n, counts
        How many units the error is over, and what they are: 32, "mini-batches".
    how
        How the interval was made: "beta-binomial over mini-batches", "jackknife over folds of the examples".
    note
        What a reader must know of this very number: "2 of 160 eigenvalues did not converge"; "" for nothing.
    column
        Whether a table over files has a column for it.
    compared
        Whether two networks are compared by the difference, or by the ratio, of a number that is above 0.
    influence
        What each unit adds to it, (units,) in their frozen order: the value is about the truth plus the mean of these
        (its influence values); NaN for a unit that does not count. Networks on the same units are then compared in
        pairs; without, as if their units were others.
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
        if not math.isfinite(self.value) and math.isnan(self.value):
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
