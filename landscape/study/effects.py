"""From estimates to effects: how far two networks differ in a number, and over what the interval is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from scipy.special import ndtri, stdtrit

from landscape.analyses.contrasts import Quantity, combined, covariance, over_trainings
from landscape.analyses.estimates import Estimate
from landscape.analyses.intervals import Interval
from landscape.objective.clusters import LEAST_UNITS
from landscape.study.comparison import Compared
from landscape.study.trainings import Known

Scale = Literal["difference", "ratio"]
Names = tuple[str, str]
TAIL = 0.025  # the tail probability of the intervals of estimates


def compared(names: Names, group: str, heading: str, of: Sequence[Sequence[Known]]) -> Compared:
    """One number of two networks compared, as their trainings have it."""
    each = [known.estimate for side in of for known in side]
    scale, alone = scale_of(each), not all(len(side) > 1 for side in of)
    like = (of[0][0].estimate, of[1][0].estimate)
    sides = [[quantity(known, scale, alone=alone) for known in side] for side in of]
    row = contrasted(names, group, heading, sides, like, scale)
    if alone and all(e.confidence == 1 for e in each):  # bounds, not intervals
        a, b = like
        effect = replace(row.effect, value=b.value - a.value, low=b.low - a.high, high=b.high - a.low, confidence=1.0,
                         compared="difference", how=a.how)  # fmt: skip
        row = replace(row, effect=effect)
    if len(of[0]) == 1:
        row = replace(row, of_first=like[0])
    return replace(row, of_second=like[1]) if len(of[1]) == 1 else row


def against(name: str, group: str, heading: str, of: Sequence[Known], value: float) -> Compared:
    """One number of a network, as its trainings have it, and how far it lies from a value that has no error."""
    like = of[0].estimate
    fixed = replace(like, value=value, low=value, high=value, sem=np.nan, note="", influence=None)
    certain = [Quantity(Interval(value, value, value))]
    sides = [certain, [quantity(known, "difference", alone=len(of) == 1) for known in of]]
    row = contrasted((f"{value:g}", name), group, heading, sides, (fixed, like), "difference")
    how = f"over {len(of)} trainings; {like.n} {like.counts}" if len(of) > 1 else like.how
    shown = replace(like, how=how, value=row.of_second.value, low=row.of_second.low, high=row.of_second.high,
                    sem=np.nan, influence=None)  # fmt: skip
    return replace(row, of_first=replace(fixed, how="", low=np.nan, high=np.nan),
                   of_second=like if len(of) == 1 else shown,
                   effect=replace(row.effect, how=how), trainings=(len(of), len(of)),
                   contrast=replace(row.contrast, between=(row.contrast.between[0], 0.0)))  # fmt: skip


def contrasted(
    names: Names, group: str, heading: str, sides: Sequence[Sequence[Quantity]],
    like: tuple[Estimate, Estimate], scale: Scale, at: float = np.nan,
) -> Compared:  # fmt: skip
    """The same from quantities on the scale of the comparison, which is logarithmic for a ratio.

    like: an estimate of each network, which says what its units are and how it is shown.
    """
    shares = (-1.0, 1.0) if like[0].measure == "%" and scale == "difference" else None
    found = over_trainings([sides[1], sides[0]], [1, -1], bounds=shares)
    how, notes = _how(sides, like), "; ".join(dict.fromkeys(e.note for e in like if e.note))
    of = [_shown(over_trainings([each], [1]).interval, scale, replace(e, how=how), _least(each, e))
          for each, e in zip(sides, like, strict=True)]  # fmt: skip
    effect = _shown(found.interval, scale, replace(like[0], how=how, note=notes, compared=scale), -1.0)
    return Compared(group=group, heading=heading, first=names[0], second=names[1], of_first=of[0], of_second=of[1],
                    effect=effect, contrast=found, trainings=(len(sides[0]), len(sides[1])), at=at)  # fmt: skip


def _least(each: Sequence[Quantity], like: Estimate) -> float:
    """The least value that shares such as these can have: those that are changes can be below 0."""
    return -1.0 if like.low < 0 or any(q.interval.estimate < 0 for q in each) else 0.0


def _shown(interval: Interval, scale: Scale, like: Estimate, least: float) -> Estimate:
    """An interval on the scale of the comparison, as an estimate like `like`; shares are kept from `least` to 1."""
    ends = np.exp(interval) if scale == "ratio" else np.array(interval)
    value, low, high = map(float, np.clip(ends, least, 1) if like.measure == "%" else ends)
    return replace(like, value=value, low=low, high=high, sem=np.nan, influence=None)


def _how(sides: Sequence[Sequence[Quantity]], like: tuple[Estimate, Estimate]) -> str:
    a, b = like
    means = [combined(each, [1 / len(each)] * len(each)) for each in sides]
    shared = [len(units) for name, units in means[0].added.items() if name in means[1].added]
    units = f"{a.n} {a.counts}" if a.n == b.n else f"{a.n} and {b.n} {a.counts}"
    pairs = "as independent" if not shared else "paired" if a.counts != "probes" else f"{shared[0]} paired folds"
    words = [f"{units}, {pairs}"] if a.counts else []
    if any(len(each) > 1 for each in sides):
        words.insert(0, f"over {len(sides[0])} and {len(sides[1])} trainings")
    return "; ".join(words)


def scale_of(estimates: Sequence[Estimate]) -> Scale:
    """The scale of a comparison: ratios if all ask to be compared so and are safely above 0, else differences."""
    for e in estimates:
        least = e.low if np.isfinite(e.low) else e.value - (3 * e.sem if np.isfinite(e.sem) else 0)
        if e.compared != "ratio" or not least > 0:
            return "difference"
    return "ratio"


def quantity(known: Known, scale: Scale, *, alone: bool) -> Quantity:
    """An estimate on the scale of a comparison.

    alone: no other trainings show how it varies, so that there is no interval without an error of its own.
    """
    e, units = known
    by = 1 / e.value if scale == "ratio" else 1.0
    added, over = {}, 0.0
    if e.influence is not None and units is not None:
        counted = np.isfinite(e.influence)
        added = {units: by * np.nan_to_num(e.influence) / max(int(counted.sum()), 1)}
        over = covariance(Quantity(Interval(0, 0, 0), added), Quantity(Interval(0, 0, 0), added))
    value = float(np.log(e.value)) if scale == "ratio" else e.value
    if e.confidence == 1:  # bounds, negligible beside the spread of other trainings
        low, high, beside = value, value, 0.0
    elif np.isfinite(e.low):
        low, high = map(float, np.log((e.low, e.high))) if scale == "ratio" else (e.low, e.high)
        beside = 0.0 if added else ((high - low) / (2 * float(ndtri(TAIL)))) ** 2
    elif np.isfinite(e.sem):
        reach = by * e.sem * -float(stdtrit(max(e.n, 2) - 1, TAIL))
        low, high, beside = value - reach, value + reach, max((by * e.sem) ** 2 - over, 0.0)
        if beside < 1e-3 * over:  # rounding
            beside = 0.0
    else:
        unknown = np.nan if alone or 0 < e.n < LEAST_UNITS else value
        low, high, beside = unknown, unknown, 0.0
    return Quantity(Interval(value, low, high), added, beside)
