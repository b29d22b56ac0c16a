"""Training recipes: every setting of a run, and those of the reference study by name."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from landscape.runtime.errors import UserError, near_matches

SCHEDULES = ("cosine", "steps")


PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run.

    optimizer: adamw, sgd (without Nesterov's momentum, which nesterov has), or another of timm's.
    lr: at its peak, for the batch size given. schedule: "cosine" down to 0 over the epochs, or "steps": times gamma
        after each of the milestones, which are shares of the epochs; either after warmup_epochs of linear rise.
    weight_decay: of the matrices and filters; biases and norms are left alone, by timm's rule, which the objective's
        penalty follows.
    clip: bound on the gradient's norm. mixup, cutmix: their alphas, 0 for off. auto_augment: in timm's notation.
    drop_path: rate of stochastic depth, for networks that have it.
    sam: rho of sharpness-aware minimisation (Foret et al. 2021), 0 for off.
    precision: "bfloat16" runs the network under autocast; its weights and the optimiser stay in float32.
    fraction: of the training examples, the same of each class, drawn by the seed.
    """

    epochs: int = 60
    batch_size: int = 96
    optimizer: str = "adamw"
    lr: float = 2e-3
    momentum: float = 0.9
    weight_decay: float = 0.05
    schedule: str = "cosine"
    milestones: tuple[float, ...] = (0.3, 0.6, 0.8)
    gamma: float = 0.2
    warmup_epochs: int = 5
    clip: float | None = 5.0
    auto_augment: str | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    smoothing: float = 0.0
    drop_path: float = 0.0
    sam: float = 0.0
    precision: str = "float32"
    fraction: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises UserError for a setting out of its range."""
        at_least_0 = (
            "lr",
            "weight_decay",
            "momentum",
            "warmup_epochs",
            "mixup",
            "cutmix",
            "sam",
            "clip",
            "seed",
            "gamma",
        )
        for name in at_least_0:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UserError(f"{name}={value} must be a finite number, 0 or more")
        if self.momentum >= 1:
            raise UserError(f"momentum={self.momentum} must be below 1")
        if list(self.milestones) != sorted(self.milestones) or not all(0 < m < 1 for m in self.milestones):
            shares = ",".join(f"{m:g}" for m in self.milestones)
            raise UserError(f"milestones={shares} must be shares of the epochs, between 0 and 1, in order")
        if not 0 <= self.smoothing < 1:
            raise UserError(f"smoothing={self.smoothing} must be from 0 to below 1")
        if (self.mixup or self.cutmix) and self.batch_size < 2:
            raise UserError(f"batch_size={self.batch_size}: mixing needs pairs, a batch of 2 or more")
        if self.epochs < 1 or self.batch_size < 1:
            raise UserError(f"epochs={self.epochs} and batch_size={self.batch_size} must both be 1 or more")
        if self.schedule not in SCHEDULES:
            raise UserError(f"schedule={self.schedule!r} is not one of {', '.join(SCHEDULES)}")
        if self.precision not in PRECISIONS:
            raise UserError(f"precision={self.precision!r} is not one of {', '.join(PRECISIONS)}")
        if not 0 < self.fraction <= 1:
            raise UserError(f"fraction={self.fraction} must be above 0 and at most 1")
        if not 0 <= self.drop_path < 1:
            raise UserError(f"drop_path={self.drop_path} must be from 0 to below 1")

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


RECIPES = {
    "plain": Recipe(),
    # Park & Kim (2022), app. A: as DeiT, scaled to CIFAR
    "strong": Recipe(
        epochs=300, lr=1.25e-4, auto_augment="rand-m9-n2-mstd1.0", mixup=1.0, cutmix=0.8, smoothing=0.1, drop_path=0.1
    ),
    # their configuration for convolutional networks without strong augmentation
    "weak": Recipe(
        epochs=200, optimizer="sgd", lr=0.1, weight_decay=5e-4, schedule="steps", milestones=(0.3, 0.6, 0.8),
        warmup_epochs=0, clip=None,
    ),
}  # fmt: skip


def recipe(name: str = "plain", **settings: Any) -> Recipe:
    """A recipe by name (plain, strong, weak), with some of its settings replaced; those that are None stay;
    a clip of 0 is none, and so is an auto_augment of "none".

    Raises UserError for an unknown name or setting, or one out of its range.
    """
    if name not in RECIPES:
        raise UserError(f"recipe={name!r} is not one of {', '.join(RECIPES)}; {near_matches(name, RECIPES)}")
    known = {f.name for f in fields(Recipe)}
    unknown = [key for key in settings if key not in known]
    if unknown:
        raise UserError(f"{unknown[0]!r} is no setting of a recipe; {near_matches(unknown[0], known)}")
    given = {key: value for key, value in settings.items() if value is not None}
    if given.get("clip") == 0:
        given["clip"] = None
    if given.get("auto_augment") in ("none", ""):
        given["auto_augment"] = None
    return replace(RECIPES[name], **given)
