"""Results files -> pictures, each by the analysis that a group is of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from landscape import store
from landscape.catalogue import entry_of
from landscape.pictures import generic
from landscape.pictures.files import save_pictures
from landscape.store.comparable import caution, differences

Files = Mapping[str, Mapping[str, xr.Dataset]]


def draw(groups: Mapping[str, xr.Dataset], label: str = "", *, quantity: str = "nll") -> dict[str, Figure]:
    """The pictures of the groups of one file, by name."""
    figures: dict[str, Figure] = {}
    for name, group in groups.items():
        figures |= draw_group(group, name, label, quantity=quantity)
    return figures


def draw_group(group: xr.Dataset, name: str, label: str = "", *, quantity: str = "nll") -> dict[str, Figure]:
    """The pictures of one group, by name: the analysis's own, or else the generic one; none of a plane.

    quantity: of surfaces: nll, loss (with its penalty), accuracy or another that they have.
    """
    entry = entry_of(group, name)
    if entry is None:
        return {}
    drawn: dict[str, Figure] = _picture(entry.picture).draw(
        group, name, f"{label}: " if label else "", quantity=quantity
    )
    return drawn


def draw_file(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    quantity: str = "nll",
    stem: str | None = None,
) -> list[Path]:
    """The pictures of one results file, beside it or in `folder`; stem: what their names begin with, by default the
    file's own.
    """
    path = Path(path)
    stem = stem if stem is not None and folder is not None else path.stem
    return save_pictures(draw(store.load(path), stem, quantity=quantity), folder or path.parent, stem)


def compare(files: Files, *, quantity: str = "nll") -> dict[str, Figure]:
    """What several results files have in common, group by group, in one picture each where the analysis has one.

    In what their settings differ is said beside each name, and a line on top says where their numbers cannot be
    compared for it.
    """
    figures: dict[str, Figure] = {}
    for name, groups in in_common(files).items():
        entry = entry_of(next(iter(groups.values())), name)
        together = None if entry is None else getattr(_picture(entry.picture), "compare", None)
        if together is not None:
            figures |= together(groups, name, quantity=quantity)
    return figures


def cautions(files: Files, *, quantity: str = "loss") -> list[str]:
    """The cautions that stand on the pictures of `compare`."""
    found = {name: caution(differences(groups, quantity=quantity)) for name, groups in in_common(files).items()}
    return [f"{name}: {text}" for name, text in found.items() if text]


def in_common(files: Files) -> dict[str, dict[str, xr.Dataset]]:
    """The groups that more than one file has, by name and by the file they are in; planes are left out."""
    names = dict.fromkeys(name for groups in files.values() for name in groups)
    shared = {name: {file: groups[name] for file, groups in files.items() if name in groups} for name in names}
    return {
        name: groups
        for name, groups in shared.items()
        if len(groups) > 1 and all(entry_of(group, name) is not None for group in groups.values())
    }


def _picture(module: str | None) -> Any:
    return generic if module is None else import_module(module)
