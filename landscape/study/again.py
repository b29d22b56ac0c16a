"""The commands that make a group of a results file, or a study, again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import xarray as xr

from landscape.catalogue import settings_of
from landscape.store.comparable import MIXING


def command(name: str, group: xr.Dataset, out: str) -> str:
    """A line for a shell, with every setting that is not at its default; "" for a group that no command makes."""
    settings = settings_of(group, name)
    if settings is None:
        return ""
    config: dict[str, Any] = group.attrs.get("config", {})
    objectives = [one.get("objective", {}) for one in config.get("each", {"": config}).values()]
    files = [objective.get("provenance", {}).get("file") for objective in objectives]
    if not all(files):
        return ""
    words = ["landscape", settings.name, *map(str, files)]
    from landscape.planes.random import POSITION_EMBEDDINGS  # needs torch, which is not to be imported at every start

    plane: dict[str, Any] = config.get("plane", {})
    if plane and plane.get("directions") not in ("random", "eigenvectors"):
        return ""  # through checkpoints, whose files the group does not name
    for option, value in [*_of_subject(objectives[0]), ("seed", config.get("seed", plane.get("seed")))]:
        words += _spelled(option, value)
    for field in fields(settings):
        value = plane.get(field.name, getattr(settings, field.name))
        if field.name == "rays":  # a search of its own beside the grid, not part of the configuration
            value = group.sizes.get("ray", 0)
        value = tuple(value) if isinstance(value, list) else value
        if field.name == "exclude" and tuple(value or ()) == tuple(POSITION_EMBEDDINGS):
            continue  # already left out by default
        if value != field.default and field.name not in ("seed", *settings.unstored):
            words += _by_axis(field.name, value)
    return shlex.join([*words, "--out", out])


def _by_axis(name: str, value: Any) -> list[str]:
    """A setting for each axis: given once if both axes share it, and range by range if they differ."""
    if not isinstance(value, tuple) or not value or isinstance(value[0], str):
        return _spelled(name, value)
    if isinstance(value[0], tuple):
        first, *rest = value
        return _spelled(name, first) + [word for one in rest if one != first for word in _spelled(f"y_{name}", one)]
    return _spelled(name, value[0] if name == "points" and len(set(value)) == 1 else value)


def _of_subject(objective: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The options of the subject that an objective was made with."""
    data, origin = objective.get("data", {}), objective.get("provenance", {})
    stated = origin.get("metadata") or {}
    yield "model", None if origin.get("model") == stated.get("model") else origin.get("model")
    yield "data", None if data.get("name") == stated.get("data") else data.get("name")
    if "task" in objective:
        yield "task", _task(objective["task"])
    if data.get("split") == "train":
        yield "samples", data.get("samples")
        yield "tokens", data.get("tokens")
        yield "transform", "eval" if data.get("transform") == "eval" else None
        for name in MIXING:
            yield name, data.get(name) if (data.get(name) or None) != (stated.get(name) or None) else None
    for name in ("mean", "std"):
        yield name, data.get(name) if data.get(name) != stated.get(name) else None
    decay = objective.get("weight_decay")
    yield "weight_decay", decay or None
    yield "penalty", objective.get("penalty") if decay and objective.get("penalty") != "l2" else None


def _task(stored: dict[str, Any]) -> str | None:
    """The task as an option names it; None for a task in the user's own code."""
    from landscape.objective.tasks import TASKS

    name = next((name for name, task in TASKS.items() if task.__qualname__ == stored.get("name")), None)
    if name is None:
        return None
    own = {k: v for k, v in stored.items() if k != "name" and v != getattr(TASKS[name], k, None)}
    return name + (f"({', '.join(f'{k}={v!r}' for k, v in own.items())})" if own else "")


def _spelled(name: str, value: Any) -> list[str]:
    if value is None or value is False:
        return []
    option = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
    if value is True:
        return [option]
    if isinstance(value, (list, tuple)):
        if value and isinstance(value[0], str):
            return [word for one in value for word in (option, one)]
        return [option, ",".join(f"{one:.12g}" for one in value)]
    return [option, f"{value:.12g}" if isinstance(value, float) else str(value)]


def launcher(processes: int) -> list[str]:
    """The beginning of a command that starts `landscape` in this many processes."""
    if processes == 1:
        return [sys.executable, "-m", "landscape"]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
            "--max-restarts", "3", "-m", "landscape"]  # fmt: skip


def of_study(name: str) -> str:
    """The command that carries out a study, given by its name or its file."""
    return (
        "landscape quickstart" if name == "quickstart" else shlex.join(["landscape", "study", name, "--out", "study"])
    )
