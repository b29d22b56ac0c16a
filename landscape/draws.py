"""Random vectors, each unit of work with a seed of its own: any order and any split of the units gives the same."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def unit_seed(seed: int, *unit: int) -> int:
    """A seed for one unit of the work that `seed` stands for."""
    return int(np.random.SeedSequence([seed, *unit]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _generator(seed: int, *unit: int) -> torch.Generator:
    return torch.Generator().manual_seed(unit_seed(seed, *unit))


def gaussian(like: Tensor, seed: int, *unit: int) -> Tensor:
    """Standard normal entries, of the shape, type and device of `like`; the draw does not depend on the latter two."""
    return torch.randn(like.shape, generator=_generator(seed, *unit), dtype=torch.float64).to(like)


def rademacher(like: Tensor, seed: int, *unit: int) -> Tensor:
    """Entries +-1, of the shape, type and device of `like`."""
    return (torch.randint(0, 2, like.shape, generator=_generator(seed, *unit)) * 2 - 1).to(like)
