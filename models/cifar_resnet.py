"""CIFAR ResNets: He et al. 2016, "Deep Residual Learning for Image Recognition", sec. 4.2, with option-A shortcuts.

A stem of 16 filters, three stages of n blocks with 16, 32 and 64 filters, global average pooling, one linear layer:
6n + 2 layers with weights. `shortcut="none"` leaves the skip connections out, and "B" projects them where the shape
changes, both as in Li et al. 2018.

Parameters are named as in the public CIFAR-10 checkpoints of this family (conv1, bn1, layer1.0.conv1, ..., linear).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.models.resnet import conv1x1, conv3x3, drop_path, drop_rates, normed

SHORTCUTS = ("A", "B", "none")


class Subsample(nn.Module):
    """Option A: every second pixel, and channels of zeros around."""

    def __init__(self, padding: int, stride: int) -> None:
        super().__init__()
        self.padding, self.stride = padding, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))


class Block(nn.Module):
    """Two 3 x 3 convolutions, plus the shortcut where there is one, then ReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: str, drop: float) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module | None = None
        self.sd: nn.Module = nn.Identity()  # no stochastic depth without a shortcut
        if shortcut != "none":
            self.shortcut, self.sd = nn.Sequential(), drop_path(drop)
            if stride != 1 or in_channels != channels:
                subsample = Subsample((channels - in_channels) // 2, stride)
                projection = normed(conv1x1(in_channels, channels, stride), relu=False)
                self.shortcut = subsample if shortcut == "A" else projection

    def forward(self, x: Tensor) -> Tensor:
        out = self.sd(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        return F.relu(out)


class CifarResNet(nn.Module):
    """depth = 6n + 2; x (batch, in_channels, s, s) to logits (batch, num_classes), any s of 4 or more.

    Parameters
    ----------
    shortcut
        A, B or none.
    drop_path_rate
        The rate of stochastic depth, which has no effect without shortcuts.

    Raises
    ------
    ValueError
        For another depth or shortcut.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int = 10,
        in_channels: int = 3,
        shortcut: str = "A",
        widths: Sequence[int] = (16, 32, 64),
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if (depth - 2) % 6 or depth < 8:
            raise ValueError(f"depth={depth} is not 6n + 2")
        if shortcut not in SHORTCUTS:
            raise ValueError(f"shortcut={shortcut!r} is not one of {', '.join(SHORTCUTS)}")
        n, channels = (depth - 2) // 6, widths[0]
        rates = iter(drop_rates(drop_path_rate, 3 * n))
        self.conv1 = conv3x3(in_channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        stages = []
        for s, width in enumerate(widths):
            stage = []
            for b in range(n):
                stage.append(Block(channels, width, 2 if s > 0 and b == 0 else 1, shortcut, next(rates)))
                channels = width
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(channels, num_classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.mean(x, dim=(2, 3)))
