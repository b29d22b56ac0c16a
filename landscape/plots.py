"""A results group and a matplotlib Axes -> a picture. Nothing here knows a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from mpl_toolkits.mplot3d.axes3d import Axes3D
from scipy.stats import gaussian_kde

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe & Ito
LINES = ("-", "--", "-.", ":")
SURFACE_COLORS = "viridis"


def style(i: int) -> dict[str, Any]:
    """Colour and line of the i-th curve: told apart by either alone."""
    return {"color": COLORS[i % len(COLORS)], "linestyle": LINES[i % len(LINES)]}


def _finite(surface: xr.Dataset, quantity: str) -> tuple[np.ndarray, float]:
    """The values, NaN where not finite, cut at a ceiling: a surface's walls would hide its floor."""
    z = np.where(np.isfinite(surface[quantity]), surface[quantity], np.nan)
    if not np.isfinite(z).any():
        return z, np.nan
    floor, median = np.nanmin(z), np.nanmedian(z)
    return z, float(max(floor + 4 * (median - floor), floor + 1e-12))


def plot_surface(
    surface: xr.Dataset, ax: Axes, *, quantity: str = "loss", levels: int = 16, title: str | None = None
) -> None:
    """Filled contours of a `surface` group, the unperturbed network marked; diverged points are hatched.

    Values above floor + 4 (median - floor) share the last colour, and the colour bar says so.
    """
    z, ceiling = _finite(surface, quantity)
    x, y = surface["x"].values, surface["y"].values
    ax.set(xlabel="a (along $d_1$)", ylabel="b (along $d_2$)", aspect="equal", title=title or "Loss surface")
    hatch = np.where(surface["done"] & ~np.isfinite(surface[quantity]), 1.0, np.nan)
    if min(z.shape) >= 2 and np.isfinite(ceiling):
        cut = np.nanmax(z) > ceiling
        drawn = MaxNLocator(levels).tick_values(np.nanmin(z), ceiling if cut else np.nanmax(z))
        filled = ax.contourf(x, y, z, drawn, cmap=SURFACE_COLORS, extend="max" if cut else "neither")
        ax.contour(x, y, z, drawn, colors="white", linewidths=0.4, alpha=0.7)
        assert ax.figure is not None
        ax.figure.colorbar(filled, ax=ax, label=str(surface[quantity].attrs.get("long_name", quantity)), shrink=0.85)
    if np.isfinite(hatch).any():
        ax.pcolor(x, y, hatch, hatch="////", alpha=0.0, edgecolor="0.4", linewidth=0)
        ax.annotate("hatched: diverged (inf or NaN)", (0, -0.2), xycoords="axes fraction", fontsize="small")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.plot(0, 0, "+", color="#D55E00", markersize=9, markeredgewidth=2)
    _note(ax, surface)


def plot_surface_3d(surface: xr.Dataset, ax: Axes3D, *, quantity: str = "loss", title: str | None = None) -> None:
    """The same surface in relief, its walls cut at the ceiling of `plot_surface`."""
    z, ceiling = _finite(surface, quantity)
    x, y = np.meshgrid(surface["x"].values, surface["y"].values)
    label = str(surface[quantity].attrs.get("long_name", quantity))
    ax.set(xlabel="a", ylabel="b", title=title or "Loss surface")
    if min(z.shape) >= 2 and np.isfinite(ceiling):
        ax.plot_surface(x, y, np.minimum(z, ceiling), cmap=SURFACE_COLORS, linewidth=0.2, edgecolor="white",
                        rstride=1, cstride=1, antialiased=True)  # fmt: skip
        if np.nanmax(z) > ceiling:
            label += f"\n(cut at {ceiling:.3g})"
    ax.set_zlabel(label, labelpad=8)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_major_locator(MaxNLocator(5))
    ax.view_init(elev=30, azim=-60)
    ax.set_box_aspect(None, zoom=0.86)


def _note(ax: Axes, surface: xr.Dataset) -> None:
    done = surface["done"].values
    config = surface.attrs.get("config", {})
    normalize = config.get("plane", {}).get("normalize")
    n = config.get("objective", {}).get("examples")
    parts = [f"{normalize}-normalised directions" if normalize else "", f"{n} examples" if n else ""]
    if not done.all():
        parts.append(f"{done.sum()} of {done.size} points so far")
    ax.annotate(
        ", ".join(p for p in parts if p),
        (0, 1.01),
        xycoords="axes fraction",
        fontsize="x-small",
        color="0.35",
    )


def plot_spectrum(spectra: Mapping[str, xr.Dataset], ax: Axes, *, title: str | None = None) -> None:
    """Hessian eigenvalues gathered over mini-batches, one curve per `spectrum` group, as in Park & Kim (2022), fig. 1c.

    Each curve is a Gaussian kernel density over all gathered eigenvalues; the axis is linear around 0 and logarithmic
    beyond (symlog), and the density is per unit of that axis, so that areas are shares. The ticks below show every
    eigenvalue, paler where its pair has not converged.
    """
    gathered = {name: s["eigenvalue"].values.ravel() for name, s in spectra.items()}
    finite = np.concatenate([e[np.isfinite(e)] for e in gathered.values()] or [np.zeros(0)])
    ax.set(xlabel="Hessian eigenvalue", ylabel="density (per unit of the axis)", title=title or "Hessian spectra")
    if finite.size == 0:
        ax.annotate("no finite eigenvalue", (0.5, 0.5), xycoords="axes fraction", ha="center")
        return
    largest = np.abs(finite).max()
    # linear below a tenth of the median, but never so that the logarithmic part spans more than ten decades
    linear = 10.0 ** np.floor(np.log10(max(np.median(np.abs(finite)) / 10, largest / 1e10))) if largest > 0 else 1.0
    ax.set_xscale("function", functions=(lambda e: _squeeze(e, linear), lambda u: _stretch(u, linear)))
    u = np.linspace(*_padded(_squeeze(finite, linear)), 600)
    for i, (name, e) in enumerate(gathered.items()):
        s = _squeeze(e[np.isfinite(e)], linear)
        look = style(i)
        if s.size > 1 and np.ptp(s) > 0:
            density = gaussian_kde(s)(u)
            ax.plot(_stretch(u, linear), density, **look, lw=1.8, label=_spectrum_label(name, spectra[name]))
            ax.fill_between(_stretch(u, linear), density, color=look["color"], alpha=0.12, linewidth=0)
        else:
            ax.plot([], [], **look, lw=1.8, label=_spectrum_label(name, spectra[name]))
        ticks = -0.025 * (i + 1)
        converged = spectra[name]["converged"].values.ravel()
        for mask, alpha in ((converged, 0.7), (~converged & np.isfinite(e), 0.2)):
            ax.plot(e[mask], np.full(mask.sum(), ticks), "|", color=look["color"], alpha=alpha, markersize=6,
                    transform=ax.get_xaxis_transform(), clip_on=False)  # fmt: skip
    ax.tick_params(axis="x", pad=6 + 4 * len(gathered))
    ax.axvline(0, color="0.3", lw=0.8)
    ax.axvspan(ax.get_xlim()[0], 0, color="0.5", alpha=0.08, linewidth=0)
    ax.set_xlim(*_stretch(u[[0, -1]], linear).tolist())
    ax.set_xticks(_symlog_ticks(finite, linear))
    ax.xaxis.set_major_formatter(FuncFormatter(_power))
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize="small")


def _spectrum_label(name: str, spectrum: xr.Dataset) -> str:
    if "summary" not in spectrum:
        return name
    nep = spectrum["summary"].sel(statistic="nep").values
    return f"{name}: {nep[0]:.0%} negative [{nep[1]:.0%}, {nep[2]:.0%}]"


def _squeeze(e: np.ndarray, linear: float) -> np.ndarray:
    return np.arcsinh(np.asarray(e) / linear / 2)


def _stretch(u: np.ndarray, linear: float) -> np.ndarray:
    return 2 * linear * np.sinh(np.asarray(u))


def _padded(values: np.ndarray) -> tuple[float, float]:
    low, high = min(values.min(), 0), max(values.max(), 0)
    margin = 0.12 * max(high - low, 1e-3)
    return low - margin, high + margin


def _symlog_ticks(values: np.ndarray, linear: float) -> np.ndarray:
    first = int(np.round(np.log10(linear)))
    last = int(np.ceil(np.log10(max(np.abs(values).max(), linear))))
    step = max(1, (last - first + 1) // 4)
    powers = 10.0 ** np.arange(first + 1, last + 1, step)
    ticks = np.concatenate([-powers[::-1], [0.0], powers])
    low, high = _stretch(np.array(_padded(_squeeze(values, linear))), linear)
    return ticks[(ticks >= low) & (ticks <= high)]


def _power(value: float, _: int | None = None) -> str:
    if value == 0:
        return "0"
    exponent = int(np.round(np.log10(abs(value))))
    sign = "-" if value < 0 else ""
    return f"${sign}{abs(value):g}$" if -2 <= exponent <= 3 else f"${sign}10^{{{exponent}}}$"


def plot_density(density: xr.Dataset, ax: Axes, *, bins: int = 400, title: str | None = None) -> None:
    """The spectral density on a log scale: each quadrature node a Gaussian of 1 % of the spectrum's width.

    The band spans one standard error across probes; the stored nodes and weights are not smoothed.
    """
    node, weight = density["node"].values, density["weight"].values
    done = density["done"].values & np.isfinite(weight).all(axis=1)
    ax.set(
        xlabel="Hessian eigenvalue",
        ylabel="spectral density",
        title=title or "Spectral density of the Hessian",
    )
    if not done.any():
        ax.annotate("no finite spectrum", (0.5, 0.5), xycoords="axes fraction", ha="center")
        return
    node, weight = node[done], weight[done]
    low, high = np.nanmin(node), np.nanmax(node)
    width = 0.01 * max(high - low, np.finfo(float).eps)
    t = np.linspace(low - 5 * width, high + 5 * width, bins)
    kernel = np.exp(-0.5 * ((t[:, None, None] - np.nan_to_num(node)) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    per_probe = (kernel * weight).sum(axis=2)
    mean = per_probe.mean(axis=1)
    ax.plot(t, mean, color=COLORS[0], lw=1.2)
    if done.sum() > 1:
        sem = per_probe.std(axis=1, ddof=1) / np.sqrt(done.sum())
        ax.fill_between(t, np.maximum(mean - sem, 1e-300), mean + sem, color=COLORS[0], alpha=0.3, linewidth=0)
    n = density.attrs.get("config", {}).get("parameters")
    # one eigenvalue among n is the least there can be: less is the tail of the kernel
    least = 0.1 / n / (width * np.sqrt(2 * np.pi)) if n else mean.max() * 1e-9
    ax.set_yscale("log")
    ax.set_ylim(max(least, mean.max() * 1e-12), 3 * mean.max())
    ax.axvline(0, color="0.3", lw=0.8)
    steps = node.shape[1]
    ax.annotate(
        f"{done.sum()} probes of {steps} steps; band: standard error; kernel width {width:.2g}",
        (0, 1.01), xycoords="axes fraction", fontsize="x-small", color="0.35",
    )  # fmt: skip


def draw(groups: Mapping[str, xr.Dataset], name: str = "") -> dict[str, Figure]:
    """The pictures of one results file, by name: surface, surface_3d, spectrum, density, for the groups it has."""
    figures: dict[str, Figure] = {}
    prefix = f"{name}: " if name else ""
    if "surface" in groups:
        figures["surface"], ax = _figure(5.6, 4.6)
        plot_surface(groups["surface"], ax, title=f"{prefix}loss surface\n")
        figures["surface_3d"], ax3 = _figure(5.6, 4.6, projection="3d")
        plot_surface_3d(groups["surface"], ax3, title=f"{prefix}loss surface")
    if "spectrum" in groups:
        figures["spectrum"], ax = _figure(6.4, 4.0)
        plot_spectrum({name or "spectrum": groups["spectrum"]}, ax, title=_spectrum_title(groups["spectrum"], prefix))
    if "density" in groups:
        figures["density"], ax = _figure(6.4, 4.0)
        plot_density(groups["density"], ax, title=f"{prefix}spectral density of the Hessian\n")
    return figures


def overlay(spectra: Mapping[str, xr.Dataset]) -> Figure:
    """The spectra of several results files in one picture."""
    figure, ax = _figure(7.2, 4.4)
    plot_spectrum(spectra, ax, title=_spectrum_title(next(iter(spectra.values())), ""))
    return figure


def _spectrum_title(spectrum: xr.Dataset, prefix: str) -> str:
    config = spectrum.attrs.get("config", {})
    k, which, size, n = (config.get(key) for key in ("k", "which", "batch_size", "batches"))
    kind = f"top {k} ({which}) Hessian eigenvalues" if k else "Hessian eigenvalues"
    return f"{prefix}{kind}" + (f" of {n} mini-batches of {size}" if n else "")


def _figure(width: float, height: float, **axes: Any) -> tuple[Figure, Any]:
    # Figures of their own, not pyplot's: nothing to close, no display needed.
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, figure.add_subplot(**axes)
