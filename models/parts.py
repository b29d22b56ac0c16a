"""The parts of a network: a block, its branch, and the skip connection around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor, nn

MAPS = ("stem", "convolution", "attention", "mlp", "pool")  # types of block whose output is a feature map
TYPES = (*MAPS, "head")


@dataclass(frozen=True)
class Block:
    """A block of a network. If it is residual, module(x) is after(skip(x) + branch(x)).

    Parameters
    ----------
    name
        The name of the network's submodule that does the block's work.
    type
        One of TYPES.
    stage
        0 for the stem, then from 1; the head has its own.
    module
        The map from the feature map before the block to the one after it, shortcut included.
    branch
        What the block adds; None if it has no skip connection.
    skip
        The skip connection, the identity unless the map changes; None without a branch.
    after
        What is applied to the sum, such as ReLU; None without a branch.
    attends
        In an attention block, its self-attention with the projections, without norm and skip connection.
    """

    name: str
    type: str
    stage: int
    module: nn.Module
    branch: nn.Module | None = None
    skip: nn.Module | None = None
    after: nn.Module | None = None
    attends: nn.Module | None = None


class Residual(nn.Module):
    """x + branch(x)."""

    def __init__(self, *branch: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def residual(
    name: str, block_type: str, stage: int, *branch: nn.Module, module: nn.Module | None = None,
    skip: nn.Module | None = None, after: nn.Module | None = None, attends: nn.Module | None = None,
) -> Block:  # fmt: skip
    """The block after(skip(x) + branch(x)), where the branch is the given modules one after another.

    module: the network's own module that computes the block, or None. skip, after: None for the identity.
    """
    whole = module if module is not None else Residual(*branch)
    skip, after = skip or nn.Identity(), after or nn.Identity()
    return Block(name, block_type, stage, whole, nn.Sequential(*branch), skip, after, attends)


class Apply(nn.Module):
    """A function of x; `parts` are the modules and parameters that it uses."""

    def __init__(self, function: Callable[[Tensor], Tensor], *parts: nn.Module | nn.Parameter | None) -> None:
        super().__init__()
        self.function = function
        self.modules_used = nn.ModuleList([p for p in parts if isinstance(p, nn.Module)])
        self.parameters_used = nn.ParameterList([p for p in parts if isinstance(p, nn.Parameter)])

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class TokenPool(nn.Module):
    """PiT's pooling on tokens: the class token through its linear layer, the others as a map through a convolution."""

    def __init__(self, pool: nn.Module, norm: nn.Module, prefix: int) -> None:
        super().__init__()
        self.pool, self.norm, self.prefix = pool, norm, prefix

    def forward(self, x: Tensor) -> Tensor:
        side = isqrt(x.shape[1] - self.prefix)
        grid = x[:, self.prefix :].transpose(1, 2).unflatten(2, (side, side))
        pooled, tokens = self.pool(grid, x[:, : self.prefix])
        return self.norm(torch.cat((tokens, pooled.flatten(2).transpose(1, 2)), dim=1))
