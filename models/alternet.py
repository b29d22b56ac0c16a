"""AlterNet (Park & Kim 2022, sec. 4): a pre-activation ResNet whose stages end in windowed self-attention blocks.

A stage is written as a string with one letter per block: "c" for a convolution block, "a" for an attention block, in
any order. Parameters are named as in the published code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.models.resnet import (
    WIDTHS,
    Classifier,
    PreBlock,
    Staged,
    conv1x1,
    drop_path,
    drop_rates,
    stem_for,
    stem_layers,
    stem_side,
)

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 4), 50: (3, 4, 6, 4), 101: (3, 4, 23, 4), 152: (3, 8, 36, 4)}
ATTENTION = {18: (0, 1, 1, 1), 34: (0, 1, 3, 2), 50: (0, 1, 3, 2), 101: (0, 1, 3, 2), 152: (0, 1, 3, 2)}


def published_stage(blocks: int, attention: int) -> str:
    """n - 2m convolution blocks, then m times (convolution, attention). Raises ValueError if 2m > n."""
    if not 0 <= 2 * attention <= blocks:
        raise ValueError(f"{attention} attention blocks, each after a convolution, do not fit into a stage of {blocks}")
    return "c" * (blocks - 2 * attention) + "ca" * attention


class Projections(nn.Module):
    """The 1 x 1 convolutions of attention: to queries, to keys and values, and to the output."""

    def __init__(self, in_channels: int, out_channels: int, inner: int) -> None:
        super().__init__()
        self.to_q = conv1x1(in_channels, inner)
        self.to_kv = conv1x1(in_channels, 2 * inner)
        self.to_out = nn.Sequential(conv1x1(inner, out_channels, bias=True))


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows of w x w positions.

    Logits are q k^T * head_width ** -0.5 plus one learned table of (2w - 1) x (2w - 1) relative-position biases that
    all heads share. Maps with a side that is not a multiple of w are refused.
    """

    def __init__(self, in_channels: int, out_channels: int, heads: int, head_width: int, window: int) -> None:
        super().__init__()
        self.attn = Projections(in_channels, out_channels, heads * head_width)
        self.heads, self.window, self.scale = heads, window, head_width**-0.5
        self.pos_embedding = nn.Parameter(0.02 * torch.randn(2 * window - 1, 2 * window - 1))
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
    """BatchNorm, GELU, 1 x 1 convolution, BatchNorm, windowed attention, plus the shortcut; nothing after the sum."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        expansion: int,
        heads: int,
        head_width: int,
        window: int,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        out_channels, inner = channels * expansion, in_channels // expansion
        changes = in_channels != out_channels
        self.shortcut = nn.Sequential(conv1x1(in_channels, out_channels)) if changes else nn.Sequential()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv = conv1x1(in_channels, inner)
        self.norm2 = nn.BatchNorm2d(inner)
        self.attn = WindowAttention(inner, out_channels, heads, head_width, window)
        self.sd = drop_path(drop)

    def forward(self, x: Tensor) -> Tensor:
        a = F.gelu(self.norm1(x))
        skip = self.shortcut(a) if len(self.shortcut) else x
        return self.sd(self.attn(self.norm2(self.conv(a)))) + skip


class Stem(nn.Module):
    """The first convolution, without BatchNorm; a module of its own so that names match the published ones."""

    def __init__(self, in_channels: int, channels: int, stem: str) -> None:
        super().__init__()
        self.layer0 = stem_layers(in_channels, channels, stem, pre_activation=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer0(x)


class AlterNet(Staged):
    """x (batch, in_channels, s, s) to logits (batch, num_classes).

    Parameters
    ----------
    stages
        One string of "c" and "a" per stage, such as ("cc", "ca", "ca", "ca"); every stage but the first halves the
        map at its start, and so starts with "c".
    widths, heads
        Channels and heads, per stage.
    window
        The side of the windows, at most that of a stage's map; by default 4 with the cifar stem, 7 with imagenet.
    drop_path_rate
        Stochastic depth.

    Raises
    ------
    ValueError
        For another letter, an "a" where the map must be halved, a window that does not divide its map, or an unknown
        stem.
    """

    def __init__(
        self,
        stages: Sequence[str],
        num_classes: int = 10,
        image_size: int = 32,
        in_channels: int = 3,
        widths: Sequence[int] = WIDTHS,
        heads: Sequence[int] = (3, 6, 12, 24),
        head_width: int = 64,
        expansion: int = 1,
        window: int | None = None,
        stem: str | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        stem = stem_for(image_size, stem)
        window = window if window is not None else (4 if stem == "cifar" else 7)
        side, channels = stem_side(image_size, stem), widths[0]
        rates = iter(drop_rates(drop_path_rate, sum(map(len, stages))))
        made: list[list[nn.Module]] = []
        for s, letters in enumerate(stages):
            made.append([])
            for b, letter in enumerate(letters):
                stride = 2 if s > 0 and b == 0 else 1
                side = -(-side // stride)
                if letter == "c":
                    made[s].append(PreBlock(channels, widths[s], stride, expansion, next(rates)))
                elif letter == "a" and stride == 1:
                    w = min(window, side)
                    if w < 1 or side % w:
                        raise ValueError(
                            f"at image_size={image_size} the map of stage {s + 1} is {side} x {side}, which cannot be "
                            f"cut into windows of {window}; change one of the two"
                        )
                    made[s].append(AttentionBlock(channels, widths[s], expansion, heads[s], head_width, w, next(rates)))
                else:
                    raise ValueError(f"stage {s + 1} of {tuple(stages)}: block {b + 1} cannot be {letter!r}")
                channels = widths[s] * expansion
        super().__init__(Stem(in_channels, widths[0], stem), made, Classifier(channels, num_classes, True))
