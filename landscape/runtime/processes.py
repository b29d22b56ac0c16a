"""Rank, split of work and gather among the processes that torchrun started; on one process it does nothing.

    torchrun --nproc-per-node 2 -m landscape surface net.safetensors --out net.h5

Every process draws the same frozen data and computes its share of the units; the first alone writes.
"""

from __future__ import annotations

import atexit
import os
import sys
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")


def _group() -> Any:
    """torch.distributed, where there are others to speak with; None on one process, which need not import torch."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist is not None and dist.is_initialized() else None


def start() -> None:
    """Join the others, where torchrun started this process; otherwise, or once joined, do nothing."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or _group() is not None:
        return
    import torch
    import torch.distributed as dist

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, number, count = next(dist.rendezvous("env://"))
    # The store may outlive an attempt: ranks that died in the last one must not be found in it.
    attempt = dist.PrefixStore(f"attempt{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    # A process may wait for another's single long unit; one that has died is noticed by torchrun.
    dist.init_process_group(backend, store=attempt, rank=number, world_size=count, timeout=timedelta(days=30))
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    atexit.register(_leave)


def _leave() -> None:
    if (dist := _group()) is not None:
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, 0 on one alone."""
    return dist.get_rank() if (dist := _group()) is not None else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if (dist := _group()) is not None else 1


def local_rank() -> int:
    """The number of this process on its machine: that of the GPU it takes."""
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
    """What each process has, by rank, given to all."""
    everyone: list[Any] = [mine] * size()
    if size() > 1:
        _group().all_gather_object(everyone, mine)
    return everyone


def from_first(mine: T) -> T:
    """What the first process has, given to all."""
    if size() == 1:
        return mine
    held: list[Any] = [mine]
    _group().broadcast_object_list(held, src=0)
    return held[0]
