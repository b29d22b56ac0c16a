"""CIFAR ResNets: He et al. 2016, "Deep Residual Learning for Image Recognition", sec. 4.2, with option-A shortcuts.

A stem of 16 filters, three stages of n blocks with 16, 32 and 64 filters, global average pooling, one linear layer:
6n + 2 layers with weights. `shortcut="none"` leaves the skip connections out, as in Li et al. 2018.
Parameters are named as in the public CIFAR-10 checkpoints of this family (conv1, bn1, layer1.0.conv1, ..., linear).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


class Block(nn.Module):
    """Two 3 x 3 convolutions, and the shortcut: identity, or subsampled with zero channels around it (option A)."""

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.padding = (channels - in_channels) // 2
        self.skips = shortcut == "A"

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.skips:
            out = out + self.shortcut(x)
        return F.relu(out)

    def shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1 and self.padding == 0:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))


class CifarResNet(nn.Module):
    """depth = 6n + 2; x (batch, in_channels, s, s) to logits (batch, num_classes), any s of 4 or more."""

    def __init__(
        self,
        depth: int,
        num_classes: int = 10,
        in_channels: int = 3,
        shortcut: str = "A",
        widths: tuple[int, int, int] = (16, 32, 64),
    ) -> None:
        super().__init__()
        if (depth - 2) % 6 or depth < 8:
            raise ValueError(f"depth={depth} is not 6n + 2")
        if shortcut not in ("A", "none"):
            raise ValueError(f"shortcut={shortcut!r} is not one of A, none")
        n = (depth - 2) // 6
        self.conv1 = conv3x3(in_channels, widths[0])
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = self._stage(n, widths[0], widths[0], 1, shortcut)
        self.layer2 = self._stage(n, widths[0], widths[1], 2, shortcut)
        self.layer3 = self._stage(n, widths[1], widths[2], 2, shortcut)
        self.linear = nn.Linear(widths[2], num_classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(n: int, in_channels: int, channels: int, stride: int, shortcut: str) -> nn.Sequential:
        first = Block(in_channels, channels, stride, shortcut)
        return nn.Sequential(first, *(Block(channels, channels, 1, shortcut) for _ in range(n - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.mean(x, dim=(2, 3)))
