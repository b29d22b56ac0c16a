"""Spectra, densities, top eigenvalues, traces and series of a results file, each drawn into matplotlib Axes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation, Transform

from landscape.canvas import COLORS, MARKERS, note_above, notes_above, style
from landscape.clusters import mean_and_sem, numbered
from landscape.comparable import KINDS, caution, differences, distinctions, minibatches_of
from landscape.penalty import in_curvature, in_trace
from landscape.smoothing import MANY, kernel_width, quadrature_cells, reflected_density
from landscape.summaries import statistics_of

RUG = 7.0  # points that a row of ticks under the axis takes
NARROWEST = 60  # a kernel is no narrower than the axis divided by this
WIDEST = 12  # and a cell of a quadrature reaches no further than the spectrum divided by this
UNKNOWN = 1000  # parameters, where a file does not say


def plot_spectrum(spectra: Mapping[str, xr.Dataset], ax: Axes, *, title: str | None = None) -> None:
    """Hessian eigenvalues gathered over mini-batches, one curve per `spectrum` group, as in Park & Kim (2022), fig. 1c.

    The axis is linear around 0 and logarithmic beyond (symlog), and densities are per unit of that axis, so that areas
    are shares. Negative eigenvalues and the others have a kernel density each, which ends at the smallest and the
    largest of them: nothing is drawn beyond what was computed, and the area left of 0 is the share of negative ones. A
    side no wider than the narrowest kernel is one line, as high as that kernel's box. The ticks below show every
    eigenvalue; a cross, that its pair has not converged. Labels say in what the groups' settings differ, and a line on
    top, where their eigenvalues cannot be compared for it.
    """
    gathered = {name: s["eigenvalue"].values.ravel() for name, s in spectra.items()}
    finite = np.concatenate([e[np.isfinite(e)] for e in gathered.values()] or [np.zeros(0)])
    ax.set(xlabel="Hessian eigenvalue", ylabel="density (per unit of the axis)", title=title or "Hessian spectra")
    linear = _symlog(ax, finite, axis="x")
    if linear is None:
        return
    found = differences(spectra)
    narrowest = float(np.subtract(*_squeeze(np.array(ax.get_xlim()), linear)[::-1])) / NARROWEST
    widths: list[float] = []
    narrow = False
    for i, (name, e) in enumerate(gathered.items()):
        label = _filled([_spectrum_label(name, spectra[name]), *distinctions(found, name)], 88)
        drawn = _plot_sides(ax, e[np.isfinite(e)], linear, narrowest, {**style(i), "label": label})
        narrow |= drawn.count(0.0) > 0
        widths += filter(None, drawn)
        _plot_rug(ax, e, spectra[name]["converged"].values.ravel(), i)
    ax.tick_params(axis="x", pad=4 + RUG * len(gathered))
    ax.axvline(0, color="0.3", lw=0.8)
    ax.axvspan(ax.get_xlim()[0], 0, color="0.5", alpha=0.08, linewidth=0)
    ax.set_ylim(bottom=0)
    _legend_below(ax, RUG * len(gathered))
    missed = sum(int((~s["converged"].values & np.isfinite(s["eigenvalue"].values)).sum()) for s in spectra.values())
    shape = ["densities end at the extreme eigenvalues", _kernel_note(widths)]
    marks = [
        "lone line: eigenvalues close together" * narrow,
        f"x: not converged, {missed}; *: with such" * (missed > 0),
    ]
    penalties = {in_curvature(spectrum) for spectrum in spectra.values()}  # where they differ, the labels say it
    lines = ["; ".join(filter(None, line)) for line in (shape, marks)]
    notes_above(ax, title or "Hessian spectra", [*lines, *(penalties if len(penalties) == 1 else ())], caution(found))


def _plot_sides(ax: Axes, e: np.ndarray, linear: float, narrowest: float, look: Mapping[str, Any]) -> list[float]:
    """The density of e, of the negative and of the other ones apart; the widths of the kernels, 0 for a line."""
    widths = []
    for side in (e[e < 0], e[e >= 0]):
        s = _squeeze(side, linear)
        if s.size == 0:
            continue
        share = s.size / e.size
        if np.ptp(s) <= narrowest:
            ax.vlines(np.median(side), 0, share / narrowest, color=look["color"], lw=1.8)
            widths.append(0.0)
            continue
        widths.append(max(kernel_width(s), narrowest / 4))
        u = np.linspace(s.min(), s.max(), 600)
        density = share * reflected_density(s, u, widths[-1])
        x = _stretch(u, linear)
        x[[0, -1]] = side.min(), side.max()
        ax.plot([x[0], *x, x[-1]], [0, *density, 0], color=look["color"], linestyle=look["linestyle"], lw=1.8)
        ax.fill_between(x, density, color=look["color"], alpha=0.12, linewidth=0)
    ax.plot([], [], **look, lw=1.8)
    return widths


def _kernel_note(widths: Sequence[float]) -> str:
    # arcsinh is the logarithm far from 0, where a step of the axis is a share of the eigenvalue
    ends = [f"{100 * width:.0f}" for width in (min(widths), max(widths))] if widths else []
    return f"kernel width {' to '.join(dict.fromkeys(ends))} % of the eigenvalue" if ends else ""


def _plot_rug(ax: Axes, e: np.ndarray, converged: np.ndarray, row: int) -> None:
    for mask, marker in ((converged, "|"), (~converged & np.isfinite(e), "x")):
        if mask.any():
            ax.plot(e[mask], np.zeros(mask.sum()), marker, color=COLORS[row % len(COLORS)], alpha=0.7, markersize=5,
                    transform=_below(ax, RUG * (row + 0.6)), clip_on=False)  # fmt: skip


def _below(ax: Axes, points: float) -> Transform:
    """Along the axis as it is; down from the frame in points."""
    assert ax.figure is not None
    return ax.get_xaxis_transform() + ScaledTranslation(0, -points / 72, ax.figure.dpi_scale_trans)


def _legend_below(ax: Axes, points: float) -> None:
    assert ax.figure is not None
    under = ax.transAxes + ScaledTranslation(0, -(points + 38) / 72, ax.figure.dpi_scale_trans)
    ax.legend(loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=under, borderaxespad=0, frameon=False,
              fontsize="small", handlelength=2.6)  # fmt: skip


def _spectrum_label(name: str, spectrum: xr.Dataset) -> str:
    statistics = statistics_of(spectrum)
    if statistics is None:
        return name
    estimate, low, high = statistics["summary"].sel(statistic="nep").values
    star = " *" if statistics["unconverged"] > 0 else ""
    interval = f" [{low:.0%}, {high:.0%}]" if np.isfinite(low) else ""
    return f"{name}: {estimate:.0%} negative{interval}{star}"


def _filled(phrases: Sequence[str], width: int) -> str:
    """Phrases in lines of at most `width`, which break between them."""
    return fill(", ".join(phrase.replace(" ", "\u00a0") for phrase in phrases), width)


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


def plot_density(density: xr.Dataset, ax: Axes, *, title: str | None = None) -> None:
    """The spectral density on a log scale, the mean over probes, with a band of one standard error across them, or of
    mini-batches over these, where there are enough; and every node as a dot (right), with its weight in eigenvalues:
    what a Lanczos run resolves, each probe sees at the same place.

    Steps, not a smooth curve: each node's weight is spread over its cell, as `landscape.smoothing.quadrature_cells`
    has it, so that the density ends at the extreme Ritz values, and its integral is 1.
    """
    node, weight = density["node"].values, density["weight"].values
    done = density["done"].values & np.isfinite(weight).all(axis=1)
    ax.set(
        xlabel="Hessian eigenvalue",
        ylabel="spectral density",
        title=title or "Spectral density of the Hessian",
    )
    linear = _symlog(ax, node[done], axis="x")
    if linear is None:
        return
    node, weight = node[done], weight[done]
    batch = density["batch"].values[done] if "batch" in density else np.full(len(node), -1)
    by_batch = bool((batch >= 0).all())
    unit = numbered(batch) if by_batch else np.arange(len(node))
    n = density.attrs.get("config", {}).get("parameters")
    width = float(np.ptp(_squeeze(node[np.isfinite(node)], linear)))
    widest, narrowest = width / WIDEST, width / NARROWEST
    cells = []
    for x, w in zip(node, weight, strict=True):
        known = np.isfinite(x)
        u, mass = quadrature_cells(_squeeze(x[known], linear), w[known], parameters=n or UNKNOWN, widest=widest,
                                   narrowest=narrowest)  # fmt: skip
        cells.append((_stretch(u, linear), mass))
    edges, per_probe = _steps(cells)
    band = ""
    if len(edges):
        mean = per_probe.mean(axis=0)
        ax.plot(np.repeat(edges, 2)[1:-1], np.repeat(mean, 2), color=COLORS[0], lw=1.2)
        sem = np.array([mean_and_sem(column, unit)[1] for column in per_probe.T])
        if np.isfinite(sem).all():
            band = f"; band: standard error over {'mini-batches' if by_batch else 'probes'}"
            low, high = (np.append(end, end[-1]) for end in (np.maximum(mean - sem, 0), mean + sem))
            ax.fill_between(edges, low, high, step="post", color=COLORS[0], alpha=0.3, linewidth=0)
        ax.set_yscale("log", nonpositive="clip")
        ax.set_ylim(0.3 * mean[mean > 0].min(), 3 * mean.max())
    _plot_nodes(ax, node, weight, n)
    ax.axvline(0, color="0.3", lw=0.8)
    ends = f"Ritz values from {np.nanmin(node):.4g} to {np.nanmax(node):.4g}"
    lines = (
        f"{len(node)} probes of {node.shape[1]} steps; {ends}{band}",
        f"steps: nodes spread half-way to the next, {100 * widest:.0f} % at most; "
        f"those of up to {MANY:.0f} eigenvalues {100 * narrowest:.0f} %",
        in_trace(density),
    )
    notes_above(ax, title or "Spectral density of the Hessian", lines)


def _steps(cells: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Edges (m + 1,) and, for each probe, the density between them (probes, m), 0 outside of its cells."""
    edges = np.unique(np.concatenate([ends.ravel() for ends, _ in cells]))
    middle = (edges[:-1] + edges[1:]) / 2
    density = np.zeros((len(cells), len(middle)))
    for row, (ends, mass) in zip(density, cells, strict=True):
        wide = ends[:, 1] > ends[:, 0]
        (left, right), mass = ends[wide].T, mass[wide]
        if not len(mass):
            continue
        cell = np.clip(np.searchsorted(left, middle, side="right") - 1, 0, None)
        inside = (middle >= left[cell]) & (middle < right[cell])
        row[inside] = (mass / (right - left))[cell[inside]]
    return edges if len(middle) else edges[:0], density


def _plot_nodes(ax: Axes, node: np.ndarray, weight: np.ndarray, n: int | None) -> None:
    known = np.isfinite(node)
    node, weight = node[known], weight[known] * (n or 1)
    right = ax.twinx()
    least = 1e-3 if n else 1e-3 * float(weight.max())
    right.set_yscale("log")
    right.vlines(node, least, np.maximum(weight, least), color="0.55", lw=0.4, alpha=0.5)
    for mask, marker in ((weight >= least, "."), (weight < least, "v")):
        right.plot(node[mask], np.maximum(weight[mask], least), marker, color="0.35", markersize=3, alpha=0.7)
    right.set_ylim(0.6 * least, 3 * float(weight.max()))
    right.set_ylabel("weight of a node (dot), in eigenvalues" if n else "weight of a node (dot)", color="0.35")
    right.tick_params(axis="y", colors="0.35", which="both")
    ax.set_zorder(right.get_zorder() + 1)
    ax.patch.set_visible(False)


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
    statistics = statistics_of(spectrum)
    for row, (values, ok) in enumerate(zip(e, converged, strict=True)):
        if statistics is not None:
            ends = statistics["summary"].isel(part=row).sel(statistic=["smallest", "largest"], bound="estimate")
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
    """The estimate of a `trace` group as its probes come in, with one standard error over probes; at the end, where it
    is known, that over probes and examples.
    """
    estimates = trace["trace_estimate"].values
    count = np.arange(1, len(estimates) + 1)
    mean = np.cumsum(estimates) / count
    sem = np.array([np.std(estimates[:i], ddof=1) / np.sqrt(i) if i > 1 else np.nan for i in count])
    ax.set(xlabel="probes", ylabel="trace of the Hessian", title=title or "Trace of the Hessian")
    ax.plot(count, estimates, "o", color="0.6", markersize=4, label="one probe")
    ax.plot(count, mean, color=COLORS[0], lw=1.8, label="mean")
    ax.fill_between(
        count, mean - sem, mean + sem, color=COLORS[0], alpha=0.25, linewidth=0, label="standard error (probes)"
    )
    if "trace_sem_examples" in trace and np.isfinite(trace["trace_sem"]):
        ax.errorbar(count[-1], float(trace["trace"]), yerr=float(trace["trace_sem"]), color=COLORS[0], capsize=4,
                    label="standard error (probes and examples)")  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False, fontsize="small")
    config = trace.attrs.get("config", {})
    note_above(
        ax,
        _with_penalty(
            f"{with_sources(trace, 'trace')}; {config.get('estimator', 'probes')}, {int(trace['products'])} products",
            in_trace(trace),
        ),
    )


def with_sources(group: xr.Dataset, name: str) -> str:
    """A number of a `trace` or `density` group with its standard error, and what of it stems from what, in words.

    Where that over examples is not known, as in files of before it was computed, that over probes is given as such.
    """

    def known(variable: str) -> float:
        return float(group[variable]) if variable in group else np.nan

    value, total = known(name), known(f"{name}_sem")
    over = {source: known(f"{name}_sem_{source}") for source in ("probes", "examples")}
    if f"{name}_sem_probes" not in group:
        total, over["probes"] = np.nan, total
    named = [f"{sem:.2g} over {source}" for source, sem in over.items() if np.isfinite(sem)]
    if np.isfinite(total):
        return f"{value:.4g} +- {total:.2g}" + (f" ({', '.join(named)})" if named else "")
    return f"{value:.4g}" + (f" +- {', '.join(named)}" if named else "")


def _with_penalty(note: str, penalty: str) -> str:
    return f"{note}\n{penalty}" if penalty else note


def plot_series(series: xr.Dataset, ax: Axes, *, title: str | None = None) -> None:
    """Median largest and smallest eigenvalue of each checkpoint of a `series` group, with intervals; NEP beside.

    Where the names of the checkpoints differ in one number (epoch1, epoch10), it is the axis, and the order. A point is
    hollow where some of the checkpoint's eigenvalues have not converged.
    """
    series, what = _by_number(series)
    names = [str(name) for name in series["checkpoint"].values]
    at = series["number"].values if what is not None else np.arange(len(names))
    statistics = statistics_of(series)
    assert statistics is not None
    summary, unsure = statistics["summary"], statistics["unconverged"].values > 0
    ax.set(ylabel="eigenvalue (median over mini-batches)", title=title or "Hessian eigenvalues over checkpoints")
    if _symlog(ax, series["eigenvalue"].values, axis="y") is None:
        return
    for i, statistic in enumerate(("largest", "smallest")):
        values = summary.sel(statistic=statistic).values.T
        _errorbars(ax, at, values, unsure, **style(i), marker="o", capsize=3, label=statistic)
    ax.axhline(0, color="0.3", lw=0.8)
    if what is None:
        _name_ticks(ax, names)
    else:
        ax.set_xlabel(what or "number of the checkpoint")
        ax.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    share = ax.twinx()
    values = 100 * summary.sel(statistic="nep").values.T
    _errorbars(share, at, values, unsure, **style(3), marker="s", capsize=3, label="NEP (right)")
    share.set(ylabel="share of negative eigenvalues (%)", ylim=(0, max(5.0, 1.2 * float(np.nanmax(values, initial=0)))))
    handles = [*ax.get_legend_handles_labels()[0], *share.get_legend_handles_labels()[0]]
    ax.legend(handles, ["largest", "smallest", "NEP (right)"], frameon=False, fontsize="small")
    note_above(ax, "\n".join(filter(None, [in_curvature(series), _hollow_note(unsure)])))


def plot_statistic(series: Mapping[str, xr.Dataset], statistic: str, ax: Axes, *, title: str | None = None) -> None:
    """One statistic of the summaries of several `series` groups, with its intervals, against the NLL of their
    mini-batches: networks are compared at equal losses. A line follows the order of the checkpoints; a point is hollow
    where some of its eigenvalues have not converged.

    statistic: nep, drawn in per cent; or ape, on a logarithmic axis.
    """
    share = statistic == "nep"
    found = differences(series)
    unsure: list[np.ndarray] = []
    for i, (name, one) in enumerate(series.items()):
        one, _ = _by_number(one)
        label = _filled([name, *distinctions(found, name)], 32)
        statistics = statistics_of(one)
        assert statistics is not None
        values = statistics["summary"].sel(statistic=statistic).values.T * (100 if share else 1)
        unsure.append(statistics["unconverged"].values > 0)
        _errorbars(ax, one["nll"].mean("batch").values, values, unsure[-1], **style(i),
                   marker=MARKERS[i % len(MARKERS)], markersize=5, capsize=2, lw=1.4, label=label)  # fmt: skip
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
    penalties = " or ".join(dict.fromkeys(filter(None, map(in_curvature, series.values()))))
    note_above(ax, "\n".join(filter(None, [penalties, _hollow_note(np.concatenate(unsure))])))


def _errorbars(ax: Axes, x: np.ndarray, values: np.ndarray, hollow: np.ndarray, **look: Any) -> None:
    """Estimates with intervals, values (bound, point); no bar where a bound is NaN."""
    estimate, low, high = values
    ax.errorbar(x, estimate, yerr=np.abs(np.array([estimate - low, high - estimate])), **look)
    ax.plot(x[hollow], estimate[hollow], look["marker"], color=look["color"], markerfacecolor="white", zorder=3,
            markersize=look.get("markersize"))  # fmt: skip


def _hollow_note(hollow: np.ndarray) -> str:
    return "hollow: with eigenvalues that have not converged" if hollow.any() else ""


def _log_axis(ax: Axes, axis: str) -> None:
    getattr(ax, f"set_{axis}scale")("log")
    which = getattr(ax, f"{axis}axis")
    low, high = which.get_view_interval()
    which.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 500 * low else (1,)))
    which.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    which.set_minor_locator(NullLocator())


def _by_number(series: xr.Dataset) -> tuple[xr.Dataset, str | None]:
    """A series in the order of the one number in which its checkpoints' names differ, as the coordinate `number`, and
    what stands before it; as it is, and None, where they do not differ in one number alone.
    """
    split = [re.split(r"(\d+)", str(name)) for name in series["checkpoint"].values]
    if len(split) < 2 or len({(len(parts), *parts[::2]) for parts in split}) != 1:
        return series, None
    columns = np.array([[int(n) for n in parts[1::2]] for parts in split], dtype=float)
    differing = np.flatnonzero((columns != columns[:1]).any(axis=0))
    if len(differing) != 1 or len(set(columns[:, differing[0]])) != len(split):
        return series, None
    k = int(differing[0])
    return series.assign_coords(number=("checkpoint", columns[:, k])).sortby("number"), split[0][2 * k].strip(" _-.=")


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
    note_above(ax, _with_penalty(text, in_curvature(group)))


def variant_of(group: xr.Dataset) -> str:
    return KINDS.get(group.attrs.get("config", {}).get("kind", ""), "Hessian")


def spectrum_title(spectra: Sequence[xr.Dataset], prefix: str = "") -> str:
    """What all of some `spectrum` groups are."""
    configs = [spectrum.attrs.get("config", {}) for spectrum in spectra]

    def shared(key: str) -> Any:
        values = [config.get(key) for config in configs]
        return values[0] if all(value == values[0] for value in values) else None

    k, which, size = shared("k"), shared("which"), shared("batch_size")
    variants, counts = {variant_of(spectrum) for spectrum in spectra}, {minibatches_of(s) for s in spectra}
    words = ["PyHessian:" * (shared("method") == "pyhessian"), f"top {k}" if k else "", f"({which})" if which else "",
             variants.pop() if len(variants) == 1 else "", "eigenvalues"]  # fmt: skip
    if any(config.get("batches") for config in configs):
        words += ["of", counts.pop() if len(counts) == 1 else "", "mini-batches", f"of {size}" if size else ""]
    return prefix + " ".join(filter(None, words))
