"""Surfaces that other software computed, as a `surface` group. Files are read as data, never as code."""

from __future__ import annotations

import csv
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from landscape.runtime.errors import UserError, a_few
from landscape.store.strangers import UNPACKED, refuse_references, unpacked

STUDY_COLUMNS = (
    "x", "y", "l1", "l2", "nll", "cutoff_1", "cutoff_2", "accuracy", "accuracy_90", "uncertainty", "uncertainty_90",
    "iou", "iou_90", "frequency", "frequency_90", "top_5", "brier", "ece", "ecse",
)  # fmt: skip
LONG_NAMES = {
    "nll": "negative log-likelihood",
    "penalty": "penalty",
    "accuracy": "accuracy",
    "l1": "sum of absolute weights",
    "l2": "sum of the parameters' norms",
    "eigenvalue_high": "largest Hessian eigenvalue",
    "eigenvalue_low": "smallest Hessian eigenvalue",
    "test_nll": "negative log-likelihood on the test split",
    "test_accuracy": "accuracy on the test split",
}
LI_ET_AL = {"train_loss": "nll", "train_acc": "accuracy", "test_loss": "test_nll", "test_acc": "test_accuracy"}
FLAGS = ("done", "interpolated")


def import_surface(path: str | os.PathLike[str], *, weight_decay: float | None = None) -> xr.Dataset:
    """A surface computed by other software, as a `surface` group of this toolkit.

    Nothing is made up that the file does not hold: without a penalty, loss is nll, and its name says so. Points that
    are absent are not done; inf and NaN are results. The configuration has the file's name, format and sha256.

    Parameters
    ----------
    path
        A file in one of three formats, recognised by its content. The CSV of the reference study (Park & Kim 2022) has
        19 columns and no header; its l2 is sum_p ||theta_p||. Any other CSV has a header that names x, y in two
        dimensions, nll, and whatever else there is; each row is a point, in any order. The HDF5 surface file of Li et
        al. 2018 has xcoordinates, ycoordinates in two dimensions, and train_loss or test_loss, where -1 marks a point
        not computed. In two dimensions its arrays are flat in the order (y, x), whatever their shape says: reading them
        by that shape would transpose a square grid and garble any other.
    weight_decay
        lambda of the reference study's penalty lambda * sum_p ||theta_p||, which needs the column l2.

    Returns
    -------
    xarray.Dataset
        The group.

    Raises
    ------
    UserError
        For a file that cannot be read as one of these.
    """
    path = Path(path)
    if weight_decay is not None and not (np.isfinite(weight_decay) and weight_decay >= 0):
        raise UserError(f"weight_decay={weight_decay} must be a finite number, 0 or above")
    try:
        content = path.read_bytes()
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror or e}") from e
    if content.startswith(b"\x89HDF\r\n\x1a\n"):
        form, (variables, axes) = "loss-landscape HDF5", _read_h5(path)
    else:
        form, (variables, axes) = _read_csv(path, content)
    if weight_decay is not None:
        if "l2" not in variables:
            raise UserError(
                f"{path} has no column l2 to apply weight decay {weight_decay} to; leave out `weight_decay`"
            )
        if "penalty" in variables:
            raise UserError(f"{path} has a penalty of its own; leave out `weight_decay`")
        variables["penalty"] = weight_decay * variables["l2"]
    config: dict[str, Any] = {
        "analysis": "surface",
        "points": [len(axes[axis]) for axis in ("x", "y") if axis in axes],
        "source": {"file": path.name, "format": form, "sha256": hashlib.sha256(content).hexdigest()},
    }
    if weight_decay is not None:
        config["objective"] = {"penalty": "norm-sum", "weight_decay": weight_decay}
    dims = tuple(axis for axis in ("y", "x") if axis in axes)
    group = xr.Dataset(
        {name: (dims, z, {"long_name": LONG_NAMES.get(name, name)}) for name, z in variables.items() if name != "loss"},
        {axis: (axis, axes[axis]) for axis in dims},
        {"config": config},
    )
    if "penalty" in group:
        return group.assign(loss=(group["nll"] + group["penalty"]).assign_attrs(long_name="nll + penalty"))
    return group.assign(loss=group["nll"].assign_attrs(long_name="nll (no penalty in the source)"))


Columns = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


def _read_csv(path: Path, content: bytes) -> tuple[str, Columns]:
    try:
        rows = [row for row in csv.reader(content.decode("utf-8-sig").splitlines()) if row]
    except (UnicodeDecodeError, csv.Error) as e:
        raise UserError(f"{path} is neither CSV text nor HDF5") from e
    if not rows:
        raise UserError(f"{path} is empty")
    names = [name.strip() for name in rows[0]]
    if _is_number(names[0]):
        form, names = "how-do-vits-work CSV", list(STUDY_COLUMNS)
        if len(rows[0]) != len(names):
            raise UserError(
                f"{path} has {len(rows[0])} columns and no header; the reference study's have {len(names)}; "
                "add a header with x, y, nll for another layout"
            )
    else:
        form, rows = "CSV with a header", rows[1:]
        missing = [name for name in ("x", "nll") if name not in names]
        if missing:
            raise UserError(f"{path} has no column {' nor '.join(missing)}; its header is {a_few(names, 8)}")
        if len(set(names)) < len(names) or not all(name.isidentifier() for name in names):
            raise UserError(f"{path} has columns without a name of their own in its header: {a_few(names, 30)}")
    table = np.empty((len(rows), len(names)))
    for i, row in enumerate(rows):
        try:
            if len(row) != len(names):
                raise ValueError(row)
            table[i] = [float(cell) for cell in row]
        except ValueError as e:
            raise UserError(f"{path}: row {i + 1} of the data is not {len(names)} numbers: {','.join(row)[:60]}") from e
    return form, _gridded(path, dict(zip(names, table.T, strict=True)))


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        float(text)
        return True
    return False


def _gridded(path: Path, columns: dict[str, np.ndarray]) -> Columns:
    """The columns of a table as arrays (y, x) or (x,), and their coordinates; points without a row are not done."""
    axes: dict[str, np.ndarray] = {}
    index = []
    for axis in ("y", "x"):
        if axis not in columns:
            continue
        c = columns.pop(axis)
        if not np.isfinite(c).all() or not c.size:
            raise UserError(f"{path} has no points, or one whose {axis} is not a finite number")
        # one coordinate may be written with differing last digits
        decimals = 9 - int(np.ceil(np.log10(max(np.abs(c).max(), 1e-200))))
        _, first, at = np.unique(np.round(c, decimals), return_index=True, return_inverse=True)
        axes[axis] = c[first]
        index.append(at)
    shape = tuple(len(axis) for axis in axes.values())
    rows = len(index[0])
    if np.prod(shape) > 10 * rows:
        raise UserError(
            f"the {rows} points of {path} do not lie on a grid: it would have {' x '.join(map(str, shape))}"
        )
    flat = np.ravel_multi_index(tuple(index), shape)
    if len(np.unique(flat)) < rows:
        raise UserError(f"{path} has {rows - len(np.unique(flat))} points more than once")
    done = np.zeros(shape, bool)
    done.flat[flat] = True
    variables = {}
    for name, values in columns.items():
        z = np.full(shape, np.nan)
        z.flat[flat] = values
        variables[name] = z
    for flag in FLAGS:
        if flag in variables:
            variables[flag] = variables[flag] == 1
    variables["done"] = done & variables.get("done", done)
    return variables, axes


def _read_h5(path: Path) -> Columns:
    try:
        with h5py.File(path, "r") as f:
            refuse_references(f, path)
            if (size := unpacked(f)) > max(UNPACKED, 10 * path.stat().st_size):
                raise UserError(f"{path} unpacks to {size:,} bytes, far more than it has; do not trust it")
            held = {name: np.asarray(f[name][:], float) for name in f if _is_numeric(f[name])}
            ours = "format" in f.attrs
    except UserError:
        raise
    except Exception as e:  # h5py reads a damaged file until something gives way
        raise UserError(f"{path} is not a readable HDF5 file (truncated?)") from e
    if ours:
        raise UserError(f"{path} is a results file of this toolkit already")
    loss = next((name for name in ("train_loss", "test_loss") if name in held), None)
    if "xcoordinates" not in held or loss is None:
        raise UserError(
            f"{path} is no surface file of loss-landscape: xcoordinates and train_loss or test_loss are needed, it has "
            + a_few(sorted(held) or ["no numbers"], 8)
        )
    axes: dict[str, np.ndarray] = {a: held[f"{a}coordinates"] for a in ("y", "x") if f"{a}coordinates" in held}
    shape = tuple(len(axis) for axis in axes.values())
    names = dict(LI_ET_AL) if loss == "train_loss" else {"test_loss": "nll", "test_acc": "accuracy"}
    for name in (*names, "min_eig", "max_eig"):
        if name in held and held[name].size != np.prod(shape):
            raise UserError(f"{path}: {name} has {held[name].size} values for {np.prod(shape)} points")
    # loss-landscape numbers points as meshgrid(x, y) does, with y outermost, but gives the array the shape (x, y): only
    # the flat order is meaningful
    grids = {name: held[name].reshape(shape) for name in (*names, "min_eig", "max_eig") if name in held}
    done = grids[loss] != -1
    variables: dict[str, np.ndarray] = {"done": done}
    for theirs, ours_ in names.items():
        if theirs in grids:
            z = np.where(grids[theirs] == -1, np.nan, grids[theirs])
            variables[ours_] = z / 100 if theirs.endswith("acc") else z  # theirs in per cent
    if {"min_eig", "max_eig"} <= grids.keys():
        known = ~((grids["max_eig"] == -1) & (grids["min_eig"] == 1))
        variables["eigenvalue_low"] = np.where(known, grids["min_eig"], np.nan)
        variables["eigenvalue_high"] = np.where(known, grids["max_eig"], np.nan)
    order = {axis: np.argsort(c, kind="stable") for axis, c in axes.items()}
    for k, axis in enumerate(axes):
        if len(np.unique(axes[axis])) < len(axes[axis]):
            raise UserError(f"{path} has a coordinate {axis} more than once")
        variables = {name: np.take(z, order[axis], axis=k) for name, z in variables.items()}
    return variables, {axis: c[order[axis]] for axis, c in axes.items()}


def _is_numeric(item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu" and item.ndim > 0
