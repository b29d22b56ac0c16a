"""What `Sharpness` measures for one mini-batch in one scale; it is imported only where something is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.scaled import ScaledLoss, critical_step, highest
from landscape.linalg.eigenpairs import eigenpairs
from landscape.linalg.operators import Rows
from landscape.linalg.search import Search
from landscape.runtime.random import gaussian, rademacher

if TYPE_CHECKING:
    from landscape.analyses.sharpness import Sharpness


def measured(f: ScaledLoss, asked: Sharpness, batch: int) -> dict[str, Any]:
    """Every measure by its name. The draws depend on the mini-batch alone: the rescaled network has the same."""
    many, seed = range(asked.directions), asked.seed
    zero = torch.zeros_like(f.c)
    start = gaussian(zero, seed, batch, 0)
    search = Search(k=1, which="LA", tol=asked.tol, max_products=asked.max_products)
    top = eigenpairs(Rows(f.product), start, search, vectors=True)
    probes = [rademacher(zero, seed, batch, 2, i) for i in many]
    trace = float(np.mean([float(torch.dot(z.double(), f.product(z).double())) for z in probes]))
    gradient = f.with_gradient(zero)[1]
    v = start if top.vectors is None or not torch.isfinite(top.vectors).all() else top.vectors[0]
    worst = highest(f, asked.radius, [gradient, v, -v] if gradient.any() else [v, -v], asked.steps)
    noise = [gaussian(zero, seed, batch, 1, i) for i in many]
    rising = v if torch.dot(v, gradient) >= 0 else -v
    return {
        "average": float(np.mean([f.value(asked.spread * z) for z in noise])) - f.at_0,
        "worst": worst.rise,
        "angle": worst.angle,
        "critical": 2 / critical_step(f),
        "eigenvalue": top.values[0],
        "residual": top.residuals[0],
        "converged": top.converged[0],
        "trace": trace,
        "profile": _profile(f, asked.distances(len(f.c)), [noise, [worst.u], [rising]]),
    }


def _profile(f: ScaledLoss, radii: np.ndarray, lines: list[list[Tensor]]) -> np.ndarray:
    """The loss (line, radius), averaged over the directions of each line."""
    units = [[u / torch.linalg.vector_norm(u).clamp_min(1e-30) for u in line] for line in lines]
    return np.array([[np.mean([f.value(float(r) * u) for u in line]) for r in radii] for line in units])
