"""Directions through parameter space: random, normalised to the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from landscape.errors import UserError
from landscape.parameters import Direction

NORMALIZATIONS = ("filter", "layer", "weight", "column", "none")
POSITION_EMBEDDINGS = ("*pos_embed*", "*relative_position*")


@dataclass(frozen=True)
class Plane:
    """Directions that span a slice through parameter space; a parameter absent from one does not move along it."""

    directions: tuple[Direction, ...]
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def dims(self) -> int:
        return len(self.directions)


def normalized(d: Tensor, theta: Tensor, normalize: str) -> Tensor:
    """`d` scaled to the weights `theta`, both of one shape with two or more dimensions.

    filter: each slice f along dim 0, d_f <- d_f / ||d_f|| * ||theta_f|| (Li et al. 2018, sec. 4).
    layer:  d <- d / ||d|| * ||theta||.   weight: d <- d * theta, elementwise (both as in the code of Li et al.).
    column: norms over dim 0, so across filters (as in the code of Park & Kim).   none: d as drawn.
    """
    if normalize == "filter":
        dims = tuple(range(1, d.ndim))
    elif normalize == "layer":
        dims = tuple(range(d.ndim))
    elif normalize == "column":
        dims = (0,)
    elif normalize == "weight":
        return d * theta
    elif normalize == "none":
        return d
    else:
        raise UserError(f"normalize={normalize!r} is not one of {', '.join(NORMALIZATIONS)}")
    norm = torch.linalg.vector_norm(d, dim=dims, keepdim=True)
    target = torch.linalg.vector_norm(theta, dim=dims, keepdim=True)
    return torch.where(norm > 0, d / norm * target, torch.zeros_like(d))


def random_plane(
    model: nn.Module,
    *,
    normalize: str = "filter",
    seed: int = 0,
    exclude: Sequence[str] = POSITION_EMBEDDINGS,
    dims: int = 2,
) -> Plane:
    """`dims` random Gaussian directions, normalised, drawn from `seed` on the CPU whatever the model's device.

    Parameters of fewer than two dimensions (biases, norms) and those whose name matches a pattern of `exclude`
    (position embeddings by default) do not move; buffers never do. Raises UserError where nothing is left to move.
    """
    generator = torch.Generator().manual_seed(seed)
    directions = []
    for _ in range(dims):
        d: dict[str, Tensor] = {}
        for name, p in model.named_parameters():
            draw = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            if p.ndim >= 2 and not any(fnmatch(name, pattern) for pattern in exclude):
                theta = p.detach().to("cpu", torch.float64)
                d[name] = normalized(draw, theta, normalize).to(p.device, p.dtype)
        if not d:
            raise UserError(
                "no parameter is left to move: a direction takes those of two or more dimensions "
                f"whose name matches none of {', '.join(exclude) or 'the exclusions'}"
            )
        directions.append(d)
    config = {"kind": "random", "normalize": normalize, "seed": seed, "exclude": list(exclude), "dims": dims}
    return Plane(tuple(directions), config)
