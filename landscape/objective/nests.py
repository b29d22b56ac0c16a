"""Nests of tensors (one tensor, or dicts, lists and tuples of them): measured, cut and joined along dimension 0."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from landscape.runtime.errors import UserError

Nest = Any  # a tensor, or a container of nests that torch.func takes: dict, list, tuple, dataclasses registered with it
Batch = tuple[Nest, Nest]


def leaves(nest: Nest) -> list[Any]:
    """The leaves of a nest in order: its tensors and whatever else it holds."""
    return pytree.tree_leaves(nest)


def mapped(f: Callable[[Tensor], Any], nest: Nest) -> Nest:
    """The nest with f applied to each tensor."""
    return pytree.tree_map(f, nest)


def named(name: str, nest: Nest) -> dict[str, Any]:
    """The tensors of a nest by their place in it: {"a": s, "b": t} with the name x gives x['a'] and x['b']."""
    return {name + pytree.keystr(path): leaf for path, leaf in pytree.tree_flatten_with_path(nest)[0]}


def shapes(nest: Nest) -> str:
    """The shapes of a nest in words."""
    if isinstance(nest, Tensor):
        return f"shape {tuple(nest.shape)}"
    each = named("", nest)
    return "shapes " + ", ".join(f"{name} {tuple(t.shape)}" for name, t in each.items() if isinstance(t, Tensor))


def length(nest: Nest) -> int:
    """How many examples the tensors of a nest hold, one per row."""
    return len(leaves(nest)[0])


def checked(batch: Batch, number: int) -> Batch:
    """The batch, unchanged. Raises UserError unless all its tensors have one row per example, equally many."""
    each = {**named("x", batch[0]), **named("y", batch[1])}
    for name, leaf in each.items():
        if not isinstance(leaf, Tensor):
            raise UserError(
                f"{name} of batch {number} is {type(leaf).__name__}, not a tensor; give (x, y) batches of tensors, or "
                "of dicts, lists and tuples of them"
            )
    lengths = {t.shape[:1] for t in each.values()}
    if len(lengths) != 1 or () in lengths:
        raise UserError(
            f"the tensors of batch {number} do not all have one row per example: "
            f"{', '.join(f'{name} {tuple(t.shape)}' for name, t in each.items())}; give each a row per example"
        )
    return batch


def rows(nest: Nest, index: Any) -> Nest:
    """Some examples of a nest; the index is a slice or a tensor of numbers."""
    return mapped(lambda t: t[index], nest)


def split(nest: Nest, sizes: int | list[int]) -> list[Nest]:
    """Views of a nest in parts of these sizes."""
    flat, form = pytree.tree_flatten(nest)
    return [pytree.tree_unflatten(part, form) for part in zip(*(t.split(sizes) for t in flat), strict=True)]


def alike(a: Nest, b: Nest) -> bool:
    """Whether two nests can be joined: they have one structure, and their tensors differ in the number of rows only."""
    (flat_a, form_a), (flat_b, form_b) = pytree.tree_flatten(a), pytree.tree_flatten(b)
    return form_a == form_b and all(
        s.shape[1:] == t.shape[1:] and s.is_floating_point() == t.is_floating_point()
        for s, t in zip(flat_a, flat_b, strict=True)
    )


def joined(nests: Sequence[Nest]) -> Nest:
    """A copy of the examples of nests that are `alike`, one after another."""
    return pytree.tree_map(lambda *parts: torch.cat(parts), *nests)


def stacked(nests: Sequence[Nest]) -> Nest:
    """Nests that are `alike`, with equally many examples, stacked along a new first dimension."""
    return pytree.tree_map(lambda *parts: torch.stack(parts), *nests)


def uniform_by_content(nest: Nest, seed: int, draw: int, shape: Sequence[int]) -> Tensor:
    """Random numbers between 0 and 1, (n, ...), of a draw; each row depends on seed, draw and the nest's row alone."""
    tensors = [t.detach().cpu().contiguous() for t in leaves(nest)]
    numbers = np.empty(tuple(shape))
    for i in range(len(numbers)):
        digest = hashlib.blake2b(digest_size=16)
        for t in tensors:
            digest.update(t[i].reshape(-1).view(torch.uint8).numpy())
        rng = np.random.default_rng([seed, draw, int.from_bytes(digest.digest(), "big")])
        numbers[i] = rng.random(numbers.shape[1:])
    return torch.from_numpy(numbers).clamp(2.0**-53).to(leaves(nest)[0].device)
