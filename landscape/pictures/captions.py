"""What is written on the pictures of a surface: its axes, what is drawn, and how the surface was computed."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

import numpy as np
import xarray as xr

from landscape.objective.penalised import formula, in_heights
from landscape.pictures.scales import Scale

LINES = 2  # of a caption


def axis_label(surface: xr.Dataset, axis: int, *, short: bool = False, fits: float = np.inf) -> str:
    """What an axis of a surface is, according to its plane; the short form on request, or where the long one has
    more characters than `fits`.
    """
    text = _axis_label(surface, axis, short)
    return text if short or len(text) <= fits else _axis_label(surface, axis, True)


def _axis_label(surface: xr.Dataset, axis: int, short: bool) -> str:
    plane = surface.attrs.get("config", {}).get("plane", {})
    directions = plane.get("directions")
    letter = "ab"[axis]
    names = [str(name) for name in plane.get("checkpoints", []) if isinstance(name, (str, int))]
    if directions == "random":
        text = f"random direction {axis + 1}"
    elif directions == "eigenvectors":
        values = plane.get("eigenvalues", [])
        value = f": {_end(values, axis)} eigenvalue {values[axis]:.3g}" if len(values) > axis else ""
        text = f"Hessian eigenvector {axis + 1}{value}"
    elif directions == "pca":
        text = f"principal component {axis + 1}"
        if "explained" in surface and surface.sizes["axis"] > axis:
            share = float(surface["explained"].isel(axis=axis))
            text = f"PC {axis + 1} ({share:.0%})" if short else f"{text} ({share:.1%} of variance)"
    elif directions == "interpolation":
        text = f"from {names[0]} (0) to {names[1]} (1)" if len(names) == 2 else "from the first (0) to the second (1)"
    elif directions == "checkpoints":
        text = f"towards {names[axis + 1]}" if len(names) > axis + 1 else f"towards checkpoint {axis + 2}"
    else:
        text = f"{letter} (along $d_{axis + 1}$)"
    if short and directions in ("random", "eigenvectors"):
        text = text.replace("Hessian eigenvector", "eigenvector").replace(" eigenvalue", "")
    return text


def _end(values: Sequence[float], axis: int) -> str:
    """The end of the spectrum that an eigenvalue of a plane is from, by its place among those of the plane."""
    return "largest" if values[axis] == max(values) else "smallest" if values[axis] == min(values) else "next"


def quantity_label(surface: xr.Dataset, quantity: str) -> str:
    """The name of what is drawn: the NLL, or the task's loss in its place, with the penalty if there is one.

    For accuracy and other quantities it is the name that the group gives.
    """
    loss = surface.attrs.get("config", {}).get("objective", {}).get("loss", "cross_entropy")
    own = "NLL" if loss == "cross_entropy" else f"loss ({loss})"
    if quantity == "nll":
        return own
    if quantity == "loss":
        penalty = formula(surface.attrs.get("config", {}))
        if penalty:
            return f"{own} + {penalty}"
        stated = surface.attrs.get("config", {}).get("objective", {}).get("weight_decay") == 0
        return own if stated or _nothing(surface) else f"{own} + penalty"
    return str(surface[quantity].attrs.get("long_name", quantity))


def _nothing(surface: xr.Dataset) -> bool:
    """Whether the penalty is 0 everywhere, or there is none."""
    return "penalty" not in surface or not (surface["penalty"].fillna(0) != 0).any()


def error_at_lowest(surface: xr.Dataset, quantity: str) -> float:
    """The standard error of the quantity at its lowest point, 0 if it is not known; the penalty has none."""
    name = "nll_sem" if quantity in ("nll", "loss") else f"{quantity}_sem"
    z = surface[quantity].values
    if name not in surface or not np.isfinite(z).any():
        return 0.0
    error = float(
        surface[name]
        .transpose(*surface[quantity].dims)
        .values.flat[int(np.nanargmin(np.where(np.isfinite(z), z, np.nan)))]
    )
    return error if np.isfinite(error) else 0.0


def penalty_note(surface: xr.Dataset, quantity: str, scale: Scale | None, above: float = 0.0) -> list[str]:
    """For the loss, how much of the heights that are shown is the penalty."""
    if quantity != "loss" or scale is None:
        return []
    note = in_heights(surface, scale.ceiling + above if scale.cut else np.inf)
    apart = note and "measure" in surface and surface["measure"].attrs.get("of") != "loss"
    return [f"{note}; measures are of the NLL" if apart else note] if note else []


def of_the_loss(surface: xr.Dataset) -> str:
    """A quantity of the loss, with the penalty included if there is one."""
    penalty = formula(surface.attrs.get("config", {}))
    return f", with the penalty {penalty}" if penalty else ""


def settings_line(surface: xr.Dataset) -> str:
    """What a surface was computed with, in one line: normalisation, examples, and how much of it is done."""
    done = surface["done"].values
    config = surface.attrs.get("config", {})
    normalize = config.get("plane", {}).get("normalize")
    n = config.get("objective", {}).get("examples")
    parts = [f"{normalize}-normalised" if normalize else "", f"{n} examples" if n else ""]
    if "source" in config:
        file = str(config["source"]["file"])
        parts.append(f"from {file if len(file) <= 40 else file[:18] + '...' + file[-18:]}")
    if not done.all():
        parts.append(f"{done.sum()} of {done.size} points so far")
    return ", ".join(p for p in parts if p)


def caption(phrases: Sequence[str], width: int) -> tuple[list[str], str]:
    """Two lines of at most `width` with the phrases that fit, the first ones first; and all of them as one text."""
    said = list(filter(None, phrases))
    lines: list[str] = []
    for phrase in said:
        if lines and len(lines[-1]) + len(phrase) + 2 <= width:
            lines[-1] += f"; {phrase}"
        elif len(lines) < LINES and len(phrase) <= width:
            lines.append(phrase)
    return lines, "; ".join(said)


def packed(phrases: Sequence[str], width: int) -> list[str]:
    """Phrases in lines of at most `width`, as many to a line as fit; the rest of a longer phrase is indented."""
    lines: list[str] = []
    for phrase in filter(None, phrases):
        if lines and len(lines[-1]) + len(phrase) + 2 <= width:
            lines[-1] += f"; {phrase}"
        else:
            lines += wrap(phrase, width, subsequent_indent="    ")
    return lines
