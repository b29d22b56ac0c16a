"""Coordinates -> losses: the objective on a grid over a line or a plane, resumable point by point."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from landscape.curvature.jackknife import gradient_norm as gradient_norm_of
from landscape.curvature.operators import Curvature
from landscape.linalg.eigenpairs import eigenpairs
from landscape.objective.batchnorm import recalibrated
from landscape.objective.clusters import LEAST_UNITS, standard_error
from landscape.objective.objective import Objective
from landscape.objective.parameters import Direction, displaced
from landscape.planes.plane import Extent, Plane
from landscape.runtime.arithmetic import exact_arithmetic, true_float32
from landscape.runtime.errors import UserError
from landscape.runtime.random import gaussian
from landscape.store.units import Index, Save, begin, each_not_done
from landscape.surfaces.grid import grid, per_axis, ranges_of
from landscape.surfaces.measures import measure
from landscape.surfaces.rays import RAY_VARIABLES, Point, search_width
from landscape.surfaces.refine import refine

LABELS = {
    "nll": "negative log-likelihood",
    "nll_sem": "standard error of nll over examples",
    "penalty": "penalty",
    "loss": "nll + penalty",
    "accuracy": "accuracy",
    "accuracy_sem": "standard error of accuracy over examples",
}


GRADIENT_LABELS = {
    "gradient_norm": "norm of the gradient of the loss",
    "gradient_norm_sem": "standard error of gradient_norm over examples",
}


EIGENVALUE_LABELS = {
    "eigenvalue_high": "largest Hessian eigenvalue",
    "eigenvalue_low": "smallest Hessian eigenvalue",
    "residual_high": "residual of the largest",
    "residual_low": "residual of the smallest",
}


EIGENVALUE_FLAGS = {
    "converged_high": "residual of the largest within tolerance",
    "converged_low": "residual of the smallest within tolerance",
    "complete": "no other Ritz pair could be the largest or smallest",
}


AFTERWARDS = (
    "measure", "quantity", "bound", "trajectory", "off_plane", "explained", "checkpoint", *RAY_VARIABLES, "ray_angle",
)  # fmt: skip


BATCHNORMS = ("stored", "recalibrated")


PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


ACTIVATION_BYTES = 4 << 30  # what the forward passes of points computed side by side hold at most, about


def evaluate_surface(
    objective: Objective,
    plane: Plane,
    *,
    points: int | Sequence[int] = 51,
    span: Extent = 1.0,
    adaptive: float | None = None,
    batchnorm: str = "stored",
    precision: str = "float32",
    checks: int = 9,
    gradient_norm: bool = False,
    eigenvalues: bool = False,
    tol: float = 1e-2,
    max_products: int = 100,
    rays: int = 8,
    workers: int | None = None,
    partial: xr.Dataset | None = None,
    save: Save | None = None,
    save_every: float = 10.0,
    progress: bool = False,
) -> xr.Dataset:
    """F(a, b) = L(theta + a d1 + b d2) on a grid; along one direction F(a).

    points: per axis, or (along x, along y). x runs along plane.directions[0], y along plane.directions[1].
    span: from -span to span; or (low, high); or one such pair per axis.
    adaptive: compute the grid from coarse to fine, and only where interpolating the coarser level misses by more than
        the larger of this and nll_sem there, as `refine` says; the rest is interpolated and marked.
    batchnorm: "stored", the statistics that the network was trained with, or "recalibrated", gathered anew at each
        point from the frozen data, batch by batch as they are cut, at the cost of one more pass.
    precision: "float32" (whatever the objective's own is), or "bfloat16" for the network's products; then `checks`
        points are computed in both, and kept in checked_at, checked_nll and checked_error.
    gradient_norm: also ||grad L|| at each point, and its standard error over examples, gradient_norm_sem.
    eigenvalues: also the largest and smallest eigenvalue of the Hessian of the whole frozen data at each point, with
        residuals (the map of Li et al. 2018, fig. 7), to tol * |eigenvalue| or in max_products products;
        converged_high, converged_low and complete say which, as in `hessian_spectrum`.
    rays: along how many the width is searched by evaluations of its own, about 15 each, as
        `search_width` says (of a line along its two sides); 0 for none.
    workers: points computed side by side, by a thread each; None for 1 on a GPU or with `eigenvalues`, and on a CPU for
        as many as torch has threads and memory lets. Does not change the numbers beyond rounding.
    partial: an earlier, unfinished result of the same call; its points are kept.
    save: called with the unfinished result every `save_every` seconds, and when interrupted.

    Returns a Dataset with dims (y, x), or (x): nll, nll_sem and accuracy_sem (standard errors over examples), penalty,
    loss (nll + penalty), accuracy, done; nll_fold with a leading dim fold; measure, of the NLL, as
    `measure` has it; along ray what `search_width` has; over eigenvectors
    direction_curvature (axis), v^T H v of these examples, with direction_curvature_sem and direction_eigenvalue, that
    of the plane; what else was asked; and of an adaptive one interpolated and nll_error. A diverged point is inf or NaN
    and done; a point not computed is NaN and not done.
    Raises UserError for fewer than one point per axis, a range that is empty or not finite, or unknown settings.
    """
    if plane.dims not in (1, 2):
        raise UserError(f"a surface needs 1 or 2 directions, the plane has {plane.dims}")
    if batchnorm not in BATCHNORMS:
        raise UserError(f"batchnorm={batchnorm!r} is not one of {', '.join(BATCHNORMS)}")
    if precision not in PRECISIONS:
        raise UserError(f"precision={precision!r} is not one of {', '.join(PRECISIONS)}")
    if rays < 0:
        raise UserError(f"rays={rays} must be 0, for none, or more")
    if adaptive is not None and not (np.isfinite(adaptive) and adaptive > 0):
        raise UserError(f"adaptive={adaptive} is a tolerance of the NLL: a finite number above 0")
    counts = per_axis(points, plane.dims)
    ranges = ranges_of(span, plane.dims)
    config: dict[str, Any] = {
        "analysis": "surface",
        "points": counts,
        "span": ranges,
        "adaptive": adaptive,
        "batchnorm": batchnorm if batchnorm == "stored" else [batchnorm, len(objective.batches[0][1])],
        "precision": precision,
        "eigenvalues": {"tol": tol, "max_products": max_products} if eigenvalues else None,
        "gradient_norm": gradient_norm,
        "plane": plane.config,
        "objective": objective.config(),
    }
    labels = {**LABELS, **(GRADIENT_LABELS if gradient_norm else {}), **(EIGENVALUE_LABELS if eigenvalues else {})}
    flags = EIGENVALUE_FLAGS if eigenvalues else {}
    if workers is None:
        workers = 1 if eigenvalues else min(_worker_count(objective), max(1, math.prod(counts)))
    marks = [[]] * plane.dims if plane.marks is None else plane.marks["trajectory"].values.T.tolist()
    axes = [grid(count, low, high, at) for count, (low, high), at in zip(counts, ranges, marks, strict=True)]
    result = begin(_empty(axes, labels, flags, objective.folds, adaptive is not None), config, partial)
    searched = result
    result = result.drop_vars(AFTERWARDS, errors="ignore")
    moves = _moves(plane)
    dims = result["done"].dims

    def at(index: Index) -> tuple[float, ...]:
        where = dict(zip(dims, index, strict=True))
        return tuple(float(result[axis][where[axis]]) for axis in ("x", "y")[: plane.dims])

    def compute(indices: list[Index]) -> None:
        (index,) = indices
        mine = objective.in_this_thread()
        with _standing(mine, moves, at(index), batchnorm):
            values = _values(mine)
        for name in [*labels, *flags]:
            result[name].values[index] = values[name]
        result["nll_fold"][dict(zip(dims, index, strict=True))] = np.array(values["nll_fold"])

    def point(coordinates: Sequence[float]) -> Point:
        mine = objective.in_this_thread()
        with _standing(mine, moves, coordinates, batchnorm):
            values = mine.evaluate(autocast=PRECISIONS[precision])
        return Point(values.nll, np.array(values.nll_fold))

    def centre() -> Point:
        computed = result["done"] & ~result.get("interpolated", xr.zeros_like(result["done"]))
        here = dict.fromkeys(dims, 0.0)
        if all(0.0 in result[axis].values for axis in dims) and bool(computed.sel(here)):
            return Point(float(result["nll"].sel(here)), result["nll_fold"].sel(here).values)
        return point((0.0,) * plane.dims)

    def _values(mine: Objective) -> dict[str, Any]:
        values = mine.evaluate(autocast=PRECISIONS[precision]).asdict()
        if gradient_norm:
            values["gradient_norm"], values["gradient_norm_sem"] = gradient_norm_of(mine)
        if eigenvalues:
            H = Curvature(mine)
            pairs = eigenpairs(H, gaussian(H.zeros(), 0), min(2, H.n), which="BE", tol=tol, max_products=max_products)
            values["eigenvalue_high"], values["eigenvalue_low"] = pairs.values[0], pairs.values[-1]
            values["residual_high"], values["residual_low"] = pairs.residuals[0], pairs.residuals[-1]
            values["converged_high"], values["converged_low"] = pairs.converged[0], pairs.converged[-1]
            values["complete"] = pairs.complete
        return values

    def run(only: np.ndarray | None = None) -> None:
        # The settings are the process's: entered here, no worker changes them under another.
        with exact_arithmetic() if gradient_norm or eigenvalues else true_float32():
            each_not_done(
                result, compute, only=only, workers=workers, save=save, save_every=save_every, progress=progress
            )

    if adaptive is None:
        run()
    else:
        refine(result, run, adaptive)
        _exact_penalty(result, objective, moves, at)
    if plane.config.get("kind") == "eigenvectors" and "direction_curvature" not in result:
        result = result.assign(_direction_curvatures(objective, plane))
    if rays:
        grid_done = result
        with true_float32():
            found = search_width(
                point, ranges, centre(), rays=rays, workers=workers, partial=searched,
                save=None if save is None else lambda r: save(grid_done.merge(r, combine_attrs="override")),
                save_every=save_every, progress=progress,
            )  # fmt: skip
        result = result.merge(found, combine_attrs="override")
    if plane.marks is not None:
        result = result.merge(plane.marks, combine_attrs="override")
    result = result.merge(measure(result), combine_attrs="override")
    if PRECISIONS[precision] is not None and "checked_nll" not in result and checks:
        result = result.assign(_checked(result, objective, moves, at, checks, batchnorm))
    return result


def _direction_curvatures(objective: Objective, plane: Plane) -> dict[str, Any]:
    """v^T H v of this objective along each direction, which a plane of other examples does not know, with its standard
    error over folds of the examples; beside them the eigenvalues that the plane was made with.
    """
    H = Curvature(objective)
    V = torch.stack([
        torch.cat([d[name].reshape(-1).to(p) if name in d else torch.zeros_like(p).reshape(-1)
                   for name, p in H.parameters.items()])
        for d in plane.directions
    ])  # fmt: skip
    at_once = len(objective.batches[0][1])
    folds = [
        torch.as_tensor(np.flatnonzero(objective.fold == f), device=objective.device) for f in range(objective.folds)
    ]
    each = np.array([
        (V * Curvature(objective, objective.x[i], objective.y[i], chunk_size=at_once)(V)).sum(1).tolist() for i in folds
    ])  # fmt: skip
    whole = np.average(each, axis=0, weights=[len(i) for i in folds])
    sem = standard_error(each)
    return {
        "direction_curvature": (("axis",), whole, {"long_name": "v^T H v of the loss over these examples"}),
        "direction_curvature_sem": (("axis",), sem, {"long_name": "standard error of direction_curvature"}),
        "direction_eigenvalue": (("axis",), np.array(plane.config["eigenvalues"], float), {
            "long_name": "eigenvalue that the plane was made with"}),
    }  # fmt: skip


def _moves(plane: Plane) -> list[Direction]:
    """What moves along each direction: parameters, and the buffers of a plane towards checkpoints."""
    return [{**d, **b} for d, b in zip(plane.directions, plane.buffers or ({},) * plane.dims, strict=True)]


@contextmanager
def _standing(
    objective: Objective, moves: Sequence[Direction], at: Sequence[float], batchnorm: str = "stored"
) -> Iterator[None]:
    """Within the block the objective's network is that of a point of the surface."""
    with true_float32(), displaced(objective.model, moves, at):
        if batchnorm == "stored":
            yield
        else:
            with recalibrated(objective.model, objective.batches):
                yield


def samples_for(objective: Objective, plane: Plane, se: float, span: Extent = 1.0, *, batchnorm: str = "stored") -> int:
    """Examples that the central region needs for a standard error of the NLL of at most `se`.

    From the spread over the examples of `objective`, a pilot, at the centre and a quarter of the way to each end and
    corner of the range, and a fifth more, since a pilot knows a spread to some per cent only. batchnorm: as in
    `evaluate_surface`. Raises UserError for an se that is not positive, too small a pilot, or losses there that are not
    finite.
    """
    if not (np.isfinite(se) and se > 0):
        raise UserError(f"a standard error of {se} cannot be met; give a finite number above 0")
    if len(set(objective.clusters)) < LEAST_UNITS:
        raise UserError(
            f"a pilot of {objective.examples} examples does not tell how they spread; take {2 * LEAST_UNITS} or more"
        )
    needed = 0.0
    for at in itertools.product(*((low / 4, 0.0, high / 4) for low, high in ranges_of(span, plane.dims))):
        with _standing(objective, _moves(plane), at, batchnorm):
            sem = objective.evaluate().nll_sem
        needed = max(needed, 1.2 * objective.examples * (sem / se) ** 2)
        if not np.isfinite(needed):
            raise UserError(f"the NLL at {at} is not finite, so no number of examples meets {se}; take a smaller span")
    return max(2, int(np.ceil(needed)))


def _exact_penalty(result: xr.Dataset, objective: Objective, moves: Any, at: Any) -> None:
    """The penalty of interpolated points needs no data: it is computed, not interpolated."""
    for index in (tuple(map(int, i)) for i in np.argwhere(result["interpolated"].values)):
        with displaced(objective.model, moves, at(index)):
            result["penalty"].values[index] = float(objective.penalty())
    result["loss"].values[:] = result["nll"].values + result["penalty"].values


def _checked(
    result: xr.Dataset, objective: Objective, moves: Any, at: Any, checks: int, batchnorm: str
) -> dict[str, Any]:
    """The NLL in both precisions at points spread over the grid."""
    shape = result["done"].shape
    flat = np.unique(np.linspace(0, result["done"].size - 1, checks).round().astype(int))
    indices = [tuple(map(int, np.unravel_index(i, shape))) for i in flat]
    exact = []
    for index in indices:
        with _standing(objective, moves, at(index), batchnorm):
            exact.append(objective.evaluate().nll)
    return {
        "checked_at": (("checked", "axis"), np.array([at(index) for index in indices])),
        "checked_nll": (("checked",), np.array(exact), {"long_name": "NLL in full precision"}),
        "checked_error": (
            ("checked",),
            np.array([result["nll"].values[index] for index in indices]) - np.array(exact),
            {"long_name": "error of the NLL in lower precision"},
        ),
    }


def _worker_count(objective: Objective) -> int:
    """As many as torch has threads on a CPU, while ACTIVATION_BYTES hold four of the largest output in each."""
    if objective.device.type != "cpu" or torch.get_num_threads() == 1:
        return 1
    largest = 1

    def weigh(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.untyped_storage().nbytes())

    hooks = [m.register_forward_hook(weigh) for m in objective.model.modules()]
    try:
        with torch.inference_mode():
            objective.model(objective.x[:1])
    finally:
        for hook in hooks:
            hook.remove()
    examples = max(len(y) for _, y in objective.batches)
    return int(max(1, min(torch.get_num_threads(), ACTIVATION_BYTES // (4 * largest * examples))))


def _empty(
    axes: Sequence[np.ndarray], labels: dict[str, str], flags: dict[str, str], folds: int, adaptive: bool
) -> xr.Dataset:
    names = ("x", "y")[: len(axes)]
    dims = names[::-1]
    shape = tuple(len(c) for c in reversed(axes))
    variables: dict[str, Any] = {
        name: (dims, np.full(shape, np.nan), {"long_name": text}) for name, text in labels.items()
    }
    variables["nll_fold"] = (
        ("fold", *dims),
        np.full((folds, *shape), np.nan),
        {"long_name": "nll of a fold of the examples"},
    )
    variables |= {name: (dims, np.zeros(shape, bool), {"long_name": text}) for name, text in flags.items()}
    variables["done"] = (dims, np.zeros(shape, bool), {"long_name": "computed"})
    if adaptive:
        variables["interpolated"] = (dims, np.zeros(shape, bool), {"long_name": "filled in from computed points"})
        variables["nll_error"] = (dims, np.zeros(shape), {"long_name": "estimated error of an interpolated nll"})
    coordinates = {
        axis: (axis, c, {"long_name": f"along d{i}"}) for i, (axis, c) in enumerate(zip(names, axes, strict=True), 1)
    }
    return xr.Dataset(variables, coordinates)
