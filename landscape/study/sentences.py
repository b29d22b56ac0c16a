"""Estimates as plain sentences, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import xarray as xr

from landscape.analyses.estimates import Estimate
from landscape.catalogue import settings_of
from landscape.objective.clusters import LEAST_UNITS

IN_WORDS = {
    "minima": "number of minima on the grid",
    "largest of the whole data": "largest eigenvalue of the whole data",
    "smallest of the whole data": "smallest eigenvalue of the whole data",
    "largest": "median largest eigenvalue of a mini-batch",
    "smallest": "median smallest eigenvalue of a mini-batch",
    "NEP": "share of negative eigenvalues",
    "APE": "mean of the positive eigenvalues",
}


def summary(groups: Mapping[str, xr.Dataset], *, first: bool = True) -> list[str]:
    """What the groups of one results file say, in one sentence for each estimate.

    first: whether of the estimates that come first on a page, or of all others.
    """
    found = []
    for name, group in groups.items():
        settings = settings_of(group, name)
        if settings is None:
            continue
        variant = name.removeprefix(settings.name).strip("_").replace("_", " ")
        for label, estimates in settings.rows(group).items():
            of = ", ".join(filter(None, [variant, label]))
            for estimate in estimates:
                if math.isfinite(estimate.value) and comes_first(label, estimate) == first:
                    text = _negative(estimate, group) if estimate.symbol == "NEP" and not label else sentence(estimate)
                    found.append(f"{of}: {text}" if of else text)
    return found


def comes_first(label: str, estimate: Estimate) -> bool:
    """Whether a number is of the network as a whole, and has a column in tables over several files."""
    return estimate.column and not label


def sentence(e: Estimate) -> str:
    """An estimate with what is known of its error."""
    text = f"The {IN_WORDS.get(e.name, e.name)} is {_shown(e, e.value)}"
    if math.isfinite(e.low) and math.isfinite(e.high):
        sure = f" with {e.confidence:.0%} confidence" if e.confidence < 1 else ""
        low, high = _shown(e, e.low), _shown(e, e.high)
        text += f", between {low} and {high}{sure}" if low != high else f" to the digits shown{sure}"
    elif math.isfinite(e.sem):
        text += f" ± {f'{100 * e.sem:.2g} %' if e.measure == '%' else f'{e.sem:.2g}'} (one standard error)"
    elif 0 < e.n < LEAST_UNITS and e.counts:
        return f"{text}, without an interval: {e.n} {e.counts} are fewer than {LEAST_UNITS}{_noted(e)}"
    return text + (f", over {e.n:,} {e.counts}" if e.n and e.counts else "") + _noted(e)


def _negative(e: Estimate, group: xr.Dataset) -> str:
    """The share of negative eigenvalues, as a count of those that were computed."""
    values = group["eigenvalue"].values
    total, negative = int(np.isfinite(values).sum()), int((values < 0).sum())
    if not total:
        return sentence(e)
    over = f" over {e.n:,} {e.counts}" if e.n and e.counts else ""
    if negative == 0:
        sure = f"; at most {_shown(e, e.high)} with {e.confidence:.0%} confidence" if math.isfinite(e.high) else ""
        return f"No negative eigenvalue among {total:,}{over}{sure}{_noted(e)}"
    sure = ""
    if math.isfinite(e.low):
        sure = f", between {_shown(e, e.low)} and {_shown(e, e.high)} with {e.confidence:.0%} confidence"
    return f"{negative:,} of {total:,} eigenvalues are negative{over}: {_shown(e, e.value)}{sure}{_noted(e)}"


def _noted(e: Estimate) -> str:
    return f" ({e.note})." if e.note else "."


def _shown(e: Estimate, value: float) -> str:
    return f"{100 * value:.1f} %" if e.measure == "%" else f"{value:,.4g}"
