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
    """The frequencies of maps of one size, in rings around zero as wide as the lowest one, 1 to the shorter side.

    frequency: (rings,), the mean distance from zero, 1 being pi, the highest along an axis; the corners reach sqrt(2).
    coefficients: (rings,), how many of the transform's height * width coefficients are in each; zero is in none.
    weight: (coefficients of torch.fft.rfft2, rings), of which the means over rings are products.
    """

    frequency: np.ndarray
    coefficients: np.ndarray
    weight: Tensor


@cache
def rings(height: int, width: int) -> Rings:
    """Those of maps of this size, odd or even, square or not."""
    down, across = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
    radius = 2 * np.hypot(down, across)  # 1 at pi
    ring = np.rint(radius * min(height, width) / 2).astype(int)
    ring[radius > 0] = np.maximum(ring[radius > 0], 1)  # along the longer side of a map
    count = int(ring.max())
    coefficients = np.bincount(ring.ravel(), minlength=count + 1)[1:]
    with np.errstate(invalid="ignore"):
        frequency = np.bincount(ring.ravel(), radius.ravel(), minlength=count + 1)[1:] / coefficients
    kept = ring[:, : width // 2 + 1]  # rfft2 leaves out what is conjugate to the rest
    times = np.full(width // 2 + 1, 2.0)
    times[0] = 1
    if width % 2 == 0:
        times[-1] = 1
    member = (kept.ravel()[:, None] == np.arange(1, count + 1)) * np.broadcast_to(times, kept.shape).reshape(-1, 1)
    return Rings(frequency, coefficients, torch.from_numpy(member / np.maximum(coefficients, 1)))


def spectra(maps: Tensor) -> dict[str, np.ndarray]:
    """Of each image (n, ...), the mean over channels, in float64.

    With F the transform of a channel of N = height * width positions, sum_x f(x) exp(-i k x), without normalisation:

    power (n, rings): |F|^2 / N, the mean over each ring: of white noise its variance, for every size. By Parseval the
        sum over all coefficients is that of the squares of the positions.
    zero (n,): |F(0)|^2 / N^2, the square of the mean over positions.
    log_amplitude (n, rings), log_zero (n,): log(|F| + 1e-6) over each ring, and at zero.
    log_diagonal (n, steps): the same along the diagonal from zero on, Park & Kim's: step u is the frequency
        2 pi u / side along both axes.

    maps: (n, channels, height, width).
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
    """How many coefficients the study's diagonal has: from zero to the last before pi, or the last of an odd side."""
    side = min(height, width)
    return side - side // 2
