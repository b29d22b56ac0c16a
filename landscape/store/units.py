"""Work in units, each computed once: saved now and then, and gone on with where an earlier run stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from tqdm import tqdm

from landscape.runtime import processes
from landscape.runtime.errors import UserError, a_few
from landscape.runtime.threads import side_by_side

Save = Callable[[xr.Dataset], None]


Index = tuple[int, ...]


ROUND = 2.0  # seconds of work between two meetings of the processes under torchrun


def begin(empty: xr.Dataset, config: Mapping[str, Any], partial: xr.Dataset | None) -> xr.Dataset:
    """The result to fill: `partial`, an earlier and perhaps unfinished one of the same configuration, or else `empty`.

    Raises UserError, with the differences spelled out, where `partial` was made with another configuration, or lacks
    a variable of `empty`.
    """
    config = json.loads(json.dumps(config))  # as it will be read back
    partial = processes.from_first(partial)  # which may since have written more than the others read
    result = (empty if partial is None else partial).copy(deep=True)
    if partial is not None:
        refuse_other(partial.attrs.get("config", {}), config)
        if missing := empty.data_vars.keys() - partial.data_vars.keys():
            raise UserError(
                f"the stored {config['analysis']} has no {a_few(sorted(map(str, missing)))}: another version wrote it; "
                "write to another file"
            )
    result.attrs["config"] = config
    return result


def refuse_other(stored: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raises UserError, with the differences spelled out, where a stored result has another configuration.

    Where the weights came from is no difference: their contents are compared.
    """
    differences = _differences(stored, config)
    if differences:
        raise UserError(
            f"the stored {config['analysis']} was made with other settings ({a_few(differences, 6)}); "
            "ask for the same to go on with it, or write to another file"
        )


def each_not_done(
    result: xr.Dataset,
    compute: Callable[[list[Index]], None],
    *,
    only: np.ndarray | None = None,
    together: int = 1,
    workers: int = 1,
    save: Save | None,
    save_every: float,
    progress: bool,
) -> None:
    """Call `compute` with the indices of the entries of result["done"] that are False, and mark them.

    only: where True, of the shape of done: the entries wanted now; None for all.
    together: how many neighbours along the last axis are handed over at once.
    workers: how many calls of `compute` run side by side, each writing entries of its own.
    save: called with `result` whenever `save_every` seconds have passed since the last time, and when interrupted.

    Under torchrun the entries are shared out among the processes, every one ends with the whole result, and only the
    first shows progress and saves.
    """
    done = result["done"].values
    first = processes.rank() == 0
    label = result.attrs["config"]["analysis"]
    last = time.monotonic()
    groups: dict[Index, list[Index]] = {}
    for index in (tuple(map(int, i)) for i in np.argwhere(~done if only is None else only & ~done)):
        groups.setdefault((*index[:-1], *(i // together for i in index[-1:])), []).append(index)
    unit = "point" if set(result["done"].dims) <= {"y", "x"} else str((*result["done"].dims, "run")[0])
    bar = tqdm(desc=label, disable=not (progress and first), unit=unit, initial=int(done.sum()), total=done.size)
    try:
        with bar:
            for indices in _completed(result, compute, list(groups.values()), workers):
                for index in indices:
                    done[index] = True
                bar.update(len(indices))
                if save is not None and first and time.monotonic() - last > save_every:
                    save(result)
                    last = time.monotonic()
    except BaseException:
        if save is not None and first and done.any():
            save(result)
        raise


def _completed(
    result: xr.Dataset, compute: Callable[[list[Index]], None], groups: list[list[Index]], workers: int
) -> Iterator[list[Index]]:
    """The groups, as each is computed and its values are in `result`."""
    if processes.size() == 1:
        yield from (indices for indices, _ in side_by_side(compute, groups, workers))
        return
    quota = workers
    while groups:
        mine = groups[processes.rank() :: processes.size()][:quota]
        began = time.monotonic()
        finished = [(indices, _values(result, indices)) for indices, _ in side_by_side(compute, mine, workers)]
        quota = max(workers, int(len(mine) / max(time.monotonic() - began, 1e-6) * ROUND))
        known = set()
        for indices, values in (found for share in processes.gathered(finished) for found in share):
            for name, entries in values.items():
                for index, entry in zip(indices, entries, strict=True):
                    result[name][dict(zip(result["done"].dims, index, strict=True))] = entry
            known.add(tuple(indices))
            yield indices
        groups = [indices for indices in groups if tuple(indices) not in known]


def _values(result: xr.Dataset, indices: list[Index]) -> dict[str, list[np.ndarray]]:
    dims = result["done"].dims
    names = [str(name) for name, variable in result.data_vars.items() if set(dims) <= set(variable.dims)]
    places = [dict(zip(dims, index, strict=True)) for index in indices]
    return {name: [result[name][place].values.copy() for place in places] for name in names}


def _differences(old: Any, new: Any, at: str = "") -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            line
            for key in sorted({*old, *new} - {"provenance"})
            for line in _differences(old.get(key), new.get(key), f"{at}.{key}" if at else key)
        ]
    return [] if old == new else [f"{at}: {old} there, {new} asked"]
