"""The networks that come with the project, by name: ResNet, ViT and AlterNet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from landscape.errors import UserError, near_matches
from landscape.models.alternet import AlterNet, published_stage
from landscape.models.resnet import CifarResNet
from landscape.models.vit import SIZES, vit

__all__ = ["AlterNet", "CifarResNet", "create_model", "list_models", "vit"]


def _cifar_resnet(depth: int, image_size: int, **settings: Any) -> CifarResNet:
    return CifarResNet(depth, **settings)  # fully convolutional: one network for every image size


def _alternet(blocks: tuple[int, ...], attention: tuple[int, ...], **settings: Any) -> AlterNet:
    stages = [published_stage(n, m) for n, m in zip(blocks, attention, strict=True)]
    return AlterNet(**{"stages": stages, **settings})


_XS = {"widths": (16, 32, 64), "heads": (1, 2, 4), "head_width": 16}

_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(_cifar_resnet, depth) for depth in (8, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}_noshort": partial(_cifar_resnet, depth, shortcut="none") for depth in (20, 32, 44, 56, 110)},
    **{name: partial(vit, name) for name in SIZES},
    "alternet_xs": partial(_alternet, (2, 2, 2), (0, 1, 1), **_XS),
    "alternet_18": partial(_alternet, (2, 2, 2, 2), (0, 1, 1, 1)),
    "alternet_50": partial(_alternet, (3, 4, 6, 4), (0, 1, 3, 2), expansion=4),
}


def list_models() -> list[str]:
    """The names that `create_model` takes."""
    return sorted(_BUILDERS)


def create_model(
    name: str, num_classes: int = 10, image_size: int = 32, in_channels: int = 3, **settings: Any
) -> nn.Module:
    """A network with fresh weights; x (batch, in_channels, image_size, image_size) to logits (batch, num_classes).

    settings: the network's own, such as `stages` of an AlterNet or `depth` of a ViT.
    Raises UserError for an unknown name, or settings that the network refuses.
    """
    if name not in _BUILDERS:
        raise UserError(f"unknown model {name!r}; {near_matches(name, _BUILDERS)}")
    try:
        return _BUILDERS[name](num_classes=num_classes, image_size=image_size, in_channels=in_channels, **settings)
    except (TypeError, ValueError) as e:
        raise UserError(f"cannot make {name}: {e}") from e
