"""Files that several processes may want: written beside their place and renamed into it, one writer at a time."""

from __future__ import annotations

import errno
import hashlib
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


LOCKLESS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)  # some network file systems


@cache
def say_once(text: str) -> None:
    """A line to standard error, beside whatever progress bars there are; the same one is not said again."""
    tqdm.write(f"landscape: {text}", file=sys.stderr)


@contextmanager
def replacing(path: str | os.PathLike[str], suffix: str = "") -> Iterator[Path]:
    """A new file of this process's own to write, which takes the place of `path` when the block ends well.

    Where the block raises, `path` stays as it was. Of a link, what it points to is replaced; the permissions stay.
    What killed processes left of the kind is removed. suffix: of the new file, for writers that look at it.

    Raises OSError where the folder cannot be written.
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


def sweep(path: Path) -> None:
    """Remove the parts of `path` whose process is gone, or which nothing was written to for a day."""
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
    """Where numbers of processes mean the same: this machine, and this container on it."""
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
    """Keeps other processes out of such a block of the same `path` and `what` until it ends; waits, and says for whom.

    On a file system without locks it says so and keeps nobody out. Raises UserError where the folder cannot be written.
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
        say_once(f"{path.parent} has no file locks; let one process at a time write to a file there")
        yield
        return
    try:
        with suppress(OSError):
            place.write_text(f"process {os.getpid()} on {platform.node()}")
        yield
    finally:
        with suppress(OSError):
            place.unlink()  # while it is held: who waits for it looks again whether the file is still there
        lock.release()


def _acquire(lock: FileLock, place: Path, label: str) -> None:
    patience = 2.0  # saves are shorter
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
