"""The trainings of a network: their results files, at the end and at checkpoints on the way."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import xarray as xr

from landscape.analyses.estimates import Estimate
from landscape.catalogue import settings_of
from landscape.runtime.errors import UserError
from landscape.study.files import by_name, in_natural_order, labelled
from landscape.study.numbers import numbers
from landscape.study.reading import load
from landscape.study.shared_units import units_of

LOSS = "training NLL"
File = Mapping[str, xr.Dataset]
Pathlike = str | os.PathLike[str]


class Known(NamedTuple):
    """An estimate, and the name of its units."""

    estimate: Estimate
    units: Hashable


Checkpoint = Mapping[str, Known]  # by heading


@dataclass(frozen=True)
class Training:
    """The results of one training.

    Parameters
    ----------
    end
        The results of its last checkpoint.
    way
        The results of its checkpoints in order, if each has a results file of its own.
    """

    end: File
    way: Sequence[File] = ()

    def numbers(self, groups: Sequence[str]) -> dict[tuple[str, str], Known]:
        """The numbers at the end, by group and heading, without those of checkpoints within a group."""
        held = {name: group for name, group in self.end.items() if name in groups}
        return {
            (n.group, f"{n.label}: {n.heading}" if n.label else n.heading): Known(
                n.estimate, units_of(held[n.group].attrs.get("config", {}), n.estimate)
            )
            for n in numbers(held)
            if not n.checkpoint
        }

    def checkpoints(self, group: str) -> list[Checkpoint]:
        """The numbers of a group at each checkpoint, with its training NLL; none if the group has no series of them."""
        if self.way:
            tables = [Training(file).numbers(list(file)) for file in self.way if group in file]
            each = [{h: known for (g, h), known in table.items() if g == group or h == LOSS} for table in tables]
        else:
            data = self.end[group]
            settings, config = settings_of(data, group), data.attrs.get("config", {})
            whole = settings is not None and settings.several and not settings.division
            rows = settings.rows(data) if settings is not None and whole else {}
            each = [{_heading(e): Known(e, units_of(config, e)) for e in es} for es in rows.values()]
        return [one for one in each if LOSS in one and one[LOSS].estimate.value > 0]


@dataclass(frozen=True)
class Network:
    """The trainings of one network, by names that distinguish them from those of all other networks."""

    name: str
    trainings: Mapping[str, Training]


def opened(files: Sequence[Pathlike], groups: Mapping[str, Sequence[Pathlike]]) -> list[Network]:
    """A network for each file, FILE=LABEL for a name other than its own, and one for each group.

    A folder stands for one training: the results files in it are of its checkpoints, in the natural order of their
    names. Raises UserError for fewer than two networks, or if files or weights are given twice.
    """
    networks = read(files, groups)
    refuse_the_same(networks)
    return networks


def read(files: Sequence[Pathlike], groups: Mapping[str, Sequence[Pathlike]]) -> list[Network]:
    """The same as `opened`, but for any number of networks and with weights that may repeat."""
    named, inside = labelled(list(map(str, files))), [Path(path) for some in groups.values() for path in some]
    by_name([*named.values(), *inside])  # raises for a file that is given twice
    networks = [Network(label, {label: _training(path)}) for label, path in named.items()]
    names = {path: name for name, path in by_name(inside).items()}
    for name, some in groups.items():
        if name in named or not some:
            raise UserError(f"the group {name!r} " + ("has the name of a file" if some else "has no files"))
        networks.append(Network(name, {names[path]: _training(path) for path in map(Path, some)}))
    return networks


def refuse_the_same(networks: Sequence[Network]) -> None:
    """Raise UserError if the same weights stand for two trainings or two networks, or one network for two."""
    if len(networks) < 2:
        raise UserError("a comparison needs two networks: two results files, or two groups of them")
    trainings = [(name, t) for network in networks for name, t in network.trainings.items()]
    weights = [(name, {_weights(group) for group in t.end.values()} - {None}) for name, t in trainings]
    for (a, one), (b, other) in combinations(weights, 2):
        if one & other:
            raise UserError(f"{a} and {b} are results of the same weights; a comparison needs different ones")


def _training(path: Path) -> Training:
    if not path.is_dir():
        return Training(load(path))
    found = in_natural_order(path.glob("*.h5"))
    if not found:
        raise UserError(f"{path} is a folder without results files (.h5)")
    way = [load(file) for file in found]
    return Training(way[-1], way)


def _heading(e: Estimate) -> str:
    """The heading of a number in a series, whose NLL is that of the training data."""
    return LOSS if e.name == "NLL" else e.name


def _weights(group: xr.Dataset) -> str | None:
    """The fingerprint of the weights that a group was computed from."""
    found: str | None = group.attrs.get("config", {}).get("objective", {}).get("weights_sha256")
    return found
