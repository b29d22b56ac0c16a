"""BatchNorm statistics recomputed at the network's current weights, instead of those from its training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.objective.folding import unfolded
from landscape.objective.nests import length
from landscape.objective.objective import Objective
from landscape.runtime.errors import UserError


@contextmanager
def recalibrated(objective: Objective) -> Iterator[None]:
    """Within the block each BatchNorm has the statistics of the batches, averaged by examples; after it, its own.

    It takes one pass in which only BatchNorm is in training mode. (torch.optim.swa_utils.update_bn does the same, but
    weights every batch equally.) The objective's own copy of the network is changed in place. Raises UserError for a
    batch of one example from which BatchNorm cannot take statistics.
    """
    model = objective.model
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    before = [({k: b.clone() for k, b in m.named_buffers()}, m.momentum, m.training) for m in norms]
    try:
        with unfolded(model), torch.no_grad():
            for m in norms:
                m.reset_running_stats()
                m.train()
            seen = 0
            for x, _ in objective.batches if norms else ():
                seen += length(x)
                for m in norms:
                    m.momentum = length(x) / seen
                try:
                    objective.outputs(x)
                except ValueError as e:  # from BatchNorm, if a channel has one value only
                    if length(x) > 1:
                        raise
                    raise UserError(
                        "BatchNorm has no statistics for a batch of one example; take a number of samples and a batch "
                        f"size that leave no batch of one: here the last of {seen} examples is alone"
                    ) from e
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
