"""The figures of a page for groups of results files, in the form of plotly.js: plain dicts, with float32 in base64."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import xarray as xr

from landscape.analyses.summaries import statistics_of
from landscape.objective.penalised import in_heights
from landscape.pictures.axes import squeeze, symlog_ticks
from landscape.pictures.canvas import OKABE_ITO
from landscape.pictures.captions import axis_label, quantity_label
from landscape.pictures.density import density_steps
from landscape.pictures.scales import common_scale, has_walls, values_of

Groups = Mapping[str, xr.Dataset]
DASHES = ("solid", "dash", "dashdot", "dot", "longdash", "longdashdot")
MARKS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")
INTERNAL = {"fold", "ray", "bound", "statistic", "axis", "weight", "node"}  # dimensions that are not drawn
MOST = 200_000  # the most numbers of one variable that a page shows


@dataclass(frozen=True)
class Figure:
    """A figure of a page.

    Attributes
    ----------
    title, alt
        What it is, and what is seen in it, in words for those who cannot see it.
    data, layout
        What plotly.js takes.
    kind
        relief, plane, chart or effects, which decides how it is turned and how high it is.
    link
        Figures with the same link turn and zoom together.
    """

    title: str
    alt: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    kind: str = "chart"
    link: str = ""


def packed(values: Any) -> dict[str, Any]:
    """An array as float32 in base64; values that are not finite become gaps."""
    array = np.ascontiguousarray(np.where(np.isfinite(values), values, np.nan), "<f4")
    found: dict[str, Any] = {"dtype": "f4", "bdata": base64.b64encode(array.tobytes()).decode()}
    return found if array.ndim == 1 else {**found, "shape": ", ".join(map(str, array.shape))}


def look(i: int) -> dict[str, Any]:
    """How the i-th network is drawn."""
    color = OKABE_ITO[i % len(OKABE_ITO)] if i % len(OKABE_ITO) != 6 else "#888888"  # black is unseen on black
    return {
        "line": {"color": color, "dash": DASHES[i % len(DASHES)], "width": 2},
        "marker": {"color": color, "symbol": MARKS[i % len(MARKS)], "size": 7},
    }


def surfaces(groups: Groups, name: str, quantity: str = "nll") -> list[Figure]:
    """Reliefs and contours of surfaces, each above its own lowest value and all on one scale; a curve for each line."""
    groups = {label: group for label, group in groups.items() if quantity in group}
    flat = {label: group for label, group in groups.items() if "y" in group.dims}
    lines = {label: group for label, group in groups.items() if "y" not in group.dims}
    found = _curves(lines, quantity) if lines else []
    values = {label: values_of(group, quantity) for label, group in flat.items()}
    lowest = {label: float(np.nanmin(z)) if np.isfinite(z).any() else 0.0 for label, z in values.items()}
    base = lowest if has_walls(quantity) else dict.fromkeys(lowest, 0.0)
    scale = common_scale([values[label] - base[label] for label in values], walls=has_walls(quantity))
    if scale is None:
        return found
    low, high = float(scale.levels[0]), scale.ceiling
    reliefs, planes = [], []
    for label, group in flat.items():
        z = values[label] - base[label]
        what = quantity_label(group, quantity)
        above = f"{what}, above the lowest, {lowest[label]:.4g}" if has_walls(quantity) else what
        share = in_heights(group) if quantity == "loss" else ""
        bad = int((group["done"].values & ~np.isfinite(group[quantity].values)).sum())
        words = [
            f"{above}, over {group.sizes['x']} by {group.sizes['y']} points",
            f"cut at {high:.4g}" if scale.cut else "",
            share,
            f"{bad} points diverged" if bad else "",
        ]
        alt = f"{label}: {'; '.join(filter(None, words))}."
        names = [escape(axis_label(group, axis, short=True)) for axis in (0, 1)]
        hover = f"{names[0]} %{{x:.3g}}<br>{names[1]} %{{y:.3g}}<br>height %{{z:.4g}}<extra></extra>"
        heights: dict[str, Any] = {"x": packed(group["x"].values), "y": packed(group["y"].values), "z": packed(z)}
        heights |= {"name": escape(label), "colorscale": "Viridis", "hovertemplate": hover}
        scene = {
            "xaxis": {"title": {"text": names[0]}},
            "yaxis": {"title": {"text": names[1]}},
            "zaxis": {"title": {"text": ""}, "range": [low, high], "nticks": 5},
            "aspectratio": {"x": 1, "y": 1, "z": 0.7},
            "camera": {"eye": {"x": -1.3, "y": -2.05, "z": 1.15}, "center": {"x": 0, "y": 0, "z": -0.12}},
        }
        relief = {**heights, "type": "surface", "cmin": low, "cmax": high, "showscale": False,
                  "lighting": {"ambient": 0.75, "diffuse": 0.5, "specular": 0.1, "roughness": 0.8},
                  "contours": {"z": {"show": True, "usecolormap": True, "width": 1}}}  # fmt: skip
        reliefs.append(Figure(f"{label}: relief", alt, [relief], {"scene": scene}, "relief", f"{name}-relief"))
        steps = {"start": low, "end": high, "size": (high - low) / 16}
        plane: list[dict[str, Any]] = [
            {**heights, "type": "contour", "zmin": low, "zmax": high, "contours": steps, "line": {"width": 0.6},
             "colorbar": {"thickness": 12, "len": 0.9}},
            {"type": "scatter", "x": [0], "y": [0], "mode": "markers", "hoverinfo": "text", "text": ["the network"],
             "marker": {"symbol": "cross-thin", "size": 12, "line": {"width": 3, "color": OKABE_ITO[1]}}},
            *_trajectory(group),
        ]  # fmt: skip
        axes: dict[str, Any] = {
            "xaxis": {"title": {"text": names[0]}, "constrain": "domain"},
            "yaxis": {"title": {"text": names[1]}, "scaleanchor": "x", "constrain": "domain"},
            "showlegend": False,
        }
        planes.append(Figure(f"{label}: contours", alt, plane, axes, "plane", f"{name}-plane"))
    return [*found, *reliefs, *planes]


def _trajectory(group: xr.Dataset) -> list[dict[str, Any]]:
    if "trajectory" not in group or not group.sizes.get("checkpoint"):
        return []
    x, y = group["trajectory"].transpose("axis", "checkpoint").values[:2]
    names = [escape(str(name)) for name in group["checkpoint"].values]
    return [{"type": "scatter", "x": packed(x), "y": packed(y), "mode": "lines+markers", "text": names,
             "hoverinfo": "text", "line": {"color": "#E8000B", "width": 2}, "marker": {"size": 5}}]  # fmt: skip


def _curves(lines: Groups, quantity: str) -> list[Figure]:
    data = []
    for i, (label, group) in enumerate(lines.items()):
        error = next((n for n in (f"{quantity}_sem", "nll_sem" if quantity == "loss" else "") if n in group), None)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": packed(group["x"].values),
                "name": escape(label),
                "y": packed(group[quantity].values),
                **_bars(group[error].values if error else None),
                **look(i),
            }
        )
    first = next(iter(lines.values()))
    axes = {"xaxis": {"title": {"text": escape(axis_label(first, 0))}},
            "yaxis": {"title": {"text": escape(quantity_label(first, quantity))}}}  # fmt: skip
    alt = f"{quantity_label(first, quantity)} along a line, of {', '.join(lines)}; bars are one standard error."
    return [Figure("Along a line", alt, data, axes)]


def _bars(high: Any, low: Any = None) -> dict[str, Any]:
    if high is None:
        return {}
    bars = {"type": "data", "array": packed(high), "thickness": 1.2, "width": 3}
    return {"error_y": bars if low is None else {**bars, "symmetric": False, "arrayminus": packed(low)}}


def _eigenvalue_axis(values: np.ndarray) -> tuple[Callable[[Any], np.ndarray], dict[str, Any]]:
    """An axis, linear around 0 and logarithmic beyond: the function that maps eigenvalues to it, and its ticks."""
    linear, ticks = symlog_ticks(values)
    text = [f"{tick:g}".replace("-", "\N{MINUS SIGN}") for tick in ticks]
    axis = {"title": {"text": "Hessian eigenvalue"}, "tickvals": squeeze(ticks, linear).tolist(), "ticktext": text}
    return lambda e: squeeze(e, linear), axis


def spectra(groups: Groups, name: str, quantity: str = "nll") -> list[Figure]:
    """Every eigenvalue as a mark, by network, below the share of eigenvalues up to each; with parts, a row for each."""
    gathered = {label: group["eigenvalue"].values.ravel() for label, group in groups.items()}
    finite = np.concatenate([e[np.isfinite(e)] for e in gathered.values()])
    if not finite.size:
        return []
    to_axis, axis = _eigenvalue_axis(finite)
    data: list[dict[str, Any]] = []
    rows: list[str] = []
    for i, (label, group) in enumerate(groups.items()):
        seen_as = look(i)
        seen = np.sort(gathered[label][np.isfinite(gathered[label])])
        if not seen.size:
            continue
        share = 100 * np.arange(1, seen.size + 1) / seen.size
        data.append({"type": "scatter", "mode": "lines", "x": packed(to_axis(np.append(seen[:1], seen))),
                     "y": packed(np.append(0, share)), "customdata": packed(np.append(seen[:1], seen)),
                     "line": {**seen_as["line"], "shape": "hv"}, "name": escape(label), "legendgroup": label_id(i),
                     "yaxis": "y2", "hovertemplate": "%{y:.1f} % up to %{customdata:.4g}"})  # fmt: skip
        marks, places = _marks(group)
        rows += [
            escape(f"{label} {place}".strip()) for place in places if escape(f"{label} {place}".strip()) not in rows
        ]
        text = [escape(f"{label}: {words}") for words in marks]
        at = [rows.index(escape(f"{label} {place}".strip())) for place in _places(group)]
        ok = np.broadcast_to(group["converged"].values, group["eigenvalue"].shape).ravel()
        shown = np.isfinite(gathered[label])
        data.append({"type": "scatter", "mode": "markers", "x": packed(to_axis(gathered[label][shown])),
                     "y": packed(np.array(at)[shown]), "text": [t for t, s in zip(text, shown, strict=True) if s],
                     "hoverinfo": "text", "name": escape(label), "legendgroup": label_id(i), "showlegend": False,
                     "marker": {"color": seen_as["marker"]["color"], "size": 11, "opacity": 0.75,
                                "symbol": ["line-ns-open" if o else "x-thin-open" for o in ok[shown]]}})  # fmt: skip
    negative = [
        f"{label}: {int((e < 0).sum())} of {int(np.isfinite(e).sum())} negative" for label, e in gathered.items()
    ]
    layout = {
        "xaxis": {**axis, "zeroline": True},
        "yaxis": {"tickvals": list(range(len(rows))), "ticktext": rows, "range": [len(rows) - 0.5, -0.5],
                  "domain": [0, 0.25 if len(rows) < 6 else 0.5], "zeroline": False},
        "yaxis2": {"title": {"text": "share of eigenvalues (%)"}, "domain": [0.3 if len(rows) < 6 else 0.55, 1],
                   "range": [0, 101]},
        "hovermode": "closest",
    }  # fmt: skip
    alt = f"The share of eigenvalues up to each, and every eigenvalue as a mark. {'; '.join(negative)}."
    return [Figure("Eigenvalues", alt, data, layout)]


def label_id(i: int) -> str:
    """The name under which all that belongs to the i-th network is shown and hidden together."""
    return f"network{i}"


def _marks(group: xr.Dataset) -> tuple[list[str], list[str]]:
    """What is said of each eigenvalue, and the row in which each stands."""
    e, residual, ok = (np.broadcast_to(group[n].values, group["eigenvalue"].shape) for n in
                       ("eigenvalue", "residual" if "residual" in group else "eigenvalue", "converged"))  # fmt: skip
    words = []
    for index, value in np.ndenumerate(e):
        where = [f"{dim} {group[dim].values[k] if dim == 'part' else k + 1}"
                 for dim, k in zip(group["eigenvalue"].dims, index, strict=True)]  # fmt: skip
        error = f", residual {residual[index]:.2g}" if "residual" in group else ""
        words.append(f"{value:.5g}{error}, {', '.join(where)}" + ("" if ok[index] else ", not converged"))
    return words, list(dict.fromkeys(_places(group)))


def _places(group: xr.Dataset) -> list[str]:
    shape = group["eigenvalue"].shape
    if "part" not in group.dims:
        return [""] * group["eigenvalue"].size
    parts = group["part"].values[np.unravel_index(np.arange(group["eigenvalue"].size), shape)[
        group["eigenvalue"].dims.index("part")]]  # fmt: skip
    return [str(part) for part in parts]


def densities(groups: Groups, name: str, quantity: str = "nll") -> list[Figure]:
    """The spectral density in steps, and every node with its weight in eigenvalues."""
    nodes = [group["node"].values for group in groups.values() if np.isfinite(group["node"].values).any()]
    if not nodes:
        return []
    to_axis, axis = _eigenvalue_axis(np.concatenate([node[np.isfinite(node)] for node in nodes]))
    data: list[dict[str, Any]] = []
    for i, (label, group) in enumerate(groups.items()):
        found = density_steps(group)
        if found is None or not len(found.edges):
            continue
        seen_as = look(i)
        x = np.repeat(found.edges, 2)[1:-1]
        data.append({"type": "scatter", "mode": "lines", "x": packed(to_axis(x)), "y": packed(np.repeat(found.mean, 2)),
                     "customdata": packed(x), "name": escape(label), "legendgroup": label_id(i),
                     "line": seen_as["line"], "hovertemplate": "density %{y:.3g} at %{customdata:.4g}"})  # fmt: skip
        known = np.isfinite(found.node)
        node, weight = found.node[known], found.weight[known] * (found.parameters or 1)
        dots = {"color": seen_as["marker"]["color"], "size": 4, "opacity": 0.6}
        data.append({"type": "scatter", "mode": "markers", "x": packed(to_axis(node)), "y": packed(weight),
                     "marker": dots, "customdata": packed(node), "yaxis": "y2", "name": escape(label),
                     "legendgroup": label_id(i), "showlegend": False,
                     "hovertemplate": "node %{customdata:.5g}, weight %{y:.3g}"})  # fmt: skip
    layout = {
        "xaxis": {**axis, "anchor": "y2"},
        "yaxis": {"type": "log", "title": {"text": "density"}, "domain": [0.52, 1], "exponentformat": "power"},
        "yaxis2": {
            "type": "log",
            "title": {"text": "weight of a node"},
            "domain": [0, 0.46],
            "exponentformat": "power",
        },
    }
    alt = f"The spectral density of {', '.join(groups)}, the mean over probes; below, each node of each probe."
    return [Figure("Spectral density", alt, data, layout)]


def series(groups: Groups, name: str, quantity: str = "nll") -> list[Figure]:
    """Largest and smallest eigenvalue and the share of negative ones over the checkpoints, with intervals."""
    data: list[dict[str, Any]] = []
    for i, (label, group) in enumerate(groups.items()):
        statistics = statistics_of(group)
        if statistics is None:
            continue
        names = [escape(str(one)) for one in group["checkpoint"].values]
        for statistic, axis, symbol in (("largest", "y", "triangle-up"), ("smallest", "y", "triangle-down"),
                                        ("nep", "y2", "circle")):  # fmt: skip
            unit = 100 if statistic == "nep" else 1
            value, low, high = unit * statistics["summary"].sel(statistic=statistic).transpose("bound", ...).values
            seen_as = look(i)
            data.append({"type": "scatter", "mode": "lines+markers", "x": names, "y": packed(value), "yaxis": axis,
                         "line": seen_as["line"], "marker": {**seen_as["marker"], "symbol": symbol},
                         **_bars(high - value, value - low), "legendgroup": label_id(i),
                         "name": escape(f"{label}: {'NEP' if statistic == 'nep' else statistic}")})  # fmt: skip
    layout = {
        "xaxis": {"type": "category", "title": {"text": "checkpoint"}},
        "yaxis": {"title": {"text": "eigenvalue"}, "domain": [0.42, 1]},
        "yaxis2": {"title": {"text": "NEP (%)"}, "domain": [0, 0.34], "rangemode": "tozero"},
    }
    alt = (
        f"Over the checkpoints of {', '.join(groups)}: medians of the largest and smallest eigenvalue of a mini-batch, "
        "and the share of negative ones, with 95 % intervals."
    )
    return [Figure("Over checkpoints", alt, data, layout)] if data else []


def generic(groups: Groups, name: str, quantity: str = "nll") -> list[Figure]:
    """Every real variable of one or two dimensions, drawn from its dimensions and attributes: lines, or colours."""
    found = []
    keys = dict.fromkeys(key for group in groups.values() for key in map(str, group.data_vars) if _shown(group, key))
    for key in keys:
        having = {label: group for label, group in groups.items() if key in group and _shown(group, key)}
        variable = next(iter(having.values()))[key]
        title = str(variable.attrs.get("long_name", key.replace("_", " ")))
        dims = [str(dim) for dim in variable.dims]
        if len(dims) == 1:
            data = [{"type": "scatter", "mode": "lines+markers", "name": escape(label), "x": _along(group, dims[0]),
                     "y": packed(_done(group, key)), **_error(group, key), **look(i)}
                    for i, (label, group) in enumerate(having.items())]  # fmt: skip
            layout: dict[str, Any] = {"xaxis": {"title": {"text": escape(dims[0])}}}
            layout["yaxis"] = {"title": {"text": escape(title)}}
            alt = f"{title} by {dims[0]}, of {', '.join(having)}."
            found.append(Figure(title, alt, data, layout))
            continue
        values = {label: _done(group, key) for label, group in having.items()}
        known = np.concatenate([z[np.isfinite(z)] for z in values.values()])
        if not known.size:
            continue
        for label, group in having.items():
            heat = {"type": "heatmap", "z": packed(values[label]), "x": _along(group, dims[1]), "colorscale": "Viridis",
                    "y": _along(group, dims[0]), "zmin": float(known.min()), "zmax": float(known.max()),
                    "colorbar": {"thickness": 12}}  # fmt: skip
            layout = {"xaxis": {"title": {"text": escape(dims[1])}}, "yaxis": {"title": {"text": escape(dims[0])}}}
            alt = f"{label}: {title} by {dims[0]} and {dims[1]}, from {known.min():.4g} to {known.max():.4g}."
            found.append(Figure(f"{label}: {title}", alt, [heat], layout, "plane", f"{name}-{key}"))
    return found


def _shown(group: xr.Dataset, key: str) -> bool:
    variable = group[key]
    last = key.rpartition("_")[2]
    return (
        variable.dtype.kind == "f"
        and variable.ndim in (1, 2)
        and not INTERNAL & set(map(str, variable.dims))
        and last not in ("sem", "low", "high", "residual")
        and 1 < variable.size <= MOST
        and bool(np.isfinite(variable.values).any())
    )


def _done(group: xr.Dataset, key: str) -> np.ndarray:
    values, done = group[key], group.get("done")
    shown = values if done is None or done.dims != values.dims else values.where(done.astype(bool))
    return np.asarray(shown.values, float)


def _along(group: xr.Dataset, dim: str) -> Any:
    coordinate = group[dim].values
    return coordinate.tolist() if coordinate.dtype.kind in "iuf" else [escape(str(one)) for one in coordinate]


def _error(group: xr.Dataset, key: str) -> dict[str, Any]:
    if {f"{key}_low", f"{key}_high"} <= set(group.data_vars) and group[f"{key}_low"].dims == group[key].dims:
        value = group[key].values
        return _bars(group[f"{key}_high"].values - value, value - group[f"{key}_low"].values)
    own = f"{key}_sem" if key != "eigenvalue" else "residual"
    return _bars(group[own].values) if own in group and group[own].dims == group[key].dims else {}


FIGURES: dict[str, Callable[[Groups, str, str], list[Figure]]] = {
    "surface": surfaces,
    "spectrum": spectra,
    "density": densities,
    "series": series,
}


def figures_of(analysis: str, groups: Groups, name: str, quantity: str = "nll") -> Sequence[Figure]:
    """The figures of the groups that have one name in several results files."""
    return FIGURES.get(analysis, generic)(groups, name, quantity)
