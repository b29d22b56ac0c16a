"""The frozen examples on their device: in one piece if their batches can be joined, otherwise as the batches came."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from landscape.objective.nests import Batch, alike, checked, joined, leaves, length, named, rows, split
from landscape.objective.parameters import fingerprint
from landscape.runtime.errors import UserError

Place = tuple[int, Tensor]  # a store, and rows of it


def batches_of(data: Iterable[Any]) -> Iterable[Any]:
    """The data, iterated over in batches. Raises UserError for data that give single examples, or nothing."""
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        raise UserError(
            f"the data are a Dataset, {type(data).__name__}, which gives one example at a time; give batches, "
            "as DataLoader(dataset, batch_size=256) does"
        )
    arrays = data if isinstance(data, (tuple, list)) else (data,)
    if arrays and all(isinstance(a, (Tensor, np.ndarray)) for a in arrays):
        raise UserError(
            f"the data are {len(arrays)} {type(arrays[0]).__name__}, not batches; give an iterable of (x, y), "
            "as [(x, y)] is with tensors x and y"
        )
    if not isinstance(data, Iterable):
        raise UserError(f"the data are {type(data).__name__}, not batches; give an iterable of (x, y)")
    return data


@dataclass(frozen=True)
class Batches:
    """Batches (x, y) of examples, numbered in order from 0.

    Consecutive batches that can be joined (they have one structure, and their tensors one shape up to the number of
    examples) make one store. Images of one size are one store in all; texts padded batch by batch are several.

    Parameters
    ----------
    stores
        The examples.
    sizes
        The number of examples in each batch, for each store.
    """

    stores: list[Batch]
    sizes: list[list[int]]

    @classmethod
    def of(cls, batches: Iterable[Batch]) -> Batches:
        """Copies of the batches that have an example. Raises UserError if they are not nests of tensors."""
        groups: list[list[Batch]] = []
        for number, batch in enumerate(batches):
            if length(checked(batch, number)) == 0:
                continue
            if groups and alike(groups[-1][-1], batch):
                groups[-1].append(batch)
            else:
                groups.append([batch])
        return cls([joined(group) for group in groups], [[length(batch) for batch in group] for group in groups])

    def __iter__(self) -> Iterator[Batch]:
        """The batches as they came."""
        for store, sizes in zip(self.stores, self.sizes, strict=True):
            yield from split(store, sizes)

    @property
    def starts(self) -> list[int]:
        """The number of the first example of each store, and how many there are in all."""
        return [0, *itertools.accumulate(sum(sizes) for sizes in self.sizes)]

    @property
    def examples(self) -> int:
        return self.starts[-1]

    def chunks(self, size: int | None) -> list[Batch]:
        """All examples in order, in chunks of at most `size`, each from one store; for None, the batches themselves."""
        return list(self) if size is None else [part for store in self.stores for part in split(store, size)]

    def cut(self, start: int, stop: int) -> Batch:
        """The examples from number `start` up to `stop`, which must lie in one store."""
        store = self._store_of(start)
        first = self.starts[store]
        return rows(self.stores[store], slice(start - first, stop - first))

    @property
    def divisible(self) -> int:
        """The number that a size must divide so that no mini-batch lies in two stores; 0 for one store."""
        return math.gcd(*self.starts[1:-1])

    def straddling(self, size: int, count: int) -> int | None:
        """The number of the first mini-batch of `count`, of `size` examples each, that lies in two stores."""
        inner = self.starts[1:-1]
        return next((start // size for start in inner if start % size and start < size * count), None)

    def places(self, index: Sequence[int] | np.ndarray, size: int) -> list[Place]:
        """Where examples are, given by number in ascending order: in parts of at most `size`, each in one store."""
        index = np.asarray(index)
        found: list[Place] = []
        for store, (first, after) in enumerate(itertools.pairwise(self.starts)):
            here = torch.from_numpy(index[(first <= index) & (index < after)] - first)
            device = leaves(self.stores[store])[0].device
            found += [(store, part.to(device)) for part in here.split(size) if len(part)]
        return found

    def at(self, place: Place) -> Batch:
        """A copy of the examples at one of `places`."""
        store, index = place
        return rows(self.stores[store], index)

    def fingerprint(self) -> str:
        """The sha256 of the examples as they are stored."""
        tensors: dict[str, Tensor] = {}
        for number, (x, y) in enumerate(self.stores):
            prefix = f"{number}." if len(self.stores) > 1 else ""
            tensors |= named(prefix + "x", x) | named(prefix + "y", y)
        return fingerprint(tensors)

    def _store_of(self, example: int) -> int:
        return int(np.searchsorted(self.starts, example, side="right")) - 1
