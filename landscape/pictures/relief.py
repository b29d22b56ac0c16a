"""A surface in relief."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d.axes3d import Axes3D

from landscape.pictures.canvas import NOTE, own_title
from landscape.pictures.captions import axis_label, error_at_lowest, penalty_note, quantity_label
from landscape.pictures.look import LOOK, Look
from landscape.pictures.scales import Scale, common_scale, has_walls, surface_colors, values_of


def plot_surface_3d(
    surface: xr.Dataset,
    ax: Axes3D,
    *,
    title: str | None = None,
    look: Look = LOOK,
    scale: Scale | None = None,
    above: float = 0.0,
    fine: int = 120,
) -> Axes3D:
    """The same surface in relief, as in Park & Kim (2022), fig. 1a; open above the scale's end, and where diverged.

    Between grid points the relief is bilinear, on about `fine` points an axis.
    """
    quantity = look.quantity
    z, label = values_of(surface, quantity) - above, quantity_label(surface, quantity)
    x, y = surface["x"].values, surface["y"].values
    scale = scale or common_scale([z], walls=has_walls(quantity), error=error_at_lowest(surface, quantity),
                                  limits=look.limits)  # fmt: skip
    ax.set(xlabel=axis_label(surface, 0, short=True), ylabel=axis_label(surface, 1, short=True))
    ax.set_title(own_title(title, "Loss surface"), y=0.97)
    if min(z.shape) >= 2 and scale is not None:
        xs, ys = _finer(x, fine), _finer(y, fine)
        relief = _bilinear(z, x, y, xs, ys)
        hole = np.isnan(relief).any() and bool((surface["done"] & ~np.isfinite(surface[quantity])).any())
        relief[relief > scale.ceiling] = np.nan
        colors = colormaps[surface_colors()](scale.norm(relief))
        height = scale.height(relief)
        ax.plot_surface(*np.meshgrid(xs, ys), height, facecolors=_shaded(colors, height, xs, ys), shade=False,
                        rcount=len(ys), ccount=len(xs), linewidth=0, antialiased=False)  # fmt: skip
        ax.set_zlim(*scale.height(scale.levels[[0, -1]]).tolist())
        open_for = [f"above {scale.ceiling:.4g}" if scale.cut else "", "diverged" if hole else ""]
        notes = penalty_note(surface, quantity, scale, above)
        notes += [f"open: {' or '.join(filter(None, open_for))}"] if any(open_for) else []
        if notes:
            ax.annotate("\n".join(notes), (0.0, -0.05), xycoords="axes fraction", va="top", **NOTE)
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
    return ax


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
