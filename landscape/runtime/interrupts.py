"""Ctrl-C and SIGTERM between two steps, never within one: a handler notes the signal, and work looks where it can stop.

An exception that a handler raises falls wherever the process happens to be: into a write, into code that is restoring
what it changed, or into a callback of the garbage collector, which swallows it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_noted: int | None = None  # the signal that came, until the block that notes signals is left


class Interrupted(KeyboardInterrupt):
    """Work has stopped where it could, for a signal: `number`."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number


def noted() -> int | None:
    """The signal that came and asks for an end; None for none."""
    return _noted


def stop_if_interrupted() -> None:
    """Raise Interrupted where a signal has come: to be called wherever work can stop, in any thread."""
    if _noted is not None:
        raise Interrupted(_noted)


@contextmanager
def deferred() -> Iterator[None]:
    """Within the block a first Ctrl-C is noted, and raised at the next `stop_if_interrupted`, or at the block's end.

    A second one raises KeyboardInterrupt wherever it comes. For calls from Python: outside of the main thread, or where
    somebody else handles Ctrl-C, nothing changes; after the block the handler is what it was.
    """
    global _noted
    here = threading.current_thread() is threading.main_thread()
    if not here or _noted is not None or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def note(number: int, _: FrameType | None) -> None:
        global _noted
        _noted = number
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield
        stop_if_interrupted()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _noted = None


def take_over() -> None:
    """From now on a first Ctrl-C or SIGTERM is noted, and a second ends the process at once: for a command line.

    Files can be left at any moment (`landscape.runtime.files`). Under torchrun, which sends on what it is sent and ends
    by force in 30 seconds what has not ended, only the first counts. A signal that is ignored already stays ignored, as
    Ctrl-C is in the background of a shell.
    """
    relayed = "TORCHELASTIC_RUN_ID" in os.environ

    def note(number: int, _: FrameType | None) -> None:
        global _noted
        _noted = number
        for each in taken:
            signal.signal(each, signal.SIG_IGN if relayed else signal.SIG_DFL)
        if not relayed:
            _say("landscape: stopping after the step under way; the same again ends at once\n")

    taken = [each for each in SIGNALS if signal.getsignal(each) in (signal.SIG_DFL, signal.default_int_handler)]
    for each in taken:
        signal.signal(each, note)


def _say(text: str) -> None:
    with suppress(OSError):
        os.write(2, text.encode())  # not print: the signal may have come within one


def ignored(_: int = 0) -> None:
    """From now on this process leaves Ctrl-C and SIGTERM to the one that started it."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
