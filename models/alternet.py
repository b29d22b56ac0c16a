"""AlterNet (Park & Kim 2022, sec. 4): a pre-activation ResNet whose stages end in windowed self-attention blocks.

A stage is written as a string, one letter a block: "c" a convolution block, "a" an attention block; any placement may
be given. Parameters are named as in the published code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.models.resnet import conv3x3


def published_stage(blocks: int, attention: int) -> str:
    """n - 2m convolution blocks, then m times (convolution, attention)."""
    return "c" * (blocks - 2 * attention) + "ca" * attention


def conv1x1(in_channels: int, out_channels: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=bias)


def activated(channels: int, following: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), following)


class ConvBlock(nn.Module):
    """A pre-activation residual block (He et al. 2016b): basic, or a bottleneck where `expansion` > 1."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
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

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.bn(x))
        skip = self.shortcut(a) if len(self.shortcut) else x
        return self.conv3(self.conv2(self.conv1(a))) + skip


class Projections(nn.Module):
    """The 1 x 1 convolutions of attention: to queries, to keys and values, and out."""

    def __init__(self, in_channels: int, out_channels: int, inner: int) -> None:
        super().__init__()
        self.to_q = conv1x1(in_channels, inner)
        self.to_kv = conv1x1(in_channels, 2 * inner)
        self.to_out = nn.Sequential(conv1x1(inner, out_channels, bias=True))


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows of w x w positions.

    Logits are q k^T * head_width ** -0.5 plus one learned table of (2w - 1) x (2w - 1) relative-position biases that
    all heads share. Maps of a side that is no multiple of w are refused.
    """

    def __init__(self, in_channels: int, out_channels: int, heads: int, head_width: int, window: int) -> None:
        super().__init__()
        self.attn = Projections(in_channels, out_channels, heads * head_width)
        self.heads, self.window, self.scale = heads, window, head_width**-0.5
        self.pos_embedding = nn.Parameter(torch.randn(2 * window - 1, 2 * window - 1))
        at = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        self.register_buffer("relative", at[None, :] - at[:, None] + window - 1, persistent=False)

    relative: Tensor

    def forward(self, x: Tensor) -> Tensor:
        b, _, height, width = x.shape
        w, h = self.window, self.heads
        if height % w or width % w:
            raise ValueError(f"a {height} x {width} map cannot be cut into windows of {w} x {w}")

        def windows(t: Tensor) -> Tensor:  # (b, h d, rows w, columns w) -> (b rows columns, h, w w, d)
            t = t.reshape(b, h, -1, height // w, w, width // w, w)
            return t.permute(0, 3, 5, 1, 4, 6, 2).reshape(-1, h, w * w, t.shape[2])

        q = windows(self.attn.to_q(x))
        k, v = (windows(t) for t in self.attn.to_kv(x).chunk(2, dim=1))
        bias = self.pos_embedding[self.relative[..., 0], self.relative[..., 1]]
        attention = (q @ k.transpose(-2, -1) * self.scale + bias).softmax(dim=-1)
        out = (attention @ v).reshape(b, height // w, width // w, h, w, w, -1)
        return self.attn.to_out(out.permute(0, 3, 6, 1, 4, 2, 5).reshape(b, -1, height, width))


class AttentionBlock(nn.Module):
    """BatchNorm, GELU, 1 x 1 convolution, BatchNorm, windowed attention; plus the shortcut, nothing after."""

    def __init__(
        self, in_channels: int, channels: int, expansion: int, heads: int, head_width: int, window: int
    ) -> None:
        super().__init__()
        out_channels, inner = channels * expansion, in_channels // expansion
        changes = in_channels != out_channels
        self.shortcut = nn.Sequential(conv1x1(in_channels, out_channels)) if changes else nn.Sequential()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv = conv1x1(in_channels, inner)
        self.norm2 = nn.BatchNorm2d(inner)
        self.attn = WindowAttention(inner, out_channels, heads, head_width, window)

    def forward(self, x: Tensor) -> Tensor:
        a = F.gelu(self.norm1(x))
        skip = self.shortcut(a) if len(self.shortcut) else x
        return self.attn(self.norm2(self.conv(a))) + skip


class Stem(nn.Module):
    """A 3 x 3 convolution below 128 px; from there on 7 x 7 with stride 2 and a 3 x 3 max pooling with stride 2."""

    def __init__(self, in_channels: int, channels: int, image_size: int) -> None:
        super().__init__()
        if image_size < 128:
            self.layer0 = nn.Sequential(conv3x3(in_channels, channels))
        else:
            first = nn.Conv2d(in_channels, channels, 7, 2, padding=3, bias=False)
            self.layer0 = nn.Sequential(first, nn.MaxPool2d(3, 2, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer0(x)


class Classifier(nn.Module):
    """BatchNorm, ReLU, average pooling, linear."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.dense = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(F.relu(self.bn(x)).mean(dim=(2, 3)))


class AlterNet(nn.Module):
    """x (batch, in_channels, s, s) to logits (batch, num_classes).

    stages: one string of "c" and "a" per stage, such as ("cc", "ca", "ca", "ca"); every stage but the first starts
        by halving the map, so with "c". widths, heads: per stage. window: at most the side of the stage's map.
    Raises ValueError for another letter, or an "a" where the map is to be halved.
    """

    def __init__(
        self,
        stages: Sequence[str],
        num_classes: int = 10,
        image_size: int = 32,
        in_channels: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512),
        heads: Sequence[int] = (3, 6, 12, 24),
        head_width: int = 64,
        expansion: int = 1,
        window: int | None = None,
    ) -> None:
        super().__init__()
        window = window if window is not None else (4 if image_size < 128 else 7)
        side = image_size if image_size < 128 else image_size // 4
        self.layer0 = Stem(in_channels, widths[0], image_size)
        channels = widths[0]
        for s, letters in enumerate(stages):
            blocks: list[nn.Module] = []
            for b, letter in enumerate(letters):
                stride = 2 if s > 0 and b == 0 else 1
                side = -(-side // stride)
                if letter == "c":
                    blocks.append(ConvBlock(channels, widths[s], stride, expansion))
                elif letter == "a" and stride == 1:
                    blocks.append(
                        AttentionBlock(channels, widths[s], expansion, heads[s], head_width, min(window, side))
                    )
                else:
                    raise ValueError(f"stage {s + 1} of {tuple(stages)}: block {b + 1} cannot be {letter!r}")
                channels = widths[s] * expansion
            setattr(self, f"layer{s + 1}", nn.Sequential(*blocks))
        self.stages = len(stages)
        self.classifier = nn.Sequential(Classifier(channels, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer0(x)
        for s in range(self.stages):
            x = getattr(self, f"layer{s + 1}")(x)
        return self.classifier(x)
