"""What a network sees of an image: its size, its normalisation, and its augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from torch import Tensor
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, RandomCrop, Resize

from landscape.data.sources import Source
from landscape.runtime.errors import UserError

STATISTICS = {  # per-channel mean and standard deviation of the training images, in [0, 1]
    "digits": ((0.3055,), (0.3764,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


LEAST_STD = 1e-6  # below it images are beyond all numbers


@dataclass(frozen=True)
class InputSettings:
    """What a network sees of an image: its side, its channels, and their normalisation."""

    image_size: int
    in_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def _common_size(source: Source) -> int:
    sizes = {source.images[i][0].size for i in np.linspace(0, len(source) - 1, 16).astype(int)}
    (width, height), *others = sizes
    if others or width != height:
        raise UserError(f"the images of {source.name} differ in size or are not square; choose one with `image_size`")
    return width


def input_settings(
    source: Source,
    image_size: int | None = None,
    in_channels: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> InputSettings:
    """The given settings, and the data set's own for those that are None. Raises UserError as `load_data` does."""
    in_channels = in_channels or len(source.images[0][0].getbands())
    mean, std = _statistics(source.name, in_channels, mean, std)
    return InputSettings(image_size or _common_size(source), in_channels, mean, std)


def _statistics(
    name: str, channels: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    known = next((STATISTICS[part] for part in reversed(name.split("/")) if part in STATISTICS), None)
    default = known or (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    if len(default[0]) != channels:
        default = ((float(np.mean(default[0])),) * channels, (float(np.mean(default[1])),) * channels)
    chosen = (tuple(mean) if mean is not None else default[0], tuple(std) if std is not None else default[1])
    for label, values in zip(("mean", "std"), chosen, strict=True):
        if len(values) != channels:
            raise UserError(
                f"{label} has {len(values)} numbers for images with {channels} "
                f"channel{'s' * (channels != 1)}; give {channels}"
            )
    if min(chosen[1]) < LEAST_STD:
        raise UserError(f"std={','.join(map(str, chosen[1]))} must be {LEAST_STD:g} or more")
    return chosen


def make_transform(
    settings: InputSettings, *, training: bool, mirror: bool = True, auto_augment: str | None = None
) -> Callable[[Image.Image], Tensor]:
    """timm's transform for training or evaluation.

    Below 128 px both see the same square: an image of that size unchanged, and any other image with its shorter side
    resized and its centre cropped. From 128 px on, training crops and resizes at random, and evaluation crops with
    timm's margin.
    """
    image_size, in_channels = settings.image_size, settings.in_channels
    small = image_size < 128
    try:
        transform = create_transform(
            (in_channels, image_size, image_size),
            is_training=training,
            hflip=0.5 if mirror else 0.0,
            color_jitter=0.0,
            auto_augment=auto_augment,
            interpolation="bicubic",
            mean=settings.mean,
            std=settings.std,
            crop_pct=1.0 if small else None,
        )
    except (AssertionError, ValueError, KeyError) as e:  # how timm rejects a notation
        raise UserError(f"auto_augment={auto_augment!r} is not in timm's notation, such as rand-m9-n2-mstd1.0") from e
    if training and small:  # as in DeiT for small images
        transform.transforms[0] = RandomCrop(image_size, padding=image_size // 8)
    mode = {1: "L", 3: "RGB"}.get(in_channels)
    if mode is None:
        raise UserError(f"in_channels={in_channels}: images have 1 or 3 channels")
    square = Compose([Resize(image_size, InterpolationMode.BICUBIC), CenterCrop(image_size)])

    def apply(image: Image.Image) -> Tensor:
        image = image.convert(mode)
        if small and image.size != (image_size, image_size):
            image = square(image)
        return transform(image)

    return apply
