"""Random draws by seed: vectors, a seed for each unit of work, and global generators seeded within a block."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def unit_seed(seed: int, *unit: int) -> int:
    """The seed of one unit of the work with seed `seed`."""
    return int(np.random.SeedSequence([seed, *unit]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _generator(seed: int, *unit: int) -> torch.Generator:
    return torch.Generator().manual_seed(unit_seed(seed, *unit))


def gaussian(like: Tensor, seed: int, *unit: int) -> Tensor:
    """Standard normal entries in the shape, dtype and device of `like`; the draw does not depend on the latter two."""
    return torch.randn(like.shape, generator=_generator(seed, *unit), dtype=torch.float64).to(like)


def rademacher(like: Tensor, seed: int, *unit: int) -> Tensor:
    """Random entries +1 and -1 in the shape, dtype and device of `like`."""
    return (torch.randint(0, 2, like.shape, generator=_generator(seed, *unit)) * 2 - 1).to(like)


@contextmanager
def seeded(*seed: int) -> Iterator[None]:
    """Within the block Python's, numpy's and torch's global generators are seeded; after it, they are as before."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002
    digest = int.from_bytes(hashlib.blake2b(repr(seed).encode(), digest_size=4).digest(), "big")
    try:
        random.seed(digest)
        np.random.seed(digest)  # noqa: NPY002  (the generator that timm's transforms use)
        torch.default_generator.manual_seed(digest)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.default_generator.set_state(states[2])
