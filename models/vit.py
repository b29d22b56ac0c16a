"""Vision Transformers: timm's VisionTransformer, with sizes for small images, and with local attention.

Width, depth and heads are those of DeiT (Touvron et al. 2021). On images below 128 px the patches are small
and the query-key-value projection has no bias, as in Park & Kim (2022) for CIFAR: 32 px, patch 2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.layers import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

MOST_LOCAL = 8192  # the most patches with local attention, whose mask has the square of their number

SIZES: dict[str, dict[str, Any]] = {
    "vit_xs": {"embed_dim": 64, "depth": 4, "num_heads": 4, "mlp_ratio": 2.0},
    "vit_ti": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "vit_s": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "vit_b": {"embed_dim": 768, "depth": 12, "num_heads": 12},
}


def default_patch(image_size: int, grid: float) -> int:
    """The divisor of `image_size` that gives about `grid` patches per side: the nearest in ratio."""
    divisors = [p for p in range(1, image_size + 1) if image_size % p == 0]
    return min(divisors, key=lambda p: abs(math.log(image_size / p / grid)))


def vit(
    size: str,
    num_classes: int = 10,
    image_size: int = 32,
    in_channels: int = 3,
    patch_size: int | None = None,
    local: int | None = None,
    norm_eps: float = 1e-6,
    **overrides: Any,
) -> VisionTransformer:
    """A ViT of a named size.

    Parameters
    ----------
    size
        One of SIZES.
    num_classes, image_size, in_channels
        As in `landscape.create_model`.
    patch_size
        By default 16 from 128 px on. Below that, the divisor of image_size that gives nearly 16 patches per side (for
        28 px: 14 patches of 2 px); for vit_xs the one nearest to patches of 4 px, or to 4 per side if that is more.
    local
        Restricts attention to the window of local x local patches around each patch (`local_window`).
    norm_eps
        The epsilon of the layer norms; it is 1e-12 in the ViTs of transformers.
    overrides
        Any other argument of timm's VisionTransformer, such as depth, num_heads, embed_dim or global_pool. With any
        pooling but "token" there is no class token unless class_token=True.

    Raises
    ------
    ValueError
        For a window below 1, or a window together with dropped patches.
    """
    if patch_size is None:
        patch_size = (
            16 if image_size >= 128 else default_patch(image_size, max(4, image_size / 4) if size == "vit_xs" else 16)
        )
    settings = {**SIZES[size], "qkv_bias": image_size >= 128, **overrides}
    settings.setdefault("class_token", settings.get("global_pool", "token") == "token")
    if local is not None:
        if local < 1 or settings.get("patch_drop_rate"):
            raise ValueError(f"local={local} must be 1 or more, and cannot be combined with patch_drop_rate")
        settings["attn_layer"] = WindowedAttention
    model = VisionTransformer(
        img_size=image_size, patch_size=patch_size, in_chans=in_channels, num_classes=num_classes, **settings
    )
    for m in model.modules():
        if isinstance(m, nn.LayerNorm):
            m.eps = norm_eps
    if local is not None:
        window = local_window(model.patch_embed.grid_size, local, model.num_prefix_tokens)
        for m in model.modules():
            if isinstance(m, WindowedAttention):
                m.register_buffer("window", window, persistent=False)
    return model


class WindowedAttention(Attention):
    """timm's attention, where token i attends to token j only if window[i, j]; `vit` sets window (tokens, tokens)."""

    window: Tensor

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        return super().forward(x, self.window if attn_mask is None else attn_mask & self.window, is_causal)


def local_window(grid: tuple[int, int], local: int, prefix: int) -> Tensor:
    """Which of the prefix + rows x columns tokens attends to which, (tokens, tokens), after Park & Kim 2022, fig. 6.

    A patch attends to the patches at most local // 2 away along each axis; a window of even size reaches one further up
    and left than down and right. Outside the map there is nothing to attend to (the code of the study has keys of zeros
    there). A class token, which that code does not have with local attention, attends to everything, but no patch
    attends to it: it would carry what lies outside the window. A window that covers the map restricts nothing.
    """
    rows, columns = grid
    if rows * columns > MOST_LOCAL:
        raise ValueError(f"local={local} is for at most {MOST_LOCAL} patches, and there are {rows * columns}")
    axes = (torch.arange(n, device="cpu") for n in (rows, columns))  # also if the network is made on the meta device
    at = torch.cartesian_prod(*axes).to(torch.int16)
    step = at[None, :] - at[:, None]
    inside = ((step >= -(local // 2)) & (step <= (local - 1) // 2)).all(-1)
    window = torch.ones(prefix + len(at), prefix + len(at), dtype=torch.bool, device="cpu")
    window[prefix:, prefix:] = inside
    if not inside.all():
        window[prefix:, :prefix] = False
    return window
