"""Running an analysis of a subject, in memory or into a group of its results file."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from landscape import store
from landscape.analyses.base import Analysis, Held, Subject
from landscape.analyses.estimates import Estimate
from landscape.runtime import processes
from landscape.runtime.errors import UserError, a_few
from landscape.runtime.files import alone
from landscape.runtime.interrupts import deferred
from landscape.runtime.progress import wanted
from landscape.store.aside import forget
from landscape.store.changes import OtherSettings
from landscape.store.units import Save, Work
from landscape.study.changed import refuse_changed
from landscape.study.reading import contents
from landscape.study.reading import stored as stored_group

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What an analysis found: its settings and its data, from which numbers and pictures follow.

    Attributes
    ----------
    analysis
        The settings.
    data
        The data, in the form of the group in a results file.
    group
        The name of that group.
    label
        The name of the network; "" for several.
    """

    analysis: Analysis
    data: xr.Dataset
    group: str
    label: str = ""

    @property
    def estimates(self) -> list[Estimate]:
        """Its numbers, each with its interval."""
        return self.analysis.estimates(self.data)

    def plot(self, **look: Any) -> dict[str, Figure]:
        """Its pictures, by name; keyword arguments are those of `Look`. `landscape.plot` draws on axes of your own."""
        from landscape.pictures.look import Look
        from landscape.study.drawing import draw_group

        return draw_group(self.data, self.group, self.label, look=Look.asked(look))

    def __str__(self) -> str:
        """One line: the analysis, how much of it is done, and its numbers."""
        from landscape.study.words import describe

        return describe(self.group, self.data)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Its numbers in a notebook, each with its interval and how that was computed."""
        from landscape.study.tables import as_html
        from landscape.study.words import progress_of

        rows = [[": ".join(filter(None, (label, e.name))), str(e), f"{e.n:,} {e.counts}" if e.n else "", e.how]
                for label, estimates in self.analysis.rows(self.data).items() for e in estimates]  # fmt: skip
        done = f"{self.group}: done {progress_of(self.data)}"
        return as_html([[self.label or self.group, "", "over", "how"], *rows], done, *self.analysis.remarks(self.data))


def run(
    subject: Subject,
    analysis: Analysis,
    out: str | os.PathLike[str] | None = None,
    *,
    budget: float | None = None,
    progress: bool = False,
    overwrite: bool = False,
) -> Result:
    """Run an analysis; with `out`, store it in its group of that results file, and continue from what is there.

    Parameters
    ----------
    subject
        The network and its data.
    analysis
        Its settings.
    out
        A results file; None to keep the result in memory only.
    budget
        The seconds after which no further unit is started; what is done by then is a valid result.
    progress
        Whether progress bars are shown.
    overwrite
        Whether a group that was made with other settings, or is damaged, is replaced.

    Returns
    -------
    Result
        What was found, with everything that the file already had of this group.

    Raises
    ------
    UserError
        If the file has this group with other settings, which are named before any data is read, or if it has results
        of another checkpoint.
    """
    from landscape.runtime.caller import undisturbed

    work = Work(budget=budget, progress=progress)
    with deferred(), undisturbed(), wanted(progress and processes.rank() == 0):
        if out is None:
            objective = analysis.prepare(subject, Held())
            return Result(analysis, analysis.run(objective, work=work), analysis.group_for(objective), subject.label)
        there = held(out)
        refuse_another_checkpoint(out, there, subject.provenance, besides=analysis.group if overwrite else "")
        if not overwrite:
            refuse_changed(analysis, there.get(analysis.group), subject)
        LOG.debug("%s of %s, into %s", analysis.group, subject.label, out)
        prepared = analysis.prepare(subject, Held(there, Path(out), work))
        return run_prepared(analysis, prepared, out, work, subject.label, overwrite=overwrite)


def run_several(
    subjects: Mapping[str, Subject],
    analysis: Analysis,
    out: str | os.PathLike[str],
    *,
    budget: float | None = None,
    progress: bool = False,
    overwrite: bool = False,
) -> Result:
    """The same for an analysis of several checkpoints at once, by label."""
    from landscape.runtime.caller import undisturbed

    with deferred(), undisturbed(), wanted(progress and processes.rank() == 0):
        there = held(out)
        refuse_another_checkpoint(
            out, there, *(subject.provenance for subject in subjects.values()),
            besides=analysis.group if overwrite else "",
        )  # fmt: skip
        if not overwrite:
            refuse_changed(analysis, there.get(analysis.group))
        LOG.debug("%s of %s, into %s", analysis.group, a_few(list(subjects)), out)
        prepared = analysis.prepare_several(subjects)
        return run_prepared(analysis, prepared, out, Work(budget=budget, progress=progress), "", overwrite=overwrite)


def run_prepared(
    analysis: Analysis,
    objective: Any,
    out: str | os.PathLike[str],
    work: Work,
    label: str,
    *,
    overwrite: bool = False,
) -> Result:
    """Run an analysis into its group, once what it is applied to is prepared."""
    group, beside = analysis.group_for(objective), analysis.beside(objective)

    here = work.into(Path(out), group)

    def compute(stored: xr.Dataset | None, save: Save) -> xr.Dataset:
        try:
            return analysis.run(objective, stored=stored, work=here.saving(save))
        except OtherSettings:
            if not overwrite:
                raise
        return analysis.run(objective, work=here.saving(save))

    began = time.monotonic()
    found = into(out, group, compute, overwrite=overwrite, **beside)
    LOG.debug("%s took %.3g s", group, time.monotonic() - began)
    here.stored(found)
    for name in beside:  # what preparing them took is stored with them
        forget(Path(out), name)
    return Result(analysis, found, group, label)


def held(path: str | os.PathLike[str]) -> dict[str, xr.Dataset]:
    """The groups of a results file, the same on every process; none if there is no file yet."""
    return processes.from_first(contents(path).groups if Path(path).exists() else {})


def into(
    path: str | os.PathLike[str],
    group: str,
    compute: Callable[[xr.Dataset | None, Save], xr.Dataset],
    *,
    overwrite: bool = False,
    **beside: xr.Dataset,
) -> xr.Dataset:
    """Compute a group of a results file, continuing from what the file has of it, and store it.

    If it turns out that nothing can be computed as asked, no file is left that was not there before.

    compute: from (the stored group or None, a function that stores an unfinished one) to the finished one. Under
        torchrun every process computes, and only the first writes. Another run of the same group is waited for.
    beside: groups that are stored together with it, once it is known that it may continue.
    """
    path = Path(path)
    writes = processes.rank() == 0
    with deferred(), alone(path, group) if writes else nullcontext():
        stored = stored_group(path, group, damaged=overwrite) if writes else None
        made = writes and not path.exists()
        if stored is None and writes:  # better to learn before than after that the file cannot be written
            store.save(path)
        stored = processes.from_first(stored)
        try:
            result = compute(stored, lambda unfinished: store.save(path, **{group: unfinished}, **beside))
        except UserError:
            if made:
                store.discard_empty(path)
            raise
        if writes:
            store.save(path, **{group: result}, **beside)
    return result


def refuse_another_checkpoint(
    path: str | os.PathLike[str],
    there: Mapping[str, xr.Dataset],
    *provenances: Mapping[str, Any],
    besides: str = "",
) -> None:
    """Raise UserError if the results file has a group of weights other than these: a file is of one network or series.

    besides: the group that is replaced, whatever weights it is of.
    """
    asked = {provenance["sha256"] for provenance in provenances}
    for name, group in there.items():
        origins = dict(_origins(group.attrs.get("config", {})))
        if name != besides and origins and not asked & set(origins):
            file = next(iter(origins.values()))
            raise UserError(f"{path} has the {name} of another checkpoint, {file}; write to another file")


def _origins(config: Any) -> Iterator[tuple[Any, Any]]:
    """(sha256, file) of each network that a stored configuration describes: one, or those under `each`."""
    if not isinstance(config, Mapping):
        return
    if isinstance(origin := config.get("provenance"), Mapping) and origin:
        yield str(origin.get("sha256")), origin.get("file")
    yield from _origins(config.get("objective"))
    if isinstance(each := config.get("each"), Mapping):
        for one in each.values():
            yield from _origins(one)
