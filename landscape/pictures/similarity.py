"""The similarity of all blocks as a map: blocks of alike features, with the borders of stages and networks."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landscape.pictures.canvas import new_figure, notes_above
from landscape.pictures.depth import border_stages
from landscape.pictures.look import LOOK, Look


def draw(group: xr.Dataset, name: str, prefix: str = "", *, look: Look = LOOK) -> dict[str, Figure]:
    """The picture of a `similarity` group."""
    if "cka" not in group or not group["done"].any():
        return {}
    figure, ax = new_figure(5.6, 4.9, square=True)
    cka = group["cka"].sel(bound="estimate").values
    low = min(0.0, float(np.nanmin(cka, initial=0.0)))
    drawn = ax.imshow(cka, origin="lower", cmap="cividis", vmin=low, vmax=1, interpolation="nearest")
    figure.colorbar(drawn, ax=ax, label="CKA")
    for horizontal in (True, False):
        border_stages(ax, group, horizontal=horizontal, color="white")
    networks = list(dict.fromkeys(group["network"].values.tolist()))
    at = [np.flatnonzero(group["network"].values == network) for network in networks]
    if len(networks) > 1:
        for border in [here[0] - 0.5 for here in at[1:]]:
            ax.axhline(border, color="black", lw=1.6)
            ax.axvline(border, color="black", lw=1.6)
        ax.set_xticks([here.mean() for here in at], networks)
        ax.set_yticks([here.mean() for here in at], networks, rotation=90, va="center")
        ax.tick_params(length=0)
    else:
        ax.set(xlabel="block, from the input on", ylabel="block")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(10, integer=True))
    averaged = group.attrs.get("config", {}).get("definition") == "park-kim"
    images = int(np.repeat(group["done"].values, group.sizes["image"])[: group.sizes["other"]].sum())
    how = f"averaged over {int(group['done'].sum())} mini-batches" if averaged else f"of {images} images"
    notes_above(ax, f"{prefix}similarity of blocks", [f"unbiased linear CKA {how}; lines between stages"])
    return {name: figure}
