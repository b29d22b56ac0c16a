"""The two-dimensional Fourier transform of feature maps, averaged over all directions or along the diagonal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

TINY = 1e-6  # what Park & Kim add to an amplitude before its logarithm


@dataclass(frozen=True)
class Rings:
    """The frequencies of maps of one size, in rings around zero that are as wide as the lowest frequency.

    The lowest frequency is one period along the shorter side.

    frequency: (rings,), the mean distance from zero in units of pi, the highest along an axis; corners reach sqrt(2).
    coefficients: (rings,), how many of the transform's height * width coefficients are in each ring; zero is in none.
    weight: (coefficients of torch.fft.rfft2, rings), with which a product gives the means over rings.
    """

    frequency: np.ndarray
    coefficients: np.ndarray
    weight: Tensor


@cache
def rings(height: int, width: int) -> Rings:
    """The rings for maps of this size, odd or even, square or not."""
    down, across = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
    radius = 2 * np.hypot(down, across)  # 1 at pi
    ring = np.rint(radius * min(height, width) / 2).astype(int)
    ring[radius > 0] = np.maximum(ring[radius > 0], 1)  # lower ones, along a longer side
    count = int(ring.max())
    coefficients = np.bincount(ring.ravel(), minlength=count + 1)[1:]
    with np.errstate(invalid="ignore"):
        frequency = np.bincount(ring.ravel(), radius.ravel(), minlength=count + 1)[1:] / coefficients
    kept = ring[:, : width // 2 + 1]  # rfft2 leaves out the coefficients that are conjugate to these
    times = np.full(width // 2 + 1, 2.0)
    times[0] = 1
    if width % 2 == 0:
        times[-1] = 1
    member = (kept.ravel()[:, None] == np.arange(1, count + 1)) * np.broadcast_to(times, kept.shape).reshape(-1, 1)
    return Rings(frequency, coefficients, torch.from_numpy(member / np.maximum(coefficients, 1)))


def spectra(maps: Tensor) -> dict[str, np.ndarray]:
    """The spectra of each image, averaged over its channels, in float64.

    F is the transform of a channel with N = height * width positions, sum_x f(x) exp(-i k x), without normalisation.

    Parameters
    ----------
    maps
        (n, channels, height, width).

    Returns
    -------
    dict of arrays
        power (n, rings): |F|^2 / N, averaged over each ring; for white noise its variance, at every size. By Parseval,
        the sum over all coefficients is the sum of the squares over positions.
        zero (n,): |F(0)|^2 / N^2, the square of the mean over positions.
        log_amplitude (n, rings), log_zero (n,): log(|F| + 1e-6), averaged over each ring, and at zero.
        log_diagonal (n, steps): the same along the diagonal from zero on, as in Park & Kim: step u is the frequency
        2 pi u / side along both axes.
    """
    height, width = maps.shape[2:]
    over = rings(height, width)
    weight = over.weight.to(maps.device)
    amplitude = torch.fft.rfft2(maps.contiguous()).abs()
    power = amplitude.double().square().mean(dim=1) / (height * width)
    logarithm = (amplitude + TINY).log().double().mean(dim=1)
    steps = torch.arange(diagonal_steps(height, width))
    found = {
        "power": power.flatten(1) @ weight,
        "zero": power[:, 0, 0] / (height * width),
        "log_amplitude": logarithm.flatten(1) @ weight,
        "log_zero": logarithm[:, 0, 0],
        "log_diagonal": logarithm[:, steps, steps],
    }
    return {name: values.cpu().numpy() for name, values in found.items()}


def diagonal_steps(height: int, width: int) -> int:
    """How many coefficients Park & Kim's diagonal has: from zero to the last below pi, or the last of an odd side."""
    side = min(height, width)
    return side - side // 2
