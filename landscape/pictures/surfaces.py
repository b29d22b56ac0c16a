"""The pictures of a `surface` group, alone and side by side. Nothing here knows of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure

from landscape.pictures.canvas import caution_over, fitted, new_figure, style
from landscape.pictures.captions import axis_label, of_the_loss, packed, quantity_label
from landscape.pictures.contours import plot_surface
from landscape.pictures.curve import plot_curve
from landscape.pictures.look import LOOK, Look
from landscape.pictures.maps import eigenvalue_map, plot_map
from landscape.pictures.relief import fill_canvas, plot_surface_3d
from landscape.pictures.scales import common_scale, has_walls, surface_colors, values_of
from landscape.pictures.topology import plot_merge_tree
from landscape.runtime.errors import UserError
from landscape.store.comparable import caution, differences, distinctions
from landscape.surfaces.topology import with_minima


def side_by_side(
    surfaces: Mapping[str, xr.Dataset], *, look: Look = LOOK, relief: bool = False, per_row: int = 4
) -> Figure:
    """Several surfaces on one colour scale, as contours or in relief.

    Each quantity is drawn above its own lowest value, which the note gives: networks differ in their floor, and the
    shape is what is compared. Accuracy is drawn as it is. Settings in which they differ stand over each surface, and a
    line at the top says where they cannot be compared for that reason. Raises UserError if a surface does not have two
    dimensions, or lacks the quantity.
    """
    quantity = look.quantity
    flat = [name for name, surface in surfaces.items() if "y" not in surface.dims]
    if flat or not surfaces:
        raise UserError(f"only surfaces of two dimensions are drawn side by side; {', '.join(flat) or 'none given'}")
    values = {name: values_of(surface, quantity) for name, surface in surfaces.items()}
    lowest = {name: float(np.nanmin(z)) if np.isfinite(z).any() else 0.0 for name, z in values.items()}
    base = lowest if has_walls(quantity) else dict.fromkeys(lowest, 0.0)
    scale = common_scale(
        [values[name] - base[name] for name in surfaces],
        walls=has_walls(quantity),
        limits=look.limits,
        log=look.scale == "log",
    )
    found = differences(surfaces, quantity=quantity)
    apart = {name: packed(distinctions(found, name), 48) for name in surfaces}
    wide = fitted(4.1 * min(per_row, len(surfaces)) + 0.9, 1.0)[0]
    columns = max(1, min(per_row, len(surfaces), int(wide / (2.4 if relief else 1.6))))
    rows = -(-len(surfaces) // columns)
    height = (4.1 if relief else 4.8) + 0.15 * max(map(len, apart.values()))
    height = fitted(4.1 * columns + 0.9, height * rows + 0.25 * bool(caution(found)))[1]
    figure = Figure(figsize=(wide, height), layout="constrained")
    axes = []
    for i, (name, surface) in enumerate(surfaces.items(), 1):
        ax: Any = figure.add_subplot(rows, columns, i, projection="3d" if relief else None)
        words = f"{name}, lowest {lowest[name]:.3g}" if base == lowest else name
        note = "\n".join([words, *apart[name]])
        if relief:
            plot_surface_3d(surface, ax, look=look, title=note, scale=scale, above=base[name])
            ax.set_zlabel("")
        else:
            plot_surface(surface, ax, look=look, title=note, scale=scale, above=base[name], alone=False)
            if (i - 1) % columns and axis_label(surface, 1) == axis_label(next(iter(surfaces.values())), 1):
                ax.set_ylabel("")
        ax.title.set_fontsize("medium")
        axes.append(ax)
    if scale is not None:
        label = quantity_label(next(iter(surfaces.values())), quantity)
        label = scale.label(label + (" above the lowest" if base == lowest else ""))
        shades = colormaps[surface_colors()]
        norm = scale.norm if relief else BoundaryNorm(scale.levels, shades.N, extend=scale.extend)
        bar = figure.colorbar(ScalarMappable(norm, shades), ax=axes, shrink=0.8, aspect=26, label=label,
                              extend=scale.extend if relief else None)  # fmt: skip
        bar.set_ticks(scale.ticks.tolist(), labels=[f"{level:.3g}" for level in scale.ticks])
        bar.minorticks_off()
    caution_over(figure, caution(found))
    return figure


def draw_surface(surface: xr.Dataset, group: str, prefix: str = "", *, look: Look = LOOK) -> dict[str, Figure]:
    """The pictures of a `surface` group by name: contours and relief, or a curve; and maps of what else it has."""
    figures: dict[str, Figure] = {}
    quantity = look.quantity
    what = quantity_label(surface, quantity).partition(" + ")[0] if quantity in surface else quantity
    penalised = of_the_loss(surface)
    if "y" in surface.dims:
        figures[group], ax = new_figure(6.0, _fitting_height(surface), square=True)
        plot_surface(surface, ax, look=look, title=f"{prefix}{what} surface")
        figures[f"{group}_3d"], ax3 = new_figure(5.6, 4.3, projection="3d")
        plot_surface_3d(surface, ax3, look=look, title=f"{prefix}{what} surface")
        fill_canvas(figures[f"{group}_3d"], ax3)
    else:
        figures[group], ax = new_figure(6.4, 4.4)
        plot_curve(surface, ax, look=look, title=f"{prefix}{what} along a line")
    if quantity == "nll" and "y" in surface.dims and len(with_minima(surface).get("minimum_nll", ())) > 1:
        figures[f"{group}_minima"], ax = new_figure(6.4, 4.0)
        plot_merge_tree(surface, ax, title=f"{prefix}minima of the NLL, and where they merge")
    if {"eigenvalue_high", "eigenvalue_low"} <= set(surface.data_vars):
        figures[f"{group}_eigenvalues"] = eigenvalue_map(surface, f"{prefix}extreme Hessian eigenvalues{penalised}")
    if "gradient_norm" in surface:
        z, label = surface["gradient_norm"], f"{prefix}norm of the gradient{penalised}"
        if "y" in surface.dims:
            figures[f"{group}_gradient"], ax = new_figure(5.6, 4.6, square=True)
            plot_map(surface, z.transpose("y", "x").values, ax, label=label)
        else:
            figures[f"{group}_gradient"], ax = new_figure(6.4, 4.0)
            ax.plot(surface["x"], np.where(np.isfinite(z), z, np.nan), **style(0), marker="o", markersize=3)
            ax.set(xlabel=axis_label(surface, 0), ylabel="norm of the gradient", title=label)
    return figures


def _fitting_height(surface: xr.Dataset) -> float:
    x, y = surface["x"].values, surface["y"].values
    ratio = float(np.ptp(y) / np.ptp(x)) if np.ptp(x) > 0 else 1.0
    return 1.6 + 3.4 * (ratio if 1 / 3 <= ratio <= 3 else 1.0)


def plot(group: xr.Dataset, ax: Any, *, title: str | None = None, look: Look = LOOK) -> Axes:
    """The picture of a `surface` group on axes: a curve, contours, or on axes of three dimensions a relief."""
    if "y" not in group.dims:
        return plot_curve(group, ax, title=title, look=look)
    return (plot_surface_3d if ax.name == "3d" else plot_surface)(group, ax, title=title, look=look)


def draw(group: xr.Dataset, name: str, prefix: str = "", *, look: Look = LOOK) -> dict[str, Figure]:
    """The pictures of a `surface` group: contours or a curve, relief, and maps."""
    return draw_surface(group, name, prefix, look=look)


def compare(groups: Mapping[str, xr.Dataset], name: str, *, look: Look = LOOK) -> dict[str, Figure]:
    """Several surfaces of two dimensions on one colour scale, as contours and in relief; nothing for a single one."""
    flat = {label: group for label, group in groups.items() if "y" in group}
    if len(flat) < 2:
        return {}
    several = name.replace("surface", "surfaces")
    return {
        several: side_by_side(flat, look=look),
        f"{several}_3d": side_by_side(flat, look=look, relief=True),
    }
