"""How long the cells of a study take, measured on the first steps of a training and the first unit of each analysis."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from landscape.analyses.base import Analysis, Held
from landscape.runtime.errors import UserError
from landscape.study.cells import Places, finished
from landscape.study.declared import PATH, Cell, Study, over_moments
from landscape.study.subject import Subject
from landscape.study.tables import aligned
from landscape.study.training import untrained

SECONDS = 1.0  # of training that are measured, but at least a step
MINUTE, HOUR = 60.0, 3600.0


@dataclass(frozen=True)
class Times:
    """The times that one cell takes, in seconds.

    Attributes
    ----------
    training
        The time of all its epochs.
    analyses
        The time of each analysis, by its group.
    """

    training: float
    analyses: Mapping[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """The time of the whole cell."""
        return self.training + sum(self.analyses.values())


def refuse_impossible(study: Study) -> None:
    """Raise UserError for data that do not exist, or a network that cannot be made for them by its recipes.

    To find out, networks are made without memory where possible.
    """
    import torch

    of = _sizes(study)
    for cell in study.cells():
        if cell.seed == study.seeds[0]:
            try:
                with torch.device("meta"):
                    untrained(cell.model, cell.recipe, of)
            except Exception:  # whatever a network's code raises without real memory, the network is then made with it
                try:
                    untrained(cell.model, cell.recipe, of)
                except UserError as e:
                    raise UserError(f"networks.{cell.network}: {e}") from e


def measured(study: Study, device: str, say: Callable[[str], None]) -> dict[tuple[str, str, float], Times]:
    """The times that a cell of each network, recipe and share takes on this machine.

    The network is not trained beyond the first steps; the spectrum of a trained one takes longer, up to several times.
    Raises UserError for an analysis that the network does not allow.
    """
    found: dict[tuple[str, str, float], Times] = {}
    analyses: dict[str, dict[str, float]] = {}
    for cell in study.cells():
        key = (cell.network, cell.recipe_name, cell.share)
        if key in found:
            continue
        say(f"measuring {cell.network}, {cell.recipe_name}, {cell.share:g}")
        if cell.network not in analyses:
            analyses[cell.network] = _of_analyses(study, cell, device)
        found[key] = Times(_of_training(study, cell, device), analyses[cell.network])
    return found


def listed(study: Study, places: Places, times: Mapping[tuple[str, str, float], Times]) -> str:
    """A line for each cell, with the time it takes and whether it is finished; and how much is left of all."""
    rows, left = [["cell", "model", "training", *study.analyses, "all", ""]], 0.0
    for cell in study.cells():
        took = times[cell.network, cell.recipe_name, cell.share]
        done = finished(study, cell, places)
        left += 0.0 if done else took.total
        known = [took.analyses.get(analysis.group) for analysis in study.analyses.values()]
        each = ["-" if seconds is None else in_words(seconds) for seconds in known]
        rows.append([cell.name, cell.model, f"{in_words(took.training)} ({cell.recipe.epochs} epochs)", *each,
                     in_words(took.total), "finished" if done else ""])  # fmt: skip
    count = len(rows) - 1
    return "\n".join([*aligned(rows), f"{count} trainings, about {in_words(left)} left, one after another; measured on "
                      "the first steps, and on networks that are not trained, whose spectra are quicker"])  # fmt: skip


def in_words(seconds: float) -> str:
    """A time in words, to two digits."""
    if seconds < MINUTE:
        return f"{seconds:.2g} s"
    return f"{seconds / MINUTE:.2g} min" if seconds < HOUR else f"{seconds / HOUR:.2g} h"


def _sizes(study: Study) -> dict[str, int]:
    from landscape.data.sources import open_source
    from landscape.data.transforms import input_settings

    source = open_source(study.data, "train", study.subject.root)
    inputs = input_settings(source, study.subject.image_size, None, study.subject.mean, study.subject.std)
    return {"num_classes": source.num_classes, "image_size": inputs.image_size, "in_channels": inputs.in_channels}


def _of_training(study: Study, cell: Cell, device: str) -> float:
    from landscape.data.sources import open_source
    from landscape.data.transforms import input_settings
    from landscape.training.standing import Unfinished
    from landscape.training.train import train

    source = open_source(study.data, "train", study.subject.root)
    inputs = input_settings(source, study.subject.image_size, None, study.subject.mean, study.subject.std)
    network, _ = untrained(cell.model, cell.recipe, _sizes(study))
    began = time.perf_counter()
    try:
        train(network, source, cell.recipe, inputs, device=device, budget=SECONDS)
    except Unfinished as e:
        epochs, steps = e.args
        each = max(1, round(cell.share * len(source)) // cell.recipe.batch_size)
        return (time.perf_counter() - began) * cell.recipe.epochs * each / max(epochs * each + steps, 1)
    return time.perf_counter() - began


def _of_analyses(study: Study, cell: Cell, device: str) -> dict[str, float]:
    from landscape.checkpoints.read import save_checkpoint

    sizes = _sizes(study)
    network, _ = untrained(cell.model, cell.recipe, sizes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "untrained.safetensors"
        save_checkpoint(path, network.eval(), {"model": cell.model, "data": study.data, **sizes})
        subject = Subject(path, replace(study.subject, data=study.data, device=device))
        return {
            analysis.group: _of_analysis(study, analysis, subject, cell) for analysis in study.analyses_of(cell.network)
        }


def _of_analysis(study: Study, analysis: Analysis, subject: Subject, cell: Cell) -> float:
    from landscape.store.units import Work

    began, several = time.perf_counter(), over_moments(analysis) or analysis.name in PATH
    prepared = analysis.prepare_several({"end": subject}) if several else analysis.prepare(subject, Held())
    ready = time.perf_counter()
    done = analysis.run(prepared, work=Work(budget=0.0))["done"].values
    part = (time.perf_counter() - ready) * done.size / max(done.sum(), 1)
    return (ready - began + part) * (_looks(study, cell) if several else 1)


def _looks(study: Study, cell: Cell) -> int:
    """How many checkpoints are looked at."""
    if study.moments is None:
        return cell.recipe.epochs + 1
    return len(set(study.moments.epochs)) or 2 * len(study.moments.losses) + 1
