"""Sharpness-aware minimisation (Foret et al. 2021): the gradient where the loss is highest within a small ball."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def ascended(network: nn.Module, rho: float) -> Iterator[None]:
    """Within the block the weights are w + rho g / ||g||, with g their present gradients (eq. 2); after it, w.

    BatchNorm does not update its statistics within the block, since it saw the batch before.
    """
    moved = [p for p in network.parameters() if p.grad is not None]
    gradients = [p.grad for p in moved if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    before = [p.detach().clone() for p in moved]
    norms = [(m, m.momentum) for m in network.modules() if isinstance(m, _BatchNorm)]
    try:
        with torch.no_grad():
            for p, g in zip(moved, gradients, strict=True):
                p.add_(g * (rho / norm.clamp_min(1e-12)))
        for m, _ in norms:
            m.momentum = 0.0
        yield
    finally:
        for m, momentum in norms:
            m.momentum = momentum
        with torch.no_grad():
            for p, w in zip(moved, before, strict=True):
                p.copy_(w)
