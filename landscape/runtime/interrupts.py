"""Ctrl-C and SIGTERM act between two steps, never within one: a handler notes the signal, and work checks for it.

An exception raised by a handler would occur wherever the process happens to be: in a write, in code that is restoring
what it changed, or in a callback of the garbage collector, which swallows it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_noted: int | None = None  # the signal that came; kept until the block that notes signals ends


class Interrupted(KeyboardInterrupt):
    """Work has stopped between two steps because of the signal `number`."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number


def noted() -> int | None:
    """The signal that has come, or None."""
    return _noted


def stop_if_interrupted() -> None:
    """Raise Interrupted if a signal has come; to be called wherever work can stop, in any thread."""
    if _noted is not None:
        raise Interrupted(_noted)


@contextmanager
def deferred() -> Iterator[None]:
    """Within the block a first Ctrl-C is noted, and raised at the next `stop_if_interrupted`, or at the block's end.

    A second one raises KeyboardInterrupt at once. This is for calls from Python: outside of the main thread, or if
    another handler for Ctrl-C is set, nothing changes; after the block the handler is what it was.
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
    """From now on a first Ctrl-C or SIGTERM is noted, and a second one ends the process at once: for a command line.

    Files are whole at any moment (`landscape.runtime.files`). Under torchrun only the first signal counts: torchrun
    passes on every signal, and after 30 seconds it kills what has not ended. A signal that is ignored already stays
    ignored, as Ctrl-C is in the background of a shell.
    """
    relayed = "TORCHELASTIC_RUN_ID" in os.environ

    def note(number: int, _: FrameType | None) -> None:
        global _noted
        _noted = number
        for each in taken:
            signal.signal(each, signal.SIG_IGN if relayed else signal.SIG_DFL)
        if not relayed:
            _say("landscape: stopping after the current step; a second signal stops at once\n")

    taken = [each for each in SIGNALS if signal.getsignal(each) in (signal.SIG_DFL, signal.default_int_handler)]
    for each in taken:
        signal.signal(each, note)


def _say(text: str) -> None:
    with suppress(OSError):
        os.write(2, text.encode())  # not print: the signal may have come within a print


def ignored(_: int = 0) -> None:
    """From now on this process ignores Ctrl-C and SIGTERM, and leaves them to the process that started it."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
