"""The memory that a request needs, computed before it is allocated, and that which is no longer needed."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from landscape.runtime.errors import UserError

GROUPS = Path("/sys/fs/cgroup")  # on Linux: the limits of a container or of a job on a cluster


def free_memory() -> int | None:
    """The bytes of memory that this process may still take; None if the system does not say."""
    known = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        known.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    for most, used in (("max", "current"), ("limit_in_bytes", "usage_in_bytes")):
        with suppress(OSError, ValueError):  # "max" is not a number: there is no limit
            known.append(max(_number(most) - _number(used), 0))
    return min(known, default=None)


def give_back() -> None:
    """Give the system back what malloc keeps of freed memory, where it is glibc's; elsewhere nothing.

    Once a large block has been freed, glibc takes later ones of that size from its heap, where small ones between them
    keep the freed from being given back: the process grows to several times what it holds.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # Windows has no library of the process itself
        return None


def _number(name: str) -> int:
    place = GROUPS / f"memory.{name}"
    return int((place if place.exists() else GROUPS / "memory" / place.name).read_text())


def refuse_beyond_memory(needed: int, what: str) -> None:
    """Raise UserError if `what` would need more memory than is free.

    Parameters
    ----------
    needed
        The bytes needed.
    what
        What needs them, in words and with the settings that decide: "images of 10000 x 10000 (`image_size`)".
    """
    free = free_memory()
    if free is not None and needed > free:
        raise UserError(f"{what} would need {in_words(needed)}; {in_words(free)} are free")


def in_words(count: int) -> str:
    """A number of bytes in words, such as "7.5 GiB"."""
    number = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:,.3g} GiB" if number < 1000 else f"{number:,.0f} GiB"
