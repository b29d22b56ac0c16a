"""A results file: groups of labelled arrays in one HDF5 file, written atomically and with provenance.

The file is always written whole, beside the old one, and renamed into its place: a reader sees the old file or the new
one, and so does the next run if this one is killed at any moment. Only one process at a time reads it, puts its groups
in and writes it. Groups that cannot go in because another program holds the file open wait in a file beside it. A group
that is damaged, or not as any analysis makes it, is named and left alone; the others can be used.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import xarray as xr

from landscape.runtime.contents import kind_of
from landscape.runtime.errors import UserError
from landscape.runtime.files import alone, replacing, say_once
from landscape.store.groups import FORMAT, FORMAT_VERSION, Contents, image, read
from landscape.store.strangers import refuse_references

LOG = logging.getLogger(__name__)
PATIENCE = 10.0  # seconds to wait for a file that another program holds open


def save(path: str | os.PathLike[str], /, **groups: xr.Dataset) -> None:
    """Write groups into a results file; its other groups are kept, including those that other processes write.

    What other programs put into the file is kept too: attributes, data sets, and groups of their own. If another
    program holds the file open for writing, the groups go into the file `pending(path)`, with a message; `load` reads
    them from there, and the next `save` that finds the file free moves them into it.

    Parameters
    ----------
    path
        The results file.
    groups
        Datasets by the names of their groups.

    Raises
    ------
    UserError
        If the folder cannot be written to, or `path` is read-only or another sort of file.
    """
    path = Path(path)
    waiting = pending(path)
    try:
        with alone(path):
            kept = _contents(waiting) if waiting.exists() else Contents()
            held = kept.groups
            if path.exists():
                if not path.stat().st_mode & 0o222 or not os.access(path, os.W_OK):
                    raise UserError(f"{path} is read-only; make it writable, or choose another place")
                try:
                    held = {**_contents(path, patience=_patience(path)).groups, **held}
                except HeldOpen:
                    say_once(f"{path} is held open by another program; until it is free, results are kept in {waiting}")
                    _write(waiting, {**held, **groups})
                    return
            _write(path, {**held, **groups})
            _clear(waiting, kept.bad)
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}; choose another place") from e


def discard_empty(path: str | os.PathLike[str]) -> None:
    """Remove a results file that has no group, nothing from other programs, and no groups waiting."""
    path = Path(path)
    with suppress(OSError, UserError), alone(path):
        with h5py.File(path, "r") as f:
            empty = not len(f) and not pending(path).exists()
        if empty:
            path.unlink()


def pending(path: str | os.PathLike[str]) -> Path:
    """The file for groups that wait until the results file at `path` is free.

    They wait there while another program holds the results file open.
    """
    return Path(path).with_name(Path(path).name + ".pending")


def _clear(waiting: Path, bad: Mapping[str, str]) -> None:
    """Remove the file whose groups have been moved; if some of them are damaged, rename it instead."""
    if not bad:
        waiting.unlink(missing_ok=True)
        return
    number = next(n for n in itertools.count(1) if not waiting.with_name(f"{waiting.name}.damaged-{n}").exists())
    place = waiting.rename(waiting.with_name(f"{waiting.name}.damaged-{number}"))
    for name, why in bad.items():
        say_once(f"{waiting}: the group {name} is left out: {why}; it is kept in {place}")


def _patience(path: Path) -> float:
    return PATIENCE if not pending(path).exists() else PATIENCE / 10  # an earlier call has waited for it already


def _write(path: Path, groups: Mapping[str, xr.Dataset]) -> None:
    content = image(groups, path if path.exists() else None)
    with replacing(path) as part:
        part.write_bytes(content)
    LOG.debug("stored %s in %s, %d bytes", ", ".join(groups) or "no group", path, len(content))


def load(path: str | os.PathLike[str]) -> dict[str, xr.Dataset]:
    """Load the groups of a results file into memory, by name; JSON attributes are decoded.

    Groups that wait in `pending(path)` are included. A group that is damaged, or not as any analysis makes it, is left
    out and named on standard error. If another program holds the file open, it is waited for, and then read all the
    same.

    Parameters
    ----------
    path
        The results file.

    Returns
    -------
    dict of str to xarray.Dataset
        The groups.

    Raises
    ------
    UserError
        For a file that is missing, truncated, not a results file of this toolkit, or that refers to other files.
    """
    found = read_contents(path)
    say_left_alone(path, found)
    return found.groups


def say_left_alone(path: str | os.PathLike[str], found: Contents) -> None:
    """Say of each bad group, in a line, why it is left alone."""
    for name, why in found.bad.items():
        say_once(f"{path}: the group {name} is left alone: {why}")


def read_contents(path: str | os.PathLike[str]) -> Contents:
    """Read the groups as `load` does, together with what is wrong with the bad ones, of which nothing is said."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"no such results file: {path}")
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a results file; name the file")
    try:
        found = _contents(path, patience=_patience(path))
    except HeldOpen as e:
        try:
            found = _contents(path, locking=False)
        except UserError:  # its writer is in the middle of a change
            raise e from None
    return _contents(pending(path)).over(found) if pending(path).exists() else found


class HeldOpen(UserError):
    """Another program holds the file open, and has locked it."""


def _contents(path: Path, *, patience: float = PATIENCE, locking: bool = True) -> Contents:
    deadline = time.monotonic() + patience
    while True:
        try:
            return _read(path, locking)
        except BlockingIOError as e:  # from the lock that HDF5 takes
            if time.monotonic() > deadline:
                raise HeldOpen(f"{path} is held open by another program; close it there, and try again") from e
            time.sleep(0.1)
        except UserError:
            raise
        except Exception as e:  # h5py may raise anything on a damaged file
            known = (errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EISDIR)
            if isinstance(e, OSError) and e.errno in known:
                raise UserError(f"cannot read {path}: {os.strerror(e.errno)}") from e
            raise UserError(f"{path} is not a readable results file ({_what_it_is(path)})") from e


def _what_it_is(path: Path) -> str:
    match kind := kind_of(path):
        case "a torch checkpoint" | "safetensors":
            return "it is a checkpoint; analyse it first, as by 'landscape analyze'"
        case "HDF5" | "unknown":
            return "truncated, or not HDF5; move it away"
    return f"it is {kind}, not HDF5"


def _read(path: Path, locking: bool) -> Contents:
    with h5py.File(path, "r", locking=None if locking else False) as f:
        form, form_version = f.attrs.get("format"), np.asarray(f.attrs.get("format_version", 0)).item()
        if not isinstance(form, str) or form != FORMAT:
            raise UserError(
                f"{path} is HDF5, but not a results file of this toolkit; make one with 'landscape analyze'"
            )
        if not isinstance(form_version, int) or form_version > FORMAT_VERSION:
            raise UserError(f"{path} has format {form_version}, newer than {FORMAT_VERSION}; update the toolkit")
        refuse_references(f, path)
        return read(f, path.stat().st_size)
