"""BatchNorm statistics of the network where it stands, rather than of where it was trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.folding import unfolded


@contextmanager
def recalibrated(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Within the block each BatchNorm has the statistics of these batches, averaged by examples; after it, its own.

    One pass in which BatchNorm alone is in training mode, as in torch.optim.swa_utils.update_bn, whose average counts
    every batch the same. The model is changed in place: hand in a private copy.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    before = [({k: b.clone() for k, b in m.named_buffers()}, m.momentum, m.training) for m in norms]
    try:
        with unfolded(model), torch.no_grad():
            for m in norms:
                m.reset_running_stats()
                m.train()
            seen = 0
            for x, _ in batches if norms else ():
                seen += len(x)
                for m in norms:
                    m.momentum = len(x) / seen
                model(x)
            for m in norms:
                m.eval()
        yield
    finally:
        for m, (buffers, momentum, training) in zip(norms, before, strict=True):
            m.momentum = momentum
            m.train(training)
            with torch.no_grad():
                for name, b in m.named_buffers():
                    b.copy_(buffers[name])
