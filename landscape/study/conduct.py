"""A study carried out: its cells one after another, side by side in processes of their own, or on a cluster."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

from annotated_types import Ge, Le

from landscape.runtime import processes
from landscape.runtime.errors import UserError, a_few, near_matches
from landscape.runtime.interrupts import Interrupted, deferred, noted
from landscape.runtime.settings import Settings
from landscape.study.again import launcher
from landscape.study.cells import Places, Running, carry_out_cell, finished
from landscape.study.declared import Cell, Study

LOOK = 0.2  # seconds between two looks at the running jobs
STOPPED = 143  # the exit status of a process that SIGTERM has stopped
GRACE = 60.0  # seconds that a process is given to store what it has


@dataclass(frozen=True, kw_only=True)
class Spreading(Settings):
    """Where cells run.

    Parameters
    ----------
    jobs
        The number of trainings that run side by side, each in a process of its own; 1 runs one after another.
    processes
        The number of processes of each training, started by torchrun; they share its batches and its units.
    cluster
        The cluster as submitit names it, slurm or local; each training is a job there, at most `jobs` at a time.
    cluster_options
        Settings of submitit for the cluster, each as NAME=VALUE, such as slurm_partition=gpu or timeout_min=240.
    """

    jobs: Annotated[int, Ge(1)] = 1
    processes: Annotated[int, Ge(1), Le(1024)] = 1
    cluster: str | None = None
    cluster_options: tuple[str, ...] = ()

    def check(self) -> None:
        """Options are NAME=VALUE, and only for a cluster."""
        if self.cluster_options and self.cluster is None:
            raise UserError("`cluster_options` are of a cluster; name it with `cluster`")
        for option in self.cluster_options:
            if "=" not in option:
                raise UserError(f"`cluster_options` {option} is not NAME=VALUE such as timeout_min=240")

    @property
    def here(self) -> bool:
        """Whether cells run in this process."""
        return self.jobs == 1 and self.processes == 1 and self.cluster is None


@dataclass(frozen=True)
class Outcome:
    """How far the cells of a study have come.

    Attributes
    ----------
    unfinished
        The names of the cells that are not finished.
    failed
        Why cells cannot be finished, in a line each, by their names.
    """

    unfinished: list[str]
    failed: Mapping[str, str]


def chosen(study: Study, names: Sequence[str]) -> list[Cell]:
    """The cells of these names, or all. Raises UserError, with near matches, for one that does not exist."""
    cells = {cell.name: cell for cell in study.cells()}
    for name in names:
        if name not in cells:
            raise UserError(f"the study has no cell {name}; {near_matches(name, cells)}")
    return [cell for name, cell in cells.items() if not names or name in names]


def one_after_another(
    study: Study, cells: Sequence[Cell], places: Places, running: Running, say: Callable[[str], None],
    check: Callable[[Cell], None],
) -> Outcome:  # fmt: skip
    """Carry out cells in this process, or under torchrun in all of its processes together.

    check: called with each cell that is finished; it may raise if there is no use in going on.
    """
    failed = {}
    for i, cell in enumerate(cells):
        if running.over and i:
            break
        say(f"{cell.name} ({i + 1} of {len(cells)})")
        try:
            complete = carry_out_cell(study, cell, places, running)
        except UserError as e:
            if processes.size() > 1:  # the others may not know of it
                raise
            failed[cell.name] = " ".join(str(e).split())
            say(f"{cell.name}: {failed[cell.name]}")
        else:
            if complete:
                check(cell)
    return Outcome([cell.name for cell in cells if not finished(study, cell, places)], failed)


class Job(Protocol):
    """A cell that runs elsewhere."""

    def ended(self) -> bool:
        """Whether it has ended."""
        ...

    def failure(self) -> str:
        """What went wrong, in a line; "" for nothing."""
        ...

    def stop(self) -> None:
        """Ask it to store what it has, and to end."""
        ...


def side_by_side(
    study: Study, cells: Sequence[Cell], places: Places, running: Running, spreading: Spreading,
    command: Callable[[Cell], Sequence[str]], say: Callable[[str], None], check: Callable[[Cell], None],
) -> Outcome:  # fmt: skip
    """Carry out cells in jobs of their own, at most `spreading.jobs` of them at a time.

    command: gives what the job of a cell runs. check: as in `one_after_another`. When the deadline passes or a signal
    comes, the running jobs are asked to end, and are given time to store what they have.
    """
    start = _cluster(places, spreading) if spreading.cluster is not None else _local(places, spreading)
    waiting = [cell for cell in cells if not finished(study, cell, places)]
    under_way: dict[str, Job] = {}
    failed: dict[str, str] = {}
    by_name = {cell.name: cell for cell in cells}

    def check_if_finished(name: str) -> None:
        if finished(study, by_name[name], places):
            check(by_name[name])

    with deferred(), ExitStack() as stack:
        stack.callback(lambda: _stop(under_way))
        while waiting or under_way:
            while waiting and len(under_way) < spreading.jobs and not running.over:
                cell = waiting.pop(0)
                say(f"{cell.name} begins ({len(cells) - len(waiting)} of {len(cells)})")
                under_way[cell.name] = start(cell.name, command(cell))
            for name in [name for name, job in under_way.items() if job.ended()]:
                if why := under_way.pop(name).failure():
                    failed[name] = why
                say(f"{name}: {failed.get(name, 'ended')}")
                check_if_finished(name)
            if (number := noted()) is not None:
                _stop(under_way)
                raise Interrupted(number)
            if running.over:
                break
            time.sleep(LOOK)
    return Outcome([cell.name for cell in cells if not finished(study, cell, places)], failed)


def _stop(under_way: Mapping[str, Job]) -> None:
    for job in under_way.values():
        job.stop()
    until = time.monotonic() + GRACE
    while time.monotonic() < until and not all(job.ended() for job in under_way.values()):
        time.sleep(LOOK)


@dataclass
class _Process:
    """A job on this machine, whose output goes into a file."""

    process: subprocess.Popen[bytes]
    log: Path

    def ended(self) -> bool:
        return self.process.poll() is not None

    def failure(self) -> str:
        if self.process.returncode in (0, STOPPED):
            return ""
        said = self.log.read_text(errors="replace").strip().split("\n")
        own = [line for line in said if line.startswith("landscape: ")]
        last = (own or said)[-1].removeprefix("landscape: ").removeprefix(f"{self.log.stem}: ")
        return last[:500] or f"exit status {self.process.returncode}"

    def stop(self) -> None:
        if not self.ended():
            self.process.terminate()


def _local(places: Places, spreading: Spreading) -> Callable[[str, Sequence[str]], Job]:
    cores = max(1, (os.cpu_count() or 1) // (spreading.jobs * spreading.processes))
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(cores))}

    def start(name: str, command: Sequence[str]) -> Job:
        log = places.folder / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "wb") as out:
            return _Process(
                subprocess.Popen(
                    [*launcher(spreading.processes), *command], stdin=subprocess.DEVNULL, stdout=out,
                    stderr=subprocess.STDOUT, env={**os.environ, **threads},
                ),
                log,
            )  # fmt: skip

    return start


@dataclass
class _Submitted:
    """A job of a cluster."""

    job: Any

    def ended(self) -> bool:
        return bool(self.job.done())

    def failure(self) -> str:
        e = self.job.exception()
        return "" if e is None else " ".join((str(e).strip().split("\n") or [""])[-1].split())[:500]

    def stop(self) -> None:
        if not self.ended():
            self.job.cancel(check=False)


def _cluster(places: Places, spreading: Spreading) -> Callable[[str, Sequence[str]], Job]:
    """Jobs of submitit. A cell that is stopped there by force continues from what it stored when submitted again."""
    try:
        import submitit  # an optional dependency
    except ImportError as e:
        raise UserError("a cluster needs submitit: python -m pip install 'landscape[cluster]'") from e
    try:
        executor = submitit.AutoExecutor(folder=places.folder / "logs" / "%j", cluster=spreading.cluster)
        options = dict(option.split("=", 1) for option in spreading.cluster_options)
        executor.update_parameters(**{k: int(v) if v.isdigit() else v for k, v in options.items()})
    except (ValueError, RuntimeError, NameError, TypeError) as e:
        raise UserError(f"cluster={spreading.cluster!r}: {' '.join(str(e).split())}") from e

    def start(name: str, command: Sequence[str]) -> Job:
        executor.update_parameters(name=name)
        run = submitit.helpers.CommandFunction([*launcher(spreading.processes), *command], verbose=False)
        return _Submitted(executor.submit(run))

    return start


def said_of(outcome: Outcome) -> str:
    """What is left, in a line; "" for nothing."""
    left = [name for name in outcome.unfinished if name not in outcome.failed]
    said = []
    if left:
        are = "cell is" if len(left) == 1 else "cells are"
        said.append(f"{len(left)} {are} not finished ({a_few(left)}); the same command continues")
    if outcome.failed:
        each = [f"{name}: {why}" for name, why in outcome.failed.items()]
        said.append(each[0] if len(each) == 1 else f"{len(each)} cells failed: {a_few(each, 10)}")
    return "; ".join(said)
