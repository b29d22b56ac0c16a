"""A cell of a study: one training, carried out and analysed into one results file, continuing from what is there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import xarray as xr

from landscape.analyses.base import Analysis
from landscape.analyses.trajectory import Trajectory
from landscape.runtime.errors import UserError
from landscape.store.file import read_contents
from landscape.study.declared import PATH, Cell, Study, over_moments
from landscape.study.run import run, run_several
from landscape.study.subject import Subject
from landscape.study.training import Training, carry_out, epoch_checkpoint
from landscape.training.recipe import Recipe


@dataclass(frozen=True)
class Places:
    """Where the files of a study are.

    Parameters
    ----------
    folder
        The folder of the study.
    """

    folder: Path

    def results(self, cell: Cell) -> Path:
        """The results file of a training."""
        return self.folder / "results" / f"{cell.name}.h5"

    def checkpoint(self, cell: Cell) -> Path:
        """The file of its weights at the end."""
        return self.folder / "weights" / f"{cell.name}.safetensors"

    def trajectory(self, cell: Cell) -> Path:
        """The folder of its weights along the way."""
        return self.folder / "weights" / cell.name


@dataclass(frozen=True)
class Running:
    """How cells are carried out.

    Parameters
    ----------
    device
        cpu, cuda, ...; None for a GPU if there is one.
    deadline
        The value of `time.monotonic` after which no further unit is begun; None for no deadline.
    progress
        Whether progress bars are shown.
    """

    device: str | None = None
    deadline: float | None = None
    progress: bool = False

    @classmethod
    def within(cls, budget: float | None, *, device: str | None, progress: bool) -> Running:
        """With a deadline so many seconds from now; None for no deadline."""
        return cls(device, None if budget is None else time.monotonic() + budget, progress)

    @property
    def left(self) -> float | None:
        """Seconds until the deadline."""
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0)

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        return self.left == 0.0


def finished(study: Study, cell: Cell, places: Places) -> bool:
    """Whether every analysis of a cell is stored and done."""
    path = places.results(cell)
    held = read_contents(path).groups if path.exists() else {}
    return all(
        analysis.group in held and bool(held[analysis.group].get("done", xr.DataArray(True)).all())
        for analysis in study.analyses_of(cell.network)
    ) and all(_all_there(study, cell, held, a) for a in study.analyses_of(cell.network) if over_moments(a))


def _all_there(study: Study, cell: Cell, held: Mapping[str, xr.Dataset], analysis: Analysis) -> bool:
    """Whether a series has all of its checkpoints; one that was cut short has only the first ones."""
    assert study.moments is not None
    here = held[analysis.group].sizes.get("checkpoint", 0)
    if study.moments.losses:
        wanted = "trajectory" in held and len(crossing(held["trajectory"]["nll"].values, study.moments.losses))
    else:
        wanted = len(_moments(study, cell, Path(), ()))
    return here == wanted


def carry_out_cell(study: Study, cell: Cell, places: Places, running: Running) -> bool:
    """Train and analyse, continuing from what is there; return whether the cell is finished by the deadline.

    Raises UserError if the folder has this cell from another study, or if the training fails.
    """
    if finished(study, cell, places):
        return True
    if not _trained(study, cell, places, running):
        return False
    out, settings = places.results(cell), replace(study.subject, data=study.data, device=running.device)
    end = Subject(places.checkpoint(cell), settings, progress=running.progress)

    def several(analysis: Analysis, epochs: Sequence[int]) -> None:
        subjects = {f"epoch {epoch}": Subject(way[epoch], settings) for epoch in epochs}
        run_several(subjects, analysis, out, budget=running.left, progress=running.progress)

    way, own = _way(study, cell, places), study.analyses_of(cell.network)
    first = [analysis for analysis in own if analysis.name in PATH]
    last = [analysis for analysis in own if over_moments(analysis)]
    between = [analysis for analysis in own if analysis not in (*first, *last)]
    if study.moments is not None and study.moments.losses and last and not first:
        first = [Trajectory(max_products=0)]
    for analysis in (*first, *between, *last):
        if running.over:
            return False
        if analysis in between:
            run(end, analysis, out, budget=running.left, progress=running.progress)
        else:
            several(analysis, list(way) if analysis in first else _moments(study, cell, out, list(way)))
    return not running.over or finished(study, cell, places)


def _trained(study: Study, cell: Cell, places: Places, running: Running) -> bool:
    from landscape.training.standing import Unfinished

    looked = _looked_on_the_way(study, cell)
    asked = Training(
        model=cell.model, data=study.data, out=places.checkpoint(cell), recipe=cell.recipe_name,
        trajectory=places.trajectory(cell) if looked else None, mean=study.subject.mean, std=study.subject.std,
        image_size=study.subject.image_size, root=study.subject.root, device=running.device,
        quiet=not running.progress,
    )  # fmt: skip
    try:
        carry_out(asked, cell.recipe, epochs=set(_epochs(study, cell)) - {cell.recipe.epochs}, budget=running.left)
    except Unfinished:
        return False
    return True


def _looked_on_the_way(study: Study, cell: Cell) -> bool:
    return any(over_moments(analysis) or analysis.name in PATH for analysis in study.analyses_of(cell.network))


def _epochs(study: Study, cell: Cell) -> list[int]:
    """The epochs of the checkpoints to keep: all, if it is not known beforehand at which to look.

    They include the last, which is the end.
    """
    path = any(analysis.name in PATH for analysis in study.analyses_of(cell.network))
    last = cell.recipe.epochs
    if path or study.moments is None or study.moments.losses:
        return list(range(last + 1))
    return sorted({study.in_epochs(epoch, cell.share) for epoch in study.moments.epochs} | {last})


def _way(study: Study, cell: Cell, places: Places) -> dict[int, Path]:
    """The checkpoints on the way by epoch; the last is that of the end, whose results are in the cell's file."""
    if not _looked_on_the_way(study, cell):
        return {}
    last = cell.recipe.epochs
    before = {e: epoch_checkpoint(places.trajectory(cell), e, last) for e in _epochs(study, cell) if e < last}
    return before | {last: places.checkpoint(cell)}


def _moments(study: Study, cell: Cell, out: Path, way: Sequence[int]) -> list[int]:
    """The epochs after which to look."""
    assert study.moments is not None
    if study.moments.epochs:
        return sorted({study.in_epochs(e, cell.share) for e in study.moments.epochs} | {cell.recipe.epochs})
    nll = read_contents(out).groups["trajectory"]["nll"].values
    if np.isnan(nll).all():
        raise UserError(f"{cell.name}: the training NLL is at no epoch a number; lower lr={cell.recipe.lr:g}")
    return [way[i] for i in crossing(nll, study.moments.losses)]


def crossing(nll: np.ndarray, losses: Sequence[float]) -> list[int]:
    """Which checkpoints, with training NLLs (checkpoints,) in order, lie around each loss.

    They are the last before and the first after the loss is crossed for the first time, and the last of all. A loss
    that is never crossed adds none.
    """
    found = {len(nll) - 1}
    for loss in losses:
        below = np.flatnonzero(nll <= loss)
        if len(below) and below[0] > 0:
            found |= {int(below[0]) - 1, int(below[0])}
    return sorted(found)


def settings_in_words(recipe: Recipe) -> str:
    """The settings of a recipe that are not the usual ones, in words."""
    usual = Recipe()
    return ", ".join(
        f"{f.name} {getattr(recipe, f.name)}"
        for f in fields(Recipe)
        if getattr(recipe, f.name) != getattr(usual, f.name)
    )
