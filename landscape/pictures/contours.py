"""A surface as contours."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from landscape.pictures.canvas import captioned, own_title, points_of, room
from landscape.pictures.captions import (
    axis_label,
    caption,
    error_at_lowest,
    penalty_note,
    quantity_label,
    settings_line,
)
from landscape.pictures.look import LOOK, Look
from landscape.pictures.marks import (
    mark_centre,
    mark_diverged,
    mark_grid,
    mark_interpolated,
    mark_minima,
    mark_trajectory,
    thin_out,
)
from landscape.pictures.scales import Scale, common_scale, has_walls, surface_colors, values_of


def plot_surface(
    surface: xr.Dataset,
    ax: Axes,
    *,
    title: str | None = None,
    look: Look = LOOK,
    scale: Scale | None = None,
    above: float = 0.0,
    alone: bool = True,
) -> Axes:
    """Labelled contours of a `surface` group, with the unperturbed network marked; diverged points are hatched.

    Values above the end of the scale share the last colour, and the colour bar says so. The trajectory, if there is
    one, goes from a circle to a star; if points were filled in, dots mark those that were computed.
    scale: one shared with other surfaces, from `common_scale`. above: subtracted from the quantity that is drawn.
    alone: with a colour bar of its own, and wide notes.
    """
    quantity = look.quantity
    z, label = values_of(surface, quantity) - above, quantity_label(surface, quantity)
    x, y = surface["x"].values, surface["y"].values
    scale = scale or common_scale([z], walls=has_walls(quantity), error=error_at_lowest(surface, quantity),
                                  limits=look.limits, log=look.scale == "log")  # fmt: skip
    heights: list[Text] = []
    fits = room(ax, "medium") * (0.75 if alone else 1.0)  # beside the colour bar
    ax.set(xlabel=axis_label(surface, 0, fits=fits), ylabel=axis_label(surface, 1, fits=fits))
    if min(z.shape) >= 2 and scale is not None:
        filled = ax.contourf(x, y, z, scale.levels, cmap=surface_colors(), extend=scale.extend, norm=scale.norm)
        lines = ax.contour(x, y, z, scale.ticks, colors="white", linewidths=0.6, alpha=0.9)
        small = 0.65 * points_of("medium")
        heights = ax.clabel(lines, fontsize=small, colors="black", inline=False, fmt=lambda v: f"{v:.3g}")
        if alone:
            assert ax.figure is not None
            bar = ax.figure.colorbar(filled, ax=ax, label=scale.label(label), aspect=24)
            bar.set_ticks(scale.ticks.tolist(), labels=[f"{level:.3g}" for level in scale.ticks])
            bar.minorticks_off()
    said = penalty_note(surface, quantity, scale, above)
    said += [f"cut at {scale.ceiling:.3g}"] if scale is not None and scale.cut else []
    said += mark_diverged(surface, quantity, ax)
    _frame(ax, x, y)
    if look.mark_points:
        mark_grid(surface, ax)
    said += mark_interpolated(surface, ax)
    taken, notes = mark_trajectory(surface, ax)
    thin_out(ax, heights, taken)
    said += [*notes, *mark_minima(surface, ax)]
    mark_centre(surface, ax)
    phrases = [settings_line(surface), *said] if alone else [*said, settings_line(surface)]
    captioned(ax, own_title(title, "Loss surface"), *caption(phrases, room(ax)))
    return ax


def _frame(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    width, height = float(np.ptp(x)), float(np.ptp(y))
    if width > 0 and height > 0:
        ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        ax.set_aspect("equal" if 1 / 3 <= width / height <= 3 else "auto")
    assert ax.figure is not None
    for axis, inches in ((ax.xaxis, ax.bbox.width), (ax.yaxis, ax.bbox.height)):
        few = inches / ax.figure.dpi < 2
        axis.set_major_locator(MaxNLocator(2 if few else 4, steps=[1, 2, 5, 10]))  # reaches the edges of -1 to 1
