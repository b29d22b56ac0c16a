"""Training recipes: all settings of a training run, and the recipes of the reference study by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import FiniteFloat

from landscape.runtime.errors import UserError, near_matches
from landscape.runtime.settings import Settings

AtLeast0 = Annotated[FiniteFloat, Ge(0)]


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """Settings of a training run.

    Parameters
    ----------
    epochs
        Passes over the training split.
    batch_size
        Examples per step, over all processes together.
    optimizer
        adamw, sgd (plain momentum; nesterov has Nesterov's), or another name that timm knows.
    lr
        Peak learning rate, for the given batch size.
    momentum
        Momentum of sgd.
    weight_decay
        Weight decay of matrices and filters; biases and norms are not decayed, as in timm.
    schedule
        The learning rate after the warm-up: cosine, down to 0; or steps, times gamma at each milestone.
    milestones
        For the schedule steps: when the rate falls, as shares of the epochs, such as 0.3,0.6,0.8.
    gamma
        For the schedule steps: the factor on the rate at each milestone.
    warmup_epochs
        Epochs of linear rise of the learning rate.
    clip
        The largest norm of the gradient, which is clipped beyond; 0 for no clipping.
    auto_augment
        Automatic augmentation in timm's notation, such as rand-m9-n2-mstd1.0; none for none.
    mixup
        alpha of mixup; 0 for off.
    cutmix
        alpha of cutmix; 0 for off.
    smoothing
        Label smoothing.
    drop_path
        Rate of stochastic depth, for networks that have it.
    sam
        rho of sharpness-aware minimisation (Foret et al. 2021); 0 for off.
    dtype
        bfloat16 runs the network under autocast; the weights and the optimiser stay in float32.
    fraction
        The share of the training examples to use, the same of each class, drawn by the seed.
    seed
        Seed of the initial weights and of every draw.
    """

    formerly: ClassVar[Mapping[str, str]] = {"precision": "dtype"}

    epochs: Annotated[int, Ge(1)] = 60
    batch_size: Annotated[int, Ge(1)] = 96
    optimizer: str = "adamw"
    lr: AtLeast0 = 2e-3
    momentum: Annotated[AtLeast0, Lt(1)] = 0.9
    weight_decay: AtLeast0 = 0.05
    schedule: Literal["cosine", "steps"] = "cosine"
    milestones: tuple[float, ...] = (0.3, 0.6, 0.8)
    gamma: AtLeast0 = 0.2
    warmup_epochs: Annotated[int, Ge(0)] = 5
    clip: AtLeast0 | None = 5.0
    auto_augment: str | None = None
    mixup: AtLeast0 = 0.0
    cutmix: AtLeast0 = 0.0
    smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    drop_path: Annotated[float, Ge(0), Lt(1)] = 0.0
    sam: AtLeast0 = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    fraction: Annotated[float, Gt(0), Le(1)] = 1.0
    seed: Annotated[int, Ge(0)] = 0

    def check(self) -> None:
        """Check that milestones are ordered shares and that mixing has pairs; turn a clip of 0 and "none" into None."""
        if list(self.milestones) != sorted(self.milestones) or not all(0 < m < 1 for m in self.milestones):
            shares = ",".join(f"{m:g}" for m in self.milestones)
            raise UserError(f"milestones={shares} must be shares of the epochs, between 0 and 1 and in ascending order")
        if (self.mixup or self.cutmix) and self.batch_size < 2:
            raise UserError(f"batch_size={self.batch_size} must be 2 or more: mixing needs pairs")
        if self.clip == 0:
            object.__setattr__(self, "clip", None)
        if self.auto_augment in ("none", ""):
            object.__setattr__(self, "auto_augment", None)


RECIPES = {
    "plain": Recipe(),
    # Park & Kim (2022), app. A: like DeiT's, scaled to CIFAR
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
    """A recipe by name (plain, strong, weak), with some settings replaced; those given as None stay.

    Raises
    ------
    UserError
        For an unknown name or setting, or a value out of range.
    """
    if name not in RECIPES:
        raise UserError(f"recipe={name!r} is not one of {', '.join(RECIPES)}; {near_matches(name, RECIPES)}")
    given = {key: value for key, value in settings.items() if value is not None}
    Recipe.asked(given)
    return replace(RECIPES[name], **given)
