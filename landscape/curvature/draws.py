"""How far the drawn labels of a Monte-Carlo Fisher matrix may have moved what is computed from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from landscape.curvature.forms import MonteCarloFisher
from landscape.curvature.operators import Curvature
from landscape.objective.clusters import standard_error
from landscape.objective.objective import Objective


def over_draws(
    objective: Objective,
    V: Tensor,
    form: MonteCarloFisher | None = None,
    *,
    parameters: str | Sequence[str] | None = None,
    chunk_size: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """v^T F v for the rows v of V (b, n), and its standard error over the draws: two arrays (b,).

    The draws' matrices are independent, so that the error is s / sqrt(draws); NaN for fewer than 8 draws.
    It takes a product for each draw and row. If v is an eigenvector of the same matrix, v^T F v is its eigenvalue, and
    the error is to first order that of the eigenvalue.
    """
    form = form or MonteCarloFisher()
    values = []
    for draw in range(form.draws):
        F = Curvature(objective, kind=replace(form, only=draw), parameters=parameters, chunk_size=chunk_size)
        values.append((F(V).double() * V.double()).sum(1).cpu().numpy())
    return np.mean(values, axis=0), standard_error(values)
