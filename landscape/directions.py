"""Directions through parameter space: random and normalised to the weights; the plane that they span."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from landscape.errors import UserError, a_few
from landscape.filters import Filters, filters_of
from landscape.parameters import Direction, chosen, fingerprint

NORMALIZATIONS = ("filter", "layer", "weight", "column", "none")
Extent = float | Sequence[float] | Sequence[Sequence[float]]  # -a to a, (low, high), or one such pair per axis
POSITION_EMBEDDINGS = (
    "*pos_emb*", "*position_emb*", "*positional_e*", "*relative_position*", "*rel_pos*", "*attention_biases*",
    "*wpe.weight",
)  # fmt: skip


@dataclass(frozen=True)
class Plane:
    """Directions that span a slice through parameter space; a parameter absent from one does not move along it.

    buffers: for planes through checkpoints, how buffers (BatchNorm statistics) move along each direction, so that the
        plane holds those networks whole; empty elsewhere, where buffers stay.
    marks: where known checkpoints lie: `trajectory` (checkpoint, axis), their coordinates; `off_plane` (checkpoint),
        their distance from the plane; for a PCA `explained` (axis), the share of the variance along each direction.
    """

    directions: tuple[Direction, ...]
    config: dict[str, Any] = field(default_factory=dict)
    buffers: tuple[Direction, ...] = ()
    marks: xr.Dataset | None = None

    @property
    def dims(self) -> int:
        return len(self.directions)

    def coordinates(self, delta: Mapping[str, Tensor]) -> tuple[np.ndarray, float]:
        """Of theta + delta: the coordinates (dims,) of its orthogonal projection, and its distance from the plane.

        delta: a displacement of every parameter, by name. The distance counts those that do not move in the plane.
        """
        gram = np.array([[_inner(d, e) for e in self.directions] for d in self.directions])
        inner = np.array([_inner(d, delta) for d in self.directions])
        at = np.linalg.lstsq(gram, inner, rcond=None)[0]
        rest = 0.0
        for name, t in delta.items():
            left = t.detach().double().cpu()
            for a, d in zip(at, self.directions, strict=True):
                if name in d:
                    left = left - float(a) * d[name].detach().double().cpu()
            rest += float(left.square().sum())
        return at, float(np.sqrt(rest))

    def reach(self, points: int | Sequence[int] | None = None) -> Extent:
        """A range that holds the network and every marked checkpoint, with about a fifth more on each side; 1 without.

        points: of the grid over it, per axis or for all. It then has the network, at 0, among its points; towards
            other checkpoints the first at 1 too, and along y the second's height.
        """
        if self.marks is None:
            return 1.0
        at = np.vstack([self.marks["trajectory"].values, np.zeros(self.dims)])
        low, high = at.min(axis=0), at.max(axis=0)
        margin = 0.2 * np.where(high > low, high - low, 1.0)
        ranges = [(float(a), float(b)) for a, b in zip(low - margin, high + margin, strict=True)]
        if points is not None:
            counts = [points] * self.dims if isinstance(points, int) else points
            checkpoints = self.config.get("kind") in ("interpolation", "checkpoints")
            other = [float(at[k + 1, k]) if checkpoints else None for k in range(self.dims)]
            ranges = [_with_points_at(*ends) for ends in zip(ranges, counts, other, strict=False)]
        return [list(ends) for ends in ranges]

    def to_dataset(self) -> xr.Dataset:
        """The plane as a group of a results file: direction (axis, weight), buffer (axis, buffer_weight)."""
        variables: dict[str, Any] = {}
        layout: dict[str, list[list[Any]]] = {}  # lists: the order is that of the vectors
        kinds = (("direction", "weight", self.directions), ("buffer", "buffer_weight", self.buffers))
        for kind, dim, vectors in kinds:
            shapes = {name: list(t.shape) for d in vectors for name, t in d.items()}
            layout[kind] = [[name, shape] for name, shape in shapes.items()]
            if shapes:
                rows = [
                    torch.cat([_or_zeros(d, name, shape).reshape(-1) for name, shape in shapes.items()])
                    for d in vectors
                ]
                variables[kind] = (("axis", dim), torch.stack(rows).numpy())
        result = xr.Dataset(variables, attrs={"config": {**self.config, "analysis": "plane"}, "layout": layout})
        return result if self.marks is None else result.merge(self.marks, combine_attrs="override")

    @classmethod
    def from_dataset(cls, stored: xr.Dataset, model: nn.Module) -> Plane:
        """A stored plane, to move `model` in; a network of the same shapes as the one it was made for.

        Raises UserError, with the names, where the shapes differ.
        """
        layout = stored.attrs.get("layout")
        if not isinstance(layout, Mapping) or "direction" not in stored:
            raise UserError("the file's group 'plane' holds no directions; make one with 'landscape surface'")
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        wrong = [
            f"{name} {tuple(shape)}"
            for shapes in layout.values()
            for name, shape in shapes
            if name not in tensors or list(tensors[name].shape) != list(shape)
        ]
        if wrong:
            raise UserError(f"the stored plane is of another network: this one lacks {a_few(wrong)}")
        vectors: dict[str, tuple[Direction, ...]] = {}
        for kind, shapes in layout.items():
            sizes = [int(np.prod(shape)) for _, shape in shapes]
            rows = list(torch.as_tensor(stored[kind].values)) if kind in stored else []
            vectors[kind] = tuple(
                {
                    name: part.reshape(tuple(shape)).to(tensors[name])
                    for (name, shape), part in zip(shapes, row.split(sizes), strict=True)
                    if part.any()
                }
                for row in rows
            )
        config = {k: v for k, v in stored.attrs["config"].items() if k != "analysis"}
        marks = [name for name in ("trajectory", "off_plane", "explained") if name in stored]
        return cls(
            vectors["direction"], config, vectors.get("buffer", ()), stored[marks].drop_attrs() if marks else None
        )


def _with_points_at(ends: tuple[float, float], points: int, other: float | None) -> tuple[float, float]:
    """About this range, moved and stretched so that 0, and `other` above it where given, are among its points."""
    low, high = ends
    intervals = points - 1
    if intervals < (4 if other is None else 1):
        return ends
    if other is None:
        step = (high - low) / intervals
        before = round(-low / step)
    else:
        for between in range(intervals, 0, -1):
            step = other / between
            before, after = round(-low / step), round((high - other) / step)
            if (spare := intervals - before - between - after) >= 0:
                break
        else:
            return ends
        before += spare // 2
    return -before * step, (intervals - before) * step


def _or_zeros(d: Direction, name: str, shape: Sequence[int]) -> Tensor:
    return d[name].detach().cpu() if name in d else torch.zeros(tuple(shape))


def _inner(a: Direction, b: Direction) -> float:
    return sum(float((a[name].double() * b[name].to(a[name].device, torch.float64)).sum()) for name in a if name in b)


def described(config: Mapping[str, Any], directions: Sequence[Direction]) -> dict[str, Any]:
    """The configuration of a plane, with a fingerprint of its directions."""
    tensors = {f"{i}.{name}": t for i, d in enumerate(directions) for name, t in d.items()}
    return json.loads(json.dumps({**config, "dims": len(directions), "sha256": fingerprint(tensors)}))


def normalized(d: Tensor, theta: Tensor, normalize: str, filters: Filters | None = None) -> Tensor:
    """`d` scaled to the weights `theta`, both of one shape.

    filter: each filter f, d_f <- d_f / ||d_f|| * ||theta_f|| (Li et al. 2018, sec. 4).
    layer:  d <- d / ||d|| * ||theta||.   weight: d <- d * theta, elementwise (both as in the code of Li et al.).
    column: norms over axis 0, so across filters (as in the code of Park & Kim).   none: d as drawn.
    Of a vector (biases, norms, scales) filter and column are layer: it is one filter. So they are where a filter or
    column would have a single number, of which the sign alone would be left to the draw.

    filters: how theta splits into filters, as `landscape.filters.filters_of` says; by default along axis 0.
    """
    filters = filters or Filters(vector=theta.ndim < 2)
    if normalize == "filter":
        norms = filters.norms
    elif normalize == "layer" or (normalize == "column" and (filters.vector or theta.shape[0] == 1)):
        norms = Filters(vector=True).norms
    elif normalize == "column":
        norms = _column_norms
    elif normalize == "weight":
        return d * theta
    elif normalize == "none":
        return d
    else:
        raise UserError(f"normalize={normalize!r} is not one of {', '.join(NORMALIZATIONS)}")
    norm = norms(d)
    return torch.where(norm > 0, d / norm * norms(theta), torch.zeros_like(d))


def _column_norms(t: Tensor) -> Tensor:
    return torch.linalg.vector_norm(t, dim=0, keepdim=True).expand_as(t)


def random_plane(
    model: nn.Module,
    *,
    normalize: str = "filter",
    seed: int = 0,
    exclude: Sequence[str] = POSITION_EMBEDDINGS,
    parameters: str | Sequence[str] | None = None,
    biases: bool = False,
    frozen: bool = False,
    orthogonal: bool = False,
    dims: int = 2,
) -> Plane:
    """`dims` random Gaussian directions, normalised, drawn from `seed` on the CPU whatever the model's device.

    exclude: patterns of names that do not move, by default position embeddings. Buffers never do.
    parameters: names or patterns (`layer1.*`; a name stands for all below it) of those that move; None for all.
    biases: move vectors too, each as one filter, with draws of their own. By default they stay ("biasbn" in the code of
        Li et al.). Vectors are biases, norms of any number of dimensions, scales of one number per filter or head
        (weight_norm's, temperatures), and class tokens, which are added to every example as a bias is. A parameter of
        one number never moves: its direction would be +-theta.
    frozen: move parameters that require no gradient too. By default they stay, as in the training that froze them.
    orthogonal: the directions orthogonal to each other, in the inner product of all parameters, and normalised still.

    Raises UserError where nothing is left to move, or where directions cannot be made orthogonal.
    """
    generator = torch.Generator().manual_seed(seed)
    among = None if parameters is None else chosen(model, parameters).keys()
    filters = filters_of(model)
    theta = {
        name: p.detach().to("cpu", torch.float64)
        for name, p in model.named_parameters()
        if (biases or not filters[name].vector)
        and p.numel() > 1
        and (frozen or p.requires_grad)
        and (among is None or name in among)
        and not any(fnmatch(name, pattern) for pattern in exclude)
    }
    if not theta:
        raise UserError(
            "no parameter is left to move: a direction takes those of two or more dimensions that require a gradient "
            f"and whose name matches none of {', '.join(exclude) or 'the exclusions'}"
        )
    drawn: list[dict[str, Tensor]] = []
    for _ in range(dims):
        draws = {n: torch.randn(p.shape, generator=generator, dtype=torch.float64) for n, p in model.named_parameters()}
        d = {name: normalized(draws[name], t, normalize, filters[name]) for name, t in theta.items()}
        drawn.append(_orthogonal_to(drawn, d, theta, normalize, filters) if orthogonal else d)
    like = dict(model.named_parameters())
    directions = tuple({name: t.to(like[name]) for name, t in d.items()} for d in drawn)
    config = {
        "kind": "random",
        "normalize": normalize,
        "seed": seed,
        "exclude": list(exclude),
        "parameters": [parameters] if isinstance(parameters, str) else parameters,
        "biases": biases,
        "orthogonal": orthogonal,
        **({"frozen": True} if frozen else {}),
    }
    return Plane(directions, described(config, directions))


def _orthogonal_to(
    others: Sequence[Direction],
    d: dict[str, Tensor],
    theta: Mapping[str, Tensor],
    normalize: str,
    filters: Mapping[str, Filters],
) -> dict[str, Tensor]:
    # Projecting changes the norms a little, normalising the angle: in turn, they settle where both hold.
    for _ in range(200):
        norms = [np.sqrt(_inner(d, d) * _inner(e, e)) for e in others]
        if not all(norms):  # nothing of it is left beside the others
            break
        if all(abs(_inner(d, e)) < 1e-12 * norm for e, norm in zip(others, norms, strict=True)):
            return d
        for e in others:
            share = _inner(d, e) / _inner(e, e)
            d = {name: t - share * e[name] for name, t in d.items()}
        if normalize not in ("weight", "none"):
            d = {name: normalized(t, theta[name], normalize, filters[name]) for name, t in d.items()}
    raise UserError(
        f"{len(others) + 1} directions of this network cannot be both orthogonal and {normalize}-normalised; "
        "it has too few weights to a filter: leave out orthogonal, or normalise by layer"
    )
