"""The recipe: AdamW or SGD, linear warm-up, cosine decay, on freshly drawn batches.

    landscape train --model vit_xs --data digits --epochs 60 --out vit_xs.safetensors

On one machine the same seed gives the same weights, to the bit.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from landscape.data import Drawn, InputSettings, Source, input_settings, make_transform, seeded
from landscape.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run. `lr` is the peak, for the batch size given; `clip` bounds the gradient's norm."""

    epochs: int = 60
    batch_size: int = 96
    optimizer: str = "adamw"
    lr: float = 2e-3
    momentum: float = 0.9
    weight_decay: float = 0.05
    warmup_epochs: int = 5
    clip: float | None = 5.0
    auto_augment: str | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    smoothing: float = 0.0
    seed: int = 0

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Trained:
    """A trained copy of the network, in eval mode, and what a later reader of its weights needs to know.

    metadata: num_classes, image_size, in_channels, mean, std, data, the recipe's settings, and per epoch the mean
    training loss and the learning rate.
    """

    model: nn.Module
    metadata: dict[str, Any]


def train(
    model: nn.Module,
    source: Source,
    recipe: Recipe = Recipe(),
    settings: InputSettings | None = None,
    *,
    device: torch.device | str = "cpu",
    workers: int = 0,
    progress: bool = False,
    label: str = "train",
) -> Trained:
    """Train a copy of `model` on every example of `source`, drawn anew each epoch; `model` itself stays as it is.

    settings: what the network sees of an image; by default as the data set has it.

    Raises UserError for an unknown optimiser, no epochs, or a loss that has stopped being finite.
    """
    if recipe.epochs < 1 or recipe.batch_size < 1:
        raise UserError(f"epochs={recipe.epochs} and batch_size={recipe.batch_size} must both be 1 or more")
    network = copy.deepcopy(model).to(device).train()
    settings = settings or input_settings(source)
    try:
        optimizer = create_optimizer_v2(
            network,
            recipe.optimizer,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
        )
    except (ValueError, AssertionError) as e:
        raise UserError(f"unknown optimizer {recipe.optimizer!r}; try adamw or sgd") from e
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=max(recipe.epochs, 2),  # of one alone there is no schedule, which timm warns of
        warmup_t=min(recipe.warmup_epochs, recipe.epochs - 1),
        warmup_lr_init=recipe.lr / 100,
        warmup_prefix=True,
    )
    transform = make_transform(settings, training=True, mirror=source.mirror, auto_augment=recipe.auto_augment)
    mix = None
    if recipe.mixup or recipe.cutmix:
        mix = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.smoothing, num_classes=source.num_classes)
    smoothing = 0.0 if mix is not None else recipe.smoothing
    # A last batch of one example has no batch statistics, and mixing goes in pairs: the rest of a division is left out.
    batch_size = min(recipe.batch_size, len(source) - len(source) % 2)
    losses, rates = [], []
    epochs = tqdm(range(recipe.epochs), label, disable=not progress, unit="epoch")
    for epoch in epochs:
        schedule.step(epoch)
        rates.append(optimizer.param_groups[0]["lr"])
        order = np.random.default_rng([recipe.seed, epoch]).permutation(len(source))
        drawn = Drawn(source, order, transform, recipe.seed, epoch)
        batches = DataLoader(drawn, batch_size, num_workers=workers, drop_last=True, generator=torch.Generator())
        total, examples = 0.0, 0
        with seeded(recipe.seed, epoch):
            for x, y in batches:
                x, y = x.to(device), y.to(device)
                if mix is not None:
                    x, y = mix(x, y)
                loss = F.cross_entropy(network(x), y, label_smoothing=smoothing)
                optimizer.zero_grad()
                loss.backward()
                if recipe.clip is not None:
                    nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
                optimizer.step()
                total, examples = total + float(loss.detach()) * len(y), examples + len(y)
        losses.append(total / examples)
        epochs.set_postfix(loss=f"{losses[-1]:.3f}")
        if not np.isfinite(losses[-1]):
            raise UserError(f"the loss is {losses[-1]} in epoch {epoch + 1}; lower lr={recipe.lr}")
    metadata = {
        **recipe.asdict(),
        "num_classes": source.num_classes,
        **asdict(settings),
        "data": source.name,
        "training_loss": losses,
        "training_lr": rates,
    }
    return Trained(network.eval(), metadata)
