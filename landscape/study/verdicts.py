"""Verdicts on claims: holds, does not hold, or undecided, and how many trainings would decide."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from landscape.analyses.decisions import MOST, holm, trainings_needed
from landscape.runtime.errors import UserError, a_few, near_matches
from landscape.study.claims import Claim
from landscape.study.compare import compare_networks
from landscape.study.comparison import Compared, Comparison
from landscape.study.effects import against, compared
from landscape.study.tables import aligned, as_html, booktabs
from landscape.study.trainings import Known, Network, read, refuse_the_same

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
        holds if the corrected p is below 0.05 and the effect is on the claimed side; does not hold if it is on the
        other side; undecided otherwise, and always if a group has a single training.
    p
        The two-sided p-value, corrected for all claims that were looked at (Holm).
    needed
        The number of trainings of each group that would decide the claim with a probability of 0.8, if the effect and
        the spread of the trainings are what they appear to be; NaN if it is decided or the spread is not known,
        infinite if no number would.
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
        if np.isnan(self.needed):
            return "undecided: the trainings show no spread, and the number has no interval"
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
        return "\n".join([*aligned(self.cells()), *self.remarks])

    def _repr_html_(self) -> str:
        """The same in a notebook."""
        return as_html(self.cells(), *self.remarks)

    def to_dataframe(self) -> pd.DataFrame:
        """A row for each claim, with the columns of its comparison."""
        import pandas as pd

        frame = Comparison(networks={}, rows=[v.row for v in self.verdicts]).to_dataframe()
        about = [{"claim": v.claim.name, "statement": v.claim.statement, "verdict": v.outcome, "p_corrected": v.p,
                  "trainings_needed": v.needed, "reference": v.claim.reference} for v in self.verdicts]  # fmt: skip
        return pd.concat([pd.DataFrame(about), frame], axis=1)

    def to_latex(self) -> str:
        """A table with the rules of booktabs."""
        return booktabs(self.cells())

    def cells(self) -> list[list[str]]:
        """The table, with its heading first."""
        heading = ["claim", "", "first", "second", "effect", "p (Holm)", "verdict", "reference"]
        return [heading, *(self._row(v) for v in self.verdicts)]

    def _row(self, v: Verdict) -> list[str]:
        at = f" at NLL {v.row.at:.2g}" if np.isfinite(v.row.at) else ""
        about = f"{v.claim}{at}"
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


def verdicts(
    claims: Sequence[Claim], groups: Mapping[str, Sequence[str | os.PathLike[str]]], *, strict: bool = True
) -> Verdicts:
    """Judge claims by results files of trainings.

    Parameters
    ----------
    claims
        The claims, as `read_claims` gives them. Those about groups that are not given are not looked at, and are named.
    groups
        The results files of each group's trainings, by the names that the claims use.
    strict
        Whether a claim that cannot be judged because a number is not in the files raises an error; if not, it is named.

    Returns
    -------
    Verdicts
        The verdicts. The probability that any claim is wrongly said to hold, or not to hold, is at most 0.05.

    Raises
    ------
    UserError
        If no claim is about these groups or, with `strict`, if a number that a claim is about is not in the files.
    """
    used = {name for claim in _looked_at(claims, groups) for name in claim.groups}
    return verdicts_on(claims, read([], {name: files for name, files in groups.items() if name in used}), strict=strict)


def verdicts_on(claims: Sequence[Claim], networks: Sequence[Network], *, strict: bool = True) -> Verdicts:
    """`verdicts` on networks whose results files are open."""
    evidence = Evidence(networks)
    looked_at = _looked_at(claims, evidence.networks)
    rows, remarks = dict[str, Compared](), list[str]()
    for claim in looked_at:
        try:
            rows[claim.name] = evidence.row(claim)
        except UserError as e:
            if strict:
                raise
            remarks.append(str(e) if claim.name in str(e) else f"claim {claim.name}: {e}")
    judgeable = [claim for claim in looked_at if claim.name in rows]
    remarks += evidence.remarks
    others = [claim.name for claim in claims if claim not in looked_at]
    remarks += [f"not looked at: {a_few(others, 20)}"] if others else []
    return Verdicts(verdicts=judged(judgeable, [rows[claim.name] for claim in judgeable]), remarks=remarks)


class Evidence:
    """The comparisons that claims rest on: two networks are compared once, however many claims need it.

    Parameters
    ----------
    networks
        The networks, with the results files of their trainings.

    Attributes
    ----------
    networks
        The networks, by name.
    remarks
        How the files that were compared so far differ.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self.networks, self.remarks = {network.name: network for network in networks}, list[str]()
        self._compared: dict[tuple[str, str, float | None], Comparison] = {}
        self._numbers: dict[str, list[dict[tuple[str, str], Known]]] = {}

    def row(self, claim: Claim) -> Compared:
        """The comparison that a claim rests on. Raises UserError if the files lack its number or cannot be compared."""
        if claim.than is not None:
            (group, heading), of = self._own(claim, claim.second, claim.estimate)
            return against(claim.second, group, heading, of, claim.than)
        if claim.first_estimate:
            _, first = self._own(claim, claim.first, claim.first_estimate)
            (group, heading), second = self._own(claim, claim.second, claim.estimate)
            return compared((f"{claim.first}: {claim.first_estimate}", claim.second), group, heading, [first, second])
        key = (claim.first, claim.second, claim.loss)
        if key not in self._compared:
            pair = [self.networks[name] for name in key[:2]]
            refuse_the_same(pair)
            self._compared[key] = compare_networks(pair, None if claim.loss is None else [claim.loss])
        self.remarks += [line for line in self._compared[key].differing if line not in self.remarks]
        return _row_of(claim, self._compared[key])

    def _own(self, claim: Claim, name: str, heading: str) -> tuple[tuple[str, str], list[Known]]:
        """A number for every training of a network, and the group that it is in."""
        if name not in self._numbers:
            self._numbers[name] = [t.numbers(list(t.end)) for t in self.networks[name].trainings.values()]
        tables = self._numbers[name]
        shared = [key for key in tables[0] if all(key in table for table in tables)]
        about = [key for key in shared if key[1] == heading]
        if not about:
            known = near_matches(heading, {key[1] for key in shared}) if shared else "they have none in common"
            raise UserError(f"claim {claim.name}: the files of {name} have no {heading}; {known}")
        return about[0], [table[about[0]] for table in tables]


def _looked_at(claims: Sequence[Claim], groups: Collection[str]) -> list[Claim]:
    """The claims about these groups; raises UserError if there is none."""
    found = [claim for claim in claims if set(claim.groups) <= set(groups)]
    if not found:
        known = sorted({name for claim in claims for name in claim.groups})
        raise UserError(f"no claim is about {a_few(groups)}; {near_matches(next(iter(groups), ''), known)}")
    return found


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


def _row_of(claim: Claim, found: Comparison) -> Compared:
    """The row that a claim is about; with several losses, the row at the middle one."""
    at_losses, rows = claim.at == "losses", found.rows
    about = [row for row in rows if row.heading == claim.estimate and np.isfinite(row.at) == at_losses]
    if not about:
        known = {row.heading for row in rows if np.isfinite(row.at) == at_losses}
        where = "series of " if at_losses else "files of "
        why = near_matches(claim.estimate, known) if known else "; ".join(found.differing) if at_losses else ""
        raise UserError(
            f"claim {claim.name}: the {where}{claim.first} and {claim.second} have no {claim.estimate}; "
            + (why or ("make them with series" if at_losses else ""))
        )
    return about[len(about) // 2]
