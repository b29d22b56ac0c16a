"""Files that several processes may write: written beside their place and renamed into it, one writer at a time."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import platform
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from landscape.runtime.errors import UserError

DAY = 86400.0


class _BesideBars(logging.Handler):
    """To standard error, without disturbing progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(f"landscape: {record.getMessage()}", file=sys.stderr)


NOTICES = logging.getLogger("landscape.notices")  # what a user must know, whether or not logging is set up
NOTICES.addHandler(_BesideBars())
NOTICES.propagate = False


LOCKLESS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)  # some network file systems


@cache
def say_once(text: str) -> None:
    """Write a line to standard error without disturbing progress bars; the same line is written only once."""
    NOTICES.warning(text)


@contextmanager
def replacing(path: str | os.PathLike[str], suffix: str = "") -> Iterator[Path]:
    """A new file for this process to write, which takes the place of `path` when the block ends without an error.

    If the block raises, `path` stays as it was. If `path` is a link, its target is replaced. The permissions stay.
    Such files that killed processes left are removed. suffix: that of the new file, for writers that depend on it.

    Raises OSError if the folder cannot be written to.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    part = path.with_name(f".{path.name[:100]}.{_here()}-{os.getpid()}-{secrets.token_hex(4)}.part{suffix}")
    try:
        yield part
        if path.exists():
            shutil.copymode(path, part)
        with open(part, "rb") as f:
            os.fsync(f.fileno())
        os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def writing(path: str | os.PathLike[str], suffix: str = "") -> Iterator[Path]:
    """`replacing` for a file that the user named: raises UserError, which says why, if it cannot be written."""
    try:
        with replacing(path, suffix) as part:
            yield part
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}; choose another place") from e


def sweep(path: Path) -> None:
    """Remove the unfinished files for `path` whose process is gone, or to which nothing was written for a day."""
    for part in path.parent.glob(f".{_escaped(path.name[:100])}.*.part*"):
        machine, _, rest = part.name.removeprefix(f".{path.name[:100]}.").partition("-")
        number = rest.partition("-")[0]
        with suppress(OSError):
            gone = machine == _here() and number.isdigit() and not _runs(int(number))
            if gone or time.time() - part.stat().st_mtime > DAY:
                part.unlink()


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


@cache
def _here() -> str:
    """Where process numbers have one meaning: this machine, and this container on it."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def _runs(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


@contextmanager
def alone(path: str | os.PathLike[str], what: str = "") -> Iterator[None]:
    """Within the block, no other process is in a block for the same `path` and `what`; it waits, and says for whom.

    On a file system without locks it says so and excludes nobody. Raises UserError if the folder cannot be written to.
    """
    path = Path(os.path.realpath(path))
    place = path.with_name(f".{'.'.join(filter(None, (path.name[:100], what)))}.lock")
    lock = FileLock(place)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _acquire(lock, place, f"{what} of {path}" if what else str(path))
    except (OSError, NotImplementedError) as e:
        if isinstance(e, OSError) and e.errno not in LOCKLESS:
            raise UserError(f"cannot write {path}: {e.strerror or e}; choose another place") from e
        say_once(f"{path.parent} has no file locks; let only one process at a time write to a file there")
        yield
        return
    try:
        with suppress(OSError):
            place.write_text(f"process {os.getpid()} on {platform.node()}")
        yield
    finally:
        with suppress(OSError):
            place.unlink()  # while it is held: a process that waits for it checks that the file still exists
        lock.release()


def _acquire(lock: FileLock, place: Path, label: str) -> None:
    patience = 2.0  # seconds; saves take less
    while True:
        try:
            lock.acquire(timeout=patience)
            return
        except Timeout:
            holder = "another process"
            with suppress(OSError):
                holder = place.read_text() or holder
            say_once(f"{holder} is writing {label}; waiting until it has finished")
            patience = -1 if patience < 0 else 30.0
