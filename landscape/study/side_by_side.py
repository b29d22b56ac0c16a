"""Networks against one another, for a page: in plain sentences, as tables, and as figures of the effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from landscape.analyses.estimates import Estimate
from landscape.runtime.errors import UserError
from landscape.study.claims import Claim
from landscape.study.compare import compare_networks
from landscape.study.comparison import Compared, Comparison
from landscape.study.effects_chart import effects
from landscape.study.interactive import Figure
from landscape.study.judged import Judged
from landscape.study.sentences import IN_WORDS
from landscape.study.tables import typed
from landscape.study.trainings import File, Network, Training, refuse_the_same
from landscape.study.verdicts import Verdicts, verdicts_on


@dataclass(frozen=True, kw_only=True)
class Against:
    """One network against the first.

    Attributes
    ----------
    name
        The name of the comparison: "sam against plain".
    told
        A sentence for each number whose interval lies on one side of no difference.
    untold
        One sentence on all other numbers; "" if there are none.
    cells
        The table, with its heading first.
    """

    name: str
    told: list[str]
    untold: str
    cells: list[list[str]]


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """What a page says about networks against one another.

    Attributes
    ----------
    verdicts
        A sentence for each claim that was looked at.
    claims
        The claims with their verdicts, a row of a table each.
    against
        Each network against the first.
    figures
        The effects with their intervals.
    remarks
        How the files differ, what could not be compared for that reason, and what the intervals do not say.
    """

    verdicts: list[str] = field(default_factory=list)
    claims: list[Judged] = field(default_factory=list)
    against: list[Against] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How the networks of a page are compared.

    Parameters
    ----------
    networks
        The networks with their trainings; the others are compared with the first.
    losses
        Training NLLs at which series are compared; by default three in the range common to all.
    claims
        The claims on which verdicts are given.
    by_itself
        Whether the comparison is made unasked; what cannot be compared is then a remark, and not an error.
    """

    networks: Sequence[Network]
    losses: Sequence[float] | None = None
    claims: Sequence[Claim] = ()
    by_itself: bool = False

    @classmethod
    def of(cls, files: Mapping[str, File]) -> Asked:
        """Each file as a network, compared unasked."""
        networks = [Network(label, {label: Training(groups)}) for label, groups in files.items()]
        return cls(networks=networks, by_itself=True)

    def files(self) -> dict[str, File]:
        """The groups of each training, by its name.

        Raises UserError if two trainings have the same name.
        """
        found: dict[str, File] = {}
        for name, training in ((n, t) for network in self.networks for n, t in network.trainings.items()):
            if name in found:
                raise UserError(f"two files are called {name}; give one a label of its own as FILE=LABEL")
            found[name] = training.end
        return found


def side_by_side(asked: Asked) -> SideBySide:
    """The comparison of the networks, and the verdicts on the claims.

    Raises
    ------
    UserError
        If a comparison was asked for and there is nothing to compare.
    """
    if asked.by_itself and len(asked.networks) < 2:
        return SideBySide()
    try:
        refuse_the_same(asked.networks)
        found = compare_networks(asked.networks, asked.losses)
    except UserError as e:
        if not asked.by_itself:
            raise
        return SideBySide(remarks=[f"Not compared: {e}."])
    of = [_against(found, second) for second in found.seconds]
    judged = verdicts_on(asked.claims, asked.networks, strict=False) if asked.claims else Verdicts(verdicts=[])
    remarks = dict.fromkeys([*found.differing, *judged.remarks, *found.remarks])
    return SideBySide(
        verdicts=[_verdict(judged, i) for i in range(len(judged.verdicts))],
        claims=[Judged.of(v) for v in judged.verdicts],
        against=of,
        figures=effects(found.rows),
        remarks=[_as_sentence(line) for line in remarks],
    )


def sentence(row: Compared) -> str:
    """How two networks differ in a number: "The APE of sam is 0.37 times that of plain, between 0.3 and 0.4"."""
    e = row.effect
    at = f"At a training NLL of {row.at:.3g} the" if np.isfinite(row.at) else "The"
    text = f"{at} {IN_WORDS.get(row.heading, row.heading)} of {row.second} is {_distance(e, e.value, row.first)}"
    if np.isfinite(e.low) and np.isfinite(e.high):
        sure = f" with {e.confidence:.0%} confidence" if e.confidence < 1 else ", for certain"
        text += f", between {_between(e)}{sure}"
    how = f" ({e.how})" if e.how else ""
    return f"{text}{how}{f'; {e.note}' if e.note else ''}."


def _against(found: Comparison, second: str) -> Against:
    rows = [row for row in found.rows if row.second == second]
    others = [row for row in rows if not _tells(row.effect)]
    known, without = ([row for row in others if np.isfinite(row.effect.low) == has] for has in (True, False))
    said = [f"Not told apart: {_listed(known)}."] if known else []
    said += [f"Without an interval: {_listed(without)}."] if without else []
    return Against(
        name=f"{second} against {rows[0].first}",
        told=[sentence(row) for row in rows if _tells(row.effect)],
        untold=" ".join(said),
        cells=[[typed(cell) for cell in row] for row in found.cells(second)],
    )


def _tells(e: Estimate) -> bool:
    """Whether the interval lies on one side of no difference."""
    none = 1.0 if e.compared == "ratio" else 0.0
    return bool(e.low > none or e.high < none)


def _listed(rows: Sequence[Compared]) -> str:
    names = [f"{row.heading} at {row.at:.3g}" if np.isfinite(row.at) else row.heading for row in rows]
    return ", ".join(dict.fromkeys(names))


def _distance(e: Estimate, value: float, first: str) -> str:
    """How far a value lies from the first network's: "0.37 times that of plain", "2.5 points below that of plain"."""
    if e.compared == "ratio":
        return f"{value:.3g} times that of {first}"
    if value == 0:
        return f"that of {first}"
    return f"{_size(e, value)} {'above' if value > 0 else 'below'} that of {first}"


def _between(e: Estimate) -> str:
    """The ends of the interval, with their sides if these differ: "0.3 and 0.4", "1.2 below and 3.4 above"."""
    if e.compared == "ratio":
        return f"{e.low:.3g} and {e.high:.3g}"
    if e.low < 0 < e.high:
        return f"{_size(e, e.low)} below and {_size(e, e.high)} above"
    near, far = sorted((e.low, e.high), key=abs)
    return f"{_size(e, near).removesuffix(' points')} and {_size(e, far)}"


def _size(e: Estimate, value: float) -> str:
    return f"{100 * abs(value):.3g} points" if e.measure == "%" else f"{abs(value):.3g}"


def _verdict(judged: Verdicts, i: int) -> str:
    v, tested = judged.verdicts[i], sum(np.isfinite(one.p) for one in judged.verdicts)
    p = f" (p = {v.p:.2g}, corrected for {tested} claims)" if np.isfinite(v.p) else ""
    return f"{v.claim.statement}: {v}{p}."


def _as_sentence(line: str) -> str:
    return f"{line[:1].upper()}{line[1:]}{'' if line.endswith('.') else '.'}"
