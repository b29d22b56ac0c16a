"""Work in units, each computed once: saved from time to time, and continued where an earlier run stopped."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from landscape.runtime import processes
from landscape.runtime.errors import a_few
from landscape.runtime.interrupts import Interrupted, noted, stop_if_interrupted
from landscape.runtime.progress import bar
from landscape.runtime.threads import side_by_side
from landscape.store.aside import Aside, beside, forget
from landscape.store.changes import OtherSettings, changes

Save = Callable[[xr.Dataset], None]
Index = tuple[int, ...]
SAVE_EVERY = 10.0  # seconds; a killed run loses at most this much work, and the units under way
STATE_EVERY = 3  # the state of a unit under way, which may be large, is kept after this many times SAVE_EVERY
ROUND = 2.0  # seconds of work after which the processes under torchrun exchange results


def begin(empty: xr.Dataset, config: Mapping[str, Any], partial: xr.Dataset | None) -> xr.Dataset:
    """The result to fill: an earlier, perhaps unfinished one of the same configuration, or else an empty one.

    Variables that did not exist when `partial` was made are taken from `empty`, where they are unknown.

    Parameters
    ----------
    empty
        The result with nothing computed.
    config
        Its configuration.
    partial
        The earlier result; None for none.

    Returns
    -------
    xarray.Dataset
        A copy of one of the two, with the configuration.

    Raises
    ------
    OtherSettings
        If `partial` was made with another configuration, with the differences in words, or if its variables do not have
        the dims, types and sizes of those in `empty`.
    """
    config = json.loads(json.dumps(config))  # as it will be read back
    partial = processes.from_first(partial)  # the first process may have written more since the others read
    result = (empty if partial is None else partial).copy(deep=True)
    if partial is not None:
        refuse_other(partial.attrs.get("config", {}), config)
        refuse_misshapen(partial, empty, config["analysis"])
        result = result.assign({name: empty[name] for name in empty.data_vars if name not in result})
    result.attrs["config"] = config
    return result


def refuse_other(stored: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise OtherSettings, with the differences in words, if a stored result has another configuration.

    Where the weights came from is not a difference: their contents are compared.
    """
    if found := changes(stored, config):
        raise OtherSettings(config["analysis"], found)


def refuse_misshapen(stored: xr.Dataset, empty: xr.Dataset, analysis: str) -> None:
    """Raise OtherSettings if a stored result does not have the dims, types, sizes and labels of `empty`."""

    def form(variable: xr.Variable) -> tuple[Any, ...]:
        kind = variable.dtype.kind
        return variable.dims, variable.shape, {"i": "f", "u": "f", "U": "O", "T": "O"}.get(kind, kind)

    differing = [
        str(name)
        for name, variable in empty.variables.items()
        if name in stored.variables
        and (
            form(stored.variables[name]) != form(variable)
            or (variable.dims == (name,) and not (stored[name].values == empty[name].values).all())
        )
    ]
    differing += [str(name) for name in ("done", *empty.coords) if name in empty and name not in stored]
    if differing:
        raise OtherSettings(analysis, [f"not the form that it is continued in: {a_few(differing)}"])


@dataclass
class Work:
    """How units are computed: when to store, when to stop, and what to show.

    Parameters
    ----------
    save
        A function that is called with the unfinished result every `save_every` seconds, when the budget is spent, and
        on an interrupt.
    save_every
        The seconds between two saves; by default SAVE_EVERY.
    budget
        The seconds after which no further unit is started; None for no bound. At least one unit is computed, or part of
        a unit that keeps its state aside: a search for eigenvalues stops between two products.
    progress
        Whether a progress bar is shown.
    """

    save: Save | None = None
    save_every: float | None = None
    budget: float | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        """Start the clock of the budget."""
        self._deadline = None if self.budget is None else time.monotonic() + self.budget
        self._file: tuple[Path, str] | None = None
        self._counted: Callable[[], Any] | None = None

    @property
    def pause(self) -> float:
        """The seconds between two saves."""
        return SAVE_EVERY if self.save_every is None else self.save_every

    def saving(self, save: Save) -> Work:
        """The same work, with the same clock, but stored by another function, as for a part of a larger whole."""
        other = copy.copy(self)
        other.save = save
        return other

    def into(self, path: Path, group: str) -> Work:
        """The same work for a group of a results file, beside which the states of units under way are kept."""
        other = copy.copy(self)
        other._file = (path, group)
        return other

    @property
    def keeps_aside(self) -> bool:
        """Whether there is a results file beside which the state of a unit can be kept."""
        return self._file is not None

    def aside(self, config: Mapping[str, Any], unit: Index) -> Aside:
        """What keeps the state of a unit of this configuration while it is under way, and says when to stop."""
        path = None if self._file is None else beside(*self._file, unit)
        return Aside(path, {**config, "unit": list(unit)}, STATE_EVERY * self.pause, self._between)

    @contextmanager
    def counted_by(self, count: Callable[[], Any] | None) -> Iterator[None]:
        """Within the block `count` is called after each product of a unit that asks whether to stop."""
        before, self._counted = self._counted, count
        try:
            yield
        finally:
            self._counted = before

    def _between(self) -> bool:
        """Count a product, and say whether the unit is to stop after it."""
        if self._counted is not None:
            self._counted()
        return self._late()

    def stored(self, result: xr.Dataset) -> None:
        """Remove the states of the units that are done in this result, now that it is stored."""
        if self._file is not None and "done" in result:
            forget(*self._file, result["done"].values)

    def _late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def spent(self) -> bool:
        """Whether the budget is spent, by the clock of the first process, so that all processes agree."""
        return processes.from_first(self._late())


def each_not_done(
    result: xr.Dataset,
    compute: Callable[[list[Index]], Container[Index] | None],
    work: Work,
    *,
    only: np.ndarray | None = None,
    order: np.ndarray | None = None,
    together: int = 1,
    workers: int = 1,
    by_all: bool = False,
    unit: str = "unit",
    products: int = 0,
) -> None:
    """Call `compute` with the indices of those entries of result["done"] that are False, and mark them as done.

    Once the budget is spent, the remaining entries stay as they are. Under torchrun the entries are shared out among
    the processes, each process ends with the whole result, and only the first shows progress and saves.

    Parameters
    ----------
    result
        The result to fill.
    compute
        A function that computes the entries with these indices. It returns those within which the budget was spent,
        which are not marked as done; None for none.
    work
        When to store, when to stop, and what to show.
    only
        The entries that are wanted now, as a mask of the shape of done; None for all.
    order
        Ranks of the same shape. Entries with lower ranks come first, so that a result cut short is already useful; None
        for the order in memory.
    together
        How many neighbours along the last axis are handed to one call.
    workers
        How many calls of `compute` run side by side, each for entries of its own.
    by_all
        Whether under torchrun all processes compute each entry together, instead of each a share of the entries.
    unit
        What an entry is called beside the progress bar.
    products
        The most Hessian products that an entry takes, if progress counts those; 0 if it counts entries.
    """
    done = result["done"].values
    first = processes.rank() == 0
    label = result.attrs["config"]["analysis"]
    last = time.monotonic()
    wanted = np.argwhere(~done if only is None else only & ~done)
    if order is not None:
        wanted = wanted[np.argsort(order[tuple(wanted.T)], kind="stable")]
    groups: dict[Index, list[Index]] = {}
    for index in (tuple(map(int, i)) for i in wanted):
        groups.setdefault((*index[:-1], *(i // together for i in index[-1:])), []).append(index)
    steps = products or 1
    shown = bar(shown=work.progress and first, desc=label, unit="product" if products else unit,
                initial=steps * int(done.sum()), total=steps * done.size)  # fmt: skip
    try:
        with shown, work.counted_by(shown.update if products else None):
            for indices in _completed(result, compute, list(groups.values()), workers, work, by_all):
                for index in indices:
                    done[index] = True
                shown.update(steps * int(done.sum()) - shown.n)
                if work.save is not None and first and time.monotonic() - last > work.pause:
                    work.save(result)
                    work.stored(result)
                    last = time.monotonic()
    except BaseException:
        if work.save is not None and first and done.any():
            work.save(result)
        raise


def _completed(
    result: xr.Dataset,
    compute: Callable[[list[Index]], Container[Index] | None],
    groups: list[list[Index]],
    workers: int,
    work: Work,
    by_all: bool,
) -> Iterator[list[Index]]:
    """Yield each group of indices once its values are in `result`, until the budget is spent."""
    if processes.size() == 1 or by_all:
        for indices, left in side_by_side(compute, groups, workers):
            yield [index for index in indices if index not in (left or ())]
            if signalled := processes.from_first(noted()):  # all processes stop here
                raise Interrupted(signalled)
            if work.spent:
                return
        return
    quota = workers
    while groups:
        mine = groups[processes.rank() :: processes.size()][:quota]
        began, finished, signalled = time.monotonic(), [], None
        try:
            for indices, left in side_by_side(compute, mine, workers):
                finished.append((indices, left or (), _values(result, indices)))
                stop_if_interrupted()
        except Interrupted as e:  # the others wait for what is finished here, and then stop as well
            signalled = e.number
        quota = max(workers, int(len(mine) / max(time.monotonic() - began, 1e-6) * ROUND))
        known = set()
        shares, signals = zip(*processes.gathered((finished, signalled)), strict=True)
        for indices, left, values in (found for share in shares for found in share):
            for name, entries in values.items():
                for index, entry in zip(indices, entries, strict=True):
                    result[name][dict(zip(result["done"].dims, index, strict=True))] = entry
            known.add(tuple(indices))
            yield [index for index in indices if index not in left]
        groups = [indices for indices in groups if tuple(indices) not in known]
        if any(signals):
            raise Interrupted(next(filter(None, signals)))
        if work.spent:
            return


def _values(result: xr.Dataset, indices: list[Index]) -> dict[str, list[np.ndarray]]:
    dims = result["done"].dims
    # Not data_vars: a two-dimensional variable with the name of one of its dimensions (node) counts as a coordinate.
    names = [
        str(name)
        for name, variable in result.variables.items()
        if set(dims) <= set(variable.dims) and variable.dims != (name,)
    ]
    places = [dict(zip(dims, index, strict=True)) for index in indices]
    return {name: [result[name][place].values.copy() for place in places] for name in names}
