"""A network as the sequence of its blocks: the stem, each convolution, attention, MLP and pooling block, the head.

The modules share the network's parameters; applied one after another they are the network. What passes from block to
block is the feature map: (batch, channels, h, w) in a ResNet, an AlterNet or a BoTNet, (batch, h, w, channels) in a
Swin, (batch, prefix + h w, channels) in a ViT or a PiT, its class token in front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from timm.models.pit import PoolingVisionTransformer
from timm.models.resnet import ResNet as TimmResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from landscape.models.alternet import AttentionBlock
from landscape.models.botnet import BoTNet
from landscape.models.cifar_resnet import CifarResNet
from landscape.models.resnet import Staged

KINDS = ("stem", "convolution", "attention", "mlp", "pool", "head")


@dataclass(frozen=True)
class Block:
    """name: of the network's submodule that does the block's work. kind: one of KINDS.

    stage: 0 for the stem, then from 1; the head has one of its own. module: from the feature map before the block to
    the one after it, shortcut included.
    """

    name: str
    kind: str
    stage: int
    module: nn.Module


class Residual(nn.Module):
    """x + branch(x)."""

    def __init__(self, *branch: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Apply(nn.Module):
    """A function of x; `parts` are the modules and parameters that it uses."""

    def __init__(self, function: Callable[[Tensor], Tensor], *parts: nn.Module | nn.Parameter | None) -> None:
        super().__init__()
        self.function = function
        self.modules_used = nn.ModuleList([p for p in parts if isinstance(p, nn.Module)])
        self.parameters_used = nn.ParameterList([p for p in parts if isinstance(p, nn.Parameter)])

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class TokenPool(nn.Module):
    """PiT's pooling on tokens: the class token through its linear layer, the others as a map through a convolution."""

    def __init__(self, pool: nn.Module, norm: nn.Module, prefix: int) -> None:
        super().__init__()
        self.pool, self.norm, self.prefix = pool, norm, prefix

    def forward(self, x: Tensor) -> Tensor:
        side = isqrt(x.shape[1] - self.prefix)
        grid = x[:, self.prefix :].transpose(1, 2).unflatten(2, (side, side))
        pooled, tokens = self.pool(grid, x[:, : self.prefix])
        return self.norm(torch.cat((tokens, pooled.flatten(2).transpose(1, 2)), dim=1))


def blocks(model: nn.Module) -> list[Block]:
    """The blocks of one of our networks, or of timm's ViT, PiT, Swin or ResNet, in order.

    The network is not changed; modules follow its mode and device. Raises ValueError for another network.
    """
    for known, reader in _READERS.items():
        if isinstance(model, known):
            try:
                return list(reader(model))
            except AttributeError as e:
                raise ValueError(f"{type(model).__name__} is of a variant whose blocks are not known: {e}") from e
    raise ValueError(
        f"the blocks of {type(model).__name__} are not known; known are those of "
        + ", ".join(sorted({k.__name__ for k in _READERS}))
    )


def _staged(model: Staged) -> Iterator[Block]:
    yield Block("layer0", "stem", 0, model.layer0)
    for s in range(1, model.stages + 1):
        for b, block in enumerate(getattr(model, f"layer{s}")):
            attends = isinstance(block, AttentionBlock) or (isinstance(model, BoTNet) and s == model.stages)
            yield Block(f"layer{s}.{b}", "attention" if attends else "convolution", s, block)
    yield Block("classifier", "head", model.stages + 1, model.classifier)


def _cifar_resnet(model: CifarResNet) -> Iterator[Block]:
    yield Block("conv1", "stem", 0, nn.Sequential(model.conv1, model.bn1, nn.ReLU()))
    yield from _numbered(model, 3)
    yield Block("linear", "head", 4, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.linear))


def _timm_resnet(model: Any) -> Iterator[Block]:
    yield Block("conv1", "stem", 0, nn.Sequential(model.conv1, model.bn1, model.act1, model.maxpool))
    yield from _numbered(model, 4)
    yield Block("fc", "head", 5, Apply(model.forward_head, model.fc))


def _numbered(model: Any, stages: int) -> Iterator[Block]:
    for s in range(1, stages + 1):
        for b, block in enumerate(getattr(model, f"layer{s}")):
            yield Block(f"layer{s}.{b}", "convolution", s, block)


def _vit(model: Any) -> Iterator[Block]:
    def stem(x: Tensor) -> Tensor:
        return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))

    tokens = (model.cls_token, model.reg_token, model.pos_embed)
    yield Block("patch_embed", "stem", 0, Apply(stem, model.patch_embed, *tokens, model.norm_pre))
    yield from _halves(model.blocks, "blocks", 1)
    last = (model.norm, model.attn_pool, model.fc_norm, model.head)
    yield Block("head", "head", 2, Apply(lambda x: model.forward_head(model.norm(x)), *last))


def _halves(layers: Any, name: str, stage: int) -> Iterator[Block]:
    for i, b in enumerate(layers.children()):
        attention = Residual(b.norm1, b.attn, b.ls1, b.drop_path1)
        yield Block(f"{name}.{i}.attn", "attention", stage, attention)
        yield Block(f"{name}.{i}.mlp", "mlp", stage, Residual(b.norm2, b.mlp, b.ls2, b.drop_path2))


def _pit(model: Any) -> Iterator[Block]:
    first = model.transformers[0].norm

    def stem(x: Tensor) -> Tensor:
        x = model.pos_drop(model.patch_embed(x) + model.pos_embed).flatten(2).transpose(1, 2)
        return first(torch.cat((model.cls_token.expand(len(x), -1, -1), x), dim=1))

    yield Block("patch_embed", "stem", 0, Apply(stem, model.patch_embed, model.cls_token, model.pos_embed, first))
    for s, stage in enumerate(model.transformers, 1):
        name = f"transformers.{s - 1}"
        if stage.pool is not None:
            yield Block(f"{name}.pool", "pool", s, TokenPool(stage.pool, stage.norm, model.num_tokens))
        yield from _halves(stage.blocks, f"{name}.blocks", s)
    n = model.num_tokens
    last = (model.norm, model.head, model.head_dist)
    yield Block("head", "head", s + 1, Apply(lambda x: model.forward_head(model.norm(x[:, :n])), *last))


def _swin(model: Any) -> Iterator[Block]:
    yield Block("patch_embed", "stem", 0, model.patch_embed)
    for s, stage in enumerate(model.layers, 1):
        name = f"layers.{s - 1}"
        if not isinstance(stage.downsample, nn.Identity):
            yield Block(f"{name}.downsample", "pool", s, stage.downsample)
        for i, b in enumerate(stage.blocks):
            attention = Residual(b.norm1, Apply(b._attn, b.attn), b.drop_path1)
            yield Block(f"{name}.blocks.{i}.attn", "attention", s, attention)
            yield Block(f"{name}.blocks.{i}.mlp", "mlp", s, Residual(b.norm2, b.mlp, b.drop_path2))
    yield Block("head", "head", s + 1, Apply(lambda x: model.forward_head(model.norm(x)), model.norm, model.head))


_READERS: dict[type[nn.Module], Callable[[Any], Iterator[Block]]] = {
    Staged: _staged,
    CifarResNet: _cifar_resnet,
    TimmResNet: _timm_resnet,
    VisionTransformer: _vit,
    PoolingVisionTransformer: _pit,
    SwinTransformer: _swin,
}
