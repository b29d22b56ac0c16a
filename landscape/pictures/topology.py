"""The merge tree of a surface: its minima, and the heights at which their regions meet."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from landscape.pictures.canvas import COLORS, note_above
from landscape.surfaces.topology import describe_minima, with_minima

MOST = 24  # minima drawn: the most persistent


def plot_merge_tree(surface: xr.Dataset, ax: Axes, *, title: str | None = None) -> None:
    """Each minimum of a `surface` group as a vertical line from its NLL to that of the saddle where its region merges
    into a deeper one's, with the 95 % interval of its persistence at the saddle; thick if that is beyond the error. At
    most MOST of them are drawn, the most persistent.
    """
    found = with_minima(surface)
    rise, parent = found["minimum_persistence"].values, found["minimum_parent"].values
    kept = np.sort(np.argsort(-rise, kind="stable")[:MOST])
    place = _side_by_side(kept, parent, found["minimum_saddle"].values)
    bottom, top = found["minimum_nll"].values, found["minimum_saddle"].values
    sem, beyond = found["minimum_persistence_sem"].values, found["minimum_beyond_error"].values.astype(bool)
    merged = top[kept][np.isfinite(top[kept])]
    roof = merged.max() + 0.1 * (merged.max() - bottom.min()) if merged.size else bottom.max()
    for m in kept:
        color = COLORS[0] if beyond[m] else "0.55"
        end = min(top[m], roof)
        ax.plot([place[m]] * 2, [bottom[m], end], color=color, lw=2.6 if beyond[m] else 1.0, solid_capstyle="butt")
        ax.plot(place[m], bottom[m], "v", color=color, markersize=4)
        if parent[m] >= 0:
            ax.plot([place[m], place[parent[m]]], [end] * 2, color="0.4", lw=0.9)
            if np.isfinite(sem[m]):
                ax.errorbar(place[m], end, yerr=1.96 * sem[m], color=color, capsize=2.5, lw=0.9)
    ax.set(ylabel="negative log-likelihood", title=title or "Minima, and where they merge")
    ax.set_xticks([])
    ax.set_xlabel("minima on the grid" + (f", the {MOST} most persistent of {len(rise)}" if len(rise) > MOST else ""))
    ax.yaxis.set_major_locator(MaxNLocator(6))
    ax.margins(y=0.08)
    note_above(ax, "; ".join(describe_minima(surface)) + "\nthick: beyond the error; bars: 95 % of the persistence")


def _side_by_side(kept: np.ndarray, parent: np.ndarray, saddle: np.ndarray) -> dict[int, int]:
    """The columns of the minima: each has its children beside it, the first to be merged nearest."""
    children: dict[int, list[int]] = {}
    for m in kept:
        children.setdefault(int(parent[m]), []).append(int(m))
    order: list[int] = []

    def put(m: int) -> None:
        order.append(m)
        for child in sorted(children.get(m, []), key=lambda c: saddle[c]):
            put(child)

    for top in children.get(-1, []):
        put(top)
    return {m: i for i, m in enumerate(order)}
