"""Hessian eigenvalues gathered over mini-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation, Transform

from landscape.analyses.summaries import statistics_of
from landscape.objective.penalised import in_curvature
from landscape.pictures import parts
from landscape.pictures.axes import squeeze, stretch, symlog
from landscape.pictures.canvas import (
    COLORS,
    filled_lines,
    legend_below,
    new_figure,
    notes_above,
    own_title,
    style,
    variant_of,
)
from landscape.pictures.look import LOOK, Look
from landscape.pictures.smoothing import NARROWEST, kernel_width, reflected_density
from landscape.store.comparable import caution, differences, distinctions, minibatches_of

RUG = 10.0  # points that a row of ticks under the axis takes


def plot_spectrum(spectra: Mapping[str, xr.Dataset], ax: Axes, *, title: str | None = None, look: Look = LOOK) -> Axes:
    """Hessian eigenvalues gathered over mini-batches, one curve per `spectrum` group.

    The axis is linear around 0 and logarithmic beyond (symlog). The ticks below show every eigenvalue; a cross marks a
    pair that has not converged. The curve is the share of the eigenvalues up to each value, so that its height at 0 is
    the share of negative ones; or on request a density, as in Park & Kim (2022), fig. 1c. Labels name the settings in
    which the groups differ, and a line at the top says where their eigenvalues cannot be compared for that reason.

    A density is per unit of the axis, so that areas are shares. Negative eigenvalues and the others each have a kernel
    density that ends at the smallest and the largest of them: nothing is drawn beyond what was computed, and the area
    left of 0 is the share of negative ones. A side no wider than the narrowest kernel is one line, as high as that
    kernel's box.
    """
    gathered = {name: s["eigenvalue"].values.ravel() for name, s in spectra.items()}
    finite = np.concatenate([e[np.isfinite(e)] for e in gathered.values()] or [np.zeros(0)])
    smooth = look.spectra == "density"
    ax.set(
        xlabel="Hessian eigenvalue",
        ylabel="density (per unit of the axis)" if smooth else "share up to the value",
        title=own_title(title, "Hessian spectra"),
    )
    linear = symlog(ax, finite, axis="x")
    if linear is None:
        return ax
    found = differences(spectra)
    narrowest = float(np.subtract(*squeeze(np.array(ax.get_xlim()), linear)[::-1])) / NARROWEST
    widths: list[float] = []
    narrow = False
    for i, (name, e) in enumerate(gathered.items()):
        label = filled_lines([_spectrum_label(name, spectra[name]), *distinctions(found, name)], 88)
        finite = e[np.isfinite(e)]
        if smooth:
            drawn = _plot_sides(ax, finite, linear, narrowest, {**style(i), "label": label})
            narrow |= drawn.count(0.0) > 0
            widths += filter(None, drawn)
        elif len(finite):
            ax.ecdf(finite, **style(i), lw=1.8, label=label)
        _plot_rug(ax, e, spectra[name]["converged"].values.ravel(), i)
    ax.tick_params(axis="x", pad=4 + RUG * len(gathered))
    ax.axvline(0, color="0.3", lw=0.8)
    ax.axvspan(ax.get_xlim()[0], 0, color="0.5", alpha=0.08, linewidth=0)
    ax.set_ylim(0, None if smooth else 1.04)
    legend_below(ax, RUG * len(gathered))
    missed = sum(int((~s["converged"].values & np.isfinite(s["eigenvalue"].values)).sum()) for s in spectra.values())
    shape = ["ticks: every eigenvalue", "densities end at the extreme ones" * smooth, _kernel_note(widths)]
    marks = [
        _residual_note(spectra),
        "lone line: eigenvalues close together" * narrow,
        f"x: not converged, {missed}; *: with such" * (missed > 0),
    ]
    penalties = {in_curvature(spectrum) for spectrum in spectra.values()}  # where they differ, the labels say it
    lines = ["; ".join(filter(None, line)) for line in ((shape, marks) if smooth else (shape + marks,))]
    notes_above(
        ax,
        own_title(title, "Hessian spectra"),
        [*lines, *(penalties if len(penalties) == 1 else ())],
        caution(found),
    )
    return ax


def _plot_sides(ax: Axes, e: np.ndarray, linear: float, narrowest: float, look: Mapping[str, Any]) -> list[float]:
    """Draw the density of e, for negative and other values separately; return the kernels' widths, 0 for a line."""
    widths = []
    for side in (e[e < 0], e[e >= 0]):
        s = squeeze(side, linear)
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
        x = stretch(u, linear)
        x[[0, -1]] = side.min(), side.max()
        ax.plot([x[0], *x, x[-1]], [0, *density, 0], color=look["color"], linestyle=look["linestyle"], lw=1.8)
        ax.fill_between(x, density, color=look["color"], alpha=0.12, linewidth=0)
    ax.plot([], [], **look, lw=1.8)
    return widths


def _residual_note(spectra: Mapping[str, xr.Dataset]) -> str:
    """How far eigenvalues may be from true ones, which is too little to be seen: the largest converged residual."""
    shares = []
    for s in spectra.values():
        if "residual" in s:
            ok = s["converged"].values & np.isfinite(s["eigenvalue"].values) & (s["eigenvalue"].values != 0)
            shares += list(np.abs(s["residual"].values[ok] / s["eigenvalue"].values[ok]))
    return f"residuals up to {max(shares):.1%}" if shares else ""


def _kernel_note(widths: Sequence[float]) -> str:
    # arcsinh is the logarithm far from 0, where a step of the axis is a share of the eigenvalue
    ends = [f"{100 * width:.0f}" for width in (min(widths), max(widths))] if widths else []
    return f"kernel width {' to '.join(dict.fromkeys(ends))} % of the eigenvalue" if ends else ""


def _plot_rug(ax: Axes, e: np.ndarray, converged: np.ndarray, row: int) -> None:
    for mask, marker in ((converged, "|"), (~converged & np.isfinite(e), "x")):
        if mask.any():
            ax.plot(e[mask], np.zeros(mask.sum()), marker, color=COLORS[row % len(COLORS)], alpha=0.75, markersize=8,
                    transform=_below(ax, RUG * (row + 0.6)), clip_on=False)  # fmt: skip


def _below(ax: Axes, points: float) -> Transform:
    """A transform in data coordinates along the axis, and in points downwards from the frame."""
    assert ax.figure is not None
    return ax.get_xaxis_transform() + ScaledTranslation(0, -points / 72, ax.figure.dpi_scale_trans)


def _spectrum_label(name: str, spectrum: xr.Dataset) -> str:
    statistics = statistics_of(spectrum)
    if statistics is None:
        return name
    estimate, low, high = statistics["summary"].sel(statistic="nep").values
    star = " *" if statistics["unconverged"] > 0 else ""
    interval = f" [{low:.0%}, {high:.0%}]" if np.isfinite(low) else ""
    return f"{name}: {estimate:.0%} negative{interval}{star}"


def spectrum_title(spectra: Sequence[xr.Dataset], prefix: str = "") -> str:
    """The title that holds for all of some `spectrum` groups."""
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


def plot(group: xr.Dataset, ax: Axes, *, title: str | None = None, look: Look = LOOK) -> Axes:
    """The picture of a `spectrum` group on axes."""
    if "part" in group.dims:
        return parts.plot_parts(group, ax, title=title)
    return plot_spectrum({"eigenvalues": group}, ax, title=title, look=look)


def draw(group: xr.Dataset, name: str, prefix: str = "", *, look: Look = LOOK) -> dict[str, Figure]:
    """The picture of a `spectrum` group."""
    if "part" in group.dims:
        return parts.draw(group, name, prefix)
    figure, ax = new_figure(6.4, 4.1)
    plot_spectrum({prefix.removesuffix(": ") or name: group}, ax, title=spectrum_title([group], prefix), look=look)
    return {name: figure}


def compare(groups: Mapping[str, xr.Dataset], name: str, *, look: Look = LOOK) -> dict[str, Figure]:
    """The spectra of several results files in one picture; settings in which they differ stand beside each name."""
    whole = {label: group for label, group in groups.items() if "part" not in group.dims}
    if not whole:
        return {}
    figure, ax = new_figure(6.4, 3.8 + 0.27 * len(whole))
    plot_spectrum(whole, ax, title=spectrum_title(list(whole.values())), look=look)
    return {name.replace("spectrum", "spectra"): figure}
