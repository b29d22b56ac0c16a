"""Directions that span a slice through parameter space, and where known networks lie on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from landscape.objective.parameters import Direction, fingerprint
from landscape.runtime.errors import UserError, a_few

Extent = float | Sequence[float] | Sequence[Sequence[float]]  # a for -a to a, (low, high), or one such pair per axis


@dataclass(frozen=True)
class Plane:
    """Directions that span a slice through parameter space; a parameter absent from one does not move along it.

    Parameters
    ----------
    directions
        For each direction, the displacement of parameters by name, in the shapes of the parameters.
    config
        How the directions were made.
    buffers
        For a plane through checkpoints, how buffers (BatchNorm statistics) move along each direction, so that at their
        coordinates those networks are reproduced exactly. Otherwise empty, and buffers do not move.
    marks
        Where known checkpoints lie: `trajectory` (checkpoint, axis), their coordinates; `off_plane` (checkpoint), their
        distance from the plane; for a PCA `explained` (axis), the share of the variance along each direction.
    """

    directions: tuple[Direction, ...]
    config: dict[str, Any] = field(default_factory=dict)
    buffers: tuple[Direction, ...] = ()
    marks: xr.Dataset | None = None

    def __repr__(self) -> str:
        """The kind of the directions, their number, and how many parameters they move, in one line."""
        moved = {name: t.numel() for d in self.directions for name, t in d.items()}
        through = f" {self.config['directions']}" if "directions" in self.config else ""
        scaled = f", {self.config['normalize']}-normalised" if self.config.get("normalize", "none") != "none" else ""
        return f"Plane({self.dims}{through} directions of {sum(moved.values()):,} parameters{scaled})"

    @property
    def dims(self) -> int:
        return len(self.directions)

    def coordinates(self, delta: Mapping[str, Tensor]) -> tuple[np.ndarray, float]:
        """The orthogonal projection of theta + delta onto the plane, as coordinates, and the distance to it.

        Parameters
        ----------
        delta
            A displacement of every parameter, by name. The distance includes parameters that do not move in the plane.

        Returns
        -------
        tuple of ndarray and float
            The coordinates (dims,), and the distance.
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
        """A range that holds the network and every marked checkpoint, with a fifth more on each side; 1 without marks.

        Parameters
        ----------
        points
            The number of points of the grid over the range, for each axis or for all. If given and large enough, the
            range is adjusted so that the network, at 0, is among the grid's points. For a plane through checkpoints so
            are the first of them, at 1 along x, and the height of the second along y.

        Returns
        -------
        float or list of pairs
            The range as (low, high) for each axis, or 1.0 without marks, for -1 to 1.
        """
        if self.marks is None:
            return 1.0
        at = np.vstack([self.marks["trajectory"].values, np.zeros(self.dims)])
        low, high = at.min(axis=0), at.max(axis=0)
        margin = 0.2 * np.where(high > low, high - low, 1.0)
        ranges = [(float(a), float(b)) for a, b in zip(low - margin, high + margin, strict=True)]
        if points is not None:
            counts = [points] * self.dims if isinstance(points, int) else points
            checkpoints = self.config.get("directions") in ("interpolation", "checkpoints")
            other = [float(at[k + 1, k]) if checkpoints else None for k in range(self.dims)]
            ranges = [_with_points_at(*ends) for ends in zip(ranges, counts, other, strict=False)]
        return [list(ends) for ends in ranges]

    def to_dataset(self) -> xr.Dataset:
        """The plane as a group of a results file: direction (axis, weight), buffer (axis, buffer_weight)."""
        variables: dict[str, Any] = {}
        layout: dict[str, list[list[Any]]] = {}  # lists, which keep the order of the vectors
        held = (("direction", "weight", self.directions), ("buffer", "buffer_weight", self.buffers))
        for variable, dim, vectors in held:
            shapes = {name: list(t.shape) for d in vectors for name, t in d.items()}
            layout[variable] = [[name, shape] for name, shape in shapes.items()]
            if shapes:
                rows = [
                    torch.cat([_or_zeros(d, name, shape).reshape(-1) for name, shape in shapes.items()])
                    for d in vectors
                ]
                variables[variable] = (("axis", dim), torch.stack(rows).numpy())
        result = xr.Dataset(variables, attrs={"config": {**self.config, "analysis": "plane"}, "layout": layout})
        return result if self.marks is None else result.merge(self.marks, combine_attrs="override")

    @classmethod
    def from_dataset(cls, stored: xr.Dataset, model: nn.Module) -> Plane:
        """A plane read from a results file, in which `model` is to be moved.

        Parameters
        ----------
        stored
            The plane, as `to_dataset` makes it.
        model
            A network with the same shapes as the one that the plane was made for.

        Raises
        ------
        UserError
            If the shapes differ, with the names of those parameters, or if the group is not as `to_dataset` makes one.
        """
        try:
            return cls._read(stored, model)
        except UserError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as e:  # anyone may have written it
            raise UserError("the file's group 'plane' is not as a surface makes it; make one with another file") from e

    @classmethod
    def _read(cls, stored: xr.Dataset, model: nn.Module) -> Plane:
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
        for variable, shapes in layout.items():
            sizes = [int(np.prod(shape)) for _, shape in shapes]
            rows = list(torch.as_tensor(stored[variable].values)) if variable in stored else []
            vectors[variable] = tuple(
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
    """About this range, moved and stretched so that 0, and `other` above it if given, are among its points."""
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


def config_of(config: Mapping[str, Any], directions: Sequence[Direction]) -> dict[str, Any]:
    """The configuration of a plane, with a fingerprint of its directions."""
    tensors = {f"{i}.{name}": t for i, d in enumerate(directions) for name, t in d.items()}
    return json.loads(json.dumps({**config, "dims": len(directions), "sha256": fingerprint(tensors)}))
