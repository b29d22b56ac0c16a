"""A network as the sequence of its blocks: the stem, each convolution, attention, MLP and pooling block, the head.

The modules share the network's parameters; applied one after another they compute what the network does. From block to
block passes the feature map: (batch, channels, h, w) in a ResNet, an AlterNet or a BoTNet, (batch, h, w, channels) in a
Swin, (batch, prefix + h w, channels) in a ViT or a PiT, with its class token in front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from timm.models.convnext import ConvNeXt
from timm.models.pit import PoolingVisionTransformer
from timm.models.resnet import ResNet as TimmResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from landscape.models.alternet import AttentionBlock
from landscape.models.botnet import BoTNet
from landscape.models.cifar_resnet import CifarResNet
from landscape.models.parts import MAPS, TYPES, Apply, Block, TokenPool, residual
from landscape.models.resnet import PostBlock, PreBlock, Staged

__all__ = ["MAPS", "TYPES", "Block", "blocks"]


def blocks(model: nn.Module) -> list[Block]:
    """The blocks of one of our networks, or of timm's ViT, DeiT, PiT, Swin, ResNet or ConvNeXt, in order.

    The network is not changed; the modules follow its mode and device.

    Parameters
    ----------
    model
        The network.

    Raises
    ------
    ValueError
        For another network.
    """
    for known, reader in _READERS.items():
        if isinstance(model, known):
            try:
                return list(reader(model))
            except AttributeError as e:
                raise ValueError(f"this {type(model).__name__} is a variant whose blocks are not known: {e}") from e
    raise ValueError(
        f"the blocks of {type(model).__name__} are not known; known are those of "
        + ", ".join(sorted({k.__name__ for k in _READERS}))
    )


def _staged(model: Staged) -> Iterator[Block]:
    yield Block("layer0", "stem", 0, model.layer0)
    for s in range(1, model.stages + 1):
        for b, block in enumerate(getattr(model, f"layer{s}")):
            attends = isinstance(model, BoTNet) and s == model.stages
            yield _staged_block(f"layer{s}.{b}", s, block, attends)
    yield Block("classifier", "head", model.stages + 1, model.classifier)


def _staged_block(name: str, stage: int, b: Any, attends: bool) -> Block:
    first: tuple[nn.Module, ...]
    rest: tuple[nn.Module, ...]
    if isinstance(b, PostBlock):
        block_type, attention = ("attention", b.conv2[0]) if attends else ("convolution", None)
        return residual(name, block_type, stage, b.conv1, b.conv2, b.conv3, b.sd, module=b, skip=b.shortcut,
                        after=nn.ReLU(), attends=attention)  # fmt: skip
    if isinstance(b, PreBlock):
        first, rest = (b.bn, nn.ReLU()), (b.conv1, b.conv2, b.conv3, b.sd)
        block_type, attention = "convolution", None
    elif isinstance(b, AttentionBlock):
        first, rest = (b.norm1, nn.GELU()), (b.conv, b.norm2, b.attn, b.sd)
        block_type, attention = "attention", b.attn
    else:
        raise AttributeError(f"{name} is a {type(b).__name__}")
    skip = nn.Sequential(*first, b.shortcut) if len(b.shortcut) else None
    return residual(name, block_type, stage, *first, *rest, module=b, skip=skip, attends=attention)


def _cifar_resnet(model: CifarResNet) -> Iterator[Block]:
    yield Block("conv1", "stem", 0, nn.Sequential(model.conv1, model.bn1, nn.ReLU()))
    for name, s, b in _numbered(model, 3):
        if b.shortcut is None:
            yield Block(name, "convolution", s, b)
        else:
            branch = (b.conv1, b.bn1, nn.ReLU(), b.conv2, b.bn2, b.sd)
            yield residual(name, "convolution", s, *branch, module=b, skip=b.shortcut, after=nn.ReLU())
    yield Block("linear", "head", 4, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.linear))


def _timm_resnet(model: Any) -> Iterator[Block]:
    yield Block("conv1", "stem", 0, nn.Sequential(model.conv1, model.bn1, model.act1, model.maxpool))
    for name, s, b in _numbered(model, 4):
        first: tuple[Any, ...] = (b.conv1, b.bn1, b.drop_block, b.act1, b.aa, b.conv2, b.bn2)
        if hasattr(b, "conv3"):
            first = (b.conv1, b.bn1, b.act1, b.conv2, b.bn2, b.drop_block, b.act2, b.aa, b.conv3, b.bn3)
        branch = [m for m in (*first, b.se, b.drop_path) if m is not None]
        after = b.act3 if hasattr(b, "conv3") else b.act2
        yield residual(name, "convolution", s, *branch, module=b, skip=b.downsample, after=after)
    yield Block("fc", "head", 5, Apply(model.forward_head, model.fc))


def _numbered(model: Any, stages: int) -> Iterator[tuple[str, int, Any]]:
    for s in range(1, stages + 1):
        for b, block in enumerate(getattr(model, f"layer{s}")):
            yield f"layer{s}.{b}", s, block


def _convnext(model: Any) -> Iterator[Block]:
    yield Block("stem", "stem", 0, model.stem)
    for s, stage in enumerate(model.stages, 1):
        name = f"stages.{s - 1}"
        if not isinstance(stage.downsample, nn.Identity):
            yield Block(f"{name}.downsample", "pool", s, stage.downsample)
        for i, b in enumerate(stage.blocks):
            branch = Apply(partial(_convnext_branch, b), b)
            yield residual(f"{name}.blocks.{i}", "convolution", s, branch, module=b, skip=b.shortcut)
    last = (model.norm_pre, model.head)
    yield Block("head", "head", s + 1, Apply(lambda x: model.forward_head(model.norm_pre(x)), *last))


def _convnext_branch(b: Any, x: Tensor) -> Tensor:
    x = b.conv_dw(x)
    x = b.mlp(b.norm(x)) if b.use_conv_mlp else b.mlp(b.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    return b.drop_path(x if b.gamma is None else x * b.gamma.reshape(1, -1, 1, 1))


def _vit(model: Any) -> Iterator[Block]:
    def stem(x: Tensor) -> Tensor:
        return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))

    tokens = (model.cls_token, getattr(model, "dist_token", None), model.reg_token, model.pos_embed)
    yield Block("patch_embed", "stem", 0, Apply(stem, model.patch_embed, *tokens, model.norm_pre))
    yield from _halves(model.blocks, "blocks", 1)
    last = (model.norm, model.attn_pool, model.fc_norm, model.head, getattr(model, "head_dist", None))
    yield Block("head", "head", 2, Apply(lambda x: model.forward_head(model.norm(x)), *last))


def _halves(layers: Any, name: str, stage: int) -> Iterator[Block]:
    for i, b in enumerate(layers.children()):
        attention = (b.norm1, b.attn, b.ls1, b.drop_path1)
        yield residual(f"{name}.{i}.attn", "attention", stage, *attention, attends=b.attn)
        yield residual(f"{name}.{i}.mlp", "mlp", stage, b.norm2, b.mlp, b.ls2, b.drop_path2)


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
            attention = (b.norm1, Apply(b._attn, b.attn), b.drop_path1)
            yield residual(f"{name}.blocks.{i}.attn", "attention", s, *attention, attends=b.attn)
            yield residual(f"{name}.blocks.{i}.mlp", "mlp", s, b.norm2, b.mlp, b.drop_path2)
    yield Block("head", "head", s + 1, Apply(lambda x: model.forward_head(model.norm(x)), model.norm, model.head))


_READERS: dict[type[nn.Module], Callable[[Any], Iterator[Block]]] = {
    Staged: _staged,
    CifarResNet: _cifar_resnet,
    TimmResNet: _timm_resnet,
    VisionTransformer: _vit,
    PoolingVisionTransformer: _pit,
    SwinTransformer: _swin,
    ConvNeXt: _convnext,
}
