"""Work in units, each computed once: saved now and then, and gone on with where an earlier run stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from tqdm import tqdm

from landscape.errors import UserError, a_few
from landscape.workers import side_by_side

Save = Callable[[xr.Dataset], None]
Index = tuple[int, ...]


def begin(empty: xr.Dataset, config: Mapping[str, Any], partial: xr.Dataset | None) -> xr.Dataset:
    """The result to fill: `partial`, an earlier and perhaps unfinished one of the same configuration, or else `empty`.

    Raises UserError, with the differences spelled out, where `partial` was made with another configuration.
    """
    config = json.loads(json.dumps(config))  # as it will be read back
    result = (empty if partial is None else partial).copy(deep=True)
    if partial is not None:
        differences = _differences(partial.attrs.get("config", {}), config)
        if differences:
            raise UserError(
                f"the stored {config['analysis']} was made with other settings ({a_few(differences, 6)}); "
                "ask for the same to go on with it, or write to another file"
            )
    result.attrs["config"] = config
    return result


def each_not_done(
    result: xr.Dataset,
    compute: Callable[[list[Index]], None],
    *,
    together: int = 1,
    workers: int = 1,
    save: Save | None,
    save_every: float,
    progress: bool,
) -> None:
    """Call `compute` with the indices of the entries of result["done"] that are False, and mark them.

    together: how many neighbours along the last axis are handed over at once.
    workers: how many calls of `compute` run side by side, each writing entries of its own.
    save: called with `result` whenever `save_every` seconds have passed since the last time, and when interrupted.
    """
    done = result["done"].values
    label = result.attrs["config"]["analysis"]
    last = time.monotonic()
    groups: dict[Index, list[Index]] = {}
    for index in (tuple(map(int, i)) for i in np.argwhere(~done)):
        groups.setdefault((*index[:-1], *(i // together for i in index[-1:])), []).append(index)
    unit = "point" if result["done"].dims == ("y", "x") else str((*result["done"].dims, "run")[0])
    try:
        with tqdm(desc=label, disable=not progress, unit=unit, initial=int(done.sum()), total=done.size) as bar:
            for indices, _ in side_by_side(compute, list(groups.values()), workers):
                for index in indices:
                    done[index] = True
                bar.update(len(indices))
                if save is not None and time.monotonic() - last > save_every:
                    save(result)
                    last = time.monotonic()
    except BaseException:
        if save is not None and done.any():
            save(result)
        raise


def _differences(old: Any, new: Any, at: str = "") -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            line
            for key in sorted({*old, *new})
            for line in _differences(old.get(key), new.get(key), f"{at}.{key}" if at else key)
        ]
    return [] if old == new else [f"{at}: {old} there, {new} asked"]
