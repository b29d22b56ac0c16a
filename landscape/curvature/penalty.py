"""The penalty's part of a product, added once and in closed form."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from landscape.objective.parameters import unflatten


def with_penalty(operator: Any, V: Tensor, out: Tensor) -> Tensor:
    """The products `out` (b, n) with the rows of V, to which those of the penalty's Hessian are added in place."""
    penalty = operator.objective.penalty
    if operator.form.penalised and penalty.weight_decay:
        parameters = dict(operator.objective.model.named_parameters())
        for v, o in zip(V, out, strict=True):
            total = unflatten(o, operator.parameters)
            for name, extra in penalty.product(parameters, unflatten(v, operator.parameters)).items():
                total[name] += extra
    return out
