"""Planes spanned by something known: Hessian eigenvectors, checkpoints, or the principal components of a trajectory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from landscape.curvature.operators import Curvature
from landscape.curvature.spread import by_all
from landscape.linalg.eigenpairs import eigenpairs
from landscape.linalg.ritz import RitzPairs
from landscape.linalg.search import Search
from landscape.objective.objective import Objective
from landscape.objective.parameters import Direction, chosen, unflatten
from landscape.planes.plane import Plane, config_of
from landscape.runtime.errors import UserError, a_few, near_matches
from landscape.runtime.random import gaussian
from landscape.store.units import Work

State = Mapping[str, Tensor]


CHUNK = 1 << 20  # the number of weights of every checkpoint that are in memory at once
EIGENVECTORS = Search(k=2, which="BE", tol=1e-3, max_products=400)


def eigenvector_plane(
    objective: Objective,
    search: Search = EIGENVECTORS,
    *,
    parameters: str | Sequence[str] | None = None,
    chunk_size: int | None = None,
    seed: int = 0,
    stored: xr.Dataset | None = None,
    work: Work | None = None,
) -> Plane:
    """Unit eigenvectors of the Hessian over all frozen data; the curvature of the loss along each is its eigenvalue.

    Parameters
    ----------
    objective
        The loss.
    search
        The search for k = 1 or 2 eigenvectors: LA for the top ones, SA for the most negative, BE for one of each, LM
        for the largest magnitudes. Eigenvalues, residuals and convergence go into the plane's configuration.
    parameters
        Names or patterns of the parameters that move; None for all.
    chunk_size
        The number of examples differentiated at once, as in `landscape.Curvature`.
    seed
        The seed of the random start vector.
    stored
        A plane read from a file. It is returned, without a search, if the very same call made it.
    work
        Keeps the state of the search beside a results file.

    Returns
    -------
    Plane
        The eigenvectors as directions.

    Raises
    ------
    UserError
        If there are fewer parameters than directions, if the Hessian is not finite, or if the budget of `work` is spent
        during the search.
    """
    asked = {
        "directions": "eigenvectors",
        "which": search.which,
        "dims": search.k,
        "tol": search.tol,
        "max_products": search.max_products,
        "parameters": [parameters] if isinstance(parameters, str) else parameters,
        "seed": seed,
        "objective": {k: v for k, v in objective.config().items() if k not in ("provenance", "data")},
    }
    if stored is not None and asked.items() <= stored.attrs.get("config", {}).items():
        return Plane.from_dataset(stored, objective.model)

    def searched(H: Curvature) -> RitzPairs:
        keeper = (work or Work()).aside(json.loads(json.dumps({"analysis": "plane", **asked})), ())
        pairs = eigenpairs(H, gaussian(H.zeros(), seed), search, vectors=True, keeper=keeper)
        return pairs if pairs.vectors is None else replace(pairs, vectors=pairs.vectors.cpu())

    pairs = by_all(searched, objective, parameters=parameters, chunk_size=chunk_size)
    if not pairs.finished:
        raise UserError(
            f"the time is over within the search for eigenvectors, after {pairs.products} products; "
            "the same again continues it"
        )
    if pairs.vectors is None or not torch.isfinite(pairs.vectors).all():
        raise UserError("the Hessian is not finite where the network stands, so it has no eigenvectors to move along")
    moved = chosen(objective.model, parameters)
    directions = tuple(unflatten(u.to(objective.device), moved) for u in pairs.vectors)
    found = {
        "eigenvalues": pairs.values.tolist(),
        "residuals": pairs.residuals.tolist(),
        "converged": pairs.converged.tolist(),
        "products": pairs.products,
    }
    return Plane(directions, config_of({**asked, **found}, directions))


def plane_through(model: nn.Module, others: Mapping[str, State], *, label: str = "this") -> Plane:
    """The line from `model`, at 0, to one other network, at 1; or the plane through it and two others.

    In a plane the axes are orthogonal and of the same length, the distance from `model` to the first other network, so
    that a picture of the plane shows distances as they are (Garipov et al. 2018, fig. 1). BatchNorm statistics move
    along, so that each network is exact at its coordinates. Elsewhere a variance may become negative, which makes the
    loss NaN.

    Parameters
    ----------
    model
        The network.
    others
        One or two state dicts, by label.
    label
        The label of `model`.

    Returns
    -------
    Plane
        The line or plane, with the networks marked.

    Raises
    ------
    UserError
        For another number of networks, networks of other shapes, or networks that do not span a plane.
    """
    if len(others) not in (1, 2):
        raise UserError(f"{len(others)} other checkpoints given; a line needs 1, a plane 2, and more make a trajectory")
    moves = {name: _difference(model, state, name) for name, state in others.items()}
    (u, u_buffers), *rest = moves.values()
    length = _norm(u)
    if length == 0:
        raise UserError(f"{next(iter(others))} has the same weights as {label}: there is no line between them")
    directions, buffers = [u], [u_buffers]
    coordinates = [[0.0], [1.0]]
    for v, v_buffers in rest:
        a = _dot(u, v) / length**2
        across = {name: v[name] - a * u[name] for name in v}
        b = _norm(across) / length
        if b < 1e-6:
            raise UserError(f"{a_few(list(others))} and {label} lie on one line; give one of them for that line")
        directions.append({name: t / b for name, t in across.items()})
        buffers.append({name: (v_buffers[name] - a * u_buffers[name]) / b for name in v_buffers})
        coordinates = [[0.0, 0.0], [1.0, 0.0], [a, b]]
    like = dict(model.named_parameters())
    cast: tuple[Direction, ...] = tuple({name: t.to(like[name]) for name, t in d.items()} for d in directions)
    config = {"directions": "interpolation" if len(others) == 1 else "checkpoints", "checkpoints": [label, *others]}
    return Plane(cast, config_of(config, cast), tuple(buffers), _marks([label, *others], coordinates, None))


def line_to(model: nn.Module, other: State, labels: Sequence[str] = ("this", "other")) -> Plane:
    """The line from `model`, at 0, to a state of the same network, at 1; buffers move along.

    Parameters
    ----------
    model
        The network.
    other
        The state dict at 1, which may have the same weights as `model`.
    labels
        The labels of the two.

    Returns
    -------
    Plane
        The line.

    Raises
    ------
    UserError
        For a network of other shapes.
    """
    delta, buffers = _difference(model, other, labels[1])
    parameters = dict(model.named_parameters())
    d = {name: t.to(parameters[name]) for name, t in delta.items()}
    return Plane((d,), {"directions": "interpolation", "checkpoints": list(labels)}, (buffers,))


def pca_plane(
    model: nn.Module, trajectory: Mapping[str, State], *, dims: int = 2, ignore_biases: bool = False
) -> Plane:
    """The principal components of a training trajectory, through `model`, which is usually its end (Li et al., sec. 7).

    Parameters
    ----------
    model
        The network, at which the plane has its origin.
    trajectory
        State dicts in order, by label; a mapping that reads them when they are asked for keeps one in memory at a time.
        The directions have unit length. They, and the shares of variance that they explain, are of the centred
        trajectory.
    dims
        How many directions.
    ignore_biases
        Do not move parameters of fewer than two dimensions, as in the code of Li et al.

    Returns
    -------
    Plane
        The directions, with the checkpoints marked.

    Raises
    ------
    UserError
        For too few checkpoints, networks of other shapes, or a trajectory that does not move in `dims` directions.
    """
    if len(trajectory) < dims + 1:
        raise UserError(f"{len(trajectory)} checkpoints span no {dims} components; a trajectory needs {dims + 1}")
    parameters = {name: p for name, p in model.named_parameters() if p.ndim >= 2 or not ignore_biases}
    n = sum(p.numel() for p in parameters.values())
    T = len(trajectory)
    with tempfile.TemporaryFile() as file:
        M = np.memmap(file, np.float32, "w+", shape=(T, n))  # on disk, since T networks may not fit into memory
        for row, (label, state) in enumerate(trajectory.items()):
            delta, _ = _difference(model, state, label)
            M[row] = torch.cat([delta[name].reshape(-1) for name in parameters]).float().numpy()
        centre = M.mean(axis=0, dtype=np.float64)
        gram = np.zeros((T, T))
        for start in range(0, n, CHUNK):
            block = M[:, start : start + CHUNK].astype(np.float64) - centre[start : start + CHUNK]
            gram += block @ block.T
        variances, S = np.linalg.eigh(gram)
        variances, S = variances[::-1][:dims].clip(0), S[:, ::-1][:, :dims]
        if not variances[-1] > 1e-12 * max(np.trace(gram), np.finfo(float).tiny):
            raise UserError(f"the {T} checkpoints do not move in {dims} directions; give ones that differ")
        total = np.trace(gram)
        components = np.empty((dims, n))
        for start in range(0, n, CHUNK):
            block = M[:, start : start + CHUNK].astype(np.float64) - centre[start : start + CHUNK]
            components[:, start : start + CHUNK] = (S / np.sqrt(variances)).T @ block
        components /= np.linalg.norm(components, axis=1, keepdims=True)
        del M
    directions = tuple(
        {name: t.to(parameters[name]) for name, t in unflatten(torch.as_tensor(row), parameters).items()}
        for row in components
    )
    config = {
        "directions": "pca",
        "checkpoints": list(trajectory),
        "ignore_biases": ignore_biases,
        "explained": (variances / total).tolist(),
    }
    plane = Plane(directions, config_of(config, directions))
    return with_trajectory(plane, model, trajectory, explained=variances / total)


def with_trajectory(
    plane: Plane, model: nn.Module, trajectory: Mapping[str, State], *, explained: np.ndarray | None = None
) -> Plane:
    """The same plane, marked with the orthogonal projections of checkpoints and their distances from the plane."""
    found = [plane.coordinates(_difference(model, state, label)[0]) for label, state in trajectory.items()]
    marks = _marks(list(trajectory), [at for at, _ in found], [off for _, off in found], explained)
    return Plane(plane.directions, plane.config, plane.buffers, marks)


def _marks(labels: Sequence[str], coordinates: Any, off_plane: Any, explained: np.ndarray | None = None) -> xr.Dataset:
    variables: dict[str, Any] = {
        "trajectory": (
            ("checkpoint", "axis"),
            np.array(coordinates, float),
            {"long_name": "coordinates of checkpoints"},
        ),
        "off_plane": (
            ("checkpoint",),
            np.zeros(len(labels)) if off_plane is None else np.array(off_plane, float),
            {"long_name": "distance from the plane"},
        ),
    }
    if explained is not None:
        variables["explained"] = (("axis",), explained, {"long_name": "share of the trajectory's variance"})
    return xr.Dataset(variables, {"checkpoint": list(labels)})


def _difference(model: nn.Module, state: State, label: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """state - model in float64 on the CPU, for the parameters and for the buffers of floating-point numbers."""
    parameters = dict(model.named_parameters())
    buffers = {name: b for name, b in model.named_buffers() if b.is_floating_point() and name in state}
    missing = [name for name in parameters if name not in state or state[name].shape != parameters[name].shape]
    if missing:
        raise UserError(
            f"{label} is not a checkpoint of the same network: {missing[0]!r} is missing or of another shape; "
            f"{near_matches(missing[0], state)}"
        )

    def minus(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: state[name].double().cpu() - t.detach().double().cpu() for name, t in tensors.items()}

    return minus(parameters), minus(buffers)


def _dot(a: Direction, b: Direction) -> float:
    return sum(float((a[name] * b[name]).sum()) for name in a)


def _norm(a: Direction) -> float:
    return _dot(a, a) ** 0.5
