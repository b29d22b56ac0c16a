"""The names that other projects give to the parameters of the same networks, and how a state dict is renamed.

Every table leads to the names of `landscape.models`, which are those of Park & Kim's code for ResNet and AlterNet and
those of the installed timm for ViT, PiT and Swin. Park & Kim's own checkpoints of the latter three were made with timm
0.5, whose Swin and PiT had the pooling at the end of a stage; since timm 0.9 it is at the start of the next stage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Rule = tuple[str, str]


@dataclass(frozen=True)
class Dialect:
    """The names in which a project's code stores the parameters of a network.

    marks: regular expressions; a state dict in this dialect has a key that matches each of them.

    rules: pairs (regular expression, replacement), applied to every key one after another.

    dropped: a regular expression for keys of buffers that the network computes itself.

    joined: modules, such as query, key and value, whose tensors are concatenated in this order into "qkv".
    """

    name: str
    marks: tuple[str, ...]
    rules: tuple[Rule, ...]
    dropped: str | None = None
    joined: tuple[str, str, str] | None = None


_SWIN_BUFFERS = r"\.(relative_position_index|attn_mask)$"
DIALECTS = (
    Dialect(
        "Swin of timm before 0.9",
        (r"^layers\.0\.downsample\.reduction\.weight$",),
        (
            *((rf"^layers\.{i}\.downsample\.", f"layers.{i + 1}.downsample.") for i in (2, 1, 0)),
            (r"^head\.(weight|bias)$", r"head.fc.\1"),
        ),
        dropped=_SWIN_BUFFERS,
    ),
    Dialect(
        "PiT of timm before 0.9",
        (r"^transformers\.0\.pool\.",),
        tuple((rf"^transformers\.{i}\.pool\.", f"transformers.{i + 1}.pool.") for i in (1, 0)),
    ),
    Dialect(
        "PiT of its authors",
        (r"^pools\.0\.",),
        tuple((rf"^pools\.{i}\.", f"transformers.{i + 1}.pool.") for i in (1, 0)),
    ),
    Dialect(
        "ResNet of torchvision and timm",  # and, with the names linear and shortcut, of Li et al. and pytorch-cifar
        (r"^conv1\.weight$", r"^bn1\.weight$", r"^layer4\.0\.bn1\.weight$", r"^(fc|linear)\.weight$"),
        (
            (r"^conv1\.", "layer0.0."),
            (r"^bn1\.", "layer0.1."),
            (r"\.conv(\d)\.", r".conv\1.0."),
            (r"\.bn(\d)\.", r".conv\1.1."),
            (r"\.downsample\.", ".shortcut."),
            (r"^(fc|linear)\.", "classifier.0.dense."),
        ),
    ),
    Dialect(
        "ResNet of transformers",
        (r"^resnet\.embedder\.embedder\.convolution\.weight$",),
        (
            (r"\.convolution\.", ".0."),
            (r"\.normalization\.", ".1."),
            (r"^resnet\.embedder\.embedder\.", "layer0."),
            *((rf"^resnet\.encoder\.stages\.{i}\.layers\.", f"layer{i + 1}.") for i in range(4)),
            *((rf"\.layer\.{i}\.", f".conv{i + 1}.") for i in range(3)),
            (r"^classifier\.1\.", "classifier.0.dense."),
        ),
    ),
    Dialect(
        "ViT of torchvision",
        (r"^conv_proj\.weight$", r"^encoder\.pos_embedding$"),
        (
            (r"^class_token$", "cls_token"),
            (r"^conv_proj\.", "patch_embed.proj."),
            (r"^encoder\.pos_embedding$", "pos_embed"),
            (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
            (r"\.ln_([12])\.", r".norm\1."),
            (r"\.self_attention\.in_proj_", ".attn.qkv."),
            (r"\.self_attention\.out_proj\.", ".attn.proj."),
            (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
            (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
            (r"^encoder\.ln\.", "norm."),
            (r"^heads\.head\.", "head."),
        ),
    ),
    Dialect(
        "ViT of transformers",
        (r"^vit\.embeddings\.patch_embeddings\.projection\.weight$",),
        (
            (r"^vit\.embeddings\.cls_token$", "cls_token"),
            (r"^vit\.embeddings\.position_embeddings$", "pos_embed"),
            (r"^vit\.embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
            (r"^vit\.encoder\.layer\.(\d+)\.", r"blocks.\1."),
            (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
            (r"\.attention\.output\.dense\.", ".attn.proj."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"\.output\.dense\.", ".mlp.fc2."),
            (r"\.layernorm_before\.", ".norm1."),
            (r"\.layernorm_after\.", ".norm2."),
            (r"^vit\.layernorm\.", "norm."),
            (r"^classifier\.", "head."),
        ),
        joined=("query", "key", "value"),
    ),
    Dialect(
        "Swin of transformers",
        (r"^swin\.embeddings\.patch_embeddings\.projection\.weight$",),
        (
            (r"^swin\.embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
            (r"^swin\.embeddings\.norm\.", "patch_embed.norm."),
            *((rf"^swin\.encoder\.layers\.{i}\.downsample\.", f"layers.{i + 1}.downsample.") for i in (2, 1, 0)),
            (r"^swin\.encoder\.layers\.", "layers."),
            (r"\.attention\.self\.", ".attn."),
            (r"\.attention\.output\.dense\.", ".attn.proj."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"\.output\.dense\.", ".mlp.fc2."),
            (r"\.layernorm_before\.", ".norm1."),
            (r"\.layernorm_after\.", ".norm2."),
            (r"^swin\.layernorm\.", "norm."),
            (r"^classifier\.", "head.fc."),
        ),
        dropped=_SWIN_BUFFERS,
        joined=("query", "key", "value"),
    ),
    Dialect(
        "Swin of torchvision",
        (r"^features\.0\.0\.weight$", r"\.relative_position_bias_table$"),
        (
            (r"^features\.0\.0\.", "patch_embed.proj."),
            (r"^features\.0\.2\.", "patch_embed.norm."),
            *((rf"^features\.{2 * i + 1}\.", f"layers.{i}.blocks.") for i in range(4)),
            *((rf"^features\.{2 * i}\.", f"layers.{i}.downsample.") for i in (1, 2, 3)),
            (r"\.mlp\.0\.", ".mlp.fc1."),
            (r"\.mlp\.3\.", ".mlp.fc2."),
            (r"^head\.", "head.fc."),
        ),
        dropped=_SWIN_BUFFERS,
    ),
)


def readings(state: Mapping[str, Tensor]) -> Iterator[tuple[str | None, dict[str, Tensor]]]:
    """Yield `state` as it is, and then in the names of `landscape.models`, from every dialect whose marks it has.

    The first is (None, state), the others (name of the dialect, renamed state).
    """
    yield None, dict(state)
    for dialect in DIALECTS:
        if all(any(re.search(mark, key) for key in state) for mark in dialect.marks):
            yield dialect.name, renamed(state, dialect)


def renamed(state: Mapping[str, Tensor], dialect: Dialect) -> dict[str, Tensor]:
    """`state` in the names of `landscape.models`; the tensors are the same ones, except for those that are joined."""
    out: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if dialect.dropped and re.search(dialect.dropped, key):
            continue
        for pattern, replacement in dialect.rules:
            key = re.sub(pattern, replacement, key)
        out[key] = tensor
    if dialect.joined:
        first = dialect.joined[0]
        for key in [k for k in out if k.split(".")[-2:-1] == [first]]:
            parts = [key.replace(f".{first}.", f".{part}.") for part in dialect.joined]
            if all(part in out for part in parts):
                out[key.replace(f".{first}.", ".qkv.")] = torch.cat([out.pop(part) for part in parts])
    return out
