"""BoTNet: Srinivas et al. 2021, "Bottleneck Transformers for Visual Recognition" (sec. 3, table 1).

A post-activation ResNet of bottlenecks whose last stage has attention in place of its 3 x 3 convolutions: over the
whole map, with relative positions learned per axis, 4 heads, and average pooling after it where the map is halved.
"""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers.bottleneck_attn import BottleneckAttn
from torch import nn

from landscape.models.resnet import (
    BLOCKS,
    WIDTHS,
    Classifier,
    PostBlock,
    Staged,
    drop_rates,
    stem_for,
    stem_layers,
    stem_side,
)

EXPANSION = 4


class BoTNet(Staged):
    """x (batch, in_channels, s, s) to logits (batch, num_classes); the relative positions are for this s only.

    Parameters
    ----------
    blocks, widths
        Numbers of blocks and channels, per stage.
    heads
        Heads of the attention in the last stage; they must divide its width.

    Raises
    ------
    ValueError
        For an unknown stem, or if the heads do not divide the width.
    """

    def __init__(
        self,
        blocks: Sequence[int] = BLOCKS[50],
        num_classes: int = 10,
        image_size: int = 32,
        in_channels: int = 3,
        widths: Sequence[int] = WIDTHS,
        heads: int = 4,
        stem: str | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        if widths[-1] % heads:
            raise ValueError(f"heads={heads} do not divide the last stage's width {widths[-1]}")
        stem = stem_for(image_size, stem)
        side, channels = stem_side(image_size, stem), widths[0]
        rates = iter(drop_rates(drop_path_rate, sum(blocks)))
        stages: list[list[nn.Module]] = []
        for s, (n, width) in enumerate(zip(blocks, widths, strict=True)):
            stages.append([])
            for b in range(n):
                stride = 2 if s > 0 and b == 0 else 1
                spatial = None
                if s == len(blocks) - 1:  # scale_pos_embed: positions meet the scaled queries, as in the paper's code
                    spatial = BottleneckAttn(
                        width, width, (side, side), stride, heads, dim_head=width // heads, scale_pos_embed=True
                    )
                    if stride == 2:  # the last row of a map of odd side is kept, as in the shortcut's convolution
                        spatial.pool = nn.AvgPool2d(2, 2, ceil_mode=True)
                stages[s].append(PostBlock(channels, width, stride, EXPANSION, next(rates), spatial))
                channels, side = width * EXPANSION, -(-side // stride)
        first = stem_layers(in_channels, widths[0], stem, pre_activation=False)
        super().__init__(first, stages, Classifier(channels, num_classes, False))
