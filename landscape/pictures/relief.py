"""A surface in relief."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from mpl_toolkits.mplot3d.axes3d import Axes3D
from mpl_toolkits.mplot3d.proj3d import proj_transform

from landscape.pictures.canvas import COLORS, captioned, fill_lines, own_title, room
from landscape.pictures.captions import axis_label, caption, error_at_lowest, penalty_note, quantity_label
from landscape.pictures.look import LOOK, Look
from landscape.pictures.marks import TRAJECTORY
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
    """A surface in relief, as in Park & Kim (2022), fig. 1a; cut at the scale's end, and open where it diverged.

    Between grid points the relief is bilinear, on about `fine` points per axis.
    """
    quantity = look.quantity
    z, label = values_of(surface, quantity) - above, quantity_label(surface, quantity)
    x, y = surface["x"].values, surface["y"].values
    scale = scale or common_scale([z], walls=has_walls(quantity), error=error_at_lowest(surface, quantity),
                                  limits=look.limits, log=look.scale == "log")  # fmt: skip
    assert ax.figure is not None
    small = ax.bbox.width / ax.figure.dpi < 3.5  # labels take up more of the room, and no layout accounts for them
    for axis, put in enumerate((ax.set_xlabel, ax.set_ylabel)):
        words = fill_lines(axis_label(surface, axis, short=True), 18 if small else 60)
        put(words, labelpad=4 + 8 * words.count("\n"))
    said: list[str] = []
    if min(z.shape) >= 2 and scale is not None:
        xs, ys = _finer(x, fine), _finer(y, fine)
        relief = _bilinear(z, x, y, xs, ys)
        hole = np.isnan(relief).any() and bool((surface["done"] & ~np.isfinite(surface[quantity])).any())
        _draw(ax, xs, ys, relief, scale)
        ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), zlim=scale.height(scale.levels[[0, -1]]).tolist())
        said = [*penalty_note(surface, quantity, scale, above), f"open above {scale.ceiling:.3g}" * scale.cut,
                "open where diverged" * bool(hole)]  # fmt: skip
        said += _put_on_top(surface, ax, z, scale, look)
        ax.set_zticks(scale.height(scale.ticks[::2]).tolist(), [f"{level:.3g}" for level in scale.ticks[::2]])
    ax.zaxis.set_rotate_label(False)
    ax.set_zlabel(scale.label(label) if scale is not None else label, rotation=90, labelpad=1)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_pane_color((1.0, 1.0, 1.0, 0.0))
        axis._axinfo["grid"].update(color="0.88", linewidth=0.5)
    for flat in (ax.xaxis, ax.yaxis):
        flat.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    ax.tick_params(labelsize="small", pad=1)
    ax.view_init(elev=26, azim=-62)
    ax.set_proj_type("persp", focal_length=0.7)
    ax.set_box_aspect((1, 1, 0.72), zoom=0.82 if small else 1.0)
    lines, whole = caption(said, room(ax))
    captioned(ax, own_title(title, "Loss surface"), lines if look.with_notes else [], whole)
    return ax


def fill_canvas(figure: Figure, ax: Axes3D) -> None:
    """Place a relief that is alone in its figure so that it fills, labels included, what the title leaves: no layout of
    matplotlib sees labels of three dimensions, which get their places as they are drawn.
    """
    shapes = list(ax.collections)
    for shape in shapes:
        shape.set_visible(False)  # for speed: they lie within the axes
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    left, top = ax.bbox.x0, ax.bbox.y1
    for _ in range(3):  # labels keep their size while the rest grows
        seen = [axis.get_tightbbox() for axis in (ax.xaxis, ax.yaxis, ax.zaxis)]
        corners = np.array(list(product(ax.get_xlim(), ax.get_ylim(), ax.get_zlim()))).T
        box = ax.transData.transform(np.transpose(proj_transform(*corners, ax.get_proj())[:2]))
        found = Bbox.union([Bbox([box.min(axis=0), box.max(axis=0)]), *(b for b in seen if b is not None)])
        grow = min(0.97 * figure.bbox.width / found.width, 0.97 * top / found.height)
        middle = np.array([figure.bbox.width, top]) / 2
        corner = middle + grow * (ax.bbox.p0 - (found.p0 + found.p1) / 2)
        place = Bbox.from_bounds(*corner, *(grow * ax.bbox.size))
        ax.set_position(place.transformed(figure.transFigure.inverted()))
        figure.draw_without_rendering()
    for shape in shapes:
        shape.set_visible(True)
    at = ((left - ax.bbox.x0) / ax.bbox.width, (top - ax.bbox.y0) / ax.bbox.height)
    ax.title.set_position((0.5, at[1]))
    ax._autotitlepos = False
    for note in ax.texts:
        if isinstance(note, Annotation):
            note.xy = at


def _draw(ax: Axes3D, x: np.ndarray, y: np.ndarray, z: np.ndarray, scale: Scale) -> None:
    """Draw the relief as facets; those that reach above the scale's end are cut off there."""
    height = scale.height(z)
    shades = _shaded(colormaps[surface_colors()](scale.norm(_middle(z))), height, x, y)
    corners = np.stack(np.broadcast_arrays(x[None, :], y[:, None], height), axis=-1)
    facets = np.stack([corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]], axis=2)
    top = float(scale.height(scale.ceiling))
    known, below = np.isfinite(facets[..., 2]).all(axis=-1), facets[..., 2] <= top
    whole, crossing = known & below.all(axis=-1), known & below.any(axis=-1) & ~below.all(axis=-1)
    polygons = [*facets[whole], *(_below(facet, top) for facet in facets[crossing])]
    colors = np.concatenate([shades[whole], shades[crossing]])
    ax.add_collection3d(
        Poly3DCollection(polygons, facecolors=colors, edgecolors=colors, linewidths=0.2, rasterized=True),
        autolim=False,
    )


def _below(facet: np.ndarray, top: float) -> np.ndarray:
    """The part of a polygon (corner, 3) that is not above `top` (Sutherland & Hodgman 1974)."""
    kept: list[np.ndarray] = []
    for a, b in zip(facet, np.roll(facet, -1, axis=0), strict=True):
        if a[2] <= top:
            kept.append(a)
        if (a[2] <= top) != (b[2] <= top):
            kept.append(a + (b - a) * (top - a[2]) / (b[2] - a[2]))
    return np.array(kept)


def _middle(z: np.ndarray) -> np.ndarray:
    return (z[:-1, :-1] + z[:-1, 1:] + z[1:, :-1] + z[1:, 1:]) / 4


def _put_on_top(surface: xr.Dataset, ax: Axes3D, z: np.ndarray, scale: Scale, look: Look) -> list[str]:
    """Put the trajectory, if there is one, the network and, on request, the grid's points on top; say what they are."""
    x, y = surface["x"].values, surface["y"].values
    top, lift = float(scale.height(scale.ceiling)), 0.01 * float(np.ptp(scale.height(scale.levels[[0, -1]])))
    ax.computed_zorder = False

    def at(points: np.ndarray) -> np.ndarray:
        """The places of points (point, 2) on the relief; NaN for those off it."""
        heights = np.array([_bilinear(z, x, y, p[:1], p[1:])[0, 0] for p in points])
        heights = np.asarray(scale.height(heights), float) + lift
        inside = ((points >= [x[0], y[0]]) & (points <= [x[-1], y[-1]])).all(axis=1) & (heights <= top + lift)
        return np.where(inside, heights, np.nan)

    said: list[str] = []
    if look.mark_points:
        grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        ax.plot(*grid.T, at(grid), ".", color="black", markersize=1.6, zorder=4, label="grid")
    if x[0] <= 0 <= x[-1] and y[0] <= 0 <= y[-1]:
        origin = np.zeros((1, 2))
        ax.plot(*origin.T, at(origin), "+", color=COLORS[1], markersize=8, markeredgewidth=2, zorder=6)
    if "trajectory" in surface and surface.sizes["checkpoint"] > 1:
        path = surface["trajectory"].transpose("checkpoint", "axis").values[:, :2]
        if surface.attrs.get("config", {}).get("plane", {}).get("directions") != "checkpoints":
            steps = np.concatenate([np.linspace(a, b, 12, endpoint=False) for a, b in pairwise(path)] + [path[-1:]])
            ax.plot(*steps.T, at(steps), "-", color=TRAJECTORY, lw=1.5, zorder=5, label="trajectory")
            said.append("line: the trajectory")
        ax.plot(*path.T, at(path), "o", color=TRAJECTORY, markersize=3, zorder=5)
    return said


def _finer(axis: np.ndarray, about: int) -> np.ndarray:
    """`axis` with each interval split evenly, keeping its own points."""
    k = max(1, round(about / max(len(axis) - 1, 1)))
    return np.append((axis[:-1, None] + np.diff(axis)[:, None] * np.arange(k) / k).ravel(), axis[-1])


def _bilinear(z: np.ndarray, x: np.ndarray, y: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    along_x = np.stack([np.interp(xs, x, row) for row in z])
    return np.stack([np.interp(ys, y, column) for column in along_x.T], axis=1)


def _slopes(z: np.ndarray, y: np.ndarray, x: np.ndarray) -> Sequence[np.ndarray]:
    found: Sequence[np.ndarray] = np.gradient(z, y, x)
    return found


def _shaded(colors: np.ndarray, z: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The `colors` of facets as lit from the side, so that ripples show in print too."""
    height = max(float(np.nanmax(z) - np.nanmin(z)) if np.isfinite(z).any() else 0.0, 1e-12)
    dy, dx = (_middle(slope) for slope in _slopes(z / height, y / np.ptp(y), x / np.ptp(x)))
    light = (1 + 0.45 * dx - 0.25 * dy) / np.sqrt(1 + dx**2 + dy**2) / np.hypot(1, np.hypot(0.45, 0.25))
    strength = np.clip(np.nan_to_num(0.84 + 0.17 * light, nan=1.0), 0, 1)
    return np.concatenate([colors[..., :3] * strength[..., None], colors[..., 3:]], axis=-1)
