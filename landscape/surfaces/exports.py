"""A `surface` group in other software's formats."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from landscape.runtime.errors import UserError
from landscape.runtime.files import writing


def export_surface(surface: xr.Dataset, path: str | os.PathLike[str], *, quantity: str = "nll") -> None:
    """Write a `surface` group for other software, whole or not at all, in the format of the suffix.

    .csv: a header and one row per point, with every quantity that has one value per point; 17 digits, so nothing is
    rounded.

    .npz: every array by name, and the configuration as JSON under "config"; numpy.load reads it without pickle.

    .vtu, .vtk: for ParaView, `quantity` as height over the plane (in one dimension a curve), and every quantity as
    point data. Points where `quantity` is not finite keep their values; they are drawn at the lowest height, and the
    cells that touch them are left out. This needs meshio.

    Parameters
    ----------
    surface
        The group.
    path
        The file.
    quantity
        The height in ParaView: nll, loss, accuracy, or another quantity that the surface has.

    Raises
    ------
    UserError
        For another suffix, a group that is no surface, or a place that cannot be written; or if meshio is not
        installed.
    """
    path = Path(path)
    if path.suffix not in WRITERS:
        raise UserError(f"{path} must end in one of {', '.join(WRITERS)}")
    if quantity not in surface or surface[quantity].dims not in (("y", "x"), ("x",)):
        raise UserError(f"only a surface can be exported: {quantity} over x, or over y and x")
    with writing(path, path.suffix) as part:
        WRITERS[path.suffix](surface, part, quantity)


def _points(surface: xr.Dataset, quantity: str) -> dict[str, np.ndarray]:
    """Every quantity with one value per point, and the coordinates, flattened in the order (y, x)."""
    dims = surface[quantity].dims
    grid = np.meshgrid(*(surface[axis].values for axis in dims), indexing="ij")
    columns = dict(zip(dims, (c.ravel() for c in grid), strict=True))
    for name, z in surface.data_vars.items():
        if set(z.dims) == set(dims) and z.dtype.kind in "fiub":
            columns[str(name)] = z.transpose(*dims).values.ravel()
    return {str(name): values for name, values in columns.items()}


def _write_csv(surface: xr.Dataset, path: Path, quantity: str) -> None:
    columns = _points(surface, quantity)
    columns = {axis: columns.pop(axis) for axis in ("x", "y") if axis in columns} | columns
    with open(path, "w", newline="") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(columns)
        as_text: list[Callable[[Any], str]] = [
            (lambda v: str(int(v))) if c.dtype.kind in "biu" else (lambda v: repr(float(v))) for c in columns.values()
        ]
        for row in zip(*columns.values(), strict=True):
            writer.writerow([text(v) for text, v in zip(as_text, row, strict=True)])


def _write_npz(surface: xr.Dataset, path: Path, _: str) -> None:
    arrays = {str(k): v.values.astype(str) if v.dtype.kind in "OU" else v.values for k, v in surface.variables.items()}
    np.savez_compressed(path, config=np.array(json.dumps(surface.attrs.get("config", {}))), **arrays)  # type: ignore[arg-type]


def _write_vtk(surface: xr.Dataset, path: Path, quantity: str) -> None:
    try:
        import meshio
    except ImportError as e:
        raise UserError(
            f"writing {path.suffix} needs meshio: python -m pip install 'landscape[vtk]' (or export .csv or .npz)"
        ) from e
    columns = _points(surface, quantity)
    z = columns[quantity]
    finite = np.isfinite(z)
    if not finite.any():
        raise UserError(f"{quantity} is finite at no point: nothing to show in relief; export .csv or .npz")
    height = np.where(finite, z, z[finite].min())
    points = np.stack([columns.pop("x"), columns.pop("y", np.zeros(len(z))), height], axis=1)
    at = np.arange(len(z)).reshape(surface[quantity].shape)
    if at.ndim == 2:
        kind, cells = "quad", np.stack([at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]], axis=-1).reshape(-1, 4)
    else:
        kind, cells = "line", np.stack([at[:-1], at[1:]], axis=-1)
    cells = cells[finite[cells].all(axis=1)]
    data = {name: c.astype(np.uint8) if c.dtype == bool else c for name, c in columns.items()}
    meshio.Mesh(points, [(kind, cells)] if len(cells) else [], point_data=data).write(path)


WRITERS: dict[str, Callable[[xr.Dataset, Path, str], None]] = {
    ".vtu": _write_vtk,
    ".vtk": _write_vtk,
    ".csv": _write_csv,
    ".npz": _write_npz,
}
