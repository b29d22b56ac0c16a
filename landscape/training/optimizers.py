"""The optimiser and the schedule of its learning rate, as a recipe says."""

from __future__ import annotations

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn

from landscape.runtime.errors import UserError
from landscape.training.recipe import Recipe


def optimizer_of(network: nn.Module, recipe: Recipe) -> tuple[torch.optim.Optimizer, Scheduler]:
    """The optimiser of the network's parameters and its schedule, whose `step(epoch)` sets the rate of an epoch.

    Raises UserError for an unknown optimiser, or one that needs second derivatives.
    """
    name = "momentum" if recipe.optimizer.lower() == "sgd" else recipe.optimizer  # timm's "sgd" has Nesterov's momentum
    try:
        optimizer = create_optimizer_v2(
            network, name, lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum
        )
    except (ValueError, AssertionError, RuntimeError) as e:
        raise UserError(f"unknown optimizer {recipe.optimizer!r}; try adamw or sgd") from e
    if getattr(optimizer, "is_second_order", False):
        raise UserError(
            f"optimizer {recipe.optimizer!r} needs second derivatives, which are not computed here; try adamw or sgd"
        )
    epochs, low = min(recipe.warmup_epochs, recipe.epochs - 1), recipe.lr / 100
    schedule: Scheduler
    if recipe.schedule == "steps":
        # timm lowers the rate one epoch earlier than torch does
        milestones = [round(m * recipe.epochs) + 1 for m in recipe.milestones]
        schedule = MultiStepLRScheduler(
            optimizer, milestones, recipe.gamma, warmup_t=epochs, warmup_lr_init=low, warmup_prefix=False
        )
    else:  # a single epoch needs no schedule, and timm would warn
        length = max(recipe.epochs - epochs, 2)
        schedule = CosineLRScheduler(optimizer, length, warmup_t=epochs, warmup_lr_init=low, warmup_prefix=True)
    return optimizer, schedule
