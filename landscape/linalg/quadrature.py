"""Gauss quadrature of a spectral measure, by Lanczos (Golub & Meurant, Matrices, Moments and Quadrature, ch. 6)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from landscape.linalg.krylov import Lanczos
from landscape.linalg.operators import Operators
from landscape.linalg.ritz import known_rounding


def quadrature(A: Operators, probe: Tensor, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss quadrature of one operator's spectral measure of a probe: nodes (steps,), weights (steps,) that sum to 1.

    sum_i w_i f(t_i) equals v^T f(A) v for v = probe / ||probe|| and every polynomial f of degree below 2 * steps
    (Golub & Meurant, th. 6.4). Where the Krylov space of the probe is exhausted earlier, the remaining entries are
    NaN nodes of weight 0. Raises UserError for an operator that turns out not to be symmetric.
    """
    lanczos = Lanczos(A, probe[None, None])
    for _ in range(min(steps, probe.numel())):
        lanczos.step()
        if lanczos.exhausted or lanczos.broken.any() or not lanczos.finite.all():
            break
    nodes, weights = np.full(steps, np.nan), np.zeros(steps)
    if lanczos.finite.all():
        theta, S, _ = lanczos.ritz()
        known_rounding(float(lanczos.asymmetry[0]), theta[0], lanczos.dtype)
        nodes[: lanczos.m], weights[: lanczos.m] = theta[0], S[0, 0] ** 2
    else:
        weights[:] = np.nan
    return nodes, weights
