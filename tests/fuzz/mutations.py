"""What a stranger, a failing disk or a slip of the hand makes of a valid file: drawn by hypothesis."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr
from hypothesis import strategies as st

import landscape as ls
from landscape.catalogue import CATALOGUE
from landscape.store.groups import image

NASTY: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, 5e-324, float("nan"), float("inf"), "", "a", "LM",
    "-1", "nan", "\0", "\x1b[31m", "$$", "<b>", "../x", "x" * 5000, "🎢", [], [1], [[]], ["a", None], {},
    {"a": {"b": []}}, [0.1, 0.2], [float("nan")] * 3, "[1, 2", "{",
]  # fmt: skip
values = st.sampled_from(NASTY) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4), max_leaves=6,
)  # fmt: skip


@st.composite
def damaged_bytes(draw: Any, whole: bytes) -> bytes:
    """Flipped bits, a piece cut out or doubled, an end missing."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        if not content:
            break
        at = draw(st.integers(0, len(content) - 1))
        match draw(st.sampled_from(["flip", "flip", "set", "cut", "end", "double"])):
            case "flip":
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "set":
                content[at : at + 8] = draw(st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\x7f" * 8]))
            case "cut":
                del content[at : at + draw(st.integers(1, 64))]
            case "end":
                del content[at:]
            case "double":
                content[at:at] = content[at : at + draw(st.integers(1, 64))]
    return bytes(content)


@st.composite
def changed_json(draw: Any, held: Any) -> Any:
    """A value somewhere in it replaced, left out or added."""
    if not isinstance(held, dict) or not held or draw(st.integers(0, 9)) == 0:
        return draw(values)
    key = draw(st.sampled_from(sorted(held)))
    match draw(st.sampled_from(["within", "within", "replace", "drop", "add"])):
        case "within":
            return {**held, key: draw(changed_json(held[key]))}
        case "replace":
            return {**held, key: draw(values)}
        case "drop":
            return {k: v for k, v in held.items() if k != key}
    return {
        **held,
        draw(st.text(max_size=6) | st.sampled_from(["kind", "which", "per", "method", "plane"])): draw(values),
    }


@st.composite
def changed_array(draw: Any, array: np.ndarray) -> np.ndarray:
    """Of another shape, type or with other values."""
    match draw(st.sampled_from(["value", "value", "fill", "type", "shape"])):
        case "value" if array.size and array.dtype.kind in "fiub":
            array = array.copy()
            flat = draw(st.integers(0, array.size - 1))
            array.flat[flat] = np.asarray(
                draw(st.sampled_from([0, 1, -1, 1e300, np.nan, np.inf, 1e-300])), float
            ).astype(array.dtype)
            return array
        case "fill" if array.dtype.kind in "fiub":
            return np.full_like(array, draw(st.sampled_from([0, 1, 2])))
        case "type":
            kind = draw(st.sampled_from(["f4", "i8", "u1", "?", "U", "c16", "i1"]))
            with np.errstate(all="ignore"):
                try:
                    made = array.astype(kind)
                except ValueError:
                    return np.zeros(array.shape)
            return made.astype(object) if kind == "U" else made
    shape = draw(
        st.sampled_from([(), (0,), (1,), (3,), (array.size,), (2, 2), (*array.shape, 1), array.shape[::-1], (200, 200)])
    )
    return np.resize(array if array.size else np.zeros(1), shape)


@st.composite
def changed_group(draw: Any, group: xr.Dataset) -> xr.Dataset:
    """A variable changed, removed or renamed, dims renamed or cut, the configuration changed; xarray still has it."""
    for _ in range(draw(st.integers(1, 2))):
        names = sorted(map(str, group.variables))
        what = draw(st.sampled_from(["array", "array", "drop", "rename", "dim", "cut", "config", "config", "attr"]))
        if what in ("config", "attr") or not names:
            config = draw(changed_json(group.attrs.get("config", {})))
            if what == "config" and isinstance(config, dict) and draw(st.booleans()):
                config["analysis"] = draw(st.sampled_from(sorted(CATALOGUE)))
            key = "config" if what == "config" else draw(st.sampled_from(["layout", "software", "seed", "digests"]))
            group = group.assign_attrs({key: config if isinstance(config, (dict, list, str)) else json.dumps(config)})
            continue
        name = draw(st.sampled_from(names))
        try:
            match what:
                case "array":
                    array = draw(changed_array(group[name].values))
                    dims = (
                        group[name].dims if array.shape == group[name].shape else [f"d{i}" for i in range(array.ndim)]
                    )
                    group = group.drop_vars(name).assign({name: (dims, array)})
                case "drop":
                    group = group.drop_vars(name)
                case "rename":
                    group = group.rename({name: draw(st.sampled_from([*names, "other"]))})
                case "dim" if group.dims:
                    group = group.rename({draw(st.sampled_from(sorted(map(str, group.dims)))): "other"})
                case "cut" if group.dims:
                    dim = draw(st.sampled_from(sorted(map(str, group.dims))))
                    group = group.isel(
                        {dim: slice(None, draw(st.sampled_from([0, 1, None])), draw(st.sampled_from([1, 2])))}
                    )
        except ValueError:  # which xarray does not have: names that clash
            pass
    return group


@st.composite
def changed_file(draw: Any, whole: Path, place: Path) -> Path:
    """A results file with one thing wrong, in any of the ways above, and its digests forged, stale or removed."""
    how = draw(st.sampled_from(["bytes", "group", "group", "group", "raw"]))
    if how == "bytes":
        place.write_bytes(draw(damaged_bytes(whole.read_bytes())))
        return place
    shutil.copyfile(whole, place)
    if how == "group":
        groups = _groups(whole)
        name = draw(st.sampled_from(sorted(groups)))
        changed = draw(changed_group(groups[name]))
        called = draw(st.sampled_from([name, name, name, *sorted(groups), *sorted(CATALOGUE)]))
        try:
            content = image({**groups, called: changed})
        except (ValueError, TypeError, AttributeError, NotImplementedError):  # xarray writes it no more
            return place
        place.write_bytes(content)
    with h5py.File(place, "a") as f:
        if how == "raw":
            _raw(draw, f)
        if draw(st.booleans()):
            for group in f.values():
                group.attrs.pop("digests", None)
    return place


@cache
def _groups(whole: Path) -> dict[str, xr.Dataset]:
    return ls.load(whole)


def _raw(draw: Any, f: h5py.File) -> None:
    """What only plain HDF5 has: attributes of other types, entries of other kinds, scales that are gone."""
    groups = sorted(k for k, v in f.items() if isinstance(v, h5py.Group))
    name = draw(st.sampled_from(groups))
    inside = sorted(f[name])
    variable = draw(st.sampled_from(inside)) if inside else None
    item = f[name] if variable is None or draw(st.booleans()) else f[name][variable]
    match draw(st.sampled_from(["attr", "attr", "replace", "scale", "data", "root", "zeros"])):
        case "attr":
            key = draw(
                st.sampled_from([*sorted(item.attrs), "_FillValue", "scale_factor", "units", "coordinates", "dtype"])
            )
            value = draw(
                st.sampled_from([5, 0.5, np.nan, "text", b"bytes", [1, 2], [0.5] * 9, "", "days since 2000-01-01"])
            )
            item.attrs[key] = value
        case "replace" if variable is not None:
            del f[name][variable]
            f[name][variable] = draw(st.sampled_from([5, [1.0, 2.0], "text", [[1, 2], [3, 4]], np.array([b"a", b"b"])]))
        case "scale" if variable is not None:
            for key in ("DIMENSION_LIST", "CLASS", "REFERENCE_LIST", "_Netcdf4Dimid"):
                f[name][variable].attrs.pop(key, None)
        case "data":
            del f[name]
            f[name] = draw(st.sampled_from([5, [1.0, 2.0], "text"]))
        case "root":
            f.attrs[draw(st.sampled_from(["format", "format_version"]))] = draw(
                st.sampled_from([5, "text", [1, 2], 0.5])
            )
        case "zeros" if variable is not None:
            del f[name][variable]
            f[name].create_dataset(variable, (1 << 27,), "f8", compression="gzip", chunks=(1 << 20,))
