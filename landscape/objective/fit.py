"""Whether a network, its task and its data fit each other, tried on a few examples when an objective is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.objective.nests import Batch, Nest, leaves, length, rows
from landscape.objective.networks import called, what
from landscape.objective.task import Task
from landscape.runtime.arithmetic import true_float32
from landscape.runtime.errors import UserError

LOOKED_AT = 8  # examples evaluated twice

Outputs = Callable[[Nest], Nest]


def refuse_batch_statistics(model: nn.Module) -> None:
    """Raise UserError for a BatchNorm whose statistics are those of the batch."""
    for name, m in model.named_modules():
        if isinstance(m, _BatchNorm) and m.running_mean is None:
            raise UserError(
                f"{type(m).__name__} {name!r} keeps no running statistics, so each example's loss depends on its "
                "batch; give it track_running_stats=True and run the training data through the network in train "
                "mode, or use GroupNorm or LayerNorm instead"
            )


@torch.no_grad()
def check_fit(task: Task, outputs: Outputs, stores: Sequence[Batch], first_outputs: Nest) -> None:
    """Raise UserError unless network, labels and task fit, as tried on the first example of each store."""
    for number, (x, y) in enumerate(stores):
        with true_float32():
            out = called(outputs, rows(x, slice(1))) if number else first_outputs
        task.check(out, y)
        if bad := [t for t in leaves(out) if not (isinstance(t, Tensor) and t.is_floating_point())]:
            raise UserError(
                f"the task's outputs hold {what(bad[0])}; let its `outputs` return tensors of floating-point numbers "
                "only"
            )
        if number:
            first = rows(y, slice(1))
            _check_shapes(task, out, first, task.losses(out, first))


def check_repeatable(task: Task, outputs: Outputs, store: Batch, dtype: torch.dtype) -> None:
    """Raise UserError if the same examples give another loss the second time, or a loss not in the units' shape."""
    x, y = rows(store, slice(LOOKED_AT))
    with true_float32():
        out = outputs(x)
        once, again = task.losses(out, y), task.losses(outputs(x), y)
    _check_shapes(task, out, y, once)
    near = torch.finfo(dtype).eps ** 0.5  # on a GPU, sums are rounded differently each time
    if not torch.allclose(once, again, rtol=near, atol=near, equal_nan=True):
        raise UserError(
            f"the loss of the same examples is {float(once.mean()):.4g} once and {float(again.mean()):.4g} again: "
            "the network or the loss draws random numbers in eval mode, as F.dropout(x, p) does; "
            "give it training=self.training"
        )


def _check_shapes(task: Task, out: Nest, y: Nest, losses: Tensor) -> None:
    counted = task.units(y)
    shape = (length(y),) if counted is None else tuple(counted.shape)
    for name, found in (("losses", losses), ("hits", task.hits(out, y))):
        if found is not None and tuple(found.shape) != shape:
            remedy = 'a mean or sum has no standard error: return one loss for each, as reduction="none" does'
            if found.ndim:
                remedy = "return one for each unit, (n,), or say with the task's `units` which of (n, ...) count"
            raise UserError(
                f"the {name} of {length(y)} examples have shape {tuple(found.shape)}, their units {shape}; {remedy}"
            )
