"""Lanczos: given a matvec, the tridiagonalisation, Ritz pairs with residuals, quadrature nodes and weights.

Nothing here knows what the operator is: the same functions meet a 12 x 12 matrix in a test and a ViT in use.
References: Parlett, The Symmetric Eigenvalue Problem, ch. 13; Golub & Meurant, Matrices, Moments and Quadrature, ch. 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from landscape.errors import UserError

Matvec = Callable[[Tensor], Tensor]
WHICH = ("LM", "LA", "SA", "BE")


class Tridiagonalisation:
    """A Q = Q T + beta_m q_{m+1} e_m^T, grown a step at a time, with full reorthogonalisation.

    `T` has diagonal `alpha` (m,) and off-diagonal `beta` (m - 1,), held in float64; the rows of `Q` (m, n) are
    orthonormal to rounding. Where the Krylov space is exhausted before step n (breakdown), it goes on from a fresh
    random direction orthogonal to all before, with a beta of exactly 0: a new invariant subspace.
    """

    def __init__(self, matvec: Matvec, start: Tensor, generator: torch.Generator | None = None) -> None:
        norm = torch.linalg.vector_norm(start)
        if not torch.isfinite(norm) or norm == 0:
            raise ValueError("the start vector must be finite and not zero")
        self.matvec = matvec
        self.n = start.numel()
        self.alpha: list[float] = []
        self._betas: list[float] = []
        self._rows: Tensor = start.new_empty(min(32, self.n), self.n)
        self._next: Tensor | None = start / norm
        self._generator = generator or torch.Generator().manual_seed(0)
        self.exhausted = False

    @property
    def steps(self) -> int:
        return len(self.alpha)

    @property
    def Q(self) -> Tensor:
        return self._rows[: self.steps]

    @property
    def beta(self) -> np.ndarray:
        return np.array(self._betas[: max(0, self.steps - 1)])

    @property
    def beta_last(self) -> float:
        """beta_m, the norm of what the last product added outside the basis."""
        return self._betas[-1]

    def step(self) -> None:
        """One more product with the operator. Must not be called once `exhausted` or after a non-finite product."""
        q = self._next
        assert q is not None, "the basis already spans the whole space"
        if self.steps == len(self._rows):
            rows = self._rows.new_empty(min(2 * len(self._rows), self.n), self.n)
            rows[: self.steps] = self._rows
            self._rows = rows
        self._rows[self.steps] = q
        w = self.matvec(q)
        self.alpha.append(float(torch.dot(w, q)))
        w = self._orthogonalise(w)
        beta = float(torch.linalg.vector_norm(w))
        if not np.isfinite(beta):
            self._betas.append(beta)
            self.exhausted, self._next = True, None
            return
        scale = max(map(abs, self.alpha)) + max([0.0, *self._betas])
        if beta <= 10 * torch.finfo(w.dtype).eps * np.sqrt(self.n) * max(scale, beta):
            self._betas.append(0.0)
            self._next = self._fresh(w)
        else:
            self._betas.append(beta)
            self._next = w / beta
        if self.steps == self.n:
            self._betas[-1] = 0.0
            self._next = None
        self.exhausted = self._next is None

    def _orthogonalise(self, w: Tensor) -> Tensor:
        # Classical Gram-Schmidt, twice: as orthogonal as modified, in four matrix-vector products.
        for _ in range(2):
            w = w - self.Q.T @ (self.Q @ w)
        return w

    def _fresh(self, like: Tensor) -> Tensor | None:
        if self.steps >= self.n:
            return None
        while True:  # a draw may by chance lie in the space already spanned
            w = torch.randn(self.n, generator=self._generator, dtype=torch.float64).to(like)
            w = self._orthogonalise(w / torch.linalg.vector_norm(w))
            norm = torch.linalg.vector_norm(w)
            if norm > torch.finfo(w.dtype).eps ** 0.5:
                return self._orthogonalise(w / norm)

    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Ritz values (m,), ascending, and the eigenvectors S (m, m) of T as columns."""
        return eigh_tridiagonal(np.array(self.alpha), self.beta)


@dataclass(frozen=True)
class RitzPairs:
    """k Ritz pairs, in the order of `which`: by magnitude for LM, descending for LA and BE, ascending for SA.

    residuals[i] is ||A u_i - values[i] u_i|| as Lanczos gives it, |beta_m s_mi|: a true eigenvalue lies within it of
    values[i]. Pairs that the search did not reach are NaN. `vectors` has the u_i as rows.
    """

    values: np.ndarray
    residuals: np.ndarray
    converged: np.ndarray
    vectors: Tensor | None
    products: int


def wanted(values: np.ndarray, k: int, which: str) -> np.ndarray:
    """Indices of the k wanted among `values` (ascending), best first; `which` as in scipy.sparse.linalg.eigsh."""
    m = len(values)
    k = min(k, m)
    if which == "LM":
        return np.argsort(-np.abs(values), kind="stable")[:k]
    if which == "LA":
        return np.arange(m)[::-1][:k]
    if which == "SA":
        return np.arange(m)[:k]
    if which == "BE":  # the odd one from the high end
        high, low = k - k // 2, k // 2
        return np.concatenate([np.arange(m)[::-1][:high], np.arange(low)[::-1]])
    raise UserError(f"which={which!r} is not one of {', '.join(WHICH)}")


def eigenpairs(
    matvec: Matvec,
    start: Tensor,
    k: int,
    *,
    which: str = "LM",
    tol: float = 1e-2,
    max_products: int = 200,
    vectors: bool = False,
) -> RitzPairs:
    """k eigenpairs of a symmetric operator, by Lanczos with full reorthogonalisation.

    Stops when each of the k wanted residuals is at most tol * |value| (or at the rounding of the largest value, for
    eigenvalues near 0), when the whole space is spanned, or after `max_products` products: then what has not
    converged is marked. The error of a converged value is of the order of residual^2 / gap, far below its residual.

    matvec maps (n,) to (n,); `start` (n,) fixes type, device and, with it, every number that follows.
    Raises UserError for a k outside 1..n or an unknown `which`.
    """
    n = start.numel()
    if not 1 <= k <= n:
        raise UserError(f"k={k} eigenvalues asked of an operator of size {n}; take 1 to {n}")
    wanted(np.zeros(1), 1, which)
    rounding = torch.finfo(start.dtype).eps
    lanczos = Tridiagonalisation(matvec, start)
    while True:
        lanczos.step()
        finite = np.isfinite(lanczos.alpha[-1]) and np.isfinite(lanczos.beta_last)
        if not finite:  # the operator has no finite spectrum here: a result, not a failure
            nan = np.full(k, np.nan)
            return RitzPairs(nan, nan.copy(), np.zeros(k, bool), None, lanczos.steps)
        theta, S = lanczos.ritz()
        picked = wanted(theta, k, which)
        values = theta[picked]
        residuals = np.abs(lanczos.beta_last * S[-1, picked])
        converged = residuals <= np.maximum(tol * np.abs(values), rounding * np.abs(theta).max())
        done = len(picked) == k and bool(converged.all())
        if done or lanczos.exhausted or lanczos.steps >= max_products:
            break
    short = k - len(picked)
    u = None
    if vectors:
        u = torch.as_tensor(S[:, picked].T).to(start) @ lanczos.Q
        u = torch.cat([u, u.new_full((short, n), torch.nan)])
    return RitzPairs(
        np.pad(values, (0, short), constant_values=np.nan),
        np.pad(residuals, (0, short), constant_values=np.nan),
        np.pad(converged, (0, short), constant_values=False),
        u,
        lanczos.steps,
    )


def quadrature(matvec: Matvec, probe: Tensor, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss quadrature of the spectral measure of a probe: nodes (steps,), and weights (steps,) that sum to 1.

    sum_i w_i f(t_i) equals v^T f(A) v for v = probe / ||probe|| and every polynomial f of degree below 2 * steps
    (Golub & Meurant, th. 6.4). Where the Krylov space of the probe is exhausted earlier, the remaining entries are
    NaN nodes of weight 0.
    """
    lanczos = Tridiagonalisation(matvec, probe)
    for _ in range(min(steps, probe.numel())):
        lanczos.step()
        if lanczos.exhausted or lanczos.beta_last == 0:
            break
    nodes, weights = np.full(steps, np.nan), np.zeros(steps)
    if np.isfinite(lanczos.alpha).all():
        theta, S = lanczos.ritz()
        nodes[: len(theta)], weights[: len(theta)] = theta, S[0] ** 2
    else:
        weights[:] = np.nan
    return nodes, weights
