"""Rank, size and gathering among the processes that torchrun started; with one process nothing happens.

    torchrun --nproc-per-node 2 -m landscape surface net.safetensors --out net.h5

Every process draws the same frozen data and computes its share of the units; only the first one writes.
"""

from __future__ import annotations

import atexit
import os
import sys
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")


def _group() -> Any:
    """torch.distributed if there are several processes; None for one process, which need not import torch."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist is not None and dist.is_initialized() else None


def start() -> None:
    """Join the other processes if torchrun started this one; otherwise, or if already joined, do nothing."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or _group() is not None:
        return
    import torch
    import torch.distributed as dist

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, number, count = next(dist.rendezvous("env://"))
    # The store may outlive an attempt: ranks that died in the previous one must not be found in it.
    attempt = dist.PrefixStore(f"attempt{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    # A process may have to wait for a single long unit of another; torchrun notices processes that have died.
    dist.init_process_group(backend, store=attempt, rank=number, world_size=count, timeout=timedelta(days=30))
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    atexit.register(_leave)


def _leave() -> None:
    if (dist := _group()) is not None:
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process; 0 if it is the only one."""
    return dist.get_rank() if (dist := _group()) is not None else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if (dist := _group()) is not None else 1


def local_rank() -> int:
    """The number of this process on its machine, which is also the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0)) if _group() is not None else 0


def spread(tensor: Any) -> None:
    """Give all processes what the first has in this tensor, in place."""
    if (dist := _group()) is not None:
        dist.broadcast(tensor, src=0)


def sum_up(tensor: Any) -> None:
    """Have in this tensor of the first process the sum over all, in place; what the others then have is undefined."""
    if (dist := _group()) is not None:
        dist.reduce(tensor, dst=0)


def gathered(mine: T) -> list[T]:
    """The values of all processes, by rank, given to every process."""
    everyone: list[Any] = [mine] * size()
    if size() > 1:
        _group().all_gather_object(everyone, mine)
    return everyone


def from_first(mine: T) -> T:
    """The value of the first process, given to every process."""
    if size() == 1:
        return mine
    held: list[Any] = [mine]
    _group().broadcast_object_list(held, src=0)
    return held[0]
