"""The penalty's part of a product, added once and in closed form."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from landscape.objective.parameters import unflatten


def with_penalty(operator: Any, V: Tensor, out: Tensor) -> Tensor:
    if operator.form.penalised and operator.objective.weight_decay:
        for v, o in zip(V, out, strict=True):
            total = unflatten(o, operator.parameters)
            for name, extra in operator.objective.penalty_product(unflatten(v, operator.parameters)).items():
                total[name] += extra
    return out
