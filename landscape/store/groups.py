"""Groups of labelled arrays written to and read from an open HDF5 file, each checked and named by itself.

What other programs put into the file is kept. Attributes that are not numbers or strings are stored as JSON. Each group
has, beside its content, the digests of it.
"""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import xarray as xr

from landscape.runtime.errors import UserError, a_few
from landscape.store.arrays import attributes, labelled
from landscape.store.strangers import UNPACKED, refuse_mislabelled, unpacked

FORMAT = "landscape-results"
FORMAT_VERSION = 1
SOFTWARE = ("landscape", "torch", "timm", "numpy", "scipy", "xarray")
ONCE_KINDS = ("random", "eigenvectors", "interpolation", "checkpoints", "pca")
DIGESTS = "digests"  # the attribute that holds them; files of earlier versions have none


@dataclass(frozen=True)
class Contents:
    """The groups of a file by name; and for groups that cannot be used, the reason ("it is ...")."""

    groups: dict[str, xr.Dataset] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)

    def over(self, other: Contents) -> Contents:
        """These groups, and those of `other` whose names are not among them."""
        here = {*self.groups, *self.bad}
        return Contents(
            {**{k: v for k, v in other.groups.items() if k not in here}, **self.groups},
            {**{k: v for k, v in other.bad.items() if k not in here}, **self.bad},
        )


def software() -> dict[str, str]:
    """The versions of the software that the numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in SOFTWARE}}


def digests(group: xr.Dataset) -> dict[str, str]:
    """A digest of each variable (dims, type and values) and, as "@name", of each attribute; any change shows in it."""
    found = {f"@{name}": _digest(_as_text(value)) for name, value in group.attrs.items()}
    for name, variable in group.variables.items():
        values = variable.values
        if values.dtype.kind in "OUT":
            texts = json.dumps([str(v) for v in values.ravel()])
            found[str(name)] = _digest(json.dumps([variable.dims, "text", values.shape]), texts)
        else:
            if values.dtype.kind in "fc" and np.isnan(values).any():
                values = np.where(np.isnan(values), values.dtype.type(np.nan), values)  # NaN has many bit patterns
            values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
            about = json.dumps([variable.dims, values.dtype.str, variable.shape])
            found[str(name)] = _digest(about, values.reshape(-1).view(np.uint8))
    return dict(sorted(found.items()))


def _digest(*parts: str | np.ndarray) -> str:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part.data)
    return digest.hexdigest()


def _as_text(value: Any) -> str:
    value = _decoded(value)
    return json.dumps(value if isinstance(value, (dict, list, str)) else np.ravel(value).tolist(), sort_keys=True)


def image(groups: Mapping[str, xr.Dataset], old: Path | None = None) -> memoryview:
    """The bytes of a file with these groups, and with whatever else `old` has.

    The same contents give the same bytes, whether they were just computed or read back. The bytes are made in memory,
    since on a full disk the HDF5 library crashes and takes the process with it.
    """
    buffer = io.BytesIO()
    with h5netcdf.File(buffer, "w") as f:
        f.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION})
        _lift_dimensions(f, groups.values())
        for name in sorted(groups):
            _canonical(groups[name]).dump_to_store(xr.backends.H5NetCDFStore(f.create_group(name)))
    if old is not None:
        with h5py.File(old, "r") as there, h5py.File(buffer, "a") as new:
            _keep_others(there, new, groups)
    return buffer.getbuffer()


def _canonical(dataset: xr.Dataset) -> xr.Dataset:
    dataset = dataset.drop_encoding()
    dataset = dataset.assign_attrs({"software": software(), **dataset.attrs})
    attrs = {**dataset.attrs, DIGESTS: digests(dataset)}
    texts = {k: json.dumps(v, sort_keys=True) if isinstance(v, (dict, list)) else v for k, v in sorted(attrs.items())}
    dataset = dataset.assign_coords({k: c.astype(object) for k, c in dataset.coords.items() if c.dtype.kind in "UT"})
    return xr.Dataset(
        {k: dataset.data_vars[k] for k in sorted(map(str, dataset.data_vars))},
        {k: dataset.coords[k].variable for k in sorted(map(str, dataset.coords))},
        texts,
    )


def _lift_dimensions(f: h5netcdf.File, datasets: Iterable[xr.Dataset]) -> None:
    # A dimension with the name of a two-dimensional variable (node) goes to the root group: in the variable's own group
    # its HDF5 scale would take the name, and plain h5py would read the scale.
    for dataset in datasets:
        for name, variable in dataset.variables.items():
            if variable.ndim > 1 and name in variable.dims and name not in f.dimensions:
                f.dimensions[name] = variable.sizes[name]


def read(f: h5py.File, size: int) -> Contents:
    """Read the groups of an open results file of `size` bytes into memory; JSON attributes are decoded."""
    found = Contents()
    left = max(UNPACKED, 10 * size)
    for name in sorted(k for k in f if isinstance(f[k], h5py.Group)):
        try:
            if (needed := unpacked(f[name])) > left:
                raise UserError(f"it unpacks to over {max(UNPACKED, 10 * size) >> 20} MB, of {size:,} bytes")
            left -= needed
            found.groups[name] = _read_group(f[name])
        except UserError as e:
            found.bad[name] = str(e)
        except Exception as e:  # h5py and xarray may raise anything on damage
            found.bad[name] = f"it is not readable as labelled arrays ({type(e).__name__})"
    return found


def _read_group(held: h5py.Group) -> xr.Dataset:
    attrs = {k: _decoded(v) for k, v in attributes(held).items()}
    written = attrs.pop(DIGESTS, None)
    if written is not None and not isinstance(written, dict):
        raise UserError(f"it has {DIGESTS} that are none")
    group = labelled(held, written)
    group.attrs = attrs
    if written is not None:
        there = digests(group)
        differing = [k.removeprefix("@") for k, digest in written.items() if digest != there.get(k)]
        if differing:
            raise UserError(
                f"it is not as it was written ({a_few(differing)}): damaged; or if you changed it yourself, remove its "
                f"attribute {DIGESTS!r}"
            )
    group.attrs = {k: _today(v) for k, v in attrs.items()}
    refuse_mislabelled(group)
    return group


def _decoded(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "["):
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def _today(config: Any) -> Any:
    """A stored configuration in today's words: the directions of a plane were once called its kind."""
    if isinstance(config, dict) and isinstance(plane := config.get("plane"), dict):
        config = {**config, "plane": _today(plane)}
    if isinstance(config, dict) and config.get("kind") in ONCE_KINDS:
        config = {**config, "directions": config["kind"]}
        del config["kind"]
    return config


def _keep_others(old: h5py.File, new: h5py.File, given: Iterable[str]) -> None:
    """Copy what the new form of a file lacks from the old one: attributes, data sets, and groups, bad ones among them.

    given: the groups whose content is replaced; only what other programs put into them is copied.
    """
    _copy(old, new, old.attrs, old)
    for name in given:
        if name in old and isinstance(old[name], h5py.Group):
            ours = _decoded(old[name].attrs.get(DIGESTS, "{}"))
            known = isinstance(ours, dict) and bool(ours)  # in earlier files all data sets and attributes are ours
            attrs = [k for k in old[name].attrs if known and f"@{k}" not in ours]
            others = [k for k, v in old[name].items() if isinstance(v, h5py.Group) or (known and k not in ours)]
            _copy(old[name], new[name], attrs, others)


def _copy(old: h5py.Group, new: h5py.Group, attrs: Iterable[str], names: Iterable[str]) -> None:
    """Copy those of these attributes and entries that `new` does not have."""
    for name in attrs:
        if name not in new.attrs:
            new.attrs.create(name, old.attrs[name], dtype=old.attrs.get_id(name).dtype)
    for name in names:
        if name not in new:
            old.copy(old[name], new, name)
            _attach(old, new, name)


def _attach(old: h5py.Group, new: h5py.Group, name: str) -> None:
    """Attach a copied entry to the scales of its dimensions.

    HDF5 does not copy references between files, and labelled arrays refer to the scales of their dimensions.
    """
    inside = old[name]
    places = [inside.name] if isinstance(inside, h5py.Dataset) else []
    if isinstance(inside, h5py.Group):
        inside.visititems(lambda _, item: places.append(item.name) if isinstance(item, h5py.Dataset) else None)
    for place in places:
        new.file[place].attrs.pop("DIMENSION_LIST", None)
        new.file[place].attrs.pop("REFERENCE_LIST", None)
    for place in places:
        with suppress(KeyError, ValueError, RuntimeError, OSError):  # damaged entries may have none
            for own, theirs in zip(new.file[place].dims, old.file[place].dims, strict=True):
                for scale in theirs.values():
                    own.attach_scale(new.file[scale.name])
