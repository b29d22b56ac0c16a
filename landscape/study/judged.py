"""A verdict on a claim in the words of a page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from landscape.study.tables import typed
from landscape.study.verdicts import Verdict


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a row of the table of verdicts says.

    Attributes
    ----------
    statement, about
        The claim, and which numbers it compares.
    first, second
        The number of each group.
    effect, how
        The effect with its interval, and what the interval is over.
    p
        The corrected p-value; a dash if there is none.
    outcome, more
        The verdict, and how many trainings would decide; "" if it is decided.
    reference
        What the study that made the claim reports.
    """

    statement: str
    about: str
    first: str
    second: str
    effect: str
    how: str
    p: str
    outcome: str
    more: str
    reference: str

    @classmethod
    def of(cls, v: Verdict) -> Judged:
        """The words of a verdict."""
        at = f", at a training NLL of {v.row.at:.2g}" if np.isfinite(v.row.at) else ""
        return cls(
            statement=v.claim.statement, about=f"{v.claim}{at}", first=typed(str(v.row.of_first)),
            second=typed(str(v.row.of_second)), effect=typed(str(v.row)), how=v.row.effect.how,
            p=f"{v.p:.2g}" if np.isfinite(v.p) else "\N{EN DASH}", outcome=v.outcome,
            more=str(v).partition(": ")[2], reference=v.claim.reference,
        )  # fmt: skip
