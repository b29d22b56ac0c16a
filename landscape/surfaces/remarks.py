"""A surface in words: its centre, its lowest point, what diverged or was filled in, and its measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from landscape.objective.penalised import formula, in_heights, loss_label
from landscape.surfaces.measures import BOUNDS, QUANTITIES, measure, rounding


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


def describe_measures(surface: xr.Dataset) -> list[str]:
    """The measures of a surface in words, one a line, without those that are not known.

    Stored measures that do not say which loss they are of, or that have no bounds, are from an earlier version. They
    are measured again, of the NLL unless they name another loss.
    """
    if "measure" not in surface:
        return []
    held = surface["measure"]
    if ("of" not in held.attrs or "low" not in held["bound"]) and "nll" in surface:
        held = measure(surface, radius=held.attrs.get("radius", 0.5), quantity=held.attrs.get("of", "nll"))["measure"]
    radius = held.attrs.get("radius")
    table = held.transpose("quantity", "bound").to_pandas().reindex(index=QUANTITIES, columns=BOUNDS)
    found = {str(quantity): _Measure(*map(float, row)) for quantity, row in zip(table.index, table.values, strict=True)}
    within = f" (within {radius:g})" if radius is not None else ""
    left_out = found["undefined_curvature"].estimate
    lines = [
        found["sharpness"].words(f"in-plane sharpness{within} "),
        found["positive_curvature"].words(
            "positive curvature on ", " of the area" + (f" ({left_out:.1%} left out)" if left_out > 0 else "")
        ),
        found["negative_curvature"].words("negative share of the curvature "),
        *_width_in_words(surface, found),
        _barrier_in_words(found["barrier"]),
    ]
    lines = [line for line in lines if line]
    return (
        _curvatures_in_words(surface)
        + lines
        + ([f"these of {loss_label(surface)}"] if lines and held.attrs.get("of") == "loss" else [])
    )


def _width_in_words(surface: xr.Dataset, found: Mapping[str, _Measure]) -> list[str]:
    ended = found["width_censored"].estimate
    spread = found["width_spread"].estimate
    about = []
    if "width_ray" in surface and np.isnan(found["width"].low):
        evaluations = int(surface["width_ray_evaluations"].sum())
        about.append(f"{surface.sizes['ray']} rays, {evaluations} evaluations, standard deviation {spread:.2g}")
    if ended > 0:
        about.append(f"{ended:.0%} of rays end before")
    after = f" ({'; '.join(about)})" if about else ""
    line = found["width"].words("width >= " if ended > 0 else "width ", after)
    return [line, "width beyond the range" if ended == 1 else ""]


def _curvatures_in_words(surface: xr.Dataset) -> list[str]:
    """Along eigenvectors, v^T H v over the surface's examples and the eigenvalue, which may be of other examples."""
    if "direction_curvature" not in surface:
        return []
    rows = zip(
        "xy",
        *(surface[f"direction_{name}"].values for name in ("curvature", "curvature_sem", "eigenvalue")),
        strict=False,
    )
    return [f"v^T H v along {axis} {_with_error(own, sem)} (eigenvalue {of:.3g})" for axis, own, sem, of in rows]


def _barrier_in_words(barrier: _Measure) -> str:
    if barrier.estimate == 0:
        return "no barrier: nowhere above the straight line between the two losses"
    return barrier.words("barrier ")


@dataclass(frozen=True)
class _Measure:
    estimate: float
    sem: float
    low: float
    high: float

    def words(self, before: str, after: str = "") -> str:
        """The measure in words; nothing if neither its value nor its bounds are known."""
        least = 0.01 * max(abs(self.low), abs(self.high))
        if np.isnan(self.estimate):
            known = self.low < self.high
            return f"{before}between {self.low:.3g} and {self.high:.3g}: the grid is too coarse{after}" * known
        spacing = self.high - self.low > least
        between = f" [{self.low:.3g} to {self.high:.3g} by the grid's spacing]" if spacing else ""
        return before + _with_error(self.estimate, self.sem) + between + after


def _with_error(estimate: float, sem: float) -> str:
    known = np.isfinite(sem) and sem > rounding(estimate)
    return f"{estimate:.3g}" + (f" +- {sem:.2g}" if known else "")
