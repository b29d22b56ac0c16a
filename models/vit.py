"""Vision Transformers: timm's VisionTransformer, sized for small images.

Sizes are those of DeiT (Touvron et al. 2021) in width, depth and heads. On images below 128 px the patches are small
and the query-key-value projection has no bias, as in Park & Kim (2022) for CIFAR: 32 px, patch 2.
"""

from __future__ import annotations

from typing import Any

from timm.models.vision_transformer import VisionTransformer

SIZES: dict[str, dict[str, Any]] = {
    "vit_xs": {"embed_dim": 64, "depth": 4, "num_heads": 4, "mlp_ratio": 2.0},
    "vit_ti": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "vit_s": {"embed_dim": 384, "depth": 12, "num_heads": 6},
}


def default_patch(image_size: int, grid: int) -> int:
    """The largest divisor of `image_size` that leaves at least `grid` patches a side."""
    return max(p for p in range(1, image_size + 1) if image_size % p == 0 and (p == 1 or image_size // p >= grid))


def vit(
    size: str,
    num_classes: int = 10,
    image_size: int = 32,
    in_channels: int = 3,
    patch_size: int | None = None,
    **overrides: Any,
) -> VisionTransformer:
    """A ViT of a named size. patch_size: by default 16 from 128 px on; below, 16 patches a side; for vit_xs
        patches of 4 px, or 4 a side where that is more.

    overrides: any other argument of timm's VisionTransformer, such as depth or global_pool.
    """
    if patch_size is None:
        patch_size = (
            16 if image_size >= 128 else default_patch(image_size, max(4, image_size // 4) if size == "vit_xs" else 16)
        )
    settings = {**SIZES[size], "qkv_bias": image_size >= 128, **overrides}
    return VisionTransformer(
        img_size=image_size, patch_size=patch_size, in_chans=in_channels, num_classes=num_classes, **settings
    )
