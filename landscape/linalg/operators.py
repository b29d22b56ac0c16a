"""Symmetric operators, of which linear algebra needs products with rows and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Operators(Protocol):
    """G symmetric operators of one size n, multiplied in lockstep; G is mostly 1."""

    def rows(self, X: Tensor, members: Sequence[int]) -> Tensor:
        """The products (G', b, n) of the operators numbered `members` with b rows each, X (G', b, n)."""
        ...


@dataclass(frozen=True)
class Rows:
    """One operator, given as a function from rows (b, n) to their products (b, n)."""

    product: Callable[[Tensor], Tensor]

    def rows(self, X: Tensor, members: Sequence[int]) -> Tensor:
        """As `Operators` has it."""
        return self.product(X[0])[None]


@dataclass(frozen=True)
class Member:
    """One operator out of several."""

    all: Operators
    number: int

    def rows(self, X: Tensor, members: Sequence[int]) -> Tensor:
        """As `Operators` has it."""
        return self.all.rows(X, [self.number])


@dataclass(frozen=True)
class Deflated:
    """A restricted to the space orthogonal to U, orthonormal rows (k, n) that A maps into their own span."""

    A: Operators
    U: Tensor

    def rows(self, X: Tensor, members: Sequence[int]) -> Tensor:
        """As `Operators` has it."""
        W = self.A.rows(X, members)
        return W - (W @ self.U.T) @ self.U
