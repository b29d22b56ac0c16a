"""Independent pieces of work side by side on a CPU's cores: each worker is a thread with a share of torch's threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, ExitStack, _GeneratorContextManager, contextmanager
from functools import wraps
from typing import TypeVar

from landscape.runtime.interrupts import stop_if_interrupted

Item = TypeVar("Item")
Result = TypeVar("Result")
_mine = threading.local()  # for each worker the event that asks it to stop


class Stopped(Exception):
    """Raised in a worker whose work is no longer wanted."""


def side_by_side(
    compute: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, compute(item)) as each is completed; with one worker, in order and in the calling thread.

    Small operations hardly profit from torch's own threads: two mini-batches of a small ViT on one core each take
    little more time than one mini-batch on both. Each worker has the same number of threads however many items are
    left, so that results do not depend on how the work was interrupted. When the caller stops iterating, or a worker
    fails, the others stop at their next `stop_if_asked`.
    """
    if workers == 1:
        yield from ((item, compute(item)) for item in items)
        return
    import torch  # here, since starting a command must not wait for it

    threads, stop = torch.get_num_threads(), threading.Event()

    def begin() -> None:
        torch.set_num_threads(max(1, threads // workers))
        _mine.stop = stop

    pool = ThreadPoolExecutor(workers, initializer=begin)
    try:
        futures = {pool.submit(compute, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # each worker has its own setting, but new threads would inherit it


def stop_if_asked() -> None:
    """Raise Stopped in a worker whose work is no longer wanted, and Interrupted in any thread after Ctrl-C.

    Long computations call this between their steps.
    """
    stop_if_interrupted()
    stop = getattr(_mine, "stop", None)
    if stop is not None and stop.is_set():
        raise Stopped


def of_all_threads(
    settings: Callable[[], AbstractContextManager[None]],
) -> Callable[[], _GeneratorContextManager[None]]:
    """Let several threads be within `settings` at once, a context that changes a global state and restores it.

    The first thread to enter changes the state, the last to leave restores it, and none in between touches it.
    """
    lock, held = threading.Lock(), ExitStack()
    inside = 0

    @contextmanager
    def entered() -> Iterator[None]:
        nonlocal inside
        with lock:
            if inside == 0:
                held.enter_context(settings())
            inside += 1
        try:
            yield
        finally:
            with lock:
                inside -= 1
                if inside == 0:
                    held.close()

    return wraps(settings)(entered)
