"""Frozen examples from the user's own function: whatever batches it gives, of any nest of tensors."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, Dataset, IterableDataset

from landscape.data.sources import SPLITS, MissingSplit
from landscape.runtime.caller import undisturbed
from landscape.runtime.errors import UserError
from landscape.runtime.interrupts import stop_if_interrupted
from landscape.runtime.own import OwnFunction, own_function, own_words
from landscape.runtime.random import seeded

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class OwnData:
    """Batches of the user's own, held in memory; iterates over them.

    Parameters
    ----------
    batches
        The batches. Each is a nest of tensors with one row per example in each tensor.
    config
        How they were made.
    """

    batches: list[Any]
    config: dict[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __repr__(self) -> str:
        """The number of examples and batches, and their origin, in one line."""
        return f"OwnData({self.samples:,} examples in {len(self)} batches; {self.config.get('name')})"

    @property
    def samples(self) -> int:
        """The number of examples."""
        return sum(map(_examples, self.batches))

    def begins(self, samples: int | None) -> bool:
        """Whether the first `samples` examples are those that a call for only so many would give."""
        return samples is not None and samples <= self.samples

    def first(self, samples: int) -> OwnData:
        """The first `samples` examples as a set of their own."""
        return OwnData(_up_to(self.batches, samples), {**self.config, "samples": samples})


@undisturbed()
def own_data(
    name: str, *, split: str = "train", samples: int | None = None, at_most: int | None = None,
    batch_size: int = 256, seed: int = 0,
) -> OwnData:  # fmt: skip
    """The examples of `path/to/file.py:function`, which is called once, under `seed`, and frozen.

    Parameters
    ----------
    name
        The function, with settings of its own as in "data.py:make(width=3)". It is given those of split ("train" or
        "test"), samples, batch_size and seed that it takes, and returns an iterable of batches, such as a DataLoader,
        or a Dataset, of which batches are made in its order.
    split
        Raises MissingSplit for any but the training split of a function that takes no split.
    samples
        The number of examples, from the first on; None for all, up to `at_most`.
    at_most
        The number of examples if `samples` is None; None for all.
    batch_size
        Examples per batch of a Dataset; a function that makes batches may take it.
    seed
        The seed of every random number that the function draws by torch, numpy or random.

    Returns
    -------
    OwnData
        The batches, in the form in which the function gives them.

    Raises
    ------
    UserError
        If the function fails, gives no batches of tensors, or gives fewer examples than `samples`.
    """
    function = own_function(name, "data")
    if split not in SPLITS["train"] and not function.accepts("split"):
        raise MissingSplit(f"{name} takes no split, so it has no {split} split")
    wanted = samples or at_most
    with seeded(seed):
        given = function(split=split, samples=wanted, batch_size=batch_size, seed=seed)
        batches = _up_to(_batches(given, batch_size, function), wanted)
    found = OwnData(batches)
    if not found.samples:
        raise UserError(f"{name} gives no examples of the {split} split; a loss needs at least one")
    if samples is not None and found.samples < samples:
        raise UserError(f"samples={samples}: {name} gives {found.samples} examples of the {split} split")
    config = {"name": name, "split": split, "samples": found.samples, "transform": "own", "seed": seed}
    LOG.debug("read %d examples of %s %s", found.samples, name, split)
    return OwnData(batches, config)


def _batches(given: Any, batch_size: int, function: OwnFunction) -> Iterator[Any]:
    """The batches one after another, as dicts, lists and tuples of tensors; an error in them names their function."""
    if isinstance(given, Dataset) and not isinstance(given, IterableDataset):
        given = DataLoader(given, batch_size=batch_size)
    arrays = given if isinstance(given, (tuple, list)) else (given,)
    if not isinstance(given, Iterable) or (arrays and all(isinstance(a, (Tensor, np.ndarray)) for a in arrays)):
        raise UserError(
            f"{function.name} gives {type(given).__name__}, not batches; return a Dataset, a DataLoader, or a list of "
            "batches, as [(x, y)] is with tensors x and y"
        )
    batches = iter(given)
    for number in itertools.count():
        stop_if_interrupted()
        try:
            batch = next(batches)
        except StopIteration:
            return
        except UserError:
            raise
        except (Exception, SystemExit) as e:
            raise UserError(f"batch {number} of {function.name} fails: {own_words(e)}") from e
        batch = _plain(batch)
        sizes = {len(t) for t in tree_leaves(batch) if isinstance(t, Tensor) and t.ndim}
        if len(sizes) != 1:
            raise UserError(
                f"batch {number} of {function.name} is {type(batch).__name__} of tensors with {sorted(sizes) or 'no'} "
                "rows; give tensors, or a nest of them, with a row for each example"
            )
        yield batch


def _plain(batch: Any) -> Any:
    """Mappings such as those of tokenizers as dicts, arrays as tensors."""
    if isinstance(batch, Mapping):
        return {name: _plain(value) for name, value in batch.items()}
    if isinstance(batch, (tuple, list)) and type(batch) in (tuple, list):
        return type(batch)(map(_plain, batch))
    return torch.from_numpy(batch) if isinstance(batch, np.ndarray) and batch.dtype.kind in "biuf" else batch


def _examples(batch: Any) -> int:
    return next(len(t) for t in tree_leaves(batch) if isinstance(t, Tensor) and t.ndim)


def _up_to(batches: Iterable[Any], samples: int | None) -> list[Any]:
    """The batches up to `samples` examples, the last one cut; all for None."""
    kept, left = [], samples
    for batch in batches:
        if left is not None and _examples(batch) >= left:
            kept.append(tree_map(lambda t, n=left: t[:n] if isinstance(t, Tensor) and t.ndim else t, batch))
            break
        kept.append(batch)
        left = None if left is None else left - _examples(batch)
    return kept
