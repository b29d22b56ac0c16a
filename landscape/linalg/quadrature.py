"""Gauss quadrature of a spectral measure, by Lanczos (Golub & Meurant, Matrices, Moments and Quadrature, ch. 6)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from landscape.linalg.krylov import Lanczos
from landscape.linalg.operators import Operators
from landscape.linalg.ritz import known_rounding
from landscape.linalg.stages import Keeper
from landscape.runtime.threads import stop_if_asked


def quadrature(
    A: Operators, probe: Tensor, steps: int, keeper: Keeper | None = None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Gauss quadrature of one operator's spectral measure of a probe: nodes (steps,), weights (steps,) that sum to 1.

    sum_i w_i f(t_i) equals v^T f(A) v for v = probe / ||probe|| and every polynomial f of degree below 2 * steps
    (Golub & Meurant, th. 6.4). Where the Krylov space of the probe is exhausted earlier, the remaining entries are
    NaN nodes of weight 0. Raises UserError for an operator that turns out not to be symmetric.

    keeper: keeps the basis, and may have one, from which it is continued to the same numbers; where it asks to stop
        between two products, there is no quadrature yet: None.
    """
    lanczos, enough = _begun(A, probe, keeper), min(steps, probe.numel())
    while lanczos.m < enough:
        stop_if_asked()
        lanczos.step()
        if lanczos.exhausted or lanczos.broken.any() or not lanczos.finite.all():
            break
        if keeper is not None and lanczos.m < enough:
            stop = keeper.stop()
            if stop or keeper.due():
                keeper.keep(lanczos.state())
            if stop:
                return None
    nodes, weights = np.full(steps, np.nan), np.zeros(steps)
    if lanczos.finite.all():
        theta, S, _ = lanczos.ritz()
        known_rounding(float(lanczos.asymmetry[0]), theta[0], lanczos.dtype)
        nodes[: lanczos.m], weights[: lanczos.m] = theta[0], S[0, 0] ** 2
    else:
        weights[:] = np.nan
    return nodes, weights


def unit_start(A: Operators, probe: Tensor) -> Tensor:
    """The probe as the first product has it, (1, 1, n): to unit length, in the basis's own arithmetic."""
    X = Lanczos(A, probe[None, None]).X
    assert X is not None
    return X


def _begun(A: Operators, probe: Tensor, keeper: Keeper | None) -> Lanczos:
    lanczos = Lanczos(A, probe[None, None])
    state = None if keeper is None else keeper.kept()
    if keeper is not None and state is not None:
        try:
            lanczos.restore(state)
        except (KeyError, ValueError, TypeError):
            keeper.unusable()
            return Lanczos(A, probe[None, None])
    return lanczos
