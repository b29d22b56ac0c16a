"""Noise of chosen spatial frequencies, added to images.

A frequency is radial, in units of pi radians per pixel: 1 along an axis is a period of two pixels. Images x are
(n, channels, height, width), in pixel units (black is 0, white 1) unless stated otherwise. Noise is drawn from a seed
for each image, so that every band, level and network gets the same draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.runtime.errors import UserError
from landscape.runtime.random import gaussian

HALVINGS = 40  # of the interval of scales in a bisection: to below the rounding of float32


@dataclass(frozen=True)
class Band:
    """The frequencies from `low` up to, but not including, `high`."""

    low: float
    high: float


def radial_frequency(height: int, width: int) -> Tensor:
    """The radial frequency of each coefficient of fft2, (height, width), in units of pi; symmetric for every size."""
    fy, fx = (2 * torch.fft.fftfreq(n, dtype=torch.float64) for n in (height, width))
    return torch.hypot(fy[:, None], fx[None, :])


def mask(band: Band, height: int, width: int) -> Tensor:
    """Which coefficients of fft2 lie in a band, (height, width) of truth values.

    With each coefficient its opposite is in the band, so that noise in it is real.
    """
    f = radial_frequency(height, width)
    near = 1e-9  # a frequency at an end belongs to the band that begins there, whatever the rounding
    return (f >= band.low - near) & (f < band.high - near)


def rings(size: int, width: float = 0.1) -> list[Band]:
    """Rings of equal width around width, 2 width, ..., below 1, if they hold a frequency of images of this size."""
    centres = width * np.arange(1, math.ceil(1 / width - 1e-9))
    bands = [Band(float(c - width / 2), float(c + width / 2)) for c in centres]
    return [band for band in bands if mask(band, size, size).any()]


def octaves(size: int) -> list[Band]:
    """The octaves from one period across the image up to, and including, the highest frequency along an axis."""
    above = 1 + 1 / size  # for an even size the highest frequency is exactly 1
    count = int(math.log2(max(size / 2, 1)) + 1e-9) + 1
    return [Band(above / 2 ** (i + 1), above / 2**i) for i in reversed(range(count))]


def white(x: Tensor, first: int, seed: int) -> Tensor:
    """Standard normal noise in the shape of x, in float64, drawn by image number; `first` is that of the first."""
    like = torch.empty(x.shape[1:], dtype=torch.float64)
    return torch.stack([gaussian(like, seed, first + i) for i in range(len(x))]).to(x.device)


def in_band(noise: Tensor, band: Band) -> Tensor:
    """The part of noise (n, channels, height, width) in a band: real, with root mean square 1 in each image.

    Raises UserError if the band holds no frequency of this size.
    """
    kept = mask(band, *noise.shape[-2:]).to(noise.device)
    if not kept.any():
        raise UserError(f"images of {noise.shape[-2]} x {noise.shape[-1]} have no frequency from {band.low:g} to "
                        f"{band.high:g} pi; take a wider band")  # fmt: skip
    found = torch.fft.ifft2(torch.fft.fft2(noise) * kept).real
    return found / found.square().mean((1, 2, 3), keepdim=True).sqrt()


def added(x: Tensor, noise: Tensor, rms: float) -> Tensor:
    """Images with noise, clipped to black and white, so that each image's change has this root mean square.

    Clipping takes energy away: the noise is scaled up until what is left of it has the requested energy, or as much as
    the image has room for.
    """
    x = x.double()

    def clipped(scale: Tensor) -> Tensor:
        return (x + scale * noise).clamp(0, 1)

    def left(scale: Tensor) -> Tensor:
        return (clipped(scale) - x).square().mean((1, 2, 3), keepdim=True).sqrt()

    low = torch.zeros(len(x), 1, 1, 1, dtype=torch.float64, device=x.device)
    high = torch.full_like(low, 64.0)  # far beyond white, except where the noise is nearly 0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        less = left(middle) < rms
        low, high = torch.where(less, middle, low), torch.where(less, high, middle)
    return clipped((low + high) / 2)


def share_outside(change: Tensor, band: Band) -> Tensor:
    """The share of the energy of each image's change that lies outside of a band, (n,), where clipping puts it."""
    power = torch.fft.fft2(change).abs().square()
    inside = (power * mask(band, *change.shape[-2:]).to(power.device)).sum((1, 2, 3))
    return 1 - inside / power.sum((1, 2, 3))


def park_kim(noise: Tensor, frequency: float, *, strength: float = 0.7, width: float = 0.2) -> Tensor:
    """The noise that Park & Kim (2022, fig. 2b) add to normalised images: random signs, restricted to a square ring.

    Of `strength` times the signs of white noise, the Fourier coefficients between two squares are kept, with half
    widths (f - s) h / 2 pi and (f + s) h / 2 pi rounded down, f = `frequency` pi, s = `width`; the result is the real
    part of the inverse transform. The squares hold one more negative frequency than positive ones: for an even size the
    mask is not symmetric, so that the inverse is not real, and energy is lost with its imaginary part. The energy of a
    ring is not constant either: it grows with the ring's area.

    Raises UserError for an odd size, for which their code fails.
    """
    h, w = noise.shape[-2:]
    if h % 2 or h != w:
        raise UserError(
            f"Park & Kim's noise needs images with an even side, not {h} x {w}; take definition=equal-energy"
        )
    f = frequency * math.pi
    outer, inner = (min(max(int((f + s) * h / (2 * math.pi)), 0), h // 2) for s in (width, -width))
    at = torch.arange(h, device=noise.device) - h // 2
    along = {half: (at >= -half) & (at < half) for half in (outer, inner)}
    ring = torch.fft.ifftshift((along[outer][:, None] & along[outer]) & ~(along[inner][:, None] & along[inner]))
    return torch.fft.ifft2(torch.fft.fft2(strength * noise.sign()) * ring).real
