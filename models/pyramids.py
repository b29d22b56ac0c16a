"""Vision Transformers in stages, through timm: PiT (Heo et al. 2021) and Swin (Liu et al. 2021).

Images below 128 px get the sizes of Park & Kim (2022) for CIFAR; larger ones, the published sizes.
"""

from __future__ import annotations

from typing import Any

from timm.models.pit import PoolingVisionTransformer
from timm.models.swin_transformer import SwinTransformer

PIT_TI = {"base_dims": (32, 32, 32), "depth": (2, 6, 4), "heads": (2, 4, 8), "mlp_ratio": 4.0}
SWIN_TI = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "drop_path_rate": 0.0}


def pit(
    num_classes: int = 10, image_size: int = 32, in_channels: int = 3, **overrides: Any
) -> PoolingVisionTransformer:
    """PiT-Ti: patches of 2 px at every pixel (from 128 px on, 16 px at every eighth pixel), and a class token.

    overrides: any other argument of timm's PoolingVisionTransformer, such as base_dims, depth or heads.
    """
    sizes = {"patch_size": 2, "stride": 1} if image_size < 128 else {"patch_size": 16, "stride": 8}
    settings = {**PIT_TI, **sizes, **overrides}
    return PoolingVisionTransformer(img_size=image_size, in_chans=in_channels, num_classes=num_classes, **settings)


def swin(num_classes: int = 10, image_size: int = 32, in_channels: int = 3, **overrides: Any) -> SwinTransformer:
    """Swin-Ti: patches of 1 px, windows of 4, no query-key-value bias (from 128 px on, 4 px, windows of 7, and a bias).

    overrides: any other argument of timm's SwinTransformer, such as embed_dim, depths, num_heads or window_size.
    """
    small = image_size < 128
    sizes = {"patch_size": 1 if small else 4, "window_size": 4 if small else 7, "qkv_bias": not small}
    settings = {**SWIN_TI, **sizes, **overrides}
    return SwinTransformer(img_size=image_size, in_chans=in_channels, num_classes=num_classes, **settings)
