"""Results files as their analyses read them: a group that does not give its numbers is named and left out."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import xarray as xr

from landscape.catalogue import settings_of
from landscape.runtime.errors import UserError
from landscape.store.file import read_contents, say_left_alone
from landscape.store.groups import Contents


def contents(path: str | os.PathLike[str]) -> Contents:
    """The groups of a results file; the bad ones include those from which their analysis can make no numbers.

    What an analysis needs of its result shows in its settings, its `check_result` and its use of the result: all three
    are tried here, once, so that whatever reads the group afterwards can rely on them.
    """
    found = read_contents(path)
    good, bad = {}, dict(found.bad)
    for name, group in found.groups.items():
        why = _refused(name, group)
        if why:
            bad[name] = why
        else:
            good[name] = group
    return Contents(good, bad)


def _refused(name: str, group: xr.Dataset) -> str:
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            settings = settings_of(group, name)
            if settings is not None:
                settings.check_result(group)
                settings.rows(group)
                settings.remarks(group)
    except UserError as e:
        return str(e)
    except Exception as e:  # a stranger's arrays may break an analysis's code wherever it looks at them
        return f"it is not as its analysis makes it ({broken(e)})"
    return ""


def broken(e: Exception) -> str:
    """What went wrong, in one line."""
    return f"{type(e).__name__}: {' '.join(str(e).split())[:120]}"


def load(path: str | os.PathLike[str]) -> dict[str, xr.Dataset]:
    """The good groups of a results file; each of the others is reported."""
    found = contents(path)
    say_left_alone(path, found)
    return found.groups


def stored(path: str | os.PathLike[str], group: str, *, damaged: bool = False) -> xr.Dataset | None:
    """One group of a results file, to be continued; None if the file does not have it, or does not exist.

    damaged: whether a bad group may be replaced. If not, raises UserError, since what is computed would replace it.
    """
    found = contents(path) if Path(path).exists() else Contents()
    if group in found.bad and not damaged:
        why = f"{path}: its {group} cannot be continued: {found.bad[group]}"
        raise UserError(f"{why}; replace it with `overwrite`, or write to another file")
    return found.groups.get(group)
