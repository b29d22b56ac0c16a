"""The labelled arrays of an open HDF5 group, as the netCDF4 format lays them out.

xarray reads the same through h5netcdf, which asks HDF5 some forty times for each variable: for a file of twenty groups,
that is most of the time that `show` takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
import xarray as xr

NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"
LAYOUT = (
    "CLASS",
    "DIMENSION_LIST",
    "NAME",
    "REFERENCE_LIST",
    "_NCProperties",
    "_Netcdf4Coordinates",
    "_Netcdf4Dimid",
    "_nc3_strict",
)


def attributes(item: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """The attributes of a group or data set, without those of the layout; one value in a list stands for itself."""
    return {name: _value(item.attrs[name]) for name in item.attrs if name not in LAYOUT}


def labelled(group: h5py.Group, digests: Mapping[str, object] | None) -> xr.Dataset:
    """The variables of a group, in memory; if `digests` are given, only those of which there is one.

    A dimension without a label is named by its size.
    """
    arrays: dict[str, xr.Variable] = {}
    names: dict[int, str] = {}  # of the dimensions, by the places of their scales: HDF5 is slow to tell a name
    for name, item in group.items():
        if isinstance(item, h5py.Dataset) and (digests is None or name in digests) and not _only_size(item):
            values = item.asstr()[...].astype(str) if h5py.check_string_dtype(item.dtype) else item[...]
            arrays[name] = xr.Variable(_dimensions(name, item, names), values, attributes(item))
    return xr.decode_cf(xr.Dataset(arrays), decode_times=False).load()


def _only_size(item: h5py.Dataset) -> bool:
    return item.is_scale and bytes(item.attrs.get("NAME", b"")).startswith(NO_VARIABLE)


def _dimensions(name: str, item: h5py.Dataset, names: dict[int, str]) -> list[str]:
    scales = item.attrs.get("DIMENSION_LIST")
    if scales is None:
        return [name] if item.is_scale and item.ndim == 1 else [f"unnamed_{size}" for size in item.shape]
    found = []
    for refs in scales:
        scale = item.file[refs[0]]
        place = h5py.h5o.get_info(scale.id).addr
        if place not in names:
            names[place] = scale.name.rpartition("/")[2]
        found.append(names[place])
    return found


def _value(value: Any) -> Any:
    if isinstance(value, h5py.Empty):
        return np.array([], value.dtype)
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.dtype.kind in "OSU" else value
        value = value[0] if np.ndim(value) == 1 and len(value) == 1 else value
    return value.decode() if isinstance(value, bytes) else value
