"""ResNets of four stages: He et al. 2016, "Deep Residual Learning" (table 1), and pre-activation, "Identity Mappings".

Parameters are named as in the code of Park & Kim (2022): layer0, layer1.0.conv1.0, ..., classifier.0.dense. A
bottleneck halves the map in its 3 x 3 convolution, as torchvision's and timm's do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STEMS = ("cifar", "imagenet")
WIDTHS = (64, 128, 256, 512)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=bias)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def normed(conv: nn.Conv2d, relu: bool = True) -> nn.Sequential:
    """A convolution, BatchNorm and, by default, ReLU."""
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), *([nn.ReLU()] if relu else []))


def activated(channels: int, following: nn.Module) -> nn.Sequential:
    """BatchNorm and ReLU before a module."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), following)


def expansion_of(depth: int) -> int:
    """4 for bottlenecks, from 50 layers on; 1 for basic blocks."""
    return 4 if depth >= 50 else 1


def drop_rates(total: float, blocks: int) -> list[float]:
    """Stochastic depth (Huang et al. 2016): from 0 at the first block to `total` at the last, evenly."""
    return [total * b / max(1, blocks - 1) for b in range(blocks)]


def drop_path(rate: float) -> nn.Module:
    """Stochastic depth at this rate; the identity at 0."""
    return DropPath(rate) if rate else nn.Identity()


class PostBlock(nn.Module):
    """Convolutions, each with BatchNorm, plus the shortcut, then ReLU: basic, or a bottleneck if `expansion` > 1.

    Parameters
    ----------
    spatial
        In a bottleneck, a replacement for the 3 x 3 convolution, from `channels` to as many channels, with the stride.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        expansion: int,
        drop: float = 0.0,
        spatial: nn.Module | None = None,
    ) -> None:
        super().__init__()
        out_channels = channels * expansion
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = normed(conv1x1(in_channels, out_channels, stride), relu=False) if changes else nn.Sequential()
        if expansion == 1:
            self.conv1 = normed(conv3x3(in_channels, channels, stride))
            self.conv2 = normed(conv3x3(channels, channels), relu=False)
            self.conv3: nn.Module = nn.Identity()
        else:
            self.conv1 = normed(conv1x1(in_channels, channels))
            middle = spatial if spatial is not None else conv3x3(channels, channels, stride)
            self.conv2 = nn.Sequential(middle, nn.BatchNorm2d(channels), nn.ReLU())
            self.conv3 = normed(conv1x1(channels, out_channels), relu=False)
        self.sd = drop_path(drop)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.sd(self.conv3(self.conv2(self.conv1(x)))) + self.shortcut(x))


class PreBlock(nn.Module):
    """BatchNorm and ReLU before each convolution; a shortcut that is a convolution starts after the first pair."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int, drop: float = 0.0) -> None:
        super().__init__()
        out_channels = channels * expansion
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = nn.Sequential(conv1x1(in_channels, out_channels, stride)) if changes else nn.Sequential()
        self.bn = nn.BatchNorm2d(in_channels)
        if expansion == 1:
            self.conv1: nn.Module = conv3x3(in_channels, channels, stride)
            self.conv2 = activated(channels, conv3x3(channels, channels))
            self.conv3: nn.Module = nn.Identity()
        else:
            self.conv1 = conv1x1(in_channels, channels)
            self.conv2 = activated(channels, conv3x3(channels, channels, stride))
            self.conv3 = activated(channels, conv1x1(channels, out_channels))
        self.sd = drop_path(drop)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.bn(x))
        skip = self.shortcut(a) if len(self.shortcut) else x
        return self.sd(self.conv3(self.conv2(self.conv1(a)))) + skip


class Classifier(nn.Module):
    """Average pooling and a linear layer; BatchNorm and ReLU before them if `pre_activation`."""

    def __init__(self, channels: int, num_classes: int, pre_activation: bool) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels) if pre_activation else None
        self.dense = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.bn is not None:
            x = F.relu(self.bn(x))
        return self.dense(torch.mean(x, dim=(2, 3)))


def stem_for(image_size: int, stem: str | None) -> str:
    """`stem`, or by default "cifar" below 128 px and "imagenet" from there on. Raises ValueError for another word."""
    if stem is not None and stem not in STEMS:
        raise ValueError(f"stem={stem!r} is not one of {', '.join(STEMS)}")
    return stem or ("cifar" if image_size < 128 else "imagenet")


def stem_side(image_size: int, stem: str) -> int:
    """The side of the map after the stem: for "imagenet" a quarter of the image's, rounded up."""
    return image_size if stem == "cifar" else -(-image_size // 4)


def stem_layers(in_channels: int, channels: int, stem: str, pre_activation: bool) -> nn.Sequential:
    """cifar: a 3 x 3 convolution. imagenet: 7 x 7 with stride 2, and a 3 x 3 max pooling with stride 2."""
    if stem == "cifar":
        conv, pool = conv3x3(in_channels, channels), []
    else:
        conv = nn.Conv2d(in_channels, channels, 7, 2, padding=3, bias=False)
        pool = [nn.MaxPool2d(3, 2, padding=1)]
    return nn.Sequential(conv, *([] if pre_activation else [nn.BatchNorm2d(channels), nn.ReLU()]), *pool)


class Staged(nn.Module):
    """A stem `layer0`, stages `layer1`, `layer2`, ..., and a classifier, one after another."""

    def __init__(self, stem: nn.Module, stages: Sequence[Sequence[nn.Module]], classifier: nn.Module) -> None:
        super().__init__()
        self.layer0 = stem
        for s, blocks in enumerate(stages, 1):
            setattr(self, f"layer{s}", nn.Sequential(*blocks))
        self.stages = len(stages)
        self.classifier = nn.Sequential(classifier)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer0(x)
        for s in range(1, self.stages + 1):
            x = getattr(self, f"layer{s}")(x)
        return self.classifier(x)


class ResNet(Staged):
    """x (batch, in_channels, s, s) to logits (batch, num_classes).

    Parameters
    ----------
    blocks, widths
        Numbers of blocks and channels, per stage; every stage but the first halves the map.
    expansion
        1 for basic blocks, 4 for bottlenecks.
    stem
        cifar or imagenet; by default it depends on the image size, as in `stem_for`.
    drop_path_rate
        Stochastic depth.

    Raises
    ------
    ValueError
        For an unknown stem.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        num_classes: int = 10,
        image_size: int = 32,
        in_channels: int = 3,
        widths: Sequence[int] = WIDTHS,
        expansion: int = 1,
        pre_activation: bool = False,
        stem: str | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        block: Callable[..., nn.Module] = PreBlock if pre_activation else PostBlock
        rates = iter(drop_rates(drop_path_rate, sum(blocks)))
        channels, stages = widths[0], []
        for s, (n, width) in enumerate(zip(blocks, widths, strict=True)):
            stage = []
            for b in range(n):
                stage.append(block(channels, width, 2 if s > 0 and b == 0 else 1, expansion, next(rates)))
                channels = width * expansion
            stages.append(stage)
        first = stem_layers(in_channels, widths[0], stem_for(image_size, stem), pre_activation)
        super().__init__(first, stages, Classifier(channels, num_classes, pre_activation))
