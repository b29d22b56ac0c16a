"""Commands in a forked child, within so much time and memory: what hangs in C, or is killed, fails like the rest."""

from __future__ import annotations

import gc
import io
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from helpers import invoke

from landscape.cli.main import main
from landscape.store import units

SECONDS, BYTES = 30, 4 << 30  # of the processor, and of memory
PATIENCE = 4 * SECONDS  # of the clock: a machine has others to serve


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit status (negative for a signal), what it said, its seconds, and its peak of memory."""

    status: int
    said: str
    seconds: float
    bytes: int


def wrong_end(*commands: Sequence[object], note: Callable[[Ended], None] | None = None) -> str:
    """What is wrong with the end of these, one after another; "" where each ends in success or in one line.

    note: is told how the child ended that they ran in.
    """

    def each() -> None:
        for command in commands:
            why = _wrong(invoke(*command))
            assert not why, f"{' '.join(map(str, command))[:300]}: {why}"

    ended = forked(each)
    if note is not None:
        note(ended)
    if ended.status in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"{commands}: it hung; it had {ended.seconds:.0f} s of the processor"
    if ended.bytes > BYTES:
        return f"{commands}: it took {ended.bytes / (1 << 30):.1f} GB"
    return f"{ended.status}: {ended.said[-3000:]}" if ended.status else ""


@contextmanager
def in_time() -> Iterator[None]:
    """Fails where the block, in this process, takes over SECONDS of the processor: for what takes no memory."""

    def late(*_: object) -> None:
        pytest.fail(f"hung for {SECONDS} s")

    handler = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)


def _wrong(result: CompletedProcess[str]) -> str:
    lines = [line for line in result.stderr.split("\n") if line.startswith("landscape: ")]
    mistakes = [line for line in lines if " is left alone: " not in line]
    if result.returncode not in (0, 2) or "Traceback" in result.stdout + result.stderr:
        return f"it ended with {result.returncode}: {result.stderr}"
    if result.returncode == 2 and len(mistakes) != 1:
        return f"{len(mistakes)} lines instead of one: {result.stderr}"
    return "memory is asked for that is not there" if "out of memory" in result.stderr else ""


def forked(call: Callable[[], object]) -> Ended:
    """Call something in a child of this process, which shares all that was imported.

    Beyond SECONDS of the processor or PATIENCE of the clock it is killed; beyond BYTES memory is refused to it.
    """
    gc.freeze()  # else the first collection in the child copies every page of this process
    with tempfile.TemporaryFile() as out:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _become(call, out.fileno())
        ended, pause = 0, 0.001
        while not ended:
            ended, how, used = os.wait4(child, os.WNOHANG)
            if not ended:
                time.sleep(pause)
                pause = min(1.5 * pause, 0.01)
                if time.monotonic() - began > PATIENCE:
                    os.kill(child, signal.SIGKILL)
        out.seek(0)
        said = out.read().decode("utf-8", "replace")
    return Ended(os.waitstatus_to_exitcode(how), said, used.ru_utime + used.ru_stime, used.ru_maxrss << 10)


def started(arguments: Sequence[object], said: Path | None = None, *, save_every: float | None = None) -> int:
    """The number of a process that carries out a command as the console script does, to be sent signals.

    It is forked, so that none of its time goes into imports. said: a file for what it prints. save_every: seconds
    between two times of storing, instead of the usual.
    """
    gc.freeze()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        out = os.open(said or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(out, number)
        sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(1, "w"), "utf-8", write_through=True)
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        if save_every is not None:
            units.SAVE_EVERY = save_every
        main(list(map(str, arguments)))
    except SystemExit as e:
        code = int(e.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int, seconds: float = PATIENCE) -> int:
    """Its exit status, negative for a signal. Raises TimeoutError where it has not ended by then, and kills it."""
    deadline = time.monotonic() + seconds
    while True:
        number, how = os.waitpid(child, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(how)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f"{seconds} s")
        time.sleep(0.005)


def carried_out(*arguments: object) -> None:
    """A command in a process of its own, which must succeed."""
    with tempfile.NamedTemporaryFile() as said:
        code = ended(started(arguments, Path(said.name)))
        assert code == 0, Path(said.name).read_text(errors="replace")


def _become(call: Callable[[], object], out: int) -> None:
    code = 1
    try:
        for number in (1, 2):
            os.dup2(out, number)
        sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(1, "w"), "utf-8", "backslashreplace")
        has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (has + BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        call()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
