"""Coordinates -> losses: the objective on a grid over a plane, resumable point by point."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from landscape.directions import Plane
from landscape.errors import UserError
from landscape.objective import Objective
from landscape.parameters import displaced
from landscape.resumable import Index, Save, begin, each_not_done

LABELS = {
    "nll": "negative log-likelihood",
    "nll_sem": "standard error of nll over examples",
    "penalty": "penalty",
    "loss": "nll + penalty",
    "accuracy": "accuracy",
}


def grid(points: int, span: float) -> np.ndarray:
    """`points` coordinates from -span to span, symmetric to the bit; an odd number contains 0 exactly."""
    return (np.arange(points) - (points - 1) / 2) * (2 * span / max(points - 1, 1))


def evaluate_surface(
    objective: Objective,
    plane: Plane,
    *,
    points: int | tuple[int, int] = 51,
    span: float = 1.0,
    partial: xr.Dataset | None = None,
    save: Save | None = None,
    save_every: float = 10.0,
    progress: bool = False,
) -> xr.Dataset:
    """F(a, b) = L(theta + a d1 + b d2) for a, b in [-span, span].

    points: per axis, or (along x, along y). x runs along plane.directions[0], y along plane.directions[1].
    partial: an earlier, unfinished result of the same call; its points are kept.
    save: called with the unfinished result every `save_every` seconds, and when interrupted.

    Returns a Dataset with dims (y, x): nll, nll_sem (standard error over examples), penalty, loss, accuracy and done.
    A diverged point is inf or NaN and done; a point not computed is NaN and not done.
    Raises UserError for fewer than one point per axis, a span that is not positive, or a plane of another dimension.
    """
    nx, ny = (points, points) if isinstance(points, int) else points
    if min(nx, ny) < 1:
        raise UserError(f"points={points}: a surface needs at least 1 point per axis")
    if not (np.isfinite(span) and span > 0):
        raise UserError(f"span={span} must be a finite number above 0")
    if plane.dims != 2:
        raise UserError(f"a surface needs 2 directions, the plane has {plane.dims}")
    config: dict[str, Any] = {
        "analysis": "surface",
        "points": [nx, ny],
        "span": span,
        "plane": plane.config,
        "objective": objective.config(),
    }
    result = begin(_empty(grid(nx, span), grid(ny, span)), config, partial)

    def compute(indices: list[Index]) -> None:
        ((j, i),) = indices
        with displaced(objective.model, plane.directions, (float(result["x"][i]), float(result["y"][j]))):
            values = objective.evaluate().asdict()
        for name in LABELS:
            result[name].values[j, i] = values[name]

    each_not_done(result, compute, save=save, save_every=save_every, progress=progress)
    return result


def _empty(x: np.ndarray, y: np.ndarray) -> xr.Dataset:
    shape = (len(y), len(x))
    variables: dict[str, Any] = {
        name: (("y", "x"), np.full(shape, np.nan), {"long_name": label}) for name, label in LABELS.items()
    }
    variables["done"] = (("y", "x"), np.zeros(shape, bool), {"long_name": "computed"})
    coordinates = {axis: (axis, c, {"long_name": f"along d{i}"}) for i, (axis, c) in enumerate((("x", x), ("y", y)), 1)}
    return xr.Dataset(variables, coordinates)
