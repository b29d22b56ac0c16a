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
    """Gauss quadrature of the spectral measure that a probe has under one operator.

    sum_i w_i f(t_i) equals v^T f(A) v for v = probe / ||probe|| and every polynomial f of degree below 2 * steps
    (Golub & Meurant, th. 6.4).

    Parameters
    ----------
    A
        The operator.
    probe
        (n,), of any length but 0.
    steps
        Lanczos steps, and nodes.
    keeper
        Keeps the basis. If it holds one from an earlier call, that one continues to the same numbers.

    Returns
    -------
    tuple of arrays or None
        The nodes t (steps,) and the weights w (steps,), which sum to 1. If the Krylov space of the probe is exhausted
        earlier, the remaining nodes are NaN, of weight 0. None if the keeper asked to stop between two products.

    Raises
    ------
    UserError
        For an operator that turns out not to be symmetric.
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
    """The probe as the first product takes it, (1, 1, n): of unit length, in the arithmetic of the basis."""
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
