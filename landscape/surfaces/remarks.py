"""A surface in words: its centre, its lowest point, what diverged or was filled in, and its measures."""

from __future__ import annotations

import numpy as np
import xarray as xr

from landscape.objective.penalised import formula, in_heights, loss_label
from landscape.surfaces.measures import describe_measures


def remarks(surface: xr.Dataset) -> list[str]:
    """What a reader of a `surface` group must know, as a list of phrases."""
    config = surface.attrs.get("config", {})
    said = []
    if {"nll", "loss", "done"} <= set(surface.data_vars):
        finite = surface["nll"].values[np.isfinite(surface["nll"].values)]
        lowest = f"NLL {finite.min():.4g} at the lowest, " if finite.size else ""
        diverged = int((surface["done"] & ~np.isfinite(surface["nll"])).sum())
        share = in_heights(surface)
        said += [
            _centre(surface),
            f"{lowest}{diverged} points diverged",
            f"loss = {loss_label(surface)}, {share}" if share else "",
        ]
        if {"gradient_norm", "eigenvalue_high"} & set(surface.data_vars) and formula(config):
            said.append(f"gradient and eigenvalues with the penalty {formula(config)}")
    if "interpolated" in surface and surface["interpolated"].any():
        filled = surface["interpolated"].values.astype(bool)
        error = surface["nll_error"].values[filled] if "nll_error" in surface else np.zeros(0)
        error = error[np.isfinite(error)]
        upto = f", nll_error up to {error.max():.2g}" if error.size else ""
        held = f" to the larger of {config['adaptive']:g} and nll_sem" if config.get("adaptive") else ""
        said.append(f"{filled.sum()} points interpolated{held}{upto}")
    said += describe_measures(surface)
    if "source" in config:
        source = config["source"]
        said.append(f"imported from {source['file']}, {source['format']}, sha256 {source['sha256']}")
    return [phrase for phrase in said if phrase]


def _centre(surface: xr.Dataset) -> str:
    """The NLL at the network itself, and the largest standard error within a quarter of the range around it."""
    axes = [axis for axis in ("x", "y") if axis in surface.dims]
    if "nll_sem" not in surface or any(0 not in surface[axis] for axis in axes):
        return ""
    here = surface.sel(dict.fromkeys(axes, 0.0))
    if not bool(here.get("done", True)):
        return "the centre is not computed yet"
    near = surface["nll_sem"]
    for axis in axes:
        near = near.where(abs(near[axis]) <= abs(surface[axis]).max() / 4)
    largest, sem = float(near.max()), float(here["nll_sem"])
    error = f" +- {sem:.2g}" if np.isfinite(sem) else ""
    near_it = f", errors up to {largest:.2g} near it" if np.isfinite(largest) else ""
    return f"NLL {float(here['nll']):.4g}{error} at the centre{near_it}"
