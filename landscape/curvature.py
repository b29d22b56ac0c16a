"""Hessian-vector products of the objective: on the whole frozen data set, and on one mini-batch.

An operator maps a vector (n,) over the trainable parameters to a vector (n,). Products are by double backward; the
penalty's share is added once, in closed form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape.errors import UserError
from landscape.objective import Objective
from landscape.parameters import flatten, trainable, unflatten


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Attention on the math backend, which alone has second derivatives, and float32 products in true float32.

    The caller's settings are restored after.
    """
    precision = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(precision)


class HessianOperator:
    """What the operators share: the parameters they act on, vectors and blocks, the penalty."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.parameters = trainable(objective.model)
        if not self.parameters:
            raise UserError("no parameter of the model requires a gradient, so there is no Hessian; unfreeze some")
        self.products = 0

    @property
    def n(self) -> int:
        return sum(p.numel() for p in self.parameters.values())

    def zeros(self) -> Tensor:
        """A vector (n,) of the operator's type and device."""
        return torch.zeros(self.n, dtype=self.objective.dtype, device=self.objective.device)

    def __call__(self, v: Tensor) -> Tensor:
        """H v, shape (n,)."""
        self.products += 1
        parts = unflatten(v, self.parameters)
        with exact_arithmetic():
            Hv = self._data_product(list(parts.values()))
        for name, extra in self.objective.penalty_product(parts).items():
            Hv[name] = Hv[name] + extra
        return flatten(Hv)

    def _data_product(self, v: Sequence[Tensor]) -> dict[str, Tensor]:
        raise NotImplementedError

    def _gradient(self, x: Tensor, y: Tensor, scale: float) -> list[Tensor]:
        loss = self.objective.nll_sum(x, y) * scale
        return list(
            torch.autograd.grad(loss, list(self.parameters.values()), create_graph=True, materialize_grads=True)
        )

    def _backward(self, gradient: Sequence[Tensor], v: Sequence[Tensor], *, keep: bool) -> list[Tensor]:
        # A parameter that the network does not use, or that enters it linearly, has a gradient without a graph.
        live = [(g, u) for g, u in zip(gradient, v, strict=True) if g.requires_grad]
        if not live:
            return [torch.zeros_like(p) for p in self.parameters.values()]
        return list(
            torch.autograd.grad(
                [g for g, _ in live],
                list(self.parameters.values()),
                grad_outputs=[u for _, u in live],
                retain_graph=keep,
                materialize_grads=True,
            )
        )


class Hessian(HessianOperator):
    """H = grad^2 L on the whole frozen data set: sum over batches of (1/N) grad^2 sum_i l_i, plus the penalty's."""

    def _data_product(self, v: Sequence[Tensor]) -> dict[str, Tensor]:
        total = [torch.zeros_like(p) for p in self.parameters.values()]
        for x, y in self.objective.batches:
            gradient = self._gradient(x, y, 1 / self.objective.examples)
            for t, h in zip(total, self._backward(gradient, v, keep=False), strict=True):
                t += h
        return dict(zip(self.parameters, total, strict=True))


class MiniBatchHessian(HessianOperator):
    """H_B = grad^2 L_B of one mini-batch; the graph of the gradient is built once and kept for every product."""

    def __init__(self, objective: Objective, x: Tensor, y: Tensor) -> None:
        super().__init__(objective)
        with exact_arithmetic():
            self._kept = self._gradient(x, y, 1 / len(y))

    def _data_product(self, v: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self.parameters, self._backward(self._kept, v, keep=True), strict=True))
