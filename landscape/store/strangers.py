"""What a stranger's file must not be: a stand-in for other files, far larger than it looks, or falsely labelled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import h5py
import numpy as np
import xarray as xr
from typing_extensions import TypedDict  # pydantic rejects that of typing before Python 3.12

from landscape.runtime.errors import UserError

UNPACKED = 256 << 20  # bytes that a file's data sets may unpack to, or ten times its size if that is more
SCALES = ("DIMENSION_LIST", "REFERENCE_LIST")
TEXTS = 100_000  # strings in one data set, each of which is read by itself and may be as long as the file


class Provenance(TypedDict, total=False):
    """Where a network came from, with the entries that readers of results rely on."""

    model: str
    file: str
    sha256: str
    parameters: int | None


class Data(TypedDict, total=False):
    """The examples, with the entries that readers of results rely on."""

    name: str | None
    split: str | None
    transform: str | None
    fraction: list[float] | None


class Loss(TypedDict, total=False):
    """The loss, with the entries that readers of results rely on."""

    weight_decay: float
    penalty: str
    examples: int
    data: Data
    provenance: Provenance


class Config(TypedDict, total=False):
    """A stored configuration, without the settings of its analysis, which check themselves."""

    analysis: str
    objective: Loss
    plane: dict[str, Any]


class Attributes(TypedDict, total=False):
    """The attributes of a group, with the entries that readers of results rely on."""

    config: Config
    software: dict[str, str]


@cache
def _attributes() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Attributes)


def refuse_references(f: h5py.File, path: str | os.PathLike[str]) -> None:
    """Raise UserError if anything in an HDF5 file stands for another file, or for another place in the same file.

    Links, external storage and virtual data sets would cause whatever file they name to be read as data.
    """
    for group, name in _entries(f):
        refers = not isinstance(group.get(name, getlink=True), h5py.HardLink)
        item = None if refers else group[name]
        if isinstance(item, h5py.Dataset):
            refers = bool(item.external) or item.is_virtual
        if refers:
            at = f"{group.name.rstrip('/')}/{name}"
            raise UserError(f"{path}: {at} refers to another file or place, which is not followed; do not trust it")


def _entries(top: h5py.Group) -> Iterator[tuple[h5py.Group, str]]:
    """Every entry, as (group, name), of a group and all groups below it.

    Each group is visited once, even if groups contain each other.
    """
    todo, seen = [top], set()
    while todo:
        group = todo.pop()
        for name in group:
            yield group, name
            item = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
            if isinstance(item, h5py.Group) and (address := h5py.h5o.get_info(item.id).addr) not in seen:
                seen.add(address)
                todo.append(item)


def unpacked(item: h5py.Group | h5py.Dataset) -> int:
    """The number of bytes that a data set, or the data sets directly in a group, unpack to.

    Numbers are counted by their headers alone, without reading them. Raises UserError for too much text.
    """
    for name in item.attrs:
        header = item.attrs.get_id(name)
        if name not in SCALES and header.dtype.hasobject and header.shape not in ((), (1,)):
            raise UserError(f"it has an attribute {name} that is a list of texts")
    if isinstance(item, h5py.Group):
        return sum(unpacked(child) for child in item.values() if isinstance(child, h5py.Dataset))
    if not item.dtype.hasobject:
        return int(item.size or 0) * item.dtype.itemsize
    if item.size is None or item.size > TEXTS:
        raise UserError(f"it has {item.size or 0:,} texts in {item.name}")
    total = 0
    for index in np.ndindex(item.shape):
        total += len(item[index])
        if total > UNPACKED:
            raise UserError(f"it unpacks to over {UNPACKED >> 20} MB of text in {item.name}")
    return total


def _numbers(texts: np.ndarray) -> bool:
    """Whether all of these texts are numbers."""
    try:
        return texts.size > 0 and np.asarray(texts, float).size > 0
    except ValueError:
        return False


def refuse_mislabelled(group: xr.Dataset) -> None:
    """Raise UserError, "it has ...", if a group is not labelled as an analysis labels one.

    Its variables must be numbers or texts, with `done` boolean; the coordinates along each dim must be finite and
    distinct; and the configuration and versions must have the types that their readers rely on.
    """
    from pydantic import ValidationError

    for name, variable in group.variables.items():
        kind = variable.dtype.kind
        if kind == "O" and not all(isinstance(v, str) for v in variable.values.ravel()):
            raise UserError(f"it has {name} of neither numbers nor text")
        if kind not in "fiubcOUT":
            raise UserError(f"it has {name} of the type {variable.dtype}")
        if kind in "OUT" and variable.dims != (name,) and _numbers(variable.values):
            raise UserError(f"it has the numbers of {name} as text")
        if name == "done" and kind != "b":
            raise UserError(f"it has done of the type {variable.dtype}, not true or false")
        if variable.dims == (name,) and kind in "fiuOUT":
            values = variable.values
            if kind == "f" and not np.isfinite(values).all():
                raise UserError(f"it has a coordinate {name} that is not finite")
            if len(np.unique(values.astype(str) if kind in "OT" else values)) < len(values):
                raise UserError(f"it has a value of its coordinate {name} more than once")
    try:
        _attributes().validate_python({str(name): value for name, value in group.attrs.items()}, strict=True)
    except ValidationError as e:
        (first, *_) = e.errors(include_url=False)
        at = ".".join(map(str, first["loc"]))
        raise UserError(f"it has {at} that {first['msg'].replace('Input should be', 'should be')}") from e
