"""Which measures of a network survive a rescaling that leaves its function as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import xarray as xr

from landscape.runtime.errors import a_few

UNCHANGED = 0.01  # the most by which a measure that survives may differ on a mini-batch: searches end by tolerances


def changes(result: xr.Dataset, measures: Iterable[str]) -> dict[tuple[str, str], tuple[float, float]]:
    """For each (measure, scale), the rescaled network's sum over mini-batches divided by the network's own, and the
    largest relative change on a mini-batch.

    Both are over the mini-batches that are done for both networks. Empty if there are none.
    """
    if result.sizes["network"] < 2:
        return {}
    both = np.flatnonzero(result["done"].all("network").values)
    if not both.size:
        return {}
    found = {}
    for scale in result["scale"].values:
        for measure in measures:
            own, other = result[measure].sel(scale=scale).isel(batch=both).transpose("network", "batch").values
            with np.errstate(divide="ignore", invalid="ignore"):
                each = np.abs(other / own - 1)
                found[measure, str(scale)] = float(other.sum() / own.sum()), float(each.max())
    return found


def survival(result: xr.Dataset, measures: Mapping[str, str]) -> list[str]:
    """One line: which measures survive, and by what factor the others change; or that no rescaling was found."""
    about = result.attrs.get("config", {}).get("rescaled", {})
    if not about:
        return []
    layers = about.get("layers", [])
    if not layers:
        return ["no rescaling that leaves its outputs the same was found, so which measures survive one is not known"]
    found = changes(result, measures)
    if not found:
        return []
    kept: dict[str, list[str]] = {}
    lost: dict[str, list[str]] = {}
    for (measure, scale), (factor, change) in found.items():
        survives = change <= UNCHANGED
        words = measures[measure] if survives else f"{measures[measure]} (x {factor:.3g})"
        (kept if survives else lost).setdefault(scale, []).append(words)
    parts = [
        f"{word} {_in_words(group, measures)}" for word, group in (("unchanged", kept), ("changed", lost)) if group
    ]
    return [
        f"under a rescaling of {len(layers)} layers ({a_few(layers, 1)}) that leaves its outputs the same: "
        + "; ".join(parts)
    ]


def _in_words(group: Mapping[str, list[str]], measures: Mapping[str, str]) -> str:
    names = {"elementwise": "elementwise", "common": "in a common scale"}
    return ", ".join(
        f"{names[scale]}: {'all' if words == list(measures.values()) else ', '.join(words)}"
        for scale, words in group.items()
    )
