"""What an analysis is: settings that check themselves, units computed one by one, and estimates made of them.

A subclass gets from this its command and help, the name of its group, progress, resuming, a time budget, spreading over
processes, its line in `show`, the columns of tables, and its picture. To add an analysis, write a file with a subclass
and add a line to `landscape.catalogue`.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np
import xarray as xr

from landscape.analyses.estimates import Estimate
from landscape.runtime import processes
from landscape.runtime.interrupts import deferred
from landscape.runtime.progress import wanted
from landscape.runtime.settings import Settings
from landscape.store.units import Index, Work, begin, each_not_done

if TYPE_CHECKING:  # torch is imported only where something is computed: settings and estimates do without it
    from torch import Tensor, nn

    from landscape.objective.objective import Objective
    from landscape.planes.plane import Plane

LOG = logging.getLogger(__name__)
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Examples:
    """Which frozen examples an analysis studies.

    Parameters
    ----------
    usual
        The number of examples unless the user gives one; None for all.
    at_most
        The most examples that the analysis can use, whatever the user gives; None for any number.
    exactly
        The number of examples, whatever the user gives, or all if there are fewer.
    split
        The split of the data set.
    transform
        The transform; None for what the user gives for the training split.
    counted
        Whether the number is known before anything is computed.
    """

    usual: int | None = None
    at_most: int | None = None
    exactly: int | None = None
    split: Literal["train", "test"] = "train"
    transform: Literal["train", "eval"] | None = None
    counted: bool = True


class Kept(NamedTuple):
    """What units are computed from, what keeps the state of a unit in progress, and what that state belongs to."""

    objective: Objective
    work: Work
    config: Mapping[str, Any]


class Subject(Protocol):
    """A network and its data, as analyses ask for them; `landscape.study.subject.Subject` is one."""

    label: str
    model: nn.Module
    provenance: dict[str, Any]

    def states(self, paths: Sequence[Path]) -> Mapping[str, Mapping[str, Tensor]]:
        """The weights of other checkpoints of the same network, by label."""
        ...

    def trajectory(self, folder: Path) -> Mapping[str, Mapping[str, Tensor]]:
        """The weights of the checkpoints of a folder, in their natural order."""
        ...

    def stored_plane(self, file: Path) -> Plane:
        """The plane of a results file, FILE.h5 or FILE.h5:GROUP."""
        ...

    def objective(self, examples: Examples) -> Objective:
        """The loss on these examples, which are drawn once, however many analyses ask for them."""
        ...

    def known_of(self, examples: Examples, available: int | None = None) -> dict[str, Any]:
        """What is known about the objective before examples are drawn, under the names of a stored configuration."""
        ...


class Held(dict[str, xr.Dataset]):
    """The groups of a results file by name; empty without a file.

    Parameters
    ----------
    groups
        The groups.
    file
        The results file, beside which a long preparation may keep its state; None without a file.
    work
        The work, with the clock of the budget.
    """

    def __init__(
        self, groups: Mapping[str, xr.Dataset] | None = None, file: Path | None = None, work: Work | None = None
    ) -> None:
        super().__init__(groups or {})
        self._file, self._work = file, work or Work()

    def work_on(self, group: str) -> Work:
        """The work for a group that is being prepared, before there is anything to store."""
        return self._work if self._file is None else self._work.into(self._file, group)


@dataclass(frozen=True, kw_only=True)
class Analysis(Settings, ABC):
    """The base class of every analysis: a frozen dataclass whose fields are its settings.

    A subclass says which units its result consists of (`empty`), computes one unit (`compute`), and turns the finished
    units into `estimates`. Units are independent: any order and any split over processes gives the same result.

    The fields are also the keyword arguments in Python, the options of the command, and the stored configuration.
    """

    name: ClassVar[str]
    unit: ClassVar[str] = "unit"
    several: ClassVar[bool] = False  # whether it takes several checkpoints at once
    unstored: ClassVar[tuple[str, ...]] = ()  # fields that say how to compute and do not change the numbers

    @property
    def variant(self) -> str:
        """What tells this form from the usual one in a results file; "" for the usual form."""
        return ""

    @property
    def division(self) -> str:
        """How the result is divided, if each part has a row of its own, as the variant ends with it; otherwise ""."""
        return ""

    @property
    def group(self) -> str:
        """The name of its group in a results file."""
        return "_".join(filter(None, (self.name, self.variant)))

    @property
    def examples(self) -> Examples:
        """Which examples it studies if the user does not say."""
        return Examples()

    def prepare(self, subject: Subject, held: Held) -> Any:
        """What `empty` and `ready` are given: by default, the loss on the analysis's examples.

        Parameters
        ----------
        subject
            The network and its data.
        held
            The groups of the results file, if there is one, and the work of filling it.
        """
        return subject.objective(self.examples)

    def prepare_several(self, subjects: Mapping[str, Subject]) -> Any:
        """The same for an analysis of several checkpoints at once, given by label and studied on the same examples."""
        return {label: subject.objective(self.examples) for label, subject in subjects.items()}

    def group_for(self, objective: Any) -> str:
        """The name of its group in a results file, once it is known what it is applied to."""
        return self.group

    def context(self, objective: Any) -> Mapping[str, Any]:
        """What fixes the numbers besides the settings, for the stored configuration."""
        return {"objective": objective.config()}

    @abstractmethod
    def empty(self, objective: Any) -> xr.Dataset:
        """The result with nothing computed: `done` is False over its units."""

    def ready(self, objective: Any) -> Any:
        """What `compute` is given: made once, and only if a unit is left to compute; by default, the objective."""
        return objective

    @abstractmethod
    def compute(self, ready: Any, unit: Index) -> Values:
        """The values of one unit, by the names of the result's variables; they do not depend on the other units.

        If the budget ran out within the unit, the values include "done": False.
        """

    def compute_together(self, ready: Any, units: Sequence[Index]) -> Sequence[Values]:
        """The values of neighbouring units, where computing several at once is cheaper."""
        return [self.compute(ready, unit) for unit in units]

    def group_size(self, objective: Any) -> int:
        """How many units `compute_together` is given at once."""
        return 1

    def side_by_side(self, objective: Any) -> int:
        """How many calls run side by side, each in a thread of its own."""
        return 1

    def by_all(self) -> bool:
        """Whether under torchrun all processes compute each unit together, rather than each a share of the units."""
        return False

    def products_of_a_unit(self, objective: Any) -> int:
        """How many Hessian products a unit takes at most, if progress counts these; 0 if progress counts units."""
        return 0

    def order(self, result: xr.Dataset) -> np.ndarray | None:
        """Numbers in the shape of `done`: units with lower ones go first, so that a result cut short is of use."""
        return None

    def arithmetic(self) -> AbstractContextManager[None]:
        """Settings of the process that hold while units are computed; they are entered once, around all threads."""
        return nullcontext()

    def fill(self, objective: Any, result: xr.Dataset, work: Work) -> xr.Dataset:
        """Compute every unit that is not done, or as many as the budget allows."""
        self.visit(objective, result, work)
        return result

    def finish(self, result: xr.Dataset) -> xr.Dataset:
        """The result with what is computed from several units; this is also done for an unfinished result."""
        return result

    def estimates(self, result: xr.Dataset) -> list[Estimate]:
        """The numbers that the finished units give, each with its interval."""
        return []

    def rows(self, result: xr.Dataset) -> Mapping[str, list[Estimate]]:
        """The estimates, by what they describe if the result covers several things, such as checkpoints; "" for all."""
        return {"": self.estimates(result)}

    def tabled(self, result: xr.Dataset) -> tuple[str, ...]:
        """The dims whose every index has a row in a table of the values; by default, one row for each unit."""
        return tuple(map(str, result["done"].dims)) if "done" in result else ()

    def check_result(self, result: xr.Dataset) -> None:
        """Raise UserError if a result cannot come from this analysis, since values are outside their possible range.

        It is called for every group that is read, whoever wrote it. So are `rows` and `remarks`, which may raise any
        error.
        """

    def remarks(self, result: xr.Dataset) -> list[str]:
        """What a reader of the numbers must know, in words: what did not converge, diverged, or is approximate."""
        return []

    def beside(self, objective: Any) -> Mapping[str, xr.Dataset]:
        """Groups that are stored together with the result."""
        return {}

    def run(self, objective: Any, *, stored: xr.Dataset | None = None, work: Work | None = None) -> xr.Dataset:
        """The result, or as much of it as the budget of `work` allows.

        Parameters
        ----------
        objective
            What `prepare` gave.
        stored
            An earlier, perhaps unfinished result of the same analysis, whose units are kept.
        work
            When to store and when to stop.

        Raises
        ------
        UserError
            If `stored` was made with other settings, which are named.
        """
        work = work or Work()
        with deferred(), self._undisturbed(), wanted(work.progress and processes.rank() == 0):
            config = self.config(objective)
            result = begin(self.empty(objective), config, self._completed(stored, config))
            self._say(result, "begins with")
            with self.arithmetic():
                result = self.fill(objective, result, work)
            self._say(result, "stops with")
            return self.finish(result)

    def _say(self, result: xr.Dataset, words: str) -> None:
        if "done" in result:
            done = result["done"].values
            LOG.debug("%s %s %d of %d done (%s)", self.name, words, int(done.sum()), done.size, self.unit)

    @staticmethod
    def _undisturbed() -> AbstractContextManager[None]:
        from landscape.runtime.caller import undisturbed

        return undisturbed()

    @classmethod
    def called(cls, objective: Any, keywords: Mapping[str, Any]) -> xr.Dataset:
        """The result for keyword arguments, which are settings, arguments of `Work`, and `partial`."""
        given = dict(keywords)
        stored = given.pop("partial", None)
        work = Work(**{f.name: given.pop(f.name) for f in fields(Work) if f.name in given})
        return cls.asked(given).run(objective, stored=stored, work=work)

    @classmethod
    def among(cls, keywords: Mapping[str, Any]) -> Self:
        """The settings among the keyword arguments of `called`."""
        of_run = {"partial", *(f.name for f in fields(Work))}
        return cls.asked({name: value for name, value in keywords.items() if name not in of_run})

    def visit(self, objective: Any, result: xr.Dataset, work: Work, only: np.ndarray | None = None) -> None:
        """Compute the units that are not done, or those of them in `only`, and write them into `result`."""
        if not (~result["done"].values if only is None else only & ~result["done"].values).any():
            return
        ready = self.ready(objective)

        def compute(units: list[Index]) -> list[Index]:
            unfinished = []
            for unit, values in zip(units, self.compute_together(ready, units), strict=True):
                place = dict(zip(result["done"].dims, unit, strict=True))
                for name, value in values.items():
                    if name != "done":
                        result[name][place] = value
                    elif not value:
                        unfinished.append(unit)
            return unfinished

        each_not_done(
            result, compute, work, only=only, order=self.order(result), unit=self.unit,
            together=self.group_size(objective), workers=self.side_by_side(objective), by_all=self.by_all(),
            products=self.products_of_a_unit(objective),
        )  # fmt: skip

    def config(self, objective: Any) -> dict[str, Any]:
        """What fixes the numbers: the settings and what they are applied to."""
        stored = {name: value for name, value in self.asdict().items() if name not in self.unstored}
        return {"analysis": self.name, **stored, **self.context(objective)}

    def _completed(self, stored: xr.Dataset | None, config: Mapping[str, Any]) -> xr.Dataset | None:
        """`stored` with what did not exist yet when it was made: settings at their defaults, the rest as it is now."""
        if stored is None:
            return None
        there = {self.formerly.get(name, name): value for name, value in stored.attrs.get("config", {}).items()}
        defaults = {f.name: f.default for f in fields(self) if f.name not in self.unstored}
        loss = {**config.get("objective", {}), **there.get("objective", {})}
        return stored.assign_attrs(config={**defaults, **there, **({"objective": loss} if loss else {})})
