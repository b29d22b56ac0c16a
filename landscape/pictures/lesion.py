"""What a network loses without each of its blocks, from the first to the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.analyses.paired import images
from landscape.pictures.canvas import COLORS, MARKERS, caution_over, fitted, head, own_title
from landscape.pictures.depth import TYPES
from landscape.runtime.errors import UserError
from landscape.store.comparable import caution, differences


def plot_lesion(lesion: xr.Dataset, accuracy: Axes, nll: Axes) -> None:
    """The change of accuracy in points and of the NLL, with intervals over images, for the blocks in order; dotted
    between stages. Colour and marker tell the type of a block.
    """
    _plot_change(100 * lesion["accuracy_change"], accuracy)
    _plot_change(lesion["nll_change"], nll)
    accuracy.set_ylabel("change of accuracy\n(points)")
    nll.set_ylabel("change of NLL")
    _name_blocks(lesion, nll)


def _plot_change(change: xr.DataArray, ax: Axes) -> None:
    """Draw a change (block, bound)."""
    types, at = change["block_type"].values, np.arange(change.sizes["block"])
    estimate, low, high = change.values.T
    bars = np.maximum([estimate - low, high - estimate], 0)
    for kind, i in TYPES.items():
        if (here := types == kind).any():
            ax.errorbar(at[here], estimate[here], yerr=bars[:, here], fmt=MARKERS[i], color=COLORS[i], markersize=4.5,
                        capsize=2, lw=1.2, label=kind)  # fmt: skip
    ax.axhline(0, color="0.3", lw=0.8)
    for border in np.flatnonzero(np.diff(change["stage"].values)):
        ax.axvline(border + 0.5, color="0.6", lw=0.8, ls=":")
    ax.set_xlim(-0.6, len(at) - 0.4)


def _name_blocks(lesion: xr.Dataset, ax: Axes) -> None:
    names = [str(name) for name in lesion["block"].values]
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize="small" if len(names) <= 16 else "xx-small")
    ax.set_xlabel("block that is removed")


def plot(group: xr.Dataset, ax: Axes, *, title: str | None = None) -> Axes:
    """The change of the accuracy on axes, or of the NLL if the task has no accuracy.

    Raises UserError for a group in which nothing is done.
    """
    if "nll_change" not in group:
        raise UserError("no block of this lesion is done; continue it, and draw it then")
    of_accuracy = bool(np.isfinite(group["accuracy_change"]).any())
    _plot_change(100 * group["accuracy_change"] if of_accuracy else group["nll_change"], ax)
    ax.set_ylabel("change of accuracy (points)" if of_accuracy else "change of NLL")
    _name_blocks(group, ax)
    ax.legend(frameon=False, fontsize="small")
    head(ax, own_title(title, "without one block"), [f"{images(group)} images"])
    return ax


def _figure(lesions: Mapping[str, xr.Dataset], title: str) -> Figure:
    widest = max(lesion.sizes["block"] for lesion in lesions.values())
    width = min(max(4.6, 0.24 * widest + 1.6), 9.0)
    figure = Figure(figsize=fitted(width * len(lesions), 4.8), layout="constrained")
    axes = figure.subplots(2, len(lesions), sharex="col", sharey="row", squeeze=False)
    handles: dict[str, Any] = {}
    for (name, lesion), column in zip(lesions.items(), axes.T, strict=True):
        plot_lesion(lesion, *column)
        head(column[0], f"{title or f'{name}: '}without one block", [f"{images(lesion)} images"])
        found, labels = column[0].get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    if len(handles) > 1:
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", frameon=False,
                      fontsize="small", ncols=4)  # fmt: skip
    return figure


def draw(group: xr.Dataset, name: str, prefix: str = "") -> dict[str, Figure]:
    """The picture of a `lesion` group."""
    return {name: _figure({name: group}, prefix)} if "nll_change" in group else {}


def compare(groups: Mapping[str, xr.Dataset], name: str) -> dict[str, Figure]:
    """Several networks side by side, on the same scales."""
    finished = {label: group for label, group in groups.items() if "nll_change" in group}
    if len(finished) < 2:
        return {}
    figure = _figure(finished, "")
    caution_over(figure, caution(differences(finished)))
    return {name: figure}
