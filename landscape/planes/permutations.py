"""Which channels of a network can be permuted without changing its function, and the permuted network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from landscape.models.alternet import AlterNet, AttentionBlock
from landscape.models.botnet import BoTNet
from landscape.models.cifar_resnet import CifarResNet, Subsample
from landscape.models.resnet import PostBlock, Staged
from landscape.runtime.errors import UserError

State = Mapping[str, Tensor]
Channels = list[tuple[str, np.ndarray]]  # the groups along an axis, each with its places on it


@dataclass(frozen=True)
class Heads:
    """The heads of one attention: `count` heads with `width` channels each.

    The channels of its queries and keys are the group NAME.qk, those of its values NAME.v. Heads are permuted as a
    whole, in both groups alike; channels are permuted within a head.
    """

    count: int
    width: int


@dataclass
class Permutations:
    """The groups of channels of a network, each of which can be permuted by itself (Ainsworth et al. 2023, sec. 3).

    Attributes
    ----------
    members
        For each group, where its channels are: (tensor, axis, places along the axis), with channel j at the j-th place.
    heads
        The attentions, by name, whose groups are permuted by heads.
    """

    members: dict[str, list[tuple[str, int, np.ndarray]]] = field(default_factory=dict)
    heads: dict[str, Heads] = field(default_factory=dict)

    def size(self, group: str) -> int:
        """The number of channels in a group."""
        return len(self.members[group][0][2])

    def identity(self) -> dict[str, np.ndarray]:
        """The permutation that leaves every channel in its place."""
        return {group: np.arange(self.size(group)) for group in self.members}

    def random(self, seed: int) -> dict[str, np.ndarray]:
        """A random permutation of every group; groups of an attention are permuted by heads."""
        rng = np.random.default_rng(seed)
        found = {group: rng.permutation(self.size(group)) for group in self.members}
        for name, heads in self.heads.items():
            order = rng.permutation(heads.count)
            for part in ("qk", "v"):
                found[f"{name}.{part}"] = np.concatenate(
                    [h * heads.width + rng.permutation(heads.width) for h in order]
                )
        return found

    def applied(
        self, state: State, permutation: Mapping[str, np.ndarray], leave: str | None = None
    ) -> dict[str, Tensor]:
        """The state permuted so that channel j of each group is the former channel permutation[j].

        leave: a group that stays as it is; None for none.
        """
        found = dict(state)
        for group, members in self.members.items():
            if group == leave:
                continue
            for tensor, axis, places in members:
                index = np.arange(state[tensor].shape[axis])
                index[places] = places[permutation[group]]
                found[tensor] = found[tensor].index_select(axis, torch.as_tensor(index, device=found[tensor].device))
        return found


def permutations_of(model: nn.Module) -> Permutations:
    """The groups of our ResNets, CIFAR ResNets and AlterNets, and of timm's plain ViTs.

    They are the residual stream, the channels inside each block, and for attention the heads and the channels within
    each.

    Parameters
    ----------
    model
        The network.

    Returns
    -------
    Permutations
        The groups, by name.

    Raises
    ------
    UserError
        For any other network.
    """
    readers: list[tuple[type[nn.Module], Callable[[Any, _Reader], None]]] = [
        (CifarResNet, _cifar_resnet), (Staged, _staged), (VisionTransformer, _vit),
    ]  # fmt: skip
    for known, read in readers:
        if isinstance(model, known) and not isinstance(model, BoTNet):
            reader = _Reader(model.state_dict())
            read(model, reader)
            return reader.found
    raise UserError(
        f"which channels of {type(model).__name__} can change places is not known, so that networks of it cannot be "
        "aligned; known are ResNet, CifarResNet, AlterNet and VisionTransformer: ask for no alignment"
    )


class _Reader:
    """Collects where the channels of each group are."""

    def __init__(self, state: State) -> None:
        self.state, self.found = state, Permutations()

    def put(self, tensor: str, axis: int, channels: Channels, start: int = 0) -> None:
        """Put these groups along an axis of a tensor, if the network has it, from place `start` on."""
        for group, places in channels if tensor in self.state else ():
            self.found.members.setdefault(group, []).append((tensor, axis, places + start))

    def layer(self, name: str, inputs: Channels, outputs: Channels) -> None:
        """Put the groups of a linear layer or a convolution."""
        self.put(f"{name}.weight", 0, outputs)
        self.put(f"{name}.weight", 1, inputs)
        self.put(f"{name}.bias", 0, outputs)

    def norm(self, name: str, channels: Channels) -> None:
        """Put the groups of a norm and its statistics."""
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            self.put(f"{name}.{leaf}", 0, channels)

    def outputs(self, name: str, group: str) -> Channels:
        """All outputs of a layer as a group of their own."""
        return [(group, np.arange(self.state[f"{name}.weight"].shape[0]))]

    def chain(self, names: Sequence[tuple[str, str]], inputs: Channels, last: Channels, group: str) -> None:
        """Put layers (layer, norm) that follow one another: the last gives `last`, and each other a group of its own.

        The name "" means no norm. A norm whose name starts with "<" comes before its layer and acts on the layer's
        inputs.
        """
        for i, (layer, norm) in enumerate(names):
            outputs = last if i + 1 == len(names) else self.outputs(layer, f"{group}.{i}")
            self.layer(layer, inputs, outputs)
            if norm:
                self.norm(norm.removeprefix("<"), inputs if norm.startswith("<") else outputs)
            inputs = outputs


def _cifar_resnet(model: CifarResNet, reader: _Reader) -> None:
    stream = reader.outputs("conv1", "stem")
    reader.layer("conv1", [], stream)
    reader.norm("bn1", stream)
    for name, block in model.named_modules():
        if not (name.startswith("layer") and name.count(".") == 1):
            continue
        before, shortcut = stream, block.shortcut
        if shortcut is None or (isinstance(shortcut, nn.Sequential) and len(shortcut)):
            stream = reader.outputs(f"{name}.conv2", name)
        elif isinstance(shortcut, Subsample):  # padded with zeros: the former channels keep their groups
            width = reader.state[f"{name}.conv2.weight"].shape[0]
            inner = [(group, places + shortcut.padding) for group, places in before]
            outer = np.setdiff1d(np.arange(width), np.concatenate([places for _, places in inner]))
            stream = [*inner, *([(name, outer)] if len(outer) else [])]
        reader.chain(
            [(f"{name}.conv1", f"{name}.bn1"), (f"{name}.conv2", f"{name}.bn2")], before, stream, f"{name} inside"
        )
        reader.layer(f"{name}.shortcut.0", before, stream)
        reader.norm(f"{name}.shortcut.1", stream)
    reader.layer("linear", stream, [])


def _staged(model: Staged, reader: _Reader) -> None:
    stem = "layer0.layer0.0" if isinstance(model, AlterNet) else "layer0.0"
    stream = reader.outputs(stem, "stem")
    reader.layer(stem, [], stream)
    reader.norm(stem.removesuffix("0") + "1", stream)
    for name, block in model.named_modules():
        if not (name.startswith("layer") and name.count(".") == 1) or name.startswith("layer0"):
            continue
        before, inside = stream, f"{name} inside"
        if len(block.shortcut):
            stream = reader.outputs(f"{name}.shortcut.0", name)
            reader.layer(f"{name}.shortcut.0", before, stream)
            reader.norm(f"{name}.shortcut.1", stream)
        if isinstance(block, AttentionBlock):
            between = reader.outputs(f"{name}.conv", inside)
            reader.norm(f"{name}.norm1", before)
            reader.layer(f"{name}.conv", before, between)
            reader.norm(f"{name}.norm2", between)
            attention = block.attn
            inner = reader.state[f"{name}.attn.attn.to_q.weight"].shape[0]
            qk, v = _heads(reader, f"{name} attention", attention.heads, inner // attention.heads)
            reader.layer(f"{name}.attn.attn.to_q", between, qk)
            reader.put(f"{name}.attn.attn.to_kv.weight", 0, qk)
            reader.put(f"{name}.attn.attn.to_kv.weight", 0, v, start=inner)
            reader.put(f"{name}.attn.attn.to_kv.weight", 1, between)
            reader.layer(f"{name}.attn.attn.to_out.0", v, stream)
            continue
        deep = isinstance(block.conv3, nn.Sequential)
        if isinstance(block, PostBlock):
            layers = [(f"{name}.conv{i}.0", f"{name}.conv{i}.1") for i in ((1, 2, 3) if deep else (1, 2))]
        else:
            layers = [(f"{name}.conv1", f"<{name}.bn")]
            layers += [(f"{name}.conv{i}.2", f"<{name}.conv{i}.0") for i in ((2, 3) if deep else (2,))]
        reader.chain(layers, before, stream, inside)
    reader.norm("classifier.0.bn", stream)
    reader.layer("classifier.0.dense", stream, [])


def _vit(model: Any, reader: _Reader) -> None:
    stream = reader.outputs("patch_embed.proj", "stream")
    reader.layer("patch_embed.proj", [], stream)
    for token in ("cls_token", "reg_token", "pos_embed"):
        reader.put(token, 2, stream)
    for norm in ("norm_pre", "norm", "fc_norm"):
        reader.norm(norm, stream)
    for i, block in enumerate(model.blocks):
        name = f"blocks.{i}"
        width = reader.state[f"{name}.attn.proj.weight"].shape[1]
        qk, v = _heads(reader, f"{name} attention", block.attn.num_heads, width // block.attn.num_heads)
        for leaf in ("weight", "bias"):
            for part, channels in enumerate((qk, qk, v)):
                reader.put(f"{name}.attn.qkv.{leaf}", 0, channels, start=part * width)
        reader.put(f"{name}.attn.qkv.weight", 1, stream)
        reader.layer(f"{name}.attn.proj", v, stream)
        reader.chain([(f"{name}.mlp.fc1", ""), (f"{name}.mlp.fc2", "")], stream, stream, f"{name} mlp")
        for norm in ("norm1", "norm2"):
            reader.norm(f"{name}.{norm}", stream)
        for scale in ("ls1", "ls2"):
            reader.put(f"{name}.{scale}.gamma", 0, stream)
    reader.layer("head", stream, [])


def _heads(reader: _Reader, name: str, count: int, width: int) -> tuple[Channels, Channels]:
    reader.found.heads[name] = Heads(count, width)
    every = np.arange(count * width)
    return [(f"{name}.qk", every)], [(f"{name}.v", every)]
