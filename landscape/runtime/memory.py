"""The memory that a request needs, worked out before it is asked for."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from landscape.runtime.errors import UserError

GROUPS = Path("/sys/fs/cgroup")  # of Linux: what a container or a cluster's job may have


def free_memory() -> int | None:
    """Bytes that this process may still take of the machine's memory; None where the system does not say."""
    known = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        known.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    for most, used in (("max", "current"), ("limit_in_bytes", "usage_in_bytes")):
        with suppress(OSError, ValueError):  # "max" is no number: no limit
            known.append(max(_number(most) - _number(used), 0))
    return min(known, default=None)


def _number(name: str) -> int:
    place = GROUPS / f"memory.{name}"
    return int((place if place.exists() else GROUPS / "memory" / place.name).read_text())


def refuse_beyond_memory(needed: int, what: str) -> None:
    """Raise UserError where `what` would need more bytes of the machine's memory than are free.

    Parameters
    ----------
    needed
        Bytes.
    what
        In words, with the settings that it follows from: "images of 10000 x 10000 for `image_size`".
    """
    free = free_memory()
    if free is not None and needed > free:
        raise UserError(f"{what} would need {in_words(needed)}; {in_words(free)} are free")


def in_words(count: int) -> str:
    """So many bytes: 7.5 GiB."""
    number = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:,.3g} GiB" if number < 1000 else f"{number:,.0f} GiB"
