"""A feature map as its positions and its class tokens, whatever the network's own order of dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Literal, NamedTuple

from timm.models.pit import PoolingVisionTransformer
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from landscape.runtime.errors import UserError

MOST_TOKENS = 16  # class, distillation and register tokens before the positions


class Maps(NamedTuple):
    """positions: (n, channels, height, width). tokens: (n, tokens, channels), those without a position."""

    positions: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class Layout:
    """How a network's feature maps are laid out.

    axes: nchw, nhwc, or nlc for a row of tokens. prefix: how many of the tokens come before the positions.
    grid: height and width of the positions in a row; None for a square.
    """

    axes: Literal["nchw", "nhwc", "nlc"]
    prefix: int = 0
    grid: tuple[int, int] | None = None

    def apart(self, x: Tensor) -> Maps:
        """The positions and the tokens of a feature map.

        Raises UserError if the positions do not form such a grid.
        """
        if self.axes == "nchw":
            return Maps(x, x.new_empty(len(x), 0, x.shape[1]))
        if self.axes == "nhwc":
            return Maps(x.permute(0, 3, 1, 2), x.new_empty(len(x), 0, x.shape[3]))
        length = x.shape[1] - self.prefix
        height, width = self.grid or (isqrt(max(length, 0)),) * 2
        if height * width != length or not length:
            raise UserError(
                f"{x.shape[1]} tokens, {self.prefix} of them before the positions, do not make a grid of "
                f"{height} x {width}"
            )
        return Maps(x[:, self.prefix :].mT.unflatten(2, (height, width)), x[:, : self.prefix])


def layout_of(model: nn.Module) -> Layout:
    """The layout of a network whose blocks `landscape.models.blocks` knows."""
    if isinstance(model, VisionTransformer):
        grid = None if getattr(model, "dynamic_img_size", False) else model.patch_embed.grid_size
        return Layout("nlc", model.num_prefix_tokens, None if grid is None else (int(grid[0]), int(grid[1])))
    if isinstance(model, PoolingVisionTransformer):
        return Layout("nlc", model.num_tokens)
    return Layout("nhwc" if isinstance(model, SwinTransformer) else "nchw")


def guessed(x: Tensor, name: str) -> Layout:
    """The layout of a module's output, guessed from its shape.

    An array of four dimensions has its channels second. In a row of tokens, the fewest tokens that leave a square are
    set apart. Raises UserError for another shape.
    """
    if x.ndim == 4:
        return Layout("nchw")
    if x.ndim == 3:
        for prefix in range(min(MOST_TOKENS, x.shape[1] - 1) + 1):
            if isqrt(x.shape[1] - prefix) ** 2 == x.shape[1] - prefix:
                return Layout("nlc", prefix)
    raise UserError(
        f"module {name} gives a tensor of shape {tuple(x.shape)}, which is not a feature map: neither (n, channels, "
        "height, width) nor (n, tokens, channels) with a square of positions; name other modules"
    )
