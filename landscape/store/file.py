"""A group of labelled arrays <-> one HDF5 file, atomically, with provenance.

A file is always written whole, beside the old one, and renamed into its place: a reader, or a run killed at any
moment, sees the old file or the new one. One process at a time reads it, puts its groups in and writes it; what cannot
go in because another program holds the file open waits in a file beside it. Attributes that are not numbers or strings
are stored as JSON.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import xarray as xr

from landscape.runtime.errors import UserError
from landscape.runtime.files import alone, replacing, say_once

FORMAT = "landscape-results"


FORMAT_VERSION = 1


ONCE_KINDS = ("random", "eigenvectors", "interpolation", "checkpoints", "pca")


PATIENCE = 10.0  # seconds that a file is waited for which another program holds open


SOFTWARE = ("landscape", "torch", "timm", "numpy", "scipy", "xarray")


def software() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in SOFTWARE}}


def save(path: str | os.PathLike[str], /, **groups: xr.Dataset) -> None:
    """Write groups into a results file; its other groups are kept, also those of other processes.

    Where another program holds the file open for writing, they go into the file `pending(path)`, with a word; `load`
    reads them from there, and the next `save` that finds the file free moves them into it.

    Parameters
    ----------
    path
        The results file.
    groups
        Datasets by the names of their groups.

    Raises
    ------
    UserError
        Where the folder cannot be written, or `path` is another sort of file.
    """
    path = Path(path)
    waiting = pending(path)
    try:
        with alone(path):
            try:
                held = _groups(path, patience=_patience(path)) if path.exists() else {}
            except HeldOpen:
                say_once(f"{path} is held open by another program; until it is free, results are kept in {waiting}")
                _write(waiting, {**(_groups(waiting) if waiting.exists() else {}), **groups})
            else:
                _write(path, {**held, **(_groups(waiting) if waiting.exists() else {}), **groups})
                waiting.unlink(missing_ok=True)
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}; choose another place") from e


def pending(path: str | os.PathLike[str]) -> Path:
    """Where the groups are kept that cannot go into the results file at `path` while another program holds it open."""
    return Path(path).with_name(Path(path).name + ".pending")


def _patience(path: Path) -> float:
    return PATIENCE if not pending(path).exists() else PATIENCE / 10  # it was waited for already


def _write(path: Path, groups: Mapping[str, xr.Dataset]) -> None:
    with replacing(path) as part:
        root = xr.Dataset(attrs={"format": FORMAT, "format_version": FORMAT_VERSION})
        root.to_netcdf(part, mode="w", engine="h5netcdf")
        _lift_dimensions(part, groups.values())
        for name in sorted(groups):
            _canonical(groups[name]).to_netcdf(part, mode="a", group=name, engine="h5netcdf")


def _canonical(dataset: xr.Dataset) -> xr.Dataset:
    # The same contents make the same bytes, whether just computed or read back.
    dataset = dataset.drop_encoding()
    attrs = {"software": software(), **dataset.attrs}
    texts = {k: json.dumps(v, sort_keys=True) if isinstance(v, (dict, list)) else v for k, v in sorted(attrs.items())}
    dataset = dataset.assign_coords({k: c.astype(object) for k, c in dataset.coords.items() if c.dtype.kind in "UT"})
    return xr.Dataset(
        {k: dataset.data_vars[k] for k in sorted(map(str, dataset.data_vars))},
        {k: dataset.coords[k].variable for k in sorted(map(str, dataset.coords))},
        texts,
    )


def _lift_dimensions(path: Path, datasets: Iterable[xr.Dataset]) -> None:
    # A dimension named like a variable of two dimensions (node) goes to the root group: beside the variable, its HDF5
    # scale would take the name, and plain h5py would read the scale.
    with h5netcdf.File(path, "a") as f:
        for dataset in datasets:
            for name, variable in dataset.variables.items():
                if variable.ndim > 1 and name in variable.dims and name not in f.dimensions:
                    f.dimensions[name] = variable.sizes[name]


def load(path: str | os.PathLike[str]) -> dict[str, xr.Dataset]:
    """The groups of a results file, in memory, by name; JSON attributes are decoded.

    What waits in `pending(path)` is among them. A file that another program holds open is waited for, then read all
    the same.

    Parameters
    ----------
    path
        The results file.

    Raises
    ------
    UserError
        For a file that is missing, truncated, not a results file of this toolkit, or that refers to other files.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no such results file: {path}")
    try:
        groups = _groups(path, patience=_patience(path))
    except HeldOpen as e:
        try:
            groups = _groups(path, locking=False)
        except UserError:  # its writer is in the middle of something
            raise e from None
    return {**groups, **(_groups(pending(path)) if pending(path).exists() else {})}


def stored(path: str | os.PathLike[str], group: str) -> xr.Dataset | None:
    """One group of a results file; None where the file does not have it, or is not there."""
    return load(path).get(group) if Path(path).exists() else None


class HeldOpen(UserError):
    """Another program holds the file open, and has locked it."""


def _groups(path: Path, *, patience: float = PATIENCE, locking: bool = True) -> dict[str, xr.Dataset]:
    deadline = time.monotonic() + patience
    while True:
        try:
            return _read(path, locking)
        except BlockingIOError as e:  # the lock that HDF5 takes
            if time.monotonic() > deadline:
                raise HeldOpen(f"{path} is held open by another program; close it there, and try again") from e
            time.sleep(0.1)
        except OSError as e:
            if e.errno in (errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EISDIR):
                raise UserError(f"cannot read {path}: {os.strerror(e.errno)}") from e
            raise UserError(f"{path} is not a readable results file (truncated, or not HDF5); move it away") from e
        except (RuntimeError, KeyError) as e:
            raise UserError(f"{path} is not a readable results file (truncated, or not HDF5); move it away") from e


def _read(path: Path, locking: bool) -> dict[str, xr.Dataset]:
    with h5py.File(path, "r", locking=None if locking else False) as f:
        form, form_version = f.attrs.get("format"), np.asarray(f.attrs.get("format_version", 0)).item()
        if form != FORMAT:
            raise UserError(
                f"{path} is HDF5, but not a results file of this toolkit; make one with 'landscape analyze'"
            )
        if form_version > FORMAT_VERSION:
            raise UserError(f"{path} has format {form_version}, newer than {FORMAT_VERSION}; update the toolkit")
        refuse_references(f, path)
        groups = {}
        with h5netcdf.File(f, "r") as opened:  # one open file for all: another may take its place meanwhile
            for name in sorted(opened.groups):
                groups[name] = xr.open_dataset(xr.backends.H5NetCDFStore(opened[name])).load()
                groups[name].set_close(None)  # it holds nothing of the file, and goes to other processes
    for dataset in groups.values():
        dataset.attrs = {k: _today(_decoded(v)) for k, v in dataset.attrs.items()}
    return groups


def refuse_references(f: h5py.File, path: str | os.PathLike[str]) -> None:
    """Raises UserError where anything in an HDF5 file stands for another file, or another place in it.

    Links, external storage and virtual data sets would have whatever file they name read as if it were data.
    """
    todo: list[h5py.Group] = [f]
    seen = set()
    while todo:
        group = todo.pop()
        for name in group:
            refers = not isinstance(group.get(name, getlink=True), h5py.HardLink)
            item = None if refers else group[name]
            if isinstance(item, h5py.Dataset):
                refers = bool(item.external) or item.is_virtual
            if refers:
                at = f"{group.name.rstrip('/')}/{name}"
                raise UserError(f"{path}: {at} refers to another file or place, which is not followed; do not trust it")
            if isinstance(item, h5py.Group) and (address := h5py.h5o.get_info(item.id).addr) not in seen:
                seen.add(address)
                todo.append(item)


def _decoded(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _today(config: Any) -> Any:
    """A stored configuration in the words of today: the directions of a plane were once its kind."""
    if isinstance(config, dict) and isinstance(plane := config.get("plane"), dict):
        config = {**config, "plane": _today(plane)}
    if isinstance(config, dict) and config.get("kind") in ONCE_KINDS:
        config = {**config, "directions": config["kind"]}
        del config["kind"]
    return config
