"""What is computed beside a finished surface, to tell how far it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from landscape.objective.clusters import standard_error

if TYPE_CHECKING:
    from landscape.planes.slice import Slice


def exact_penalty(result: xr.Dataset, objective: Slice, axes: Sequence[np.ndarray]) -> None:
    """Put in the exact penalty of interpolated points, which needs no data: it is computed, not interpolated."""
    for index in (tuple(map(int, i)) for i in np.argwhere(result["interpolated"].values)):
        at = [float(axis[i]) for axis, i in zip(axes, reversed(index), strict=True)]
        result["penalty"].values[index] = objective.penalty(at)
    result["loss"].values[:] = result["nll"].values + result["penalty"].values


def checked(result: xr.Dataset, objective: Slice, axes: Sequence[np.ndarray], checks: int) -> dict[str, Any]:
    """The NLL in full precision, and the error of the stored one, at points spread over the grid."""
    shape = result["done"].shape
    flat = np.unique(np.linspace(0, result["done"].size - 1, checks).round().astype(int))
    indices = [tuple(map(int, np.unravel_index(i, shape))) for i in flat]
    points = [[float(axis[i]) for axis, i in zip(axes, reversed(index), strict=True)] for index in indices]
    exact = np.array([objective.evaluate(at, exactly=True).nll for at in points])
    return {
        "checked_at": (("checked", "axis"), np.array(points)),
        "checked_nll": (("checked",), exact, {"long_name": "NLL in full precision"}),
        "checked_error": (
            ("checked",),
            np.array([result["nll"].values[index] for index in indices]) - exact,
            {"long_name": "error of the NLL in lower precision"},
        ),
    }


def direction_curvatures(objective: Slice) -> dict[str, Any]:
    """v^T H v of this objective along each direction, with its standard error over folds of the examples.

    A plane made on other examples does not know it; the eigenvalues that the plane was made with stand beside it.
    """
    import torch

    from landscape.curvature.operators import Curvature

    loss, plane = objective.objective, objective.plane
    H = Curvature(loss)
    V = torch.stack([
        torch.cat([d[name].reshape(-1).to(p) if name in d else torch.zeros_like(p).reshape(-1)
                   for name, p in H.parameters.items()])
        for d in plane.directions
    ])  # fmt: skip
    folds = [np.flatnonzero(loss.fold == f) for f in range(loss.folds)]
    each = np.array([
        (V * Curvature(loss, examples=i, chunk_size=loss.batch_size)(V)).sum(1).tolist() for i in folds
    ])  # fmt: skip
    whole = np.average(each, axis=0, weights=[loss.units_of_example[i].sum() for i in folds])
    sem = standard_error(each)
    return {
        "direction_curvature": (("axis",), whole, {"long_name": "v^T H v of the loss over these examples"}),
        "direction_curvature_sem": (("axis",), sem, {"long_name": "standard error of direction_curvature"}),
        "direction_eigenvalue": (("axis",), np.array(plane.config["eigenvalues"], float), {
            "long_name": "eigenvalue that the plane was made with"}),
    }  # fmt: skip
