"""What follows from the powers and log amplitudes of a `fourier` group: transfer, tilt, gain, relative amplitude."""

from __future__ import annotations

import numpy as np
import xarray as xr

from landscape.analyses.blockwise import Means, means

HALF = 0.5  # of pi: frequencies above it count as high
PATHS = ("skip", "branch")


def transfer(result: xr.Dataset) -> Means:
    """Power out over power in (path, block, ring), for blocks that keep the size of the map; NaN for the others."""
    stream, branch = means(result, "power"), means(result, "power_branch")
    same = result["same_size"].values.astype(bool)

    def ratio(out: np.ndarray, power: np.ndarray) -> np.ndarray:
        before = np.roll(power, 1, axis=-2)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(same[:, None], out / before, np.nan)

    return Means(
        np.stack([ratio(stream.whole, stream.whole), ratio(branch.whole, stream.whole)]),
        np.stack([ratio(stream.without, stream.without), ratio(branch.without, stream.without)], axis=1),
    )


def tilt(result: xr.Dataset) -> Means:
    """The mean of ln transfer over rings above pi / 2 less that over rings up to it (path, block)."""
    side = np.minimum(result["height"].values, result["width"].values)
    number = 1 + np.arange(result.sizes["ring"])

    def of(found: np.ndarray) -> np.ndarray:
        out = np.full(found.shape[:-1], np.nan)
        for block, there in enumerate(result["coefficients"].values > 0):
            low = there & (2 * number <= HALF * side[block])
            high = there & ~low
            if low.any() and high.any():
                with np.errstate(invalid="ignore", divide="ignore"):
                    t = np.log(found[..., block, :])
                    out[..., block] = t[..., high].mean(axis=-1) - t[..., low].mean(axis=-1)
        return out

    return Means(*(of(part) for part in transfer(result)))


def gain(result: xr.Dataset) -> Means:
    """Power after over power before (block, seen, part)."""
    before, after = means(result, "attention_before"), means(result, "attention_after")
    with np.errstate(invalid="ignore", divide="ignore"):
        return Means(*(b / a for a, b in zip(before, after, strict=True)))


def relative(result: xr.Dataset) -> Means:
    """ln amplitude at the highest frequency less that at zero (direction, block).

    The highest frequency is the end of the diagonal, as in the study, and the ring about pi over all directions.
    """
    diagonal, around, zero = (means(result, name) for name in ("log_diagonal", "log_amplitude", "log_zero"))
    last = np.array([np.flatnonzero(~np.isnan(row))[-1] if (~np.isnan(row)).any() else 0 for row in diagonal.whole])
    frequency = result["frequency"].values
    at_pi = np.array(
        [np.nanargmin(np.abs(f - 1)) if np.isfinite(f).any() else 0 for f in frequency]
    )  # the ring nearest to the highest frequency along an axis
    block = np.arange(len(last))

    def of(d: np.ndarray, a: np.ndarray, z: np.ndarray) -> np.ndarray:
        end = np.where(last > 0, d[..., block, last] - d[..., block, 0], np.nan)  # a map with a side of 1 or 2 has none
        return np.stack([end, a[..., block, at_pi] - z], axis=-2)

    return Means(of(diagonal.whole, around.whole, zero.whole), of(diagonal.without, around.without, zero.without))
