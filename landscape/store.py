"""A group of labelled arrays <-> one HDF5 file, atomically, with provenance.

A file is always written whole, beside the old one, and renamed into its place: a reader, or a run killed at any
moment, sees the old file or the new one. Attributes that are not numbers or strings are stored as JSON.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import xarray as xr

from landscape.errors import UserError

FORMAT = "landscape-results"
FORMAT_VERSION = 1
SOFTWARE = ("landscape", "torch", "timm", "numpy", "scipy", "xarray")


def software() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in SOFTWARE}}


def save(path: str | os.PathLike[str], /, **groups: xr.Dataset) -> None:
    """Write `groups` into the results file at `path`; its other groups are kept.

    Raises UserError where the folder cannot be written, or `path` is a file of another kind.
    """
    path = Path(path)
    merged = {**(load(path) if path.exists() else {}), **groups}
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        root = xr.Dataset(attrs={"format": FORMAT, "format_version": FORMAT_VERSION})
        root.to_netcdf(part, mode="w", engine="h5netcdf")
        _lift_dimensions(part, merged.values())
        for name in sorted(merged):
            _canonical(merged[name]).to_netcdf(part, mode="a", group=name, engine="h5netcdf")
        with open(part, "rb") as f:
            os.fsync(f.fileno())
        os.replace(part, path)
    except OSError as e:
        with suppress(OSError):
            part.unlink()
        raise UserError(f"cannot write {path}: {e.strerror or e}; choose another place with --out") from e


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

    Raises UserError for a file that is missing, truncated, or not a results file of this toolkit.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no such results file: {path}")
    try:
        with h5py.File(path, "r") as f:
            form, names = (
                f.attrs.get("format"),
                [name for name in sorted(f) if isinstance(f[name], h5py.Group)],
            )
            form_version = np.asarray(f.attrs.get("format_version", 0)).item()
        if form != FORMAT:
            raise UserError(
                f"{path} is HDF5, but not a results file of this toolkit; make one with 'landscape analyze'"
            )
        if form_version > FORMAT_VERSION:
            raise UserError(f"{path} has format {form_version}, newer than {FORMAT_VERSION}; update the toolkit")
        groups = {}
        for name in names:
            with xr.open_dataset(path, group=name, engine="h5netcdf") as dataset:
                groups[name] = dataset.load()
    except (OSError, RuntimeError, KeyError) as e:
        raise UserError(f"{path} is not a readable results file (truncated, or not HDF5); move it away") from e
    for dataset in groups.values():
        dataset.attrs = {k: _decoded(v) for k, v in dataset.attrs.items()}
    return groups


def _decoded(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value
