"""The 15 common corruptions at five severities (Hendrycks & Dietterich 2019), with the package imagecorruptions-imaug.

The package has the severities of ImageNet-C, which are made for 224 pixels and leave little of an image of 32 pixels.
Images below 64 pixels get the severities of CIFAR-10-C, as its authors published them (make_cifar_c.py in their
repository). The ingredients of a corruption, such as clouds, frost and motion blur, are the package's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from landscape.runtime.errors import UserError
from landscape.runtime.random import seeded, unit_seed

if TYPE_CHECKING:
    from torch import Tensor

SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST = 32  # the smallest side that the package takes
SMALL = 64  # below this side, the severities of CIFAR-10-C
CIFAR_C: Mapping[str, tuple[Any, ...]] = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": (500, 250, 100, 75, 50),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "zoom_blur": (1.06, 1.11, 1.16, 1.21, 1.26),
    "snow": ((0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
             (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8)),
    "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "elastic_transform": ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg_compression": (80, 65, 58, 50, 40),
}  # fmt: skip
CORRUPTIONS = tuple(CIFAR_C)


def refuse_missing() -> None:
    """Raise UserError if the package is not installed."""
    if find_spec("imagecorruptions") is None:
        raise UserError(
            'corruptions need another package; install it with python -m pip install "landscape[corruptions]"'
        )


def corrupted(x: Tensor, name: str, severity: int, first: int, seed: int) -> Tensor:
    """Corrupted images; x is (n, channels, height, width), in pixel units (black is 0, white 1), with 1 or 3 channels.

    Each image has its own draw, by the seed and its number; `first` is the number of the first image.

    Raises UserError for images with a side of fewer than SMALLEST pixels or another number of channels.
    """
    import torch

    channels, height, width = x.shape[1:]
    if min(height, width) < SMALLEST or channels not in (1, 3):
        raise UserError(
            f"corruptions need images with 1 or 3 channels and sides of {SMALLEST} pixels or more; these have "
            f"{channels} channel{'s' * (channels != 1)} and {height} x {width} pixels"
        )
    pixels = np.round(255 * x.permute(0, 2, 3, 1).cpu().numpy()).astype(np.uint8)
    pixels = pixels.repeat(3, axis=-1) if channels == 1 else pixels
    found = [one(image, name, severity, seed, first + i) for i, image in enumerate(pixels)]
    changed = torch.from_numpy(np.stack(found).astype(float) / 255).permute(0, 3, 1, 2)
    changed = changed.mean(1, keepdim=True) if channels == 1 else changed
    return changed.to(x.device)


def one(image: np.ndarray, name: str, severity: int, seed: int, number: int) -> np.ndarray:
    """One corrupted image; image is (height, width, 3), of bytes."""
    from imagecorruptions import corrupt

    with seeded(seed, number, CORRUPTIONS.index(name)):
        if min(image.shape[:2]) < SMALL:
            changed = _AS_CIFAR_C[name](image, CIFAR_C[name][severity - 1])
            return np.clip(changed, 0, 255).astype(np.uint8)
        own = {"seed": unit_seed(seed, number) % 2**31} if name in ("impulse_noise", "glass_blur") else {}
        return np.asarray(corrupt(image, severity=severity, corruption_name=name, **own))


def _gaussian_noise(x: np.ndarray, scale: float) -> np.ndarray:
    return x + 255 * np.random.normal(size=x.shape, scale=scale)  # noqa: NPY002  (seeded around it, as the package's)


def _shot_noise(x: np.ndarray, photons: float) -> np.ndarray:
    return 255 * np.random.poisson(x / 255 * photons) / photons  # noqa: NPY002


def _impulse_noise(x: np.ndarray, amount: float) -> np.ndarray:
    hit, white = np.random.random((2, *x.shape))  # noqa: NPY002
    return np.where(hit < amount, 255.0 * (white < 0.5), x)


def _defocus_blur(x: np.ndarray, c: tuple[float, float]) -> np.ndarray:
    import cv2
    from imagecorruptions.corruptions import disk

    return np.asarray(cv2.filter2D(x / 255, -1, disk(radius=c[0], alias_blur=c[1]))) * 255


def _glass_blur(x: np.ndarray, c: tuple[float, int, int]) -> np.ndarray:
    from imagecorruptions.corruptions import _shuffle_pixels_njit_glass_blur as shuffled

    blurred = (_blurred(x / 255, c[0]) * 255).astype(np.uint8)
    found = shuffled(*x.shape[:2], blurred, c, int(np.random.randint(2**31)))  # noqa: NPY002
    return _blurred(found / 255, c[0]) * 255


def _motion_blur(x: np.ndarray, c: tuple[int, float]) -> np.ndarray:
    from imagecorruptions.corruptions import _motion_blur as blurred

    return np.asarray(blurred(x, radius=c[0], sigma=c[1], angle=np.random.uniform(-45, 45)))  # noqa: NPY002


def _zoom_blur(x: np.ndarray, most: float) -> np.ndarray:
    image = x / 255
    zooms = np.arange(1, most, 0.01)
    return 255 * (image + sum(_zoomed(image, zoom) for zoom in zooms)) / (len(zooms) + 1)


def _snow(x: np.ndarray, c: tuple[float, ...]) -> np.ndarray:
    import cv2
    from imagecorruptions.corruptions import _motion_blur as blurred

    image = (x / 255).astype(np.float32)
    flakes = np.random.normal(size=x.shape[:2], loc=c[0], scale=c[1])[..., None]  # noqa: NPY002
    flakes = _zoomed(flakes, c[2])[..., 0]
    flakes = np.clip(np.where(flakes < c[3], 0, flakes), 0, 1)
    angle = np.random.uniform(-135, -45)  # noqa: NPY002
    flakes = np.asarray(blurred(flakes, radius=int(c[4]), sigma=c[5], angle=angle))[..., None]
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    image = c[6] * image + (1 - c[6]) * np.maximum(image, gray * 1.5 + 0.5)
    return np.asarray(255 * (image + flakes + np.rot90(flakes, k=2)))


def _frost(x: np.ndarray, c: tuple[float, float]) -> np.ndarray:
    frost = _frosts()[np.random.randint(5)]  # noqa: NPY002
    top, left = (np.random.randint(0, frost.shape[i] - x.shape[i]) for i in (0, 1))  # noqa: NPY002
    return c[0] * x + c[1] * frost[top : top + x.shape[0], left : left + x.shape[1]]


@cache
def _frosts() -> list[np.ndarray]:
    """The photographs of frost from the package, at a fifth of their size, in RGB."""
    import importlib.resources

    import cv2

    folder = importlib.resources.files("imagecorruptions") / "frost"
    names = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
    found: list[Any] = [
        cv2.imdecode(np.frombuffer((folder / n).read_bytes(), np.uint8), cv2.IMREAD_COLOR) for n in names
    ]
    return [np.asarray(cv2.resize(image, (0, 0), fx=0.2, fy=0.2))[..., ::-1] for image in found]


def _fog(x: np.ndarray, c: tuple[float, float]) -> np.ndarray:
    from imagecorruptions.corruptions import next_power_of_2, plasma_fractal

    image, size = x / 255, next_power_of_2(max(x.shape[:2]))
    most = image.max()
    cloud = plasma_fractal(mapsize=size, wibbledecay=c[1])[: x.shape[0], : x.shape[1], None]
    return np.asarray(255 * (image + c[0] * cloud) * most / (most + c[0]))


def _brightness(x: np.ndarray, more: float) -> np.ndarray:
    from skimage.color import hsv2rgb, rgb2hsv

    hsv = rgb2hsv(x / 255)
    hsv[..., 2] = np.clip(hsv[..., 2] + more, 0, 1)
    return np.asarray(255 * hsv2rgb(hsv))


def _contrast(x: np.ndarray, kept: float) -> np.ndarray:
    mean = x.mean((0, 1), keepdims=True)
    return (x - mean) * kept + mean


def _elastic_transform(x: np.ndarray, c: tuple[float, float, float]) -> np.ndarray:
    import cv2
    from scipy.ndimage import map_coordinates
    from skimage.filters import gaussian

    height, width = x.shape[:2]
    alpha, sigma, affine = (height * part for part in c)
    centre, reach = np.array([height, width], np.float32) // 2, min(height, width) // 3
    corners = centre + reach * np.array([[1, 1], [1, -1], [-1, -1]], np.float32)
    moved = corners + np.random.uniform(-affine, affine, size=corners.shape).astype(np.float32)  # noqa: NPY002
    image = cv2.warpAffine(x.astype(np.float32), cv2.getAffineTransform(corners, moved), (width, height),
                           borderMode=cv2.BORDER_REFLECT_101)  # fmt: skip
    steps = np.random.uniform(-1, 1, size=(2, height, width))  # noqa: NPY002
    dx, dy = (alpha * gaussian(step, sigma, mode="reflect", truncate=3) if sigma else alpha * step for step in steps)
    at = np.mgrid[:height, :width] + np.stack([dy, dx])
    return np.stack([map_coordinates(image[..., k], at, order=1, mode="reflect") for k in range(3)], axis=-1)


def _pixelate(x: np.ndarray, kept: float) -> np.ndarray:
    height, width = x.shape[:2]
    small = Image.fromarray(x).resize((int(width * kept), int(height * kept)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BOX))


def _jpeg_compression(x: np.ndarray, quality: int) -> np.ndarray:
    held = BytesIO()
    Image.fromarray(x).save(held, "JPEG", quality=quality)
    return np.asarray(Image.open(held))


def _blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    from skimage.filters import gaussian

    return np.asarray(gaussian(x, sigma=sigma, channel_axis=-1))


def _zoomed(x: np.ndarray, zoom: float) -> np.ndarray:
    """The image magnified about its centre and cut to its size."""
    from imagecorruptions.corruptions import clipped_zoom

    large = clipped_zoom(x, zoom)
    top, left = ((large.shape[i] - x.shape[i]) // 2 for i in (0, 1))
    return np.asarray(large[top : top + x.shape[0], left : left + x.shape[1]])


_AS_CIFAR_C: Mapping[str, Callable[[np.ndarray, Any], np.ndarray]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic_transform": _elastic_transform,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
}
