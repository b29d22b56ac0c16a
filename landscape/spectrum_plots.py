"""Spectra, densities, top eigenvalues, traces and series of a results file, each drawn into matplotlib Axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from scipy.stats import gaussian_kde

from landscape.canvas import COLORS, MARKERS, note_above, style


def plot_spectrum(spectra: Mapping[str, xr.Dataset], ax: Axes, *, title: str | None = None) -> None:
    """Hessian eigenvalues gathered over mini-batches, one curve per `spectrum` group, as in Park & Kim (2022), fig. 1c.

    Each curve is a Gaussian kernel density over all gathered eigenvalues; the axis is linear around 0 and logarithmic
    beyond (symlog), and the density is per unit of that axis, so that areas are shares. The ticks below show every
    eigenvalue, paler where its pair has not converged.
    """
    gathered = {name: s["eigenvalue"].values.ravel() for name, s in spectra.items()}
    finite = np.concatenate([e[np.isfinite(e)] for e in gathered.values()] or [np.zeros(0)])
    ax.set(xlabel="Hessian eigenvalue", ylabel="density (per unit of the axis)", title=title or "Hessian spectra")
    linear = _symlog(ax, finite, axis="x")
    if linear is None:
        return
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
    ax.tick_params(axis="x", pad=4 + 7 * len(gathered))
    ax.axvline(0, color="0.3", lw=0.8)
    ax.axvspan(ax.get_xlim()[0], 0, color="0.5", alpha=0.08, linewidth=0)
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
    note_above(ax, f"{done.sum()} probes of {steps} steps; band: standard error; kernel width {width:.2g}")


def plot_top(top: xr.Dataset, ax: Axes, *, title: str | None = None) -> None:
    """Eigenvalues of a `top` group by rank, each with its residual as an error bar; hollow where not converged."""
    e, r = top["eigenvalue"].values, top["residual"].values
    rank = np.arange(1, len(e) + 1)
    ax.set(xlabel="rank", ylabel="eigenvalue", title=title or "Top eigenvalues of the Hessian")
    linear = _symlog(ax, e, axis="y")
    if linear is None:
        return
    ok = top["converged"].values
    ax.axhline(0, color="0.3", lw=0.8)
    ax.vlines(rank, 0, e, color="0.75", lw=1)
    ax.errorbar(rank, e, yerr=r, fmt="none", ecolor=COLORS[0], capsize=3, lw=1)
    ax.plot(rank[ok], e[ok], "o", color=COLORS[0], label="converged; bar: residual")
    ax.plot(rank[~ok], e[~ok], "o", color=COLORS[0], markerfacecolor="white", label="not converged")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _examples_note(ax, top)
    if not ok.all():
        ax.legend(frameon=False, fontsize="small")


def plot_parts(spectrum: xr.Dataset, ax: Axes, *, title: str | None = None) -> None:
    """Every eigenvalue of a group computed per layer or stage, one row a part, first layer on top; a bar, where there
    are mini-batches, from the median smallest to the median largest.
    """
    names = [str(name) for name in spectrum["part"].values]
    e = spectrum["eigenvalue"].values.reshape(len(names), -1)
    converged = spectrum["converged"].values.reshape(len(names), -1)
    ax.set(xlabel="eigenvalue", title=title or "Hessian eigenvalues by part")
    if _symlog(ax, e, axis="x") is None:
        return
    for row, (values, ok) in enumerate(zip(e, converged, strict=True)):
        if "summary" in spectrum:
            ends = spectrum["summary"].isel(part=row).sel(statistic=["smallest", "largest"], bound="estimate")
            ax.plot(ends, [row, row], color=COLORS[0], lw=5, alpha=0.3, solid_capstyle="butt")
        for mask, alpha in ((ok, 0.7), (~ok & np.isfinite(values), 0.25)):
            ax.plot(values[mask], np.full(mask.sum(), row), "|", color=COLORS[0], alpha=alpha, markersize=9)
    ax.axvline(0, color="0.3", lw=0.8)
    ax.set_yticks(range(len(names)), names, fontsize="small" if len(names) <= 24 else "xx-small")
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="y", color="0.9", lw=0.6)
    ax.set_axisbelow(True)
    _examples_note(ax, spectrum)


def plot_trace(trace: xr.Dataset, ax: Axes, *, title: str | None = None) -> None:
    """The estimate of a `trace` group as its probes come in, with one standard error."""
    estimates = trace["trace_estimate"].values
    count = np.arange(1, len(estimates) + 1)
    mean = np.cumsum(estimates) / count
    sem = np.array([np.std(estimates[:i], ddof=1) / np.sqrt(i) if i > 1 else np.nan for i in count])
    ax.set(xlabel="probes", ylabel="trace of the Hessian", title=title or "Trace of the Hessian")
    ax.plot(count, estimates, "o", color="0.6", markersize=4, label="one probe")
    ax.plot(count, mean, color=COLORS[0], lw=1.8, label="mean")
    ax.fill_between(count, mean - sem, mean + sem, color=COLORS[0], alpha=0.25, linewidth=0, label="standard error")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False, fontsize="small")
    config = trace.attrs.get("config", {})
    note_above(
        ax,
        f"{float(trace['trace']):.4g} +- {float(trace['trace_sem']):.2g} by {config.get('estimator', 'probes')}, "
        f"{int(trace['products'])} products",
    )


def plot_series(series: xr.Dataset, ax: Axes, *, title: str | None = None) -> None:
    """Median largest and smallest eigenvalue of each checkpoint of a `series` group, with intervals; NEP beside."""
    names = [str(name) for name in series["checkpoint"].values]
    at = np.arange(len(names))
    summary = series["summary"].transpose("checkpoint", "statistic", "bound")
    ax.set(ylabel="eigenvalue (median over mini-batches)", title=title or "Hessian eigenvalues over checkpoints")
    if _symlog(ax, series["eigenvalue"].values, axis="y") is None:
        return
    for i, statistic in enumerate(("largest", "smallest")):
        estimate, low, high = summary.sel(statistic=statistic).values.T
        bars = np.abs(np.array([estimate - low, high - estimate]))
        ax.errorbar(at, estimate, yerr=bars, **style(i), marker="o", capsize=3, label=statistic)
    ax.axhline(0, color="0.3", lw=0.8)
    _name_ticks(ax, names)
    share = ax.twinx()
    estimate, low, high = 100 * summary.sel(statistic="nep").values.T
    share.errorbar(at, estimate, yerr=np.abs(np.array([estimate - low, high - estimate])), **style(3), marker="s",
                   capsize=3, label="NEP (right)")  # fmt: skip
    share.set(ylabel="share of negative eigenvalues (%)", ylim=(0, max(5.0, 1.2 * float(np.nanmax(high, initial=0)))))
    handles = [*ax.get_legend_handles_labels()[0], *share.get_legend_handles_labels()[0]]
    ax.legend(handles, ["largest", "smallest", "NEP (right)"], frameon=False, fontsize="small")


def plot_statistic(series: Mapping[str, xr.Dataset], statistic: str, ax: Axes, *, title: str | None = None) -> None:
    """One statistic of the summaries of several `series` groups, with its intervals, against the NLL of their
    mini-batches: networks are compared at equal losses. A line follows the order of the checkpoints.

    statistic: nep, drawn in per cent; or ape, on a logarithmic axis.
    """
    share = statistic == "nep"
    for i, (label, one) in enumerate(series.items()):
        values = one["summary"].transpose("checkpoint", "statistic", "bound").sel(statistic=statistic).values
        estimate, low, high = values.T * (100 if share else 1)
        bars = np.abs(np.array([estimate - low, high - estimate]))
        ax.errorbar(one["nll"].mean("batch").values, estimate, yerr=bars, **style(i), marker=MARKERS[i % len(MARKERS)],
                    markersize=5, capsize=2, lw=1.4, label=label)  # fmt: skip
    ax.set(xlabel="NLL of the mini-batches (falling)")
    _log_axis(ax, "x")
    ax.xaxis.set_inverted(True)
    if share:
        ax.set(ylabel="NEP: share of negative eigenvalues (%)")
        ax.set_ylim(bottom=-0.03 * ax.get_ylim()[1])  # room for the markers of 0
    else:
        ax.set(ylabel="APE: mean of the positive eigenvalues")
        _log_axis(ax, "y")
    ax.set_title(title or ("Negative eigenvalues" if share else "Positive eigenvalues"))


def _log_axis(ax: Axes, axis: str) -> None:
    getattr(ax, f"set_{axis}scale")("log")
    which = getattr(ax, f"{axis}axis")
    low, high = which.get_view_interval()
    which.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 500 * low else (1,)))
    which.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    which.set_minor_locator(NullLocator())


def _name_ticks(ax: Axes, names: Sequence[str]) -> None:
    slanted = max(map(len, names)) > 6
    ax.set_xticks(range(len(names)), names, rotation=30 if slanted else 0, ha="right" if slanted else "center")


def _symlog(ax: Axes, values: np.ndarray, axis: str) -> float | None:
    """The axis linear around 0 and logarithmic beyond, ticks and limits to fit; None, said on the picture, if none is
    finite.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        ax.annotate("no finite eigenvalue", (0.5, 0.5), xycoords="axes fraction", ha="center")
        return None
    linear = _linear_until(finite)
    scale, ticks, limits = (getattr(ax, f"set_{axis}{what}") for what in ("scale", "ticks", "lim"))
    scale("function", functions=(lambda e: _squeeze(e, linear), lambda u: _stretch(u, linear)))
    limits(*_stretch(np.array(_padded(_squeeze(finite, linear))), linear).tolist())
    ticks(_symlog_ticks(finite, linear))
    getattr(ax, f"{axis}axis").set_major_formatter(FuncFormatter(_power))
    return linear


def _linear_until(finite: np.ndarray) -> float:
    # a tenth of the median, but never so small that the logarithmic part spans more than ten decades
    largest = np.abs(finite).max()
    return (
        float(10.0 ** np.floor(np.log10(max(np.median(np.abs(finite)) / 10, largest / 1e10)))) if largest > 0 else 1.0
    )


def _examples_note(ax: Axes, group: xr.Dataset) -> None:
    config = group.attrs.get("config", {})
    if "batch" in group.dims:
        text = f"{group.sizes['batch']} mini-batches of {config.get('batch_size', '?')}"
    else:
        text = f"{config.get('objective', {}).get('examples', '?')} examples"
    note_above(ax, text)


def variant_of(group: xr.Dataset) -> str:
    config = group.attrs.get("config", {})
    kinds = {"ggn": "Gauss-Newton matrix", "residual": "Hessian minus Gauss-Newton"}
    return kinds.get(config.get("kind", ""), "Hessian")


def spectrum_title(spectrum: xr.Dataset, prefix: str) -> str:
    config = spectrum.attrs.get("config", {})
    k, which, size, n = (config.get(key) for key in ("k", "which", "batch_size", "batches"))
    method = "PyHessian: " if config.get("method") == "pyhessian" else ""
    kind = f"{method}top {k} ({which}) {variant_of(spectrum)} eigenvalues" if k else "Hessian eigenvalues"
    return f"{prefix}{kind}" + (f" of {n} mini-batches of {size}" if n else "")
