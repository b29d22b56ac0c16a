"""The loss along paths between two networks."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.objective.clusters import standard_error
from landscape.pictures.canvas import MARKERS, new_figure, note_above, style


def plot_paths(connectivity: xr.Dataset, ax: Axes, *, title: str | None = None) -> None:
    """The NLL of a `connectivity` group along each path, with one standard error over folds of the examples; the
    straight line between the ends' own is thin. Diverged points are on the upper edge.
    """
    t = connectivity["t"].values
    for i, path in enumerate(connectivity["path"].values):
        one = connectivity.sel(path=path)
        z, finite = one["nll"].values, np.isfinite(one["nll"].values)
        if not one["done"].values.any():
            continue
        look = style(i)
        shown = np.where(finite, z, np.nan)
        ax.plot(t, shown, **look, lw=1.6, marker=MARKERS[i], markersize=3.5, label=str(path))
        error = standard_error(one["nll_fold"].transpose("fold", "t").values)
        ax.fill_between(t, shown - error, shown + error, color=look["color"], alpha=0.2, linewidth=0)
        gone = one["done"].values & ~finite
        ax.plot(t[gone], np.ones(gone.sum()), "x", color=look["color"], transform=ax.get_xaxis_transform(),
                clip_on=False)  # fmt: skip
    ends = connectivity["nll"].sel(path="straight").values[[0, -1]]
    ax.plot([0, 1], ends, color="0.5", lw=0.8, zorder=0)
    names = connectivity.attrs.get("config", {}).get("other", {}).get("networks", ["the first", "the second"])
    ax.set(xlabel=f"t: from {names[0]} (0) to {names[1]} (1)", ylabel="negative log-likelihood",
           title=title or "Paths between two networks")  # fmt: skip
    ax.legend(frameon=False, fontsize="small", loc="best")
    note_above(ax, _note(connectivity))


def _note(connectivity: xr.Dataset) -> str:
    if "barrier" not in connectivity:
        return ""
    said = []
    for path in connectivity["path"].values:
        value, _, low, high = connectivity["barrier"].sel(path=path).values
        if np.isfinite(value):
            said.append(f"{path} {value:.3g}" + (f" [{low:.3g}, {high:.3g}]" if high > 0 else ""))
    return f"barriers: {', '.join(said)}" if said else ""


def draw(group: xr.Dataset, name: str, prefix: str = "", *, quantity: str = "nll") -> dict[str, Figure]:
    """The picture of a `connectivity` group."""
    figure, ax = new_figure(6.4, 4.2)
    plot_paths(group, ax, title=f"{prefix}paths between two networks\n")
    return {name: figure}
