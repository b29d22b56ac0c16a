"""Nests of tensors: dicts, lists, tuples of them, or one alone; measured, cut and joined along the first dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from landscape.runtime.errors import UserError

Nest = Any  # a tensor, or a container of nests that torch.func takes: dict, list, tuple, dataclasses registered with it
Batch = tuple[Nest, Nest]


def leaves(nest: Nest) -> list[Any]:
    """The tensors of a nest in order, and whatever else it holds."""
    return pytree.tree_leaves(nest)


def mapped(f: Callable[[Tensor], Any], nest: Nest) -> Nest:
    """The nest of f of each tensor."""
    return pytree.tree_map(f, nest)


def named(name: str, nest: Nest) -> dict[str, Any]:
    """The tensors of a nest by where they stand in it: of {"a": s, "b": t} called x, those of x['a'] and x['b']."""
    return {name + pytree.keystr(path): leaf for path, leaf in pytree.tree_flatten_with_path(nest)[0]}


def shapes(nest: Nest) -> str:
    """The shapes of a nest in words."""
    if isinstance(nest, Tensor):
        return f"shape {tuple(nest.shape)}"
    each = named("", nest)
    return "shapes " + ", ".join(f"{name} {tuple(t.shape)}" for name, t in each.items() if isinstance(t, Tensor))


def length(nest: Nest) -> int:
    """How many examples the tensors of a nest hold, one a row of each."""
    return len(leaves(nest)[0])


def checked(batch: Batch, number: int) -> Batch:
    """The batch, as it is. Raises UserError where its tensors do not hold an example a row, all as many."""
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
            f"the tensors of batch {number} do not hold an example a row, all as many: "
            f"{', '.join(f'{name} {tuple(t.shape)}' for name, t in each.items())}; give each as many rows as examples"
        )
    return batch


def rows(nest: Nest, index: Any) -> Nest:
    """These examples of a nest: a slice, or a tensor of numbers."""
    return mapped(lambda t: t[index], nest)


def split(nest: Nest, sizes: int | list[int]) -> list[Nest]:
    """A nest in parts of so many examples: views."""
    flat, form = pytree.tree_flatten(nest)
    return [pytree.tree_unflatten(part, form) for part in zip(*(t.split(sizes) for t in flat), strict=True)]


def alike(a: Nest, b: Nest) -> bool:
    """Whether two nests join: of one structure, their tensors of one shape but for the number of examples."""
    (flat_a, form_a), (flat_b, form_b) = pytree.tree_flatten(a), pytree.tree_flatten(b)
    return form_a == form_b and all(
        s.shape[1:] == t.shape[1:] and s.is_floating_point() == t.is_floating_point()
        for s, t in zip(flat_a, flat_b, strict=True)
    )


def joined(nests: Sequence[Nest]) -> Nest:
    """The examples of nests that are `alike`, one after another: a copy."""
    return pytree.tree_map(lambda *parts: torch.cat(parts), *nests)


def stacked(nests: Sequence[Nest]) -> Nest:
    """Nests that are `alike`, of one number of examples, as one with a leading dimension of as many as there are."""
    return pytree.tree_map(lambda *parts: torch.stack(parts), *nests)
