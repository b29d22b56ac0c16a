"""A Krylov basis: given a matvec, orthonormal rows Q and the projection T of the operator, held to rounding.

Nothing here knows what the operator is: the same class meets a 12 x 12 matrix in a test and a ViT in use.
References: Parlett, The Symmetric Eigenvalue Problem, ch. 13; Wu & Simon, Thick-restart Lanczos (2000).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

ManyMatvec = Callable[[Tensor, Sequence[int]], Tensor]
ROUNDING = 10  # in units of eps * ||A||: what a product may be wrong by


class Lanczos:
    """A_g Q_g^T = Q_g^T T_g + X_g^T B_g^T for G symmetric operators in lockstep, grown by a block of b rows a step.

    The rows of Q (G, m, n) are orthonormal to rounding: each product is orthogonalised against all of them, and its
    coefficients are the new columns of T (G, m, m), held in float64. X (G, b, n) are the next rows, B (G, m, b) what
    couples them to Q, so that ||B^T s|| is the residual of a Ritz vector Q^T s. Since T comes from the coefficients
    and not from a recurrence, Q may at any time be rotated to some of its Ritz vectors (`restart`) and grown on.

    Where a Krylov space is exhausted before n (breakdown), it goes on in a fresh random direction orthogonal to all
    before, with a coupling of exactly 0: a new invariant subspace.

    matvec: from rows (G', b, n) and the numbers of the G' operators still in the group to the products (G', b, n).
    start: (G, b, n), the rows of each operator linearly independent.
    most: rows of Q ever held at once; the memory for them is taken whole where they are few, else as they are needed.
    """

    def __init__(self, matvec: ManyMatvec, start: Tensor, most: int | None = None) -> None:
        G, b, self.n = start.shape
        if b > self.n:
            raise ValueError(f"a block of {b} vectors of size {self.n} cannot be independent")
        if not (torch.isfinite(start).all() and (torch.linalg.vector_norm(start, dim=-1) > 0).all()):
            raise ValueError("the start vectors must be finite and not zero")
        self.matvec = matvec
        self.members = list(range(G))
        self.m = 0
        self.products = 0  # for each operator
        self._most = min(self.n if most is None else most, self.n)
        # Growing holds the old rows beside the new ones, so a small bound must not be grown into.
        self._Q = start.new_empty(G, self._most if self._most <= 64 else max(16, b), self.n)
        self._T = np.zeros((G, self._Q.shape[1], self._Q.shape[1]))
        self.B = np.zeros((G, 0, b))
        self.broken = np.zeros(G, bool)
        self.finite = np.ones(G, bool)
        self._coupled = 0  # the first row of Q that the next product is coupled to
        self.X: Tensor | None = None
        self.X, _ = self._normalised(start, np.zeros(G))
        self.broken[:] = False

    @property
    def Q(self) -> Tensor:
        return self._Q[:, : self.m]

    @property
    def T(self) -> np.ndarray:
        return self._T[:, : self.m, : self.m]

    @property
    def exhausted(self) -> bool:
        """The basis spans the whole space."""
        return self.m == self.n

    def step(self) -> None:
        """One more product with each row of X. Not to be called once `exhausted`."""
        assert self.X is not None, "the basis already spans the whole space"
        X, old = self.X, self.m
        b = X.shape[1]
        self._reserve(old + b)
        self._Q[:, old : old + b] = X
        self.m += b
        self.products += b
        W = self.matvec(X, self.members)
        self.finite &= torch.isfinite(torch.linalg.vector_norm(W, dim=(-2, -1), dtype=torch.float64)).cpu().numpy()
        if not self.finite.all():  # no finite spectrum here: the others go on undisturbed
            W = W.clone()
            W[torch.as_tensor(~self.finite, device=W.device)] = 0
        W, C = self._orthogonalised(W)
        self._T[:, : self.m, old : self.m] = C
        self._T[:, old : self.m, :old] = C[:, :old].transpose(0, 2, 1)
        block = self._T[:, old : self.m, old : self.m]
        block[:] = (block + block.transpose(0, 2, 1)) / 2
        self._coupled = old
        if self.exhausted:
            self.X, self.B = None, np.zeros((len(self.members), self.m, 0))
            return
        scale = np.abs(self.T).sum(axis=-1).max(axis=-1)
        self.X, R = self._normalised(W, scale)
        self.B = np.zeros((len(self.members), self.m, R.shape[-1]))
        self.B[:, old:] = R

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

    def _orthogonalised(self, W: Tensor) -> tuple[Tensor, np.ndarray]:
        # First against the rows that W is coupled to, then against all, which removes what rounding brought back:
        # again only where that was much (Parlett's "twice is enough").
        C = np.zeros((len(W), self.m, W.shape[1]))
        first = self._coupled
        for _ in range(4):
            Q = self.Q[:, first:]
            c = _project(Q, W)
            before = torch.linalg.vector_norm(W, dim=-1)
            W = W - c.mT @ Q
            C[:, first:] += c.double().cpu().numpy()
            if first == 0 and bool((torch.linalg.vector_norm(W, dim=-1) >= 0.5 * before).all()):
                break
            first = 0
        return W, C

    def _normalised(self, W: Tensor, scale: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """Orthonormal rows X (G, b', n), orthogonal to Q, and R (G, b, b') with W = R X; b' = min(b, n - m)."""
        G, b, n = W.shape
        width = min(b, n - self.m)
        X, R = W.new_empty(G, width, n), np.zeros((G, b, width))
        least = ROUNDING * torch.finfo(W.dtype).eps * scale
        self.broken[:] = False
        for i in range(b):
            w = W[:, i]
            have = X[:, : min(i, width)]
            for _ in range(2 if i else 0):
                c = (have @ w[..., None])[..., 0]
                w = w - (c[:, None, :] @ have)[:, 0]
                R[:, i, : have.shape[1]] += c.double().cpu().numpy()
            if i >= width:
                continue
            norm = torch.linalg.vector_norm(w, dim=-1)
            norms = norm.double().cpu().numpy()
            dead = ~(norms > least)
            R[:, i, i] = np.where(dead, 0, norms)
            w = w / norm.clamp_min(torch.finfo(W.dtype).tiny)[:, None]
            if i and bool((norm < 0.5 * torch.linalg.vector_norm(W[:, i], dim=-1)).any()):
                for basis in (self.Q, have):  # the rows beside it took so much away that rounding shows
                    w = w - ((basis @ w[..., None]).mT @ basis)[:, 0]
                w = w / torch.linalg.vector_norm(w, dim=-1, keepdim=True).clamp_min(torch.finfo(W.dtype).tiny)
            X[:, i] = w
            for g in np.flatnonzero(dead).tolist():
                X[g, i] = self._fresh(g, X[g, :i])
            self.broken |= dead
        return X, R

    def _fresh(self, g: int, beside: Tensor) -> Tensor:
        # Its own seed for each size of the basis: the same draw, whoever else is in the group.
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
        for columns in range(0, self.n, 1 << 20):  # a part of the columns at a time bounds what is held beside Q
            part = slice(columns, columns + (1 << 20))
            self._Q[:, :p, part] = St @ self._Q[:, : self.m, part]
        self.m = p

    def restart(self, theta: np.ndarray, S: np.ndarray) -> None:
        """Go on from p Ritz pairs, theta (G, p) and S (G, m, p), and the same X: a thick restart (Wu & Simon)."""
        self.B = S.transpose(0, 2, 1) @ self.B
        self.rotate(S)
        self._T[:] = 0
        self._T[:, np.arange(self.m), np.arange(self.m)] = theta
        self._coupled = 0

    def keep(self, places: Sequence[int]) -> None:
        """Only the operators at these places of the group go on."""
        for to, place in enumerate(places):
            if to != place:
                self._Q[to] = self._Q[place]
        self._Q = self._Q[: len(places)]
        index = list(places)
        self._T, self.B, self.broken, self.finite = (a[index] for a in (self._T, self.B, self.broken, self.finite))
        self.X = None if self.X is None else self.X[index]
        self.members = [self.members[place] for place in places]


def rows_held(most: int) -> int:
    """The most rows that `Lanczos` holds memory for at once: those that it grows out of stand beside the new ones."""
    held = have = most if most <= 64 else 16
    while have < most:
        after = min(2 * have, most)
        held, have = have + after, after
    return held


def _project(Q: Tensor, W: Tensor) -> Tensor:
    """Q W^T, (G, m, b). Of one operator as a plain product of matrices: the batched one took 19 times as long."""
    return (Q[0] @ W[0].T)[None] if len(Q) == 1 else Q @ W.mT
