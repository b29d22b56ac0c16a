"""The analyses that there are, a line each: the class, and its picture where it has one of its own.

Names are looked up and modules imported only when they are asked for: a list of all commands imports none of them.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.runtime.errors import UserError, near_matches

if TYPE_CHECKING:
    import xarray as xr

    from landscape.analyses.base import Analysis


@dataclass(frozen=True)
class Entry:
    """One analysis. `analysis` and `picture` are written "module:name"; without a picture the generic one serves."""

    analysis: str
    picture: str | None = None

    @property
    def settings(self) -> type[Analysis]:
        """The class."""
        found: type[Analysis] = looked_up(self.analysis)
        return found

    @property
    def summary(self) -> str:
        """The first line of the class's docstring, read without importing it."""
        return summary(self.analysis)


CATALOGUE: dict[str, Entry] = {
    "test": Entry("landscape.analyses.test:Test", "landscape.pictures.reliability"),
    "robustness": Entry("landscape.analyses.robustness:Robustness", "landscape.pictures.robustness"),
    "placement": Entry("landscape.analyses.placement:Placement", "landscape.pictures.placement"),
    "lesion": Entry("landscape.analyses.lesion:Lesion", "landscape.pictures.lesion"),
    "surface": Entry("landscape.analyses.surface:Surface", "landscape.pictures.surfaces"),
    "spectrum": Entry("landscape.analyses.spectrum:Spectrum", "landscape.pictures.spectra"),
    "top": Entry("landscape.analyses.top:Top", "landscape.pictures.top"),
    "density": Entry("landscape.analyses.density:Density", "landscape.pictures.density"),
    "trace": Entry("landscape.analyses.trace:Trace", "landscape.pictures.trace"),
    "sharpness": Entry("landscape.analyses.sharpness:Sharpness", "landscape.pictures.sharpness"),
    "connectivity": Entry("landscape.analyses.connectivity:Connectivity", "landscape.pictures.connectivity"),
    "trajectory": Entry("landscape.analyses.trajectory:Trajectory", "landscape.pictures.trajectory"),
    "fourier": Entry("landscape.analyses.fourier:Fourier", "landscape.pictures.fourier"),
    "variance": Entry("landscape.analyses.variance:Variance", "landscape.pictures.variance"),
    "similarity": Entry("landscape.analyses.similarity:Similarity", "landscape.pictures.similarity"),
    "dynamics": Entry("landscape.analyses.dynamics:Dynamics", "landscape.pictures.dynamics"),
    "series": Entry("landscape.analyses.series:Series", "landscape.pictures.series"),
}


def register(name: str, analysis: str, picture: str | None = None) -> None:
    """Add an analysis: from then on it has a command, a group, a line in `show`, columns in tables, and a picture."""
    CATALOGUE[name] = Entry(analysis, picture)


def entry_of(group: xr.Dataset, name: str = "") -> Entry | None:
    """The analysis that a group of a results file is of, as it says itself, or else by its name; None for one that is
    not in the catalogue.
    """
    stated = str(group.attrs.get("config", {}).get("analysis", name.partition("_")[0]))
    return CATALOGUE.get(stated)


def settings_of(group: xr.Dataset, name: str = "") -> Analysis | None:
    """The settings that a group was made with, those that came later at their defaults; None for another's group."""
    entry = entry_of(group, name)
    if entry is None:
        return None
    config: Mapping[str, Any] = group.attrs.get("config", {})
    return entry.settings.of(config)


def looked_up(target: str) -> Any:
    """What "module:name" names."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


@cache
def summary(target: str) -> str:
    """The first line of the docstring of what "module:name" names, read off the source without importing it."""
    module, _, name = target.partition(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(f"there is no module {module}")
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name]
    if not found:
        raise UserError(f"{module} has no {name}; {near_matches(name, [getattr(n, 'name', '') for n in tree.body])}")
    return (ast.get_docstring(found[0]) or name).split("\n\n")[0].replace("\n", " ").rstrip(".")
