"""Axes over many decades of either sign, and their ticks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from landscape.pictures.canvas import points_of


def squeeze(e: np.ndarray, linear: float) -> np.ndarray:
    """Places on an axis that is linear within about `linear` around 0, and logarithmic beyond."""
    return np.arcsinh(np.asarray(e) / linear / 2)


def stretch(u: np.ndarray, linear: float) -> np.ndarray:
    """The values at such places: the inverse of `squeeze`."""
    return 2 * linear * np.sinh(np.asarray(u))


def _padded(values: np.ndarray) -> tuple[float, float]:
    low, high = min(values.min(), 0), max(values.max(), 0)
    margin = 0.12 * max(high - low, 1e-3)
    return low - margin, high + margin


def symlog_ticks(values: np.ndarray, most: int = 9) -> tuple[float, np.ndarray]:
    """The range around 0 in which the axis of finite values is linear, and its ticks: 0 and powers of ten, about `most`
    at most.
    """
    linear = _linear_until(values)
    return linear, _symlog_ticks(values, linear, most)


def _symlog_ticks(values: np.ndarray, linear: float, most: int = 9) -> np.ndarray:
    first = int(np.round(np.log10(linear)))
    last = int(np.ceil(np.log10(max(np.abs(values).max(), linear))))
    both = 2 if values.min() < 0 < values.max() else 1
    step = max(1, -(-both * (last - first + 1) // most))
    powers = 10.0 ** np.arange(first + 1, last + 1, step)
    ticks = np.concatenate([-powers[::-1], [0.0], powers])
    low, high = stretch(np.array(_padded(squeeze(values, linear))), linear)
    return ticks[(ticks >= low) & (ticks <= high)]


def _power(value: float, _: int | None = None) -> str:
    if value == 0:
        return "0"
    exponent = int(np.round(np.log10(abs(value))))
    sign = "-" if value < 0 else ""
    return f"${sign}{abs(value):g}$" if -2 <= exponent <= 3 else f"${sign}10^{{{exponent}}}$"


def log_axis(ax: Axes, axis: str) -> None:
    """Make an axis, "x" or "y", logarithmic, with ticks in plain numbers."""
    getattr(ax, f"set_{axis}scale")("log")
    which = getattr(ax, f"{axis}axis")
    low, high = which.get_view_interval()
    which.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 500 * low else (1,)))
    which.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    which.set_minor_locator(NullLocator())


def name_ticks(ax: Axes, names: Sequence[str]) -> None:
    """Name the places 0, 1, ... along x; long names are slanted."""
    slanted = max(map(len, names)) > 6
    ax.set_xticks(range(len(names)), names, rotation=30 if slanted else 0, ha="right" if slanted else "center")


def symlog(ax: Axes, values: np.ndarray, axis: str) -> float | None:
    """Make the axis linear around 0 and logarithmic beyond, with ticks and limits that fit.

    None, with a note on the picture, if no value is finite.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        ax.annotate("no finite eigenvalue", (0.5, 0.5), xycoords="axes fraction", ha="center")
        return None
    linear = _linear_until(finite)
    scale, ticks, limits = (getattr(ax, f"set_{axis}{what}") for what in ("scale", "ticks", "lim"))
    scale("function", functions=(lambda e: squeeze(e, linear), lambda u: stretch(u, linear)))
    limits(*stretch(np.array(_padded(squeeze(finite, linear))), linear).tolist())
    ticks(_symlog_ticks(finite, linear, _fitting(ax, axis)))
    getattr(ax, f"{axis}axis").set_major_formatter(FuncFormatter(_power))
    return linear


def _fitting(ax: Axes, axis: str) -> int:
    """About how many ticks with eigenvalues fit on an axis."""
    assert ax.figure is not None
    inches = (ax.bbox.width if axis == "x" else ax.bbox.height) / ax.figure.dpi
    size = points_of(rcParams["xtick.labelsize" if axis == "x" else "ytick.labelsize"])
    return max(2, min(9, int(72 * inches / (size * (4.2 if axis == "x" else 2.2)))))


def _linear_until(finite: np.ndarray) -> float:
    # a tenth of the median, but never so small that the logarithmic part spans more than ten decades
    largest = np.abs(finite).max()
    return (
        float(10.0 ** np.floor(np.log10(max(np.median(np.abs(finite)) / 10, largest / 1e10)))) if largest > 0 else 1.0
    )
