"""The command that carries out a declared study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from landscape.cli.options import default_of, options_of, settled
from landscape.runtime.errors import UserError
from landscape.runtime.settings import Settings
from landscape.runtime.visible import say
from landscape.study.cells import Places, Running
from landscape.study.conduct import Spreading, chosen, one_after_another, said_of, side_by_side
from landscape.study.declared import Cell
from landscape.study.toml import read_study

DECLARED = Annotated[Path, Parameter(help="A .toml file, or digits, cifar10-desk or park-kim, which come with it.")]


@dataclass(frozen=True, kw_only=True)
class Conducting(Settings):
    """Where a study goes, and how it is carried out.

    Parameters
    ----------
    out
        The folder for results, weights, table, verdicts and page; what it already has is kept and continued.
    data
        The data set to use in the place of the study's own.
    cell
        Carry out only these trainings, by name, and write no table and no page; --dry-run lists the names.
    dry_run
        List the trainings with estimated times, measured on their first steps, and store nothing.
    budget
        The time after which no further unit is started, such as 10m or 2h; the same command continues.
    device
        cpu, cuda, cuda:1, ...; by default a GPU if there is one.
    quiet
        Show no progress bars and print no report.
    """

    out: Path
    data: str | None = None
    cell: tuple[str, ...] = ()
    dry_run: bool = False
    budget: timedelta | None = None
    device: str | None = None
    quiet: bool = False


def study(declared: DECLARED, *, how: Any, spreading: Any) -> None:
    """Train and analyse networks as a TOML file declares it; compare them, and judge claims: a table and a page.

    Each training is a unit of its own: killed and started again, the study goes on.

    Example: landscape study digits --out digits
    """
    from landscape.runtime import processes
    from landscape.runtime.devices import chosen_device
    from landscape.study.kept import keep, refuse_another
    from landscape.study.outcome import found, refuse_missing
    from landscape.study.study_page import write
    from landscape.study.times import listed, measured, refuse_impossible

    asked, spread = settled(Conducting, how), settled(Spreading, spreading)
    declared_study = read_study(declared, **({"data": asked.data} if asked.data else {}))
    cells = chosen(declared_study, asked.cell)
    processes.start()
    first = processes.rank() == 0
    refuse_impossible(declared_study)
    places, tell = Places(asked.out), _told(first and not asked.quiet)
    if asked.dry_run:
        say(listed(declared_study, places, measured(declared_study, chosen_device(asked.device), tell)))
        return
    refuse_another(declared_study, places)
    if first and not asked.cell:
        keep(declared_study, places)
    seconds = None if asked.budget is None else asked.budget.total_seconds()
    clock = Running.within(seconds, device=asked.device, progress=first and not asked.quiet)

    def check(cell: Cell) -> None:
        refuse_missing(declared_study, cell, places)

    if spread.here:
        outcome = one_after_another(declared_study, cells, places, clock, tell, check)
    else:
        outcome = side_by_side(
            declared_study, cells, places, clock, spread, lambda cell: _of_cell(declared, asked, cell), tell, check
        )
    if not first:
        return
    if not asked.cell:
        has = found(declared_study, places, outcome.failed)
        for path in write(has, places, str(declared)):
            tell(f"wrote {path}")
        tell(str(has))
    outcome_said = said_of(outcome)
    if outcome.failed:
        raise UserError(outcome_said)
    if outcome_said:
        say(outcome_said)


study.__annotations__ = {
    "declared": DECLARED,
    "how": options_of(Conducting),
    "spreading": options_of(Spreading),
    "return": None,
}
study.__kwdefaults__ = {"spreading": default_of(study, "spreading")}


def _told(shown: bool) -> Callable[[str], None]:
    return say if shown else lambda text: None


def _of_cell(declared: Path, asked: Conducting, cell: Cell) -> list[str]:
    """The command that carries out one cell in a process of its own."""
    place = [str(declared.resolve())] if declared.suffix else [str(declared)]
    data = ["--data", asked.data] if asked.data else []
    device = ["--device", asked.device] if asked.device else []
    return ["study", *place, "--out", str(asked.out.resolve()), *data, *device, "--cell", cell.name, "--quiet"]
