"""A Krylov basis of an operator that is known only by its products: orthonormal rows Q and the projection T onto them.

Nothing here knows what the operator is: tests use it with a 12 x 12 matrix, users with a ViT.
References: Parlett, The Symmetric Eigenvalue Problem, ch. 13; Wu & Simon, Thick-restart Lanczos (2000).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from landscape.linalg.operators import Operators

State = Mapping[str, Tensor | np.ndarray]


ROUNDING = 10  # the error that a product may have, in units of eps * ||A||
LONG = 1 << 18  # numbers that a float32 sum may have: the norm of 39 million came out wrong by 0.2 %


class Lanczos:
    """A_g Q_g^T = Q_g^T T_g + X_g^T B_g^T for G symmetric operators in lockstep, grown by a block of b rows per step.

    The rows of Q (G, m, n) are orthonormal to rounding: each product is orthogonalised against all of them, and its
    coefficients are the new columns of T (G, m, m), held in float64. X (G, b, n) are the next rows, and B (G, m, b)
    couples them to Q, so that ||B^T s|| is the residual of a Ritz vector Q^T s. Since T comes from the coefficients
    and not from a recurrence, Q may at any time be rotated to some of its Ritz vectors (`restart`) and grown further.

    Where a Krylov space is exhausted before n rows (breakdown), the basis continues in a fresh random direction
    orthogonal to all rows before, with a coupling of exactly 0: a new invariant subspace.

    The symmetry of the operators is checked at no cost: the coefficients of a new product against earlier rows of Q
    are already known from the products with those rows (B). `asymmetry` (G,) is the largest
    |q_i^T A q_j - q_j^T A q_i| so far; it is of the size of rounding where the operator is symmetric.

    A step waits for the device once, to copy everything that it needs from there, and once more for each further pass
    of orthogonalisation and for each row that has to be replaced.

    Parameters
    ----------
    A
        The operators.
    start
        (G, b, n); the rows of each operator are linearly independent.
    most
        The most rows of Q that are held at once; by default n. Memory for them is taken at the beginning where they
        are few, and otherwise as it is needed.
    """

    def __init__(self, A: Operators, start: Tensor, most: int | None = None) -> None:
        G, b, self.n = start.shape
        if b > self.n:
            raise ValueError(f"a block of {b} vectors of size {self.n} cannot be independent")
        if not (torch.isfinite(start).all() and (torch.linalg.vector_norm(start, dim=-1) > 0).all()):
            raise ValueError("the start vectors must be finite and not zero")
        self.A = A
        self.dtype = start.dtype
        self.members = list(range(G))
        self.m = 0
        self.products = 0  # for each operator
        self._most = min(self.n if most is None else most, self.n)
        # While memory grows, the old rows are held beside the new ones; so a small bound is allocated at once.
        self._Q = start.new_empty(G, self._most if self._most <= 64 else max(16, b), self.n)
        self._T = np.zeros((G, self._Q.shape[1], self._Q.shape[1]))
        self.B = np.zeros((G, 0, b))
        self.broken = np.zeros(G, bool)
        self.finite = np.ones(G, bool)
        self.asymmetry = np.zeros(G)
        self._coupled = 0  # the first row of Q that the next product is coupled to
        self.X: Tensor | None = None
        first, lengths = self._orthonormalised(start)
        (R,) = _on_host(lengths)
        self.X, _ = self._normalised(start, first, R, np.zeros(G))
        self.broken[:] = False

    @property
    def Q(self) -> Tensor:
        return self._Q[:, : self.m]

    @property
    def T(self) -> np.ndarray:
        return self._T[:, : self.m, : self.m]

    @property
    def exhausted(self) -> bool:
        """Whether the basis spans the whole space."""
        return self.m == self.n

    def step(self) -> None:
        """Take one more product with each row of X. It must not be called once the basis is `exhausted`.

        If the product raises or is interrupted, the basis stays as it was.
        """
        kept = ("m", "products", "_coupled", "X", "B", "broken", "finite", "asymmetry")
        before = {name: getattr(self, name) for name in kept}
        try:
            self._step()
        except BaseException:
            for name, value in before.items():
                setattr(self, name, value)
            raise

    def _step(self) -> None:
        assert self.X is not None, "the basis already spans the whole space"
        X, old = self.X, self.m
        b = X.shape[1]
        self._reserve(old + b)
        self._Q[:, old : old + b] = X
        self.m += b
        self.products += b
        W = self.A.rows(X, self.members)
        finite = torch.isfinite(torch.linalg.vector_norm(W, dim=(-2, -1), dtype=torch.float64))
        W = torch.where(finite[:, None, None], W, 0)  # the other operators continue undisturbed
        W, C, kept = self._reduced(W, (self._coupled, 0))
        following, lengths = self._orthonormalised(W)
        seen, coefficients, share, R = _on_host(finite, C, kept, lengths)
        self.finite = self.finite & seen.astype(bool)
        for _ in range(2):  # again only where much was taken away (Parlett's "twice is enough")
            if (share >= 0.5).all():
                break
            W, C, kept = self._reduced(W, (0,))
            following, lengths = self._orthonormalised(W)
            more, share, R = _on_host(C, kept, lengths)
            coefficients += more
        self._enter(coefficients, old)
        if self.exhausted:
            self.X, self.B = None, np.zeros((len(self.members), self.m, 0))
            return
        scale = np.abs(self.T).sum(axis=-1).max(axis=-1)
        self.X, R = self._normalised(W, following, R, scale)
        self.B = np.zeros((len(self.members), self.m, R.shape[-1]))
        self.B[:, old:] = R

    def _enter(self, C: np.ndarray, old: int) -> None:
        """Store C (G, m, b), the coefficients of the products with the rows of Q from `old` on, as columns of T."""
        block = C[:, old:]
        for known, column in ((self.B, C[:, :old]), (block.transpose(0, 2, 1), block)):
            off = np.abs(known - column).max(axis=(-2, -1), initial=0.0)
            self.asymmetry = np.maximum(self.asymmetry, np.where(self.finite, off, 0.0))
        self._T[:, : self.m, old : self.m] = C
        self._T[:, old : self.m, :old] = C[:, :old].transpose(0, 2, 1)
        self._T[:, old : self.m, old : self.m] = (block + block.transpose(0, 2, 1)) / 2
        self._coupled = old

    def _reserve(self, rows: int) -> None:
        have = self._Q.shape[1]
        if rows <= have:
            return
        rows = min(max(rows, 2 * have), self._most)
        Q = self._Q.new_empty(len(self._Q), rows, self.n)
        Q[:, : self.m] = self.Q
        T = np.zeros((len(Q), rows, rows))
        T[:, : self.m, : self.m] = self.T
        self._Q, self._T = Q, T

    def _reduced(self, W: Tensor, passes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """W (G, b, n) orthogonalised against the rows of Q; its coefficients along them (G, m, b); and 1 for each row
        (G, b) of which the last pass left at least half the length, 0 for the others.

        Each number in `passes` is one pass, against the rows of Q from that one on. The first pass takes the rows that
        a product is coupled to; a second one, against all rows, removes what rounding brought back.
        """
        C = W.new_zeros(len(W), self.m, W.shape[1], dtype=torch.float64)
        for first in passes:
            Q = self.Q[:, first:]
            c = _project(Q, W)
            before = _lengths(W)
            W = W - c.mT @ Q
            C[:, first:] += c
        after = _lengths(W)
        return W, C, torch.where(after >= 0.5 * before, 1.0, 0.0)

    def _orthonormalised(
        self, W: Tensor, replaced: Mapping[tuple[int, int], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Orthonormal rows X (G, b', n), orthogonal to Q, and R (G, b, b') with W = R X; b' = min(b, n - m).

        replaced: rows of X by (operator, row), along which W has no component beyond rounding.
        """
        G, b, n = W.shape
        width = min(b, n - self.m)
        X, R = W.new_empty(G, width, n), W.new_zeros(G, b, width, dtype=torch.float64)
        tiny = torch.finfo(W.dtype).tiny
        for i in range(b):
            w = W[:, i]
            have = X[:, : min(i, width)]
            for _ in range(2 if i else 0):
                c = (have @ w[..., None])[..., 0]
                w = w - (c[:, None, :] @ have)[:, 0]
                R[:, i, : have.shape[1]] += c
            if i >= width:
                continue
            norm = _lengths(w)
            R[:, i, i] = norm
            w = w / norm.clamp_min(tiny)[:, None]
            if i:  # the rows before may have taken away so much that rounding shows
                for basis in (self.Q, have):
                    w = w - ((basis @ w[..., None]).mT @ basis)[:, 0]
                w = w / _lengths(w).clamp_min(tiny)[:, None]
            X[:, i] = w
            for (g, row), fresh in (replaced or {}).items():
                if row == i:
                    X[g, i] = fresh
                    R[g, i, i] = 0
        return X, R

    def _normalised(self, W: Tensor, X: Tensor, R: np.ndarray, scale: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """X and R of W as from `_orthonormalised`, with rows no longer than rounding replaced by fresh ones."""
        least = ROUNDING * torch.finfo(W.dtype).eps * scale
        replaced: dict[tuple[int, int], Tensor] = {}
        for i in range(X.shape[1]):
            dead = np.flatnonzero(~(R[:, i, i] > least)).tolist()
            if dead:
                replaced |= {(g, i): self._fresh(g, X[g, :i]) for g in dead}
                X, found = self._orthonormalised(W, replaced)
                (R,) = _on_host(found)
        self.broken = np.zeros(len(W), bool)
        self.broken[sorted({g for g, _ in replaced})] = True
        return X, R

    def _fresh(self, g: int, beside: Tensor) -> Tensor:
        # Each size of the basis has its own seed, so that the draw does not depend on the others in the group.
        generator = torch.Generator().manual_seed(self.m + len(beside))
        while True:  # a draw may by chance lie in the space already spanned
            w = torch.randn(self.n, generator=generator, dtype=torch.float64).to(beside)
            for _ in range(3):
                w = w / torch.linalg.vector_norm(w)
                for basis in (self.Q[g], beside):
                    w = w - (basis @ w) @ basis
            norm = torch.linalg.vector_norm(w)
            if norm > 0.5:
                return w / norm
            if self.m + len(beside) > self.n // 2 and norm > torch.finfo(w.dtype).eps ** 0.5:
                return w / norm

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ritz values (G, m), ascending; the eigenvectors S (G, m, m) of T as columns; residuals (G, m)."""
        theta, S = np.linalg.eigh(self.T)
        return theta, S, np.linalg.norm(S.transpose(0, 2, 1) @ self.B, axis=-1)

    def rotate(self, S: np.ndarray) -> None:
        """Q <- S^T Q in place, S (G, m, p) with orthonormal columns: the basis shrinks to p rows, without a copy."""
        p = S.shape[-1]
        St = torch.as_tensor(S.transpose(0, 2, 1)).to(self._Q)
        for columns in range(0, self.n, 1 << 20):  # in parts, which bounds the memory taken beside Q
            part = slice(columns, columns + (1 << 20))
            self._Q[:, :p, part] = St @ self._Q[:, : self.m, part]
        self.m = p

    def restart(self, theta: np.ndarray, S: np.ndarray) -> None:
        """Continue from p Ritz pairs, theta (G, p) and S (G, m, p), and the same X: a thick restart (Wu & Simon)."""
        self.B = S.transpose(0, 2, 1) @ self.B
        self.rotate(S)
        self._T[:] = 0
        self._T[:, np.arange(self.m), np.arange(self.m)] = theta
        self._coupled = 0

    def state(self) -> dict[str, Tensor | np.ndarray]:
        """What `restore` needs to continue to the same numbers."""
        held = {"T": self.T, "B": self.B, "broken": self.broken, "finite": self.finite, "asymmetry": self.asymmetry}
        rows = {f"Q {i}": self._Q[:, i] for i in range(self.m)}  # row by row: a copy of all may not fit into memory
        numbers = np.array([self.m, self.products, self._coupled])
        return {"numbers": numbers, **rows, **({} if self.X is None else {"X": self.X}), **held}

    def restore(self, state: State) -> None:
        """Continue from the `state` of a basis of the same operators, start and bound.

        Raises ValueError for a state of other shapes.
        """
        m, products, coupled = np.asarray(state["numbers"]).tolist()
        G, width = len(self.members), (0 if self.X is None else self.X.shape[1])
        b = min(width, self.n - m)
        if not 0 < m <= self._most:
            raise ValueError(f"a basis of {m} rows")
        T, B = _of_shape(state["T"], G, m, m), _of_shape(state["B"], G, m, b)
        broken, finite, asymmetry = (_of_shape(state[name], G) for name in ("broken", "finite", "asymmetry"))
        X = torch.as_tensor(_of_shape(state["X"], G, b, self.n)).to(self._Q) if b else None
        self._reserve(m)
        for i in range(m):
            self._Q[:, i] = torch.as_tensor(_of_shape(state[f"Q {i}"], G, self.n)).to(self._Q)
        self._T[:, :m, :m] = T
        self.m, self.products, self._coupled = m, products, coupled
        self.X, self.B, self.broken, self.finite, self.asymmetry = X, B, broken, finite, asymmetry

    def keep(self, places: Sequence[int]) -> None:
        """Continue with the operators at these places of the group only."""
        for to, place in enumerate(places):
            if to != place:
                self._Q[to] = self._Q[place]
        self._Q = self._Q[: len(places)]
        index = list(places)
        self._T, self.B = self._T[index], self.B[index]
        self.broken, self.finite, self.asymmetry = (a[index] for a in (self.broken, self.finite, self.asymmetry))
        self.X = None if self.X is None else self.X[index]
        self.members = [self.members[place] for place in places]


def _of_shape(a: Tensor | np.ndarray, *shape: int) -> np.ndarray:
    if tuple(a.shape) != shape:
        raise ValueError(f"an array of the shape {tuple(a.shape)}, not {shape}")
    return np.array(a)


def rows_held(most: int) -> int:
    """The most rows that `Lanczos` holds in memory at once: while it grows, old rows are held beside the new ones."""
    held = have = most if most <= 64 else 16
    while have < most:
        after = min(2 * have, most)
        held, have = have + after, after
    return held


def _project(Q: Tensor, W: Tensor) -> Tensor:
    """Q W^T, (G, m, b). For one operator a plain matrix product: the batched one took 19 times as long. Of
    rows longer than LONG the sum is in float64, part by part.
    """
    if W.shape[-1] > LONG:
        parts = zip(Q.split(LONG, -1), W.split(LONG, -1), strict=True)
        return torch.stack([_project(q.double(), w.double()) for q, w in parts]).sum(0).to(W)
    return (Q[0] @ W[0].T)[None] if len(Q) == 1 else Q @ W.mT


def _lengths(W: Tensor) -> Tensor:
    """The lengths of rows (..., n)."""
    return torch.linalg.vector_norm(W, dim=-1, dtype=torch.float64 if W.shape[-1] > LONG else None).to(W)


def _on_host(*tensors: Tensor) -> list[np.ndarray]:
    """The tensors as float64 arrays, in one copy from the device."""
    flat = torch.cat([t.reshape(-1).double() for t in tensors]).cpu().numpy()
    ends = np.cumsum([t.numel() for t in tensors])
    return [part.reshape(t.shape) for part, t in zip(np.split(flat, ends[:-1]), tensors, strict=True)]
