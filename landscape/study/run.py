"""An analysis into its group of a results file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import xarray as xr

from landscape import store
from landscape.data.sources import MissingSplit
from landscape.runtime import processes
from landscape.runtime.files import alone
from landscape.store.units import Save, refuse_other
from landscape.study.subject import Subject


def into(
    path: str | os.PathLike[str],
    group: str,
    compute: Callable[[xr.Dataset | None, Save], xr.Dataset],
    **beside: xr.Dataset,
) -> xr.Dataset:
    """Compute a group of a results file, going on from what the file has of it, and store it.

    compute: from (the stored group or None, a function that stores an unfinished one) to the finished one. Under
        torchrun each process computes, and the first alone writes. Another run of the same group is waited for.
    beside: groups that are stored together with it, once it has found that it may go on.
    """
    path = Path(path)
    writes = processes.rank() == 0
    with alone(path, group) if writes else nullcontext():
        stored = store.stored(path, group) if writes else None
        if stored is None and writes:  # a place that cannot be written is better known before than after
            store.save(path)
        stored = processes.from_first(stored)
        result = compute(stored, lambda unfinished: store.save(path, **{group: unfinished}, **beside))
        if writes:
            store.save(path, **{group: result}, **beside)
    return result


def evaluate_test(subject: Subject, out: str | os.PathLike[str] | None = None) -> xr.Dataset | None:
    """Accuracy and NLL on the test split, each with its standard error over examples; None without such a split.

    out: a results file to keep them in, and to take them from where it has those of the same network and data.
    """
    try:
        data = subject.frozen(split="test", transform="eval")
    except MissingSplit:
        return None
    objective = subject.objective(data)
    config = json.loads(json.dumps({"analysis": "test", "objective": _without_penalty(objective.config())}))

    def compute(stored: xr.Dataset | None, _: Save | None = None) -> xr.Dataset:
        if stored is not None:
            there = stored.attrs.get("config", {})
            refuse_other({**there, "objective": _without_penalty(there.get("objective", {}))}, config)
            return stored
        values = objective.evaluate().asdict()
        kept = {name: values[name] for name in ("nll", "nll_sem", "accuracy", "accuracy_sem", "examples")}
        return xr.Dataset(kept, attrs={"config": config})

    return compute(None) if out is None else into(out, "test", compute)


def _without_penalty(objective: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of an objective of which only the NLL and the accuracy are used."""
    return {key: value for key, value in objective.items() if key not in ("weight_decay", "penalty", "decay")}
