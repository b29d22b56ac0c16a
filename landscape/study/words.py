"""Results in words: a line on a group, a row of a table on a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from landscape import store
from landscape.analyses.summaries import statistics_of
from landscape.checkpoints.describe import describe_checkpoint
from landscape.checkpoints.read import is_checkpoint
from landscape.objective.clusters import LEAST_UNITS, standard_error
from landscape.objective.penalty import formula, in_heights, in_trace, loss_label
from landscape.pictures.canvas import with_sources
from landscape.surfaces.measures import describe_measures

HEADINGS = ("network", "parameters", "test accuracy", "training NLL", "largest", "smallest", "NEP", "APE")


def table(files: Mapping[str, Mapping[str, xr.Dataset]]) -> str:
    """One row a results file: parameters, test accuracy, NLL of the mini-batches, median largest and smallest
    eigenvalue per batch, NEP, APE; and one a checkpoint of a series.

    Accuracy with its standard error over examples, the NLL over mini-batches, the others with their intervals over
    mini-batches, as `summarize` gives them; "-" where a file does not have it, and no error below LEAST_UNITS
    mini-batches. A star marks statistics of eigenvalues not all of which have converged; lines below say so.
    """
    notes: dict[str, None] = {}
    rows = [HEADINGS, *(row for name, groups in files.items() for row in _rows(name, groups, notes))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *notes])


def _rows(name: str, groups: Mapping[str, xr.Dataset], notes: dict[str, None]) -> Iterator[tuple[str, ...]]:
    parameters = next((p for g in groups.values() if (p := _provenance(g).get("parameters"))), None)
    size = f"{parameters:,}" if parameters else "-"
    series = groups.get("series", xr.Dataset())
    if "test" in groups or "spectrum" in groups or "summary" not in series:
        accuracy = percent(groups["test"]) if "test" in groups else "-"
        yield name, size, accuracy, *_statistics(name, groups.get("spectrum", xr.Dataset()), notes)
    if "summary" in series:
        for label in series["checkpoint"].values:
            row = f"{name}: {label}"
            yield row, size, "-", *_statistics(row, series.sel(checkpoint=label), notes)


def _statistics(name: str, spectrum: xr.Dataset, notes: dict[str, None]) -> Iterator[str]:
    if "nll" in spectrum:
        nll = spectrum["nll"].values[spectrum["done"].values]
        error = f" +- {standard_error(nll):.2g}" if len(nll) >= LEAST_UNITS else ""
        yield f"{nll.mean():.3g}{error}" if len(nll) else "-"
    else:
        yield "-"
    statistics = statistics_of(spectrum)
    if statistics is None:
        yield from ["-"] * 4
        return
    star = "*" if statistics["unconverged"] > 0 else ""
    if star:
        share = f"{float(statistics['unconverged']):.1%}"
        notes[
            f"* {name}: {share} of these eigenvalues have not converged, and the intervals do not know their error"
        ] = None
    if statistics["summarized"] < LEAST_UNITS:
        notes[f"no interval and no standard error is given for fewer than {LEAST_UNITS} mini-batches"] = None
    for statistic, form in (("largest", ".3g"), ("smallest", ".3g"), ("nep", ".1%"), ("ape", ".3g")):
        estimate, low, high = statistics["summary"].sel(statistic=statistic).values
        interval = f" [{low:{form}}, {high:{form}}]" if np.isfinite(low) else ""
        yield f"{estimate:{form}}{star}{interval}" if np.isfinite(estimate) else "-"


def percent(test: xr.Dataset) -> str:
    """Accuracy in per cent with its standard error, where that is known; "-" of what has no accuracy."""
    accuracy, sem = 100 * float(test["accuracy"]), 100 * float(test["accuracy_sem"])
    error = f" +- {sem:.2f}" if sem > 0 else ""  # all right or all wrong say nothing of the spread
    return f"{accuracy:.2f}{error} %" if np.isfinite(accuracy) else "-"


def _provenance(group: xr.Dataset) -> dict[str, Any]:
    return group.attrs.get("config", {}).get("objective", {}).get("provenance", {})


def _centre(surface: xr.Dataset) -> str:
    """The NLL where the network itself stands, and the largest standard error within a quarter of the range of it."""
    axes = [axis for axis in ("x", "y") if axis in surface.dims]
    if "nll_sem" not in surface or any(0 not in surface[axis] for axis in axes):
        return ""
    here = surface.sel(dict.fromkeys(axes, 0.0))
    near = surface["nll_sem"]
    for axis in axes:
        near = near.where(abs(near[axis]) <= abs(surface[axis]).max() / 4)
    largest = float(near.max())
    sem = float(here["nll_sem"])
    error = f" +- {sem:.2g}" if np.isfinite(sem) else ""
    near_it = f", errors up to {largest:.2g} near it" if np.isfinite(largest) else ""
    return f"NLL {float(here['nll']):.4g}{error} at the centre{near_it}"


def describe(name: str, group: xr.Dataset) -> str:
    """One line on a group: what it is, how much of it is done, its settings, and what did not converge or diverged."""
    config = group.attrs.get("config", {})
    plain = {k: v for k, v in config.items() if not isinstance(v, dict) and k != "analysis" and v is not None}
    parts = [", ".join(f"{k}={v}" for k, v in plain.items())]
    if "done" in group:
        done = group["done"].values
        parts.append(f"{done.sum()} of {done.size} done")
    if "converged" in group:
        pairs = group["converged"].values[np.isfinite(group["eigenvalue"].values)]
        marked = ", and every statistic of them is marked *" if "summary" in group and not pairs.all() else ""
        parts.append(f"{(~pairs).sum()} of {pairs.size} eigenvalues not converged{marked}")
        if "complete" in group and config.get("method") != "pyhessian":
            unsure = int((group["done"] & ~group["complete"]).sum())
            parts.append(f"{unsure} searches stopped before nothing could be missing" if unsure else "")
        parts.append(f"{int(group['products'].sum())} Hessian products")
    if "nll" in group and "loss" in group and "done" in group:
        parts.append(_centre(group))
        diverged = int((group["done"] & ~np.isfinite(group["nll"])).sum())
        finite = group["nll"].values[np.isfinite(group["nll"].values)]
        lowest = f"NLL {finite.min():.4g} at the lowest, " if finite.size else ""
        parts.append(f"{lowest}{diverged} points diverged")
        share = in_heights(group)
        parts.append(f"loss = {loss_label(group)}, {share}" if share else "")
        if {"gradient_norm", "eigenvalue_high"} & set(group.data_vars) and formula(config):
            parts.append(f"gradient and eigenvalues with the penalty {formula(config)}")
    elif {"penalty", "accuracy"}.isdisjoint(group.data_vars):  # of curvature, and not of a surface or a test
        parts.append(in_trace(group))
    if "interpolated" in group:
        filled = group["interpolated"].values.astype(bool)
        error = group["nll_error"].values[filled] if "nll_error" in group else np.zeros(0)
        error = error[np.isfinite(error)]
        upto = f", nll_error up to {error.max():.2g}" if error.size else ""
        held = f" to the larger of {config['adaptive']:g} and nll_sem" if config.get("adaptive") else ""
        parts.append(f"{filled.sum()} points interpolated{held}{upto}" if filled.any() else "")
    parts += describe_measures(group)
    if "source" in config:
        source = config["source"]
        parts.append(f"imported from {source['file']}, {source['format']}, sha256 {source['sha256']}")
    if "trace" in group:
        parts.append(f"trace {with_sources(group, 'trace')}")
        parts.append(f"squared Frobenius norm {with_sources(group, 'frobenius_squared')}")
    if name == "test":
        parts.append(f"accuracy {percent(group)} of {int(group['examples'])}")
    return f"{name}: " + "; ".join(p for p in parts if p)


def describe_file(path: Path) -> str:
    """What a checkpoint or a results file holds, and where it came from."""
    if is_checkpoint(path):
        return describe_checkpoint(path)
    groups = store.load(path)
    origins = [p for g in groups.values() if (p := _provenance(g))]
    lines = [f"{path}: results of {origins[0]['model']}, {origins[0]['file']}" if origins else f"{path}: results"]
    if origins:
        lines.append(f"checkpoint sha256 {origins[0]['sha256']}")
    lines += [describe(name, group) for name, group in groups.items()]
    software: dict[str, str] = next((g.attrs["software"] for g in groups.values() if "software" in g.attrs), {})
    lines.append("made with " + ", ".join(f"{name} {version}" for name, version in software.items()))
    return "\n".join([*lines, table({path.stem: groups})])
