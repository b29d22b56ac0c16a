"""Verdicts on claims: holds, does not hold, or undecided, and how many trainings would decide."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from landscape.analyses.decisions import MOST, holm, trainings_needed
from landscape.runtime.errors import UserError, a_few, near_matches
from landscape.study.claims import Claim
from landscape.study.compare import compare
from landscape.study.comparison import Compared, Comparison
from landscape.study.tables import aligned, booktabs

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05
Outcome = Literal["holds", "does not hold", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the trainings say of a claim.

    Attributes
    ----------
    claim
        The claim.
    row
        The comparison that it rests on.
    outcome
        holds where the corrected p is below 0.05 and the effect is on the claimed side; does not hold where it is on
        the other; undecided otherwise, and always where a group has a single training.
    p
        Two-sided, corrected for all claims that were looked at (Holm).
    needed
        Trainings of each group that would decide with a probability of 0.8, were the effect and the spread of the
        trainings what they appear to be; NaN where it is decided or the spread is not known, infinite where none would.
    """

    claim: Claim
    row: Compared
    outcome: Outcome
    p: float
    needed: float

    def __str__(self) -> str:
        """The outcome in words."""
        if self.outcome != "undecided":
            return self.outcome
        if min(self.row.trainings) < 2:
            return "undecided: needs two trainings or more of each"
        if np.isinf(self.needed):
            return f"undecided: not {MOST} trainings of these units would decide"
        return f"undecided: about {self.needed:.0f} trainings of each would decide"


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """Verdicts on several claims, with what a reader must know in `remarks`."""

    verdicts: list[Verdict]
    remarks: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """A line for each claim, with the remarks below."""
        return "\n".join([*aligned(self._cells()), *self.remarks])

    def to_dataframe(self) -> pd.DataFrame:
        """A row for each claim, with the columns of its comparison."""
        import pandas as pd

        frame = Comparison(networks={}, rows=[v.row for v in self.verdicts]).to_dataframe()
        about = [{"claim": v.claim.name, "statement": v.claim.statement, "verdict": v.outcome, "p_corrected": v.p,
                  "trainings_needed": v.needed, "reference": v.claim.reference} for v in self.verdicts]  # fmt: skip
        return pd.concat([pd.DataFrame(about), frame], axis=1)

    def to_latex(self) -> str:
        """A table with the rules of booktabs."""
        return booktabs(self._cells())

    def _cells(self) -> list[list[str]]:
        heading = ["claim", "", "first", "second", "effect", "p (Holm)", "verdict", "reference"]
        return [heading, *(self._row(v) for v in self.verdicts)]

    def _row(self, v: Verdict) -> list[str]:
        at = f" at NLL {v.row.at:.2g}" if np.isfinite(v.row.at) else ""
        about = f"{v.claim.estimate} of {v.claim.second} {v.claim.side} {v.claim.first}{at}"
        p = f"{v.p:.2g}" if np.isfinite(v.p) else "-"
        return [
            v.claim.name,
            about,
            str(v.row.of_first),
            str(v.row.of_second),
            str(v.row),
            p,
            str(v),
            v.claim.reference,
        ]


def verdicts(claims: Sequence[Claim], groups: Mapping[str, Sequence[str | os.PathLike[str]]]) -> Verdicts:
    """Judge claims by results files of trainings.

    Parameters
    ----------
    claims
        As `read_claims` gives them. Those of groups that are not given are not looked at, and are named.
    groups
        The results files of each group's trainings, by the names that the claims use.

    Returns
    -------
    Verdicts
        That any claim without ground is said to hold, or not to, has a probability of at most 0.05.

    Raises
    ------
    UserError
        Where no claim is about these groups, or a number that a claim is about is not in the files.
    """
    looked_at = [claim for claim in claims if {claim.first, claim.second} <= set(groups)]
    others = [claim for claim in claims if claim not in looked_at]
    if not looked_at:
        known = sorted({name for claim in claims for name in (claim.first, claim.second)})
        raise UserError(f"no claim is about {a_few(groups)}; {near_matches(next(iter(groups), ''), known)}")

    @cache
    def found(first: str, second: str, loss: float | None) -> Comparison:
        pair = {name: groups[name] for name in (first, second)}
        return compare(groups=pair, losses=None if loss is None else [loss])

    rows, remarks = [], list[str]()
    for claim in looked_at:
        comparison = found(claim.first, claim.second, claim.loss)
        rows.append(_row_of(claim, comparison.rows))
        remarks += [line for line in comparison.differing if line not in remarks]
    remarks += [f"not looked at: {a_few((c.name for c in others), 20)}"] if others else []
    return Verdicts(verdicts=judged(looked_at, rows), remarks=remarks)


def judged(claims: Sequence[Claim], rows: Sequence[Compared]) -> list[Verdict]:
    """The verdicts on claims from the comparisons that they rest on."""
    known = [row.p if min(row.trainings) > 1 else np.nan for row in rows]
    level = LEVEL / max(sum(np.isfinite(known)), 1)
    return [_verdict(claim, row, p, level) for claim, row, p in zip(claims, rows, holm(known), strict=True)]


def _verdict(claim: Claim, row: Compared, p: float, level: float) -> Verdict:
    z = row.contrast.interval.estimate
    if p < LEVEL:
        outcome: Outcome = "holds" if (z > 0) == (claim.side == "above") else "does not hold"
        return Verdict(claim=claim, row=row, outcome=outcome, p=p, needed=np.nan)
    several = min(row.trainings) > 1 and np.isfinite(p)
    needed = trainings_needed(z, row.contrast.between, row.contrast.within, level=level) if several else np.nan
    return Verdict(claim=claim, row=row, outcome="undecided", p=p, needed=needed)


def _row_of(claim: Claim, rows: Sequence[Compared]) -> Compared:
    """The row that a claim is about; of several losses the middle one."""
    at_losses = claim.at == "losses"
    about = [row for row in rows if row.heading == claim.estimate and np.isfinite(row.at) == at_losses]
    if not about:
        known = {row.heading for row in rows if np.isfinite(row.at) == at_losses}
        where = "series of " if at_losses else "files of "
        raise UserError(
            f"claim {claim.name}: the {where}{claim.first} and {claim.second} have no {claim.estimate}; "
            + (near_matches(claim.estimate, known) if known else "make them with series" if at_losses else "")
        )
    return about[len(about) // 2]
