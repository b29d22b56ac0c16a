"""What a network loses without each of its blocks, from the first to the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.pictures.canvas import COLORS, MARKERS, caution_over, note_above
from landscape.store.comparable import caution, differences

TYPES = ("convolution", "attention", "mlp", "pool", "module")


def plot_lesion(lesion: xr.Dataset, accuracy: Axes, nll: Axes) -> None:
    """The change of accuracy in points, and of the NLL, with intervals over images, by block in order; dotted between
    stages. The types of blocks are told by colour and marker.
    """
    types, stage = lesion["block_type"].values, lesion["stage"].values
    at = np.arange(lesion.sizes["block"])
    known = [name for name in TYPES if name in types]
    for ax, name, scale in ((accuracy, "accuracy_change", 100), (nll, "nll_change", 1)):
        estimate, low, high = (scale * lesion[name]).values.T
        bars = np.maximum([estimate - low, high - estimate], 0)
        for kind in known:
            here, look = types == kind, TYPES.index(kind)
            ax.errorbar(at[here], estimate[here], yerr=bars[:, here], fmt=MARKERS[look], color=COLORS[look],
                        markersize=4.5, capsize=2, lw=1.2, label=kind)  # fmt: skip
        ax.axhline(0, color="0.3", lw=0.8)
        for border in np.flatnonzero(np.diff(stage)):
            ax.axvline(border + 0.5, color="0.6", lw=0.8, ls=":")
        ax.set_xlim(-0.6, len(at) - 0.4)
    accuracy.set_ylabel("change of accuracy\n(points)")
    nll.set_ylabel("change of NLL")
    if (np.nan_to_num(lesion["nll_change"].values) > 0).all() and np.nanmax(lesion["nll_change"]) > 30 * np.nanmin(
        lesion["nll_change"].sel(bound="estimate")
    ):
        nll.set_yscale("log")
    names = [str(name).removesuffix(".attn").removesuffix(".mlp") for name in lesion["block"].values]
    nll.set_xticks(at, names, rotation=90, fontsize="small" if len(at) <= 16 else "xx-small")
    nll.set_xlabel("block that is removed")


def _figure(lesions: Mapping[str, xr.Dataset], title: str) -> Figure:
    widest = max(lesion.sizes["block"] for lesion in lesions.values())
    width = min(max(4.6, 0.24 * widest + 1.6), 9.0)
    figure = Figure(figsize=(width * len(lesions), 4.8), dpi=150, layout="constrained")
    axes = figure.subplots(2, len(lesions), sharex="col", sharey="row", squeeze=False)
    handles: dict[str, Any] = {}
    for (name, lesion), column in zip(lesions.items(), axes.T, strict=True):
        plot_lesion(lesion, *column)
        column[0].set_title(f"{title or f'{name}: '}without one block\n")
        note_above(column[0], f"{lesion.sizes['example']} images")
        found, labels = column[0].get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    if len(handles) > 1:
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", frameon=False,
                      fontsize="small", ncols=4)  # fmt: skip
    return figure


def draw(group: xr.Dataset, name: str, prefix: str = "", *, quantity: str = "nll") -> dict[str, Figure]:
    """The picture of a `lesion` group."""
    return {name: _figure({name: group}, prefix)} if "nll_change" in group else {}


def compare(groups: Mapping[str, xr.Dataset], name: str, *, quantity: str = "nll") -> dict[str, Figure]:
    """Several networks side by side, on the same scales."""
    finished = {label: group for label, group in groups.items() if "nll_change" in group}
    if len(finished) < 2:
        return {}
    figure = _figure(finished, "")
    caution_over(figure, caution(differences(finished)))
    return {name: figure}
