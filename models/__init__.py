"""The networks that come with the project, by name: ResNet, ViT, PiT, Swin, AlterNet and BoTNet."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from landscape.models import alternet, resnet
from landscape.models.alternet import AlterNet, published_stage
from landscape.models.blocks import Block, blocks
from landscape.models.botnet import BoTNet
from landscape.models.cifar_resnet import CifarResNet
from landscape.models.pyramids import pit, swin
from landscape.models.resnet import ResNet
from landscape.models.vit import SIZES, vit

__all__ = [
    "AlterNet",
    "Block",
    "BoTNet",
    "CifarResNet",
    "ResNet",
    "blocks",
    "create_model",
    "list_models",
    "pit",
    "resolve",
    "swin",
    "vit",
]


def _cifar_resnet(depth: int, image_size: int, **settings: Any) -> CifarResNet:
    return CifarResNet(depth, **settings)  # fully convolutional: one network for every image size


def _resnet(depth: int, pre_activation: bool, **settings: Any) -> ResNet:
    sizes = {"blocks": resnet.BLOCKS[depth], "expansion": resnet.expansion_of(depth)}
    return ResNet(**{**sizes, "pre_activation": pre_activation, **settings})


def _alternet(blocks: Sequence[int], *, attention: Sequence[int], **settings: Any) -> AlterNet:
    if "stages" not in settings:
        settings["stages"] = [published_stage(n, m) for n, m in zip(blocks, attention, strict=True)]
    return AlterNet(**settings)


_XS = {"widths": (16, 32, 64), "heads": (1, 2, 4), "head_width": 16}

_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(_cifar_resnet, depth) for depth in (8, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}_noshort": partial(_cifar_resnet, depth, shortcut="none") for depth in (20, 32, 44, 56, 110)},
    **{f"resnet{depth}_projection": partial(_cifar_resnet, depth, shortcut="B") for depth in (20, 56, 110)},
    **{f"resnet_{depth}": partial(_resnet, depth, False) for depth in resnet.BLOCKS},
    **{f"preresnet_{depth}": partial(_resnet, depth, True) for depth in resnet.BLOCKS},
    **{name: partial(vit, name) for name in SIZES},
    "pit_ti": pit,
    "swin_ti": swin,
    "alternet_xs": partial(_alternet, (2, 2, 2), attention=(0, 1, 1), **_XS),
    **{
        f"alternet_{depth}": partial(
            _alternet, n, attention=alternet.ATTENTION[depth], expansion=resnet.expansion_of(depth)
        )
        for depth, n in alternet.BLOCKS.items()
    },
    "botnet_50": BoTNet,
}
_SPELLINGS = {name.replace("_", ""): name for name in _BUILDERS}


def list_models() -> list[str]:
    """The names that `create_model` takes."""
    return sorted(_BUILDERS)


def resolve(name: str) -> str | None:
    """The name in `list_models` that `name` spells, ignoring underscores and capitals; None if there is none."""
    return _SPELLINGS.get(name.lower().replace("_", "").replace("-", ""))


def create_model(
    name: str, num_classes: int = 10, image_size: int = 32, in_channels: int = 3, **settings: Any
) -> nn.Module:
    """A network with fresh weights; x (batch, in_channels, image_size, image_size) to logits (batch, num_classes).

    Parameters
    ----------
    name
        One of `list_models`.
    num_classes, image_size, in_channels
        The number of classes, the side of the square images, and the number of their channels.
    settings
        Further settings of the network: such as `depth`, `global_pool` or `local` for a ViT; `attention` (blocks per
        stage), `stages` or `window` for an AlterNet; `widths` for a ResNet; `drop_path_rate` for all.

    Raises
    ------
    ValueError
        For an unknown name, or settings that the network does not accept.
    """
    known = resolve(name)
    if known is None:
        close = difflib.get_close_matches(name, _BUILDERS)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(list_models())}"
        raise ValueError(f"unknown model {name!r}; {hint}")
    try:
        return _BUILDERS[known](num_classes=num_classes, image_size=image_size, in_channels=in_channels, **settings)
    except (TypeError, ValueError, AssertionError, RuntimeError, LookupError, ArithmeticError) as e:  # timm's, torch's
        raise ValueError(f"cannot make {name}: {e}") from e
