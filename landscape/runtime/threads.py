"""Independent pieces of work side by side on a CPU's cores, each worker a thread with its share of torch's threads."""

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
_mine = threading.local()  # of a worker: the event that asks it to stop


class Stopped(Exception):
    """The work is no longer wanted."""


def side_by_side(
    compute: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, Result]]:
    """(item, compute(item)) as each is completed; with one worker in order, in the calling thread.

    Small operations hardly profit from torch's own threads: two mini-batches of a small ViT, a core each, take little
    more time than one on both. Each worker has the same number of threads however many others there are to do, so
    that the numbers do not depend on how the work was interrupted. When the caller stops listening, or a worker
    fails, the others stop at their next `stop_if_asked`.
    """
    if workers == 1:
        yield from ((item, compute(item)) for item in items)
        return
    import torch  # of whose threads each worker has a share

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
        torch.set_num_threads(threads)  # a worker's setting is its own, but new threads would inherit it


def stop_if_asked() -> None:
    """Raise Stopped in a worker whose work is no longer wanted, and Interrupted in any thread after Ctrl-C; else do
    nothing. To be called between the steps of what takes long.
    """
    stop_if_interrupted()
    stop = getattr(_mine, "stop", None)
    if stop is not None and stop.is_set():
        raise Stopped


def of_all_threads(
    settings: Callable[[], AbstractContextManager[None]],
) -> Callable[[], _GeneratorContextManager[None]]:
    """`settings`, a context that changes something of the whole process and restores it, entered by several threads at
    once: the first to enter changes it, the last to leave restores it, and none in between changes it under another.
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
