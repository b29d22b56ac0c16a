"""What a study has found so far, from the results files of its cells: one table, and a verdict for each claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from landscape.catalogue import settings_of
from landscape.runtime.errors import UserError, a_few, near_matches
from landscape.study.cells import Places, finished, settings_in_words
from landscape.study.claims import Claim
from landscape.study.declared import Cell, Study
from landscape.study.numbers import numbers
from landscape.study.reading import load
from landscape.study.tables import booktabs
from landscape.study.trainings import LOSS, Training
from landscape.study.verdicts import Verdicts, verdicts
from landscape.study.words import table

if TYPE_CHECKING:
    import pandas as pd

MOST_COLUMNS = 6  # trainings on the page; with more, only the first of each network, recipe and share


@dataclass(frozen=True)
class Found:
    """The results of the cells that are finished.

    Attributes
    ----------
    study
        As declared.
    files
        The groups of each results file, by cell.
    judged
        The verdicts; None where no claim can be judged yet.
    remarks
        On what there is no verdict, and why; what is not finished, and what failed.
    """

    study: Study
    files: Mapping[Cell, Mapping[str, xr.Dataset]]
    judged: Verdicts | None
    remarks: Sequence[str]

    def __str__(self) -> str:
        """The table of the trainings, the verdicts, and what is left."""
        shown = {cell.name: _columns_of(groups) for cell, groups in self.files.items()}
        blocks = [table(shown, shared=True)] if shown else []
        blocks += [str(self.judged)] if self.judged is not None else []
        return "\n\n".join([*blocks, *(["\n".join(self.remarks)] if self.remarks else [])])

    def to_dataframe(self) -> pd.DataFrame:
        """A row for every number of every training."""
        import pandas as pd

        return pd.DataFrame(
            {
                "training": cell.name, "network": cell.network, "model": cell.model, "recipe": cell.recipe_name,
                "share": cell.share, "seed": cell.seed, "analysis": n.group, "of": n.label, "estimate": n.heading,
                "value": n.estimate.value, "low": n.estimate.low, "high": n.estimate.high, "sem": n.estimate.sem,
                "n": n.estimate.n or np.nan, "counts": n.estimate.counts, "how": n.estimate.how,
                "note": n.estimate.note,
            }
            for cell, groups in self.files.items()
            for n in numbers(groups)
        )  # fmt: skip

    def to_latex(self) -> str:
        """The table of the trainings, with the rules of booktabs."""
        frame = self.to_dataframe()
        short = frame[["training", "analysis", "of", "estimate", "value", "low", "high"]]
        return booktabs([list(short.columns), *([str(x) for x in row] for row in short.itertuples(index=False))])


def found(study: Study, places: Places, failed: Mapping[str, str] | None = None) -> Found:
    """What the finished cells say.

    failed: why cells cannot be finished, in a line each.
    """
    cells = study.cells()
    done = [cell for cell in cells if finished(study, cell, places)]
    files = {cell: load(places.results(cell)) for cell in done}
    trained = {
        name: [places.results(cell) for cell in study.cells_of(group) if cell in files]
        for name, group in study.all_groups.items()
    }
    groups = {name: paths for name, paths in trained.items() if paths}
    remarks = [f"{name} failed: {why}" for name, why in (failed or {}).items()]
    left = [cell.name for cell in cells if cell not in files and cell.name not in (failed or {})]
    if left:
        remarks.append(f"{len(left)} of {len(cells)} trainings are not finished: {a_few(left)}")
    ready = [claim for claim in study.claims if set(claim.groups) <= set(groups)]
    judged = verdicts(ready, groups, strict=False) if ready else None
    others = [claim.name for claim in study.claims if claim not in ready]
    if others:
        remarks.append(f"claims about networks that there are no finished trainings of: {a_few(others, 30)}")
    return Found(study, files, judged, remarks)


def refuse_missing(study: Study, cell: Cell, places: Places) -> None:
    """Raise UserError, with near matches, if the results of a finished cell lack a number that a claim is about.

    This is found out as early as possible, not after all trainings.
    """
    mine = {name for name, group in study.all_groups.items() if cell in study.cells_of(group)}
    end = Training(load(places.results(cell)))
    at_end = {heading for _, heading in end.numbers(list(end.end))}
    way = {h for group in end.end for c in end.checkpoints(group) for h in c if h != LOSS}
    for claim in study.claims:
        for group, heading in _asked(claim):
            known = way if claim.at == "losses" else at_end
            if group in mine and set(claim.groups) <= set(study.all_groups) and heading not in known:
                raise UserError(
                    f"claim {claim.name}: the results of {cell.name} have no {heading}; {near_matches(heading, known)}"
                )


def _asked(claim: Claim) -> list[tuple[str, str]]:
    """The numbers that a claim is about, each with its group."""
    first = [(claim.first, claim.first_estimate or claim.estimate)] if claim.first else []
    return [(claim.second, claim.estimate), *first]


def _columns_of(groups: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The groups for which one line per training has room: those of its end, not of the checkpoints on the way."""
    kept = {name: s for name, group in groups.items() if (s := settings_of(group, name)) is not None}
    return {name: groups[name] for name, settings in kept.items() if not settings.several}


def columns(files: Mapping[Cell, Mapping[str, xr.Dataset]]) -> dict[str, Mapping[str, xr.Dataset]]:
    """The trainings that have columns and figures on the page."""
    if len(files) <= MOST_COLUMNS:
        return {cell.name: groups for cell, groups in files.items()}
    firsts: dict[tuple[str, str, float], Cell] = {}
    for cell in files:
        firsts.setdefault((cell.network, cell.recipe_name, cell.share), cell)
    return {cell.name: files[cell] for cell in firsts.values()}


def trainings_in_words(study: Study) -> list[tuple[str, str, str]]:
    """Each network with its code and its trainings."""
    return [
        (
            name,
            variant.model,
            "; ".join(
                f"{recipe} on {a_few(f'{share:.0%}' for share in study.shares_of(name))}"
                + (f" ({said})" if (said := settings_in_words(study.recipes[recipe])) else "")
                for recipe in study.recipes_of(name)
            ),
        )
        for name, variant in study.networks.items()
    ]
