"""Named parameters <-> one flat vector, and theta + sum_i a_i d_i without a lasting change to the model.

Vectors are in the order of `Module.named_parameters` and in each tensor's logical (row-major) order, whatever its
memory format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from landscape.runtime.errors import UserError, near_matches

Direction = Mapping[str, Tensor]


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name; tied ones appear once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def chosen(model: nn.Module, patterns: str | Sequence[str] | None) -> dict[str, nn.Parameter]:
    """The trainable parameters that match one of `patterns`; None for all.

    A pattern is a name, the beginning of names up to a dot, or has the wildcards * and ?. Raises UserError if a pattern
    matches none, or if no parameter is trainable.
    """
    parameters = trainable(model)
    if not parameters:
        raise UserError("no parameter of the model requires a gradient, so there is no Hessian; unfreeze some")
    if patterns is None:
        return parameters
    matched: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        found = {name for name in parameters if fnmatchcase(name, pattern) or name.startswith(pattern + ".")}
        if not found:
            raise UserError(f"no trainable parameter matches {pattern!r}; {near_matches(pattern, parameters)}")
        matched |= found
    return {name: p for name, p in parameters.items() if name in matched}


def flatten(tensors: Mapping[str, Tensor]) -> Tensor:
    """One vector, shape (n,), from named tensors."""
    return torch.cat([t.reshape(-1) for t in tensors.values()])


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Named tensors of the shapes of `like` from a vector of shape (n,): the inverse of `flatten`.

    Raises ValueError if n is not the number of elements of `like`.
    """
    n = sum(t.numel() for t in like.values())
    if vector.shape != (n,):
        raise ValueError(f"a vector of shape {tuple(vector.shape)} cannot fill {n} parameters")
    parts = vector.split([t.numel() for t in like.values()])
    return {name: part.view(t.shape) for (name, t), part in zip(like.items(), parts, strict=True)}


@contextmanager
def displaced(model: nn.Module, directions: Sequence[Direction], coefficients: Sequence[float]) -> Iterator[None]:
    """Within the block, `model` stands at theta + sum_i coefficients[i] * directions[i]; after it, at theta to the bit.

    Parameters and buffers absent from a direction do not move along it. The model is changed in place: pass a private
    copy.
    """
    moved = {name for d in directions for name in d}
    tensors = {
        name: t for named in (model.named_parameters(), model.named_buffers()) for name, t in named if name in moved
    }
    missing = moved - tensors.keys()
    if missing:
        raise UserError(
            f"the plane moves {sorted(missing)[0]!r}, which is not in the network; make a plane of this network"
        )
    theta = {name: t.detach().clone() for name, t in tensors.items()}
    try:
        with torch.no_grad():
            for name, t in tensors.items():
                for a, d in zip(coefficients, directions, strict=True):
                    if name in d:
                        t.add_(d[name].to(t), alpha=a)
        yield
    finally:
        with torch.no_grad():
            for name, t in tensors.items():
                t.copy_(theta[name])


@contextmanager
def replaced(model: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block, `model` has the parameters and buffers of `state`; after it, its own, to the bit.

    The model is changed in place: pass a private copy. Raises ValueError for a state of other names or shapes.
    """
    tensors = model.state_dict()
    if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in state.items()}:
        raise ValueError("the state is of another network")
    own = {name: t.detach().clone() for name, t in tensors.items()}
    try:
        with torch.no_grad():
            for name, t in tensors.items():
                t.copy_(state[name])
        yield
    finally:
        with torch.no_grad():
            for name, t in tensors.items():
                t.copy_(own[name])


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of names, dtypes, shapes and bytes, in order."""
    digest = hashlib.sha256()
    for name, t in tensors.items():
        digest.update(f"{name} {t.dtype} {tuple(t.shape)};".encode())
        digest.update(t.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def parts_of(names: Iterable[str], per: str) -> dict[str, list[str]]:
    """Parameter names by the part of the network they belong to.

    per: "layer" for the modules that hold them; "stage" for the network's topmost modules, but if only one of these is
    a numbered sequence (the blocks of a ViT, the stages of a Swin), for the members of that sequence. Raises UserError
    for another word.
    """
    names = list(names)
    if per == "layer":
        keys = [name.rpartition(".")[0] or name for name in names]
    elif per == "stage":
        numbered = {name.split(".")[0] for name in names if name.count(".") > 1 and name.split(".")[1].isdigit()}
        depth = {top: 2 for top in numbered} if len(numbered) == 1 else {}
        keys = [".".join(name.split(".")[: depth.get(name.split(".")[0], 1)]) for name in names]
    else:
        raise UserError(f"per={per!r} is not one of layer, stage")
    parts: dict[str, list[str]] = {}
    for key, name in zip(keys, names, strict=True):
        parts.setdefault(key, []).append(name)
    return parts
