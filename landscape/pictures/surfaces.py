"""A `surface` group and a matplotlib Axes -> a picture: contours, relief, curve, maps. Nothing here knows a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import AsinhNorm, BoundaryNorm, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d.axes3d import Axes3D

from landscape.objective.penalty import formula, in_heights, loss_label
from landscape.pictures.canvas import COLORS, caution_over, new_figure, new_row, note_above, note_below, style
from landscape.pictures.marks import (
    mark_centre,
    mark_diverged,
    mark_interpolated,
    mark_minima,
    mark_trajectory,
    mark_unsettled,
    thin_out,
    unsettled,
)
from landscape.pictures.topology import plot_merge_tree
from landscape.runtime.errors import UserError
from landscape.store.comparable import caution, differences, distinctions
from landscape.surfaces.measures import describe_measures
from landscape.surfaces.topology import describe_minima, with_minima

SURFACE_COLORS = "viridis"


NEAREST = 25  # points of a grid: those within two steps of the lowest


@dataclass(frozen=True)
class Scale:
    """The values that share one colour scale: contour levels, and whether values above the last share its colour.

    linear: where above 0, the scale is asinh(value / linear): linear up to it, and logarithmic beyond.
    """

    levels: np.ndarray
    cut: bool
    linear: float = 0.0

    @property
    def log(self) -> bool:
        return self.linear > 0

    def height(self, values: Any) -> Any:
        return np.arcsinh(np.asarray(values) / self.linear) if self.log else values

    def label(self, quantity: str) -> str:
        return f"{quantity}\nasinh scale: linear to {self.linear:.2g}, logarithmic beyond" if self.log else quantity

    @property
    def ceiling(self) -> float:
        return float(self.levels[-1])

    @property
    def extend(self) -> Literal["neither", "max"]:
        return "max" if self.cut else "neither"

    @property
    def norm(self) -> Normalize:
        ends = float(self.levels[0]), self.ceiling
        return AsinhNorm(self.linear, *ends) if self.log else Normalize(*ends)


def _has_walls(quantity: str) -> bool:
    return "accuracy" not in quantity  # bounded: nothing to cut


def common_scale(
    values: Sequence[np.ndarray], levels: int = 16, *, walls: bool = True, error: float = 0.0
) -> Scale | None:
    """One scale for all arrays, None where nothing is finite: walls would hide the floor, so it ends at
    floor + 4 (median - floor) of each array, whichever is highest. Without walls it does not.

    Where that spans more than two decades above 0, it is that of asinh, in steps of 1, 2, 5. It is linear up to what
    NEAREST points lie below, or one in twelve of a small grid: a logarithm would make a needle of the few that a grid
    has near a minimum, as deep as chance has put one; and up to twice `error`, the standard error at the lowest. Where
    less than a factor of 20 lies beyond, all of it is linear.
    """
    finite = [z[np.isfinite(z)] for z in values if np.isfinite(z).any()]
    if not finite:
        return None
    floor = min(float(z.min()) for z in finite)
    highest = max(float(z.max()) for z in finite)
    ceiling = max(float(z.min() + 4 * (np.median(z) - z.min())) for z in finite)
    least = 1e-9 * max(abs(floor), 1e-3)
    cut = walls and highest > ceiling + least
    end = max(ceiling if cut else highest, floor + least)
    resolved = max(float(np.sort(z)[max(1, min(NEAREST, z.size // 12)) - 1]) for z in finite)
    linear = max(resolved, 2 * error)
    if walls and floor > 0 and end > 100 * floor and end > 20 * linear:
        decades = np.arange(np.floor(np.log10(linear)), np.ceil(np.log10(end)) + 1)
        steps = np.outer(10.0**decades, [1, 2, 5]).ravel() if len(decades) <= levels // 2 else 10.0**decades
        first, last = np.searchsorted(steps, linear, side="right") - 1, np.searchsorted(steps, end)
        below = [0.0] if steps[first] > floor else []
        return Scale(np.array([*below, *steps[first : last + 1]]), cut, linear)
    return Scale(np.asarray(MaxNLocator(levels).tick_values(floor, end)), cut)


def _values(surface: xr.Dataset, quantity: str) -> np.ndarray:
    """(y, x), NaN where not finite."""
    if quantity not in surface:
        known = [str(name) for name, z in surface.data_vars.items() if z.dims == surface["done"].dims]
        raise UserError(f"the surface has no {quantity!r}; it has {', '.join(known)}")
    z = surface[quantity].transpose("y", "x").values
    return np.where(np.isfinite(z), z, np.nan)


def plot_surface(
    surface: xr.Dataset,
    ax: Axes,
    *,
    quantity: str = "nll",
    levels: int = 16,
    title: str | None = None,
    scale: Scale | None = None,
    above: float = 0.0,
    alone: bool = True,
) -> None:
    """Labelled contours of a `surface` group, the unperturbed network marked; diverged points are hatched.

    Values above floor + 4 (median - floor) share the last colour, and the colour bar says so. The trajectory, where
    there is one, goes from a circle to a star; where points were filled in, dots mark those computed.
    scale: of other surfaces too, from `common_scale`. above: drawn is the quantity less this.
    alone: with a colour bar of its own, and wide notes.
    """
    z, label = _values(surface, quantity) - above, _label(surface, quantity)
    x, y = surface["x"].values, surface["y"].values
    scale = scale or common_scale([z], levels, walls=_has_walls(quantity), error=_error_at_lowest(surface, quantity))
    heights: list[Text] = []
    ax.set(xlabel=axis_label(surface, 0), ylabel=axis_label(surface, 1), title=title or "Loss surface")
    if min(z.shape) >= 2 and scale is not None:
        filled = ax.contourf(x, y, z, scale.levels, cmap=SURFACE_COLORS, extend=scale.extend, norm=scale.norm)
        every = max(1, len(scale.levels) // 8)
        lines = ax.contour(x, y, z, scale.levels[::every], colors="white", linewidths=0.6, alpha=0.9)
        heights = ax.clabel(lines, fontsize=6.5, colors="black", inline=False, fmt=lambda v: f"{v:.4g}")
        if alone:
            assert ax.figure is not None
            bar = ax.figure.colorbar(filled, ax=ax, label=scale.label(label), shrink=0.85)
            if scale.log:
                bar.set_ticks(scale.levels[::every].tolist(), labels=[f"{level:g}" for level in scale.levels[::every]])
                bar.minorticks_off()
    below = _penalty_note(surface, quantity, scale, above)
    below += mark_diverged(surface, quantity, ax)
    _frame(ax, x, y)
    below += mark_interpolated(surface, ax)
    taken, notes = mark_trajectory(surface, ax)
    below += notes
    thin_out(ax, heights, taken)
    mark_minima(surface, ax)
    mark_centre(surface, ax)
    settings = _settings(surface)
    if alone:
        note_above(ax, settings)
    measures = [*describe_measures(surface), *describe_minima(surface)]
    note_below(ax, _packed([*below, *measures] if alone else [settings, *below, *measures], 84 if alone else 52))


def _frame(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    width, height = float(np.ptp(x)), float(np.ptp(y))
    if width > 0 and height > 0:
        ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        ax.set_aspect("equal" if 1 / 3 <= width / height <= 3 else "auto")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))


def plot_surface_3d(
    surface: xr.Dataset,
    ax: Axes3D,
    *,
    quantity: str = "nll",
    title: str | None = None,
    scale: Scale | None = None,
    above: float = 0.0,
    fine: int = 120,
) -> None:
    """The same surface in relief, as in Park & Kim (2022), fig. 1a; open above the scale's end, and where diverged.

    Between grid points the relief is bilinear, on about `fine` points an axis.
    """
    z, label = _values(surface, quantity) - above, _label(surface, quantity)
    x, y = surface["x"].values, surface["y"].values
    scale = scale or common_scale([z], walls=_has_walls(quantity), error=_error_at_lowest(surface, quantity))
    ax.set(xlabel=axis_label(surface, 0, short=True), ylabel=axis_label(surface, 1, short=True))
    ax.set_title(title or "Loss surface", y=0.97)
    if min(z.shape) >= 2 and scale is not None:
        xs, ys = _finer(x, fine), _finer(y, fine)
        relief = _bilinear(z, x, y, xs, ys)
        hole = np.isnan(relief).any() and bool((surface["done"] & ~np.isfinite(surface[quantity])).any())
        relief[relief > scale.ceiling] = np.nan
        colors = colormaps[SURFACE_COLORS](scale.norm(relief))
        height = scale.height(relief)
        ax.plot_surface(*np.meshgrid(xs, ys), height, facecolors=_shaded(colors, height, xs, ys), shade=False,
                        rcount=len(ys), ccount=len(xs), linewidth=0, antialiased=False)  # fmt: skip
        ax.set_zlim(*scale.height(scale.levels[[0, -1]]).tolist())
        open_for = [f"above {scale.ceiling:.4g}" if scale.cut else "", "diverged" if hole else ""]
        notes = _penalty_note(surface, quantity, scale, above)
        notes += [f"open: {' or '.join(filter(None, open_for))}"] if any(open_for) else []
        if notes:
            ax.annotate("\n".join(notes), (0.0, -0.05), xycoords="axes fraction", va="top",
                        fontsize="x-small", color="0.35")  # fmt: skip
    two_lines = scale is not None and scale.log
    ax.set_zlabel(scale.label(label) if scale is not None else label, labelpad=14 if two_lines else 6)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_major_locator(MaxNLocator(4))
        axis.set_pane_color((1.0, 1.0, 1.0, 0.0))
    if scale is not None and scale.log:
        shown = scale.levels[:: max(1, len(scale.levels) // 5)]
        ax.set_zticks(scale.height(shown).tolist(), [f"{level:g}" for level in shown])
    ax.grid(False)
    ax.tick_params(labelsize="small", pad=1)
    ax.view_init(elev=24, azim=-62)
    ax.set_proj_type("persp", focal_length=0.7)
    ax.set_box_aspect((1, 1, 0.75), zoom=0.95)


def _finer(axis: np.ndarray, about: int) -> np.ndarray:
    """`axis` with each interval split evenly, its own points kept."""
    k = max(1, round(about / max(len(axis) - 1, 1)))
    return np.append((axis[:-1, None] + np.diff(axis)[:, None] * np.arange(k) / k).ravel(), axis[-1])


def _bilinear(z: np.ndarray, x: np.ndarray, y: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    along_x = np.stack([np.interp(xs, x, row) for row in z])
    return np.stack([np.interp(ys, y, column) for column in along_x.T], axis=1)


def _shaded(colors: np.ndarray, z: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`colors` lit from the side, so that ripples show in print too."""
    height = max(float(np.nanmax(z) - np.nanmin(z)) if np.isfinite(z).any() else 0.0, 1e-12)
    dy, dx = np.gradient(z / height, y / np.ptp(y), x / np.ptp(x))
    light = (1 + 0.45 * dx - 0.25 * dy) / np.sqrt(1 + dx**2 + dy**2) / np.hypot(1, np.hypot(0.45, 0.25))
    strength = np.clip(np.nan_to_num(0.84 + 0.17 * light, nan=1.0), 0, 1)
    return np.concatenate([colors[..., :3] * strength[..., None], colors[..., 3:]], axis=-1)


def plot_curve(
    surface: xr.Dataset,
    ax: Axes,
    *,
    quantity: str = "nll",
    title: str | None = None,
    name: str | None = None,
    i: int = 0,
) -> None:
    """A `surface` group of one dimension: the quantity along the line with a band of one standard error over examples,
    the accuracy (right) where it is known, and diverged points on the upper edge.
    """
    if quantity not in surface:
        raise UserError(f"the surface has no {quantity!r}")
    x, z = surface["x"].values, surface[quantity].values
    finite, done = np.isfinite(z), surface["done"].values.astype(bool)
    ax.set(xlabel=axis_label(surface, 0), ylabel=_label(surface, quantity), title=title or "Loss along a line")
    look = style(i)
    shown = np.where(finite, z, np.nan)
    few: dict[str, Any] = {"marker": "o", "markersize": 3} if len(x) <= 60 else {}
    ax.plot(x, shown, **look, lw=1.6, **few, label=name or quantity)
    below = []
    # the penalty is exact, so the error of the loss is the NLL's
    sem = next((f"{q}_sem" for q in (quantity, "nll" if quantity == "loss" else "") if f"{q}_sem" in surface), None)
    if sem is not None and surface[sem].notnull().any():
        error = surface[sem].values
        ax.fill_between(x, shown - error, shown + error, color=look["color"], alpha=0.25, linewidth=0)
        below.append("bands: one standard error over examples")
    scale = common_scale([shown], walls=_has_walls(quantity), error=_error_at_lowest(surface, quantity))
    below += _penalty_note(surface, quantity, scale)
    if scale is not None and scale.log:
        ax.set_yscale("asinh", linear_width=scale.linear)
        ticks = scale.levels[scale.levels <= np.nanmax(shown)]
        ax.set_yticks(ticks.tolist(), [f"{level:g}" for level in ticks])
        ax.set_ylabel(scale.label(_label(surface, quantity)))
    elif scale is not None and scale.cut:
        margin = 0.05 * (scale.ceiling - float(np.nanmin(shown)))
        ax.set_ylim(float(np.nanmin(shown)) - margin, scale.ceiling)
        below.append(f"curve cut at {scale.ceiling:.4g}")
    if (done & ~finite).any():
        ax.plot(x[done & ~finite], np.ones((done & ~finite).sum()), "x", color=look["color"], markersize=6,
                transform=ax.get_xaxis_transform(), clip_on=False, zorder=5, label="diverged (inf or NaN)")  # fmt: skip
    if x[0] <= 0 <= x[-1]:
        ax.axvline(0, color="0.6", lw=0.8, zorder=0)
    handles, labels = ax.get_legend_handles_labels()
    if quantity != "accuracy" and "accuracy" in surface and surface["accuracy"].notnull().any():
        right = ax.twinx()
        accuracy = 100 * surface["accuracy"].values
        right.plot(x, accuracy, **style(i + 1), lw=1.2, label="accuracy (right)")
        if "accuracy_sem" in surface:
            error = 100 * surface["accuracy_sem"].values
            right.fill_between(x, accuracy - error, accuracy + error, color=COLORS[(i + 1) % 7], alpha=0.2, linewidth=0)
        right.set(ylabel="accuracy (%)", ylim=(0, 104))
        handles, labels = (a + b for a, b in zip((handles, labels), right.get_legend_handles_labels(), strict=True))
    if len(labels) > 1:
        ax.legend(
            handles, labels, frameon=False, fontsize="small", ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 0.98)
        )
    note_below(ax, _packed([_settings(surface), *below, *describe_measures(surface), *describe_minima(surface)], 84))


def plot_map(surface: xr.Dataset, z: np.ndarray, ax: Axes, *, label: str, kind: str = "plain") -> None:
    """z (y, x) as colours, one cell a point. kind: plain; signed, with 0 in white where
    some are negative; share, from 0 to 1."""
    z = np.where(np.isfinite(z), z, np.nan)
    x, y = surface["x"].values, surface["y"].values
    ax.set(xlabel=axis_label(surface, 0, short=True), ylabel=axis_label(surface, 1, short=True), title=label)
    ax.title.set_fontsize("medium")
    if not np.isfinite(z).any():
        ax.annotate("nothing finite", (0.5, 0.5), xycoords="axes fraction", ha="center")
        return
    norm: Normalize | None = None
    extend = "neither"
    if kind == "signed" and np.nanmin(z) >= 0:
        kind = "plain"
    if kind == "signed":
        bound = float(np.nanquantile(np.abs(z), 0.98)) or 1.0
        extend = _beyond(z, -bound, bound)
        norm = TwoSlopeNorm(0, -bound, bound)
    elif kind == "share":
        norm = Normalize(0, 1)
        extend = _beyond(z, 0, 1)
    colors = {"signed": "PuOr_r", "share": "cividis", "plain": SURFACE_COLORS}[kind]
    drawn = ax.pcolormesh(x, y, z, cmap=colors, norm=norm, shading="nearest", rasterized=True)
    assert ax.figure is not None
    ax.figure.colorbar(drawn, ax=ax, shrink=0.85, extend=extend)
    if len(x) > 1 and len(y) > 1 and 1 / 3 <= np.ptp(x) / np.ptp(y) <= 3:
        ax.set_aspect("equal")
    ax.set_facecolor("0.85")
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_locator(MaxNLocator(5))


def _beyond(z: np.ndarray, low: float, high: float) -> str:
    under, over = np.nanmin(z) < low, np.nanmax(z) > high
    return "both" if under and over else "min" if under else "max" if over else "neither"


def eigenvalue_map(surface: xr.Dataset, title: str) -> Figure:
    """The extreme Hessian eigenvalues over a surface, and |low / high| as Li et al. (2018), fig. 7; grey: unknown,
    hatched (on a line, rings): not converged, or not surely the extreme one.
    """
    high, low = surface["eigenvalue_high"], surface["eigenvalue_low"]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(low / high)
    panels: list[tuple[Any, str, str, xr.DataArray]] = [
        (high, "largest eigenvalue", "signed", unsettled(surface, "high")),
        (low, "smallest eigenvalue", "signed", unsettled(surface, "low")),
        (ratio, "|smallest / largest|", "share", unsettled(surface, "high", "low")),
    ]
    many = int(panels[-1][3].sum())
    note = f"not converged, or not surely the extreme one: {many} points" if many else ""
    if "y" in surface.dims:
        figure, axes = new_row(12.0, 3.9, columns=3)
        for ax, (z, label, kind, bad) in zip(axes, panels, strict=True):
            plot_map(surface, z.transpose("y", "x").values, ax, label=label, kind=kind)
            mark_unsettled(surface, bad, ax)
        figure.suptitle(title)
        note_below(axes[0], [f"hatched: {note}"] if note else [])
        return figure
    figure, ax = new_figure(6.4, 4.0)
    x = surface["x"].values
    for i, (z, label, _, bad) in enumerate(panels[:2]):
        ax.plot(x, np.where(np.isfinite(z), z, np.nan), **style(i), marker="o", markersize=3, label=label)
        ax.plot(x[bad], z[bad], "o", markersize=7, fillstyle="none", color="0.3")
    note_below(ax, [f"ringed: {note}"] if note else [])
    ax.axhline(0, color="0.3", lw=0.8)
    ax.set(xlabel=axis_label(surface, 0), ylabel="Hessian eigenvalue", title=title)
    ax.legend(frameon=False, fontsize="small")
    return figure


def side_by_side(
    surfaces: Mapping[str, xr.Dataset], *, quantity: str = "nll", relief: bool = False, per_row: int = 4
) -> Figure:
    """Several surfaces on one colour scale, as contours or in relief.

    Drawn is each quantity above its own lowest value, which the note gives: networks differ in their floor, shape is
    what is compared. Accuracy is drawn as it is. In what their settings differ is said over each, and on top, where
    they cannot be compared for it. Raises UserError where a surface has not two dimensions, or not the quantity.
    """
    flat = [name for name, surface in surfaces.items() if "y" not in surface.dims]
    if flat or not surfaces:
        raise UserError(f"side by side go surfaces of two dimensions; {', '.join(flat) or 'none given'}")
    values = {name: _values(surface, quantity) for name, surface in surfaces.items()}
    lowest = {name: float(np.nanmin(z)) if np.isfinite(z).any() else 0.0 for name, z in values.items()}
    base = lowest if _has_walls(quantity) else dict.fromkeys(lowest, 0.0)
    scale = common_scale([values[name] - base[name] for name in surfaces], walls=_has_walls(quantity))
    found = differences(surfaces, quantity=quantity)
    apart = {name: _packed(distinctions(found, name), 48) for name in surfaces}
    columns = min(per_row, len(surfaces))
    rows = -(-len(surfaces) // columns)
    height = 4.0 if relief else 5.7 if any("measure" in surface for surface in surfaces.values()) else 5.2
    height = (height + 0.15 * max(map(len, apart.values()))) * rows + 0.25 * bool(caution(found))
    figure = Figure(figsize=(4.1 * columns + 0.9, height), dpi=150, layout="constrained")
    axes = []
    for i, (name, surface) in enumerate(surfaces.items(), 1):
        ax: Any = figure.add_subplot(rows, columns, i, projection="3d" if relief else None)
        note = "\n".join([name, f"lowest {quantity}: {lowest[name]:.4g}", *apart[name]])
        if relief:
            plot_surface_3d(surface, ax, quantity=quantity, title=note, scale=scale, above=base[name])
            ax.set_zlabel("")
        else:
            plot_surface(surface, ax, quantity=quantity, title=note, scale=scale, above=base[name], alone=False)
        ax.title.set_fontsize("medium")
        axes.append(ax)
    if scale is not None:
        label = _label(next(iter(surfaces.values())), quantity) + (", above the lowest" if base == lowest else "")
        shades = colormaps[SURFACE_COLORS]
        norm = scale.norm if relief else BoundaryNorm(scale.levels, shades.N, extend=scale.extend)
        figure.colorbar(ScalarMappable(norm, shades), ax=axes, shrink=0.7, extend=scale.extend if relief else None,
                        label=label)  # fmt: skip
    caution_over(figure, caution(found))
    return figure


def draw_surface(surface: xr.Dataset, group: str, prefix: str = "", *, quantity: str = "nll") -> dict[str, Figure]:
    """The pictures of a `surface` group by name: contours and relief, or a curve; maps of what else it has."""
    figures: dict[str, Figure] = {}
    what = "NLL" if quantity == "nll" else quantity
    penalised = _of_the_loss(surface)
    if "y" in surface.dims:
        figures[group], ax = new_figure(6.0, _fitting_height(surface))
        plot_surface(surface, ax, quantity=quantity, title=f"{prefix}{what} surface\n")
        figures[f"{group}_3d"], ax3 = new_figure(5.6, 4.8, projection="3d")
        plot_surface_3d(surface, ax3, quantity=quantity, title=f"{prefix}{what} surface")
    else:
        figures[group], ax = new_figure(6.4, 4.4)
        plot_curve(surface, ax, quantity=quantity, title=f"{prefix}{what} along a line\n")
    if quantity == "nll" and "y" in surface.dims and len(with_minima(surface).get("minimum_nll", ())) > 1:
        figures[f"{group}_minima"], ax = new_figure(6.4, 4.0)
        plot_merge_tree(surface, ax, title=f"{prefix}minima of the NLL, and where they merge\n\n")
    if {"eigenvalue_high", "eigenvalue_low"} <= set(surface.data_vars):
        figures[f"{group}_eigenvalues"] = eigenvalue_map(surface, f"{prefix}extreme Hessian eigenvalues{penalised}")
    if "gradient_norm" in surface:
        z, label = surface["gradient_norm"], f"{prefix}norm of the gradient{penalised}"
        if "y" in surface.dims:
            figures[f"{group}_gradient"], ax = new_figure(5.6, 4.6)
            plot_map(surface, z.transpose("y", "x").values, ax, label=label)
        else:
            figures[f"{group}_gradient"], ax = new_figure(6.4, 4.0)
            ax.plot(surface["x"], np.where(np.isfinite(z), z, np.nan), **style(0), marker="o", markersize=3)
            ax.set(xlabel=axis_label(surface, 0), ylabel="norm of the gradient", title=label)
    return figures


def _fitting_height(surface: xr.Dataset) -> float:
    x, y = surface["x"].values, surface["y"].values
    ratio = float(np.ptp(y) / np.ptp(x)) if np.ptp(x) > 0 else 1.0
    return 2.2 + 3.6 * (ratio if 1 / 3 <= ratio <= 3 else 1.0)


def axis_label(surface: xr.Dataset, axis: int, *, short: bool = False) -> str:
    """What an axis of a surface is, as its plane says; `short` for where there is little room."""
    plane = surface.attrs.get("config", {}).get("plane", {})
    directions = plane.get("directions")
    letter = "ab"[axis]
    names = [str(name) for name in plane.get("checkpoints", []) if isinstance(name, (str, int))]
    if directions == "random":
        text = f"random direction {axis + 1}"
    elif directions == "eigenvectors":
        text = f"Hessian eigenvector {axis + 1}"
    elif directions == "pca":
        text = f"principal component {axis + 1}"
        if "explained" in surface and surface.sizes["axis"] > axis:
            share = float(surface["explained"].isel(axis=axis))
            text = f"PC {axis + 1} ({share:.0%})" if short else f"{text} ({share:.1%} of variance)"
    elif directions == "interpolation":
        text = f"from {names[0]} (0) to {names[1]} (1)" if len(names) == 2 else "from the first (0) to the second (1)"
    elif directions == "checkpoints":
        text = f"towards {names[axis + 1]}" if len(names) > axis + 1 else f"towards checkpoint {axis + 2}"
    else:
        text = f"{letter} (along $d_{axis + 1}$)"
    if short and directions in ("random", "eigenvectors"):
        text = text.replace("Hessian ", "")
    return text


def _label(surface: xr.Dataset, quantity: str) -> str:
    return loss_label(surface) if quantity == "loss" else str(surface[quantity].attrs.get("long_name", quantity))


def _error_at_lowest(surface: xr.Dataset, quantity: str) -> float:
    """The standard error of the quantity where it is lowest, 0 where it is not known; the penalty has none."""
    name = "nll_sem" if quantity in ("nll", "loss") else f"{quantity}_sem"
    z = surface[quantity].values
    if name not in surface or not np.isfinite(z).any():
        return 0.0
    error = float(
        surface[name]
        .transpose(*surface[quantity].dims)
        .values.flat[int(np.nanargmin(np.where(np.isfinite(z), z, np.nan)))]
    )
    return error if np.isfinite(error) else 0.0


def _penalty_note(surface: xr.Dataset, quantity: str, scale: Scale | None, above: float = 0.0) -> list[str]:
    """Of the loss, how much of the heights that are shown is its penalty."""
    if quantity != "loss" or scale is None:
        return []
    note = in_heights(surface, scale.ceiling + above if scale.cut else np.inf)
    apart = note and "measure" in surface and surface["measure"].attrs.get("of") != "loss"
    return [f"{note}; measures are of the NLL" if apart else note] if note else []


def _of_the_loss(surface: xr.Dataset) -> str:
    """A quantity of the loss, its penalty included where it has one."""
    penalty = formula(surface.attrs.get("config", {}))
    return f", with the penalty {penalty}" if penalty else ""


def _settings(surface: xr.Dataset) -> str:
    done = surface["done"].values
    config = surface.attrs.get("config", {})
    normalize = config.get("plane", {}).get("normalize")
    n = config.get("objective", {}).get("examples")
    parts = [f"{normalize}-normalised" if normalize else "", f"{n} examples" if n else ""]
    if "source" in config:
        file = str(config["source"]["file"])
        parts.append(f"from {file if len(file) <= 40 else file[:18] + '...' + file[-18:]}")
    if not done.all():
        parts.append(f"{done.sum()} of {done.size} points so far")
    return ", ".join(p for p in parts if p)


def _packed(phrases: Sequence[str], width: int) -> list[str]:
    """Phrases into lines of at most `width`, as many to a line as fit; of a longer one the rest is indented."""
    lines: list[str] = []
    for phrase in filter(None, phrases):
        if lines and len(lines[-1]) + len(phrase) + 2 <= width:
            lines[-1] += f"; {phrase}"
        else:
            lines += wrap(phrase, width, subsequent_indent="    ")
    return lines


def draw(group: xr.Dataset, name: str, prefix: str = "", *, quantity: str = "nll") -> dict[str, Figure]:
    """The pictures of a `surface` group: contours or a curve, relief, and maps.

    quantity: nll, loss (with its penalty), accuracy or another that it has.
    """
    return draw_surface(group, name, prefix, quantity=quantity)


def compare(groups: Mapping[str, xr.Dataset], name: str, *, quantity: str = "nll") -> dict[str, Figure]:
    """Several surfaces of two dimensions on one colour scale, as contours and in relief; nothing for one."""
    flat = {label: group for label, group in groups.items() if "y" in group}
    if len(flat) < 2:
        return {}
    several = name.replace("surface", "surfaces")
    return {
        several: side_by_side(flat, quantity=quantity),
        f"{several}_3d": side_by_side(flat, quantity=quantity, relief=True),
    }
