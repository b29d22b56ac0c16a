"""Progress bars: those of tqdm in a terminal and in a notebook, and one line per minute elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm as of_the_place  # a notebook's, where this is one
from tqdm.std import tqdm

if TYPE_CHECKING:
    Bar = tqdm[Any]  # generic in its stubs alone
else:
    Bar = tqdm

MINUTE = 60.0
_WANTED: ContextVar[bool] = ContextVar("wanted", default=False)


@contextmanager
def wanted(shown: bool) -> Iterator[None]:
    """Within the block, bars that are not told otherwise are shown, or not."""
    before = _WANTED.set(shown)
    try:
        yield
    finally:
        _WANTED.reset(before)


class OnlyLines:
    """Standard error without control characters: each state of a bar is a line of its own."""

    def write(self, text: str) -> None:
        """A line, unless it is blank."""
        line = text.replace("\r", "").strip()
        if line:
            print(line, file=sys.stderr)

    def flush(self) -> None:
        """At once."""
        sys.stderr.flush()


class Lines(Bar):
    """A bar for a file or a pipe: one line every so many seconds, and one at the end."""

    def __init__(self, *arguments: Any, every: float = MINUTE, **keywords: Any) -> None:
        super().__init__(*arguments, **{**keywords, "mininterval": every, "maxinterval": every, "file": OnlyLines()})

    def display(self, *arguments: Any, **keywords: Any) -> None:
        """Write the state, but not before the first step."""
        if hasattr(self, "start_t"):
            super().display(*arguments, **keywords)


def bar(
    iterable: Iterable[Any] | None = None, *, shown: bool | None = None, every: float = MINUTE, **keywords: Any
) -> Bar:
    """A bar over an iterable, or one to be updated.

    Parameters
    ----------
    iterable
        What the bar runs over; None for a bar that the caller updates.
    shown
        Whether the bar is shown; by default what `wanted` says. With TQDM_DISABLE in the environment none is.
    every
        Seconds between two lines outside of a terminal and a notebook.
    keywords
        Arguments of tqdm: desc, unit, total, initial.
    """
    shown = _WANTED.get() if shown is None else shown
    shown = shown and os.environ.get("TQDM_DISABLE", "").lower() in ("", "0", "false")
    in_notebook = any(cls.__module__ == "tqdm.notebook" for cls in of_the_place.__mro__)
    if not shown or in_notebook or sys.stderr.isatty():
        return of_the_place(iterable, disable=not shown, **keywords)
    return Lines(iterable, every=every, **keywords)
