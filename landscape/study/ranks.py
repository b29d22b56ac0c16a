"""Whether, across many checkpoints, those with more of a measure generalise worse."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import xarray as xr

from landscape.analyses.estimates import Estimate
from landscape.analyses.intervals import rank_correlation
from landscape.objective.clusters import LEAST_UNITS
from landscape.runtime.errors import UserError, a_few
from landscape.store.comparable import caution, differences
from landscape.study.files import by_name
from landscape.study.numbers import numbers
from landscape.study.reading import load
from landscape.study.tables import aligned, booktabs

if TYPE_CHECKING:
    import pandas as pd

Against = Literal["test-error", "gap"]
WORDS: dict[Against, str] = {"test-error": "test error", "gap": "generalisation gap (test NLL - training NLL)"}
OWN = ("test accuracy", "test NLL")  # what the error and the gap are computed from


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Spearman's correlation of every measure with the error.

    Attributes
    ----------
    against
        What the measures are correlated with: test-error or gap.
    measures
        The correlation of each measure, with its interval over checkpoints, by name.
    files
        The checkpoints, by the names of their files.
    remarks
        What a reader must know, in words.
    """

    against: Against
    measures: dict[str, Estimate]
    files: list[str]
    remarks: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """A line for each measure, with the remarks below."""
        return "\n".join([*aligned(self._cells()), *self.remarks])

    def to_dataframe(self) -> pd.DataFrame:
        """A row for each measure."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"estimate": name, "against": WORDS[self.against], "spearman": e.value, "low": e.low, "high": e.high,
                 "confidence": e.confidence, "checkpoints": e.n}
                for name, e in self.measures.items()
            ]
        )  # fmt: skip

    def to_latex(self) -> str:
        """A table with the rules of booktabs."""
        return booktabs(self._cells())

    def _cells(self) -> list[list[str]]:
        heading = ["", f"Spearman's correlation with the {WORDS[self.against]}", "checkpoints"]
        return [heading, *([name, str(e), str(e.n)] for name, e in self.measures.items())]


def rank_correlations(*files: str | os.PathLike[str], against: Against = "test-error") -> Ranks:
    """Spearman's rank correlation between the test error and every number that results files have in common.

    Parameters
    ----------
    files
        Results files, one per checkpoint, each with a test.
    against
        test-error; or gap, which is the test NLL less the training NLL on the mini-batches of the spectrum.

    Raises
    ------
    UserError
        For too few files, or if they lack a test or, for the gap, a spectrum.
    """
    if against not in WORDS:
        raise UserError(f"against={against!r} is not one of {', '.join(WORDS)}")
    held = {name: load(path) for name, path in by_name([Path(f) for f in files]).items()}
    if len(held) < 3:
        raise UserError(f"ranks of {len(held)} checkpoints say nothing; give {LEAST_UNITS} or more results files")
    tables = {name: {(n.group, n.heading): n.estimate for n in numbers(file) if not n.label}
              for name, file in held.items()}  # fmt: skip
    error = np.array([_error(name, table, against) for name, table in tables.items()])
    shared = [key for key in next(iter(tables.values())) if all(key in table for table in tables.values())]
    refused = _refused(held, {group for group, _ in shared})
    measures, several = {}, [heading for _, heading in shared]
    for group, heading in shared:
        if group in refused or heading in OWN:
            continue
        values = [table[group, heading].value for table in tables.values()]
        r, low, high = rank_correlation(values, error)
        name = f"{heading} ({group})" if several.count(heading) > 1 else heading
        measures[name] = Estimate(name=name, value=r, low=low, high=high, n=len(held), counts="checkpoints",
                                  how="Fisher's z over checkpoints (Bonett & Wright 2000)")  # fmt: skip
    if not measures:
        raise UserError("; ".join(["the files have no measure in common", *refused.values()]))
    return Ranks(against=against, measures=measures, files=list(held), remarks=[*refused.values(), *_said(held)])


def _error(name: str, table: Mapping[tuple[str, str], Estimate], against: Against) -> float:
    by_heading = {heading: e.value for (_, heading), e in table.items()}
    needed = ["test accuracy"] if against == "test-error" else ["test NLL", "training NLL"]
    if missing := [heading for heading in needed if heading not in by_heading]:
        made_by = {"training NLL": "spectrum"}
        commands = a_few(dict.fromkeys(made_by.get(heading, "test") for heading in missing))
        raise UserError(f"{name} has no {a_few(missing)}, which {commands} adds to its results file")
    values = [by_heading[heading] for heading in needed]
    return 1 - values[0] if against == "test-error" else values[0] - values[1]


def _refused(held: Mapping[str, Mapping[str, xr.Dataset]], groups: set[str]) -> dict[str, str]:
    found = {}
    for group in sorted(groups):
        if cause := caution(differences({name: file[group] for name, file in held.items()})):
            found[group] = f"{group}: {cause}"
    return found


def _said(held: Mapping[str, Mapping[str, xr.Dataset]]) -> Sequence[str]:
    said = ["intervals take the checkpoints as independent, and their numbers as exact: errors in these pull towards 0"]
    if len(held) < LEAST_UNITS:
        said.append(f"no interval is given for fewer than {LEAST_UNITS} checkpoints")
    return said
