"""Lanczos: Ritz pairs, with their residuals, of symmetric operators that are given by their products.

References: Parlett, The Symmetric Eigenvalue Problem, ch. 13; Wu & Simon, Thick-restart Lanczos (2000).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from landscape.linalg.krylov import ROUNDING, Lanczos, State
from landscape.linalg.operators import Deflated, Member, Operators
from landscape.linalg.ritz import (
    RitzPairs,
    converged,
    floored,
    known_rounding,
    missed,
    nothing_finite,
    nothing_missed,
    wanted,
)
from landscape.linalg.search import Search
from landscape.linalg.stages import Keeper, Paused, Stages
from landscape.runtime.errors import UserError
from landscape.runtime.random import gaussian
from landscape.runtime.threads import stop_if_asked


def eigenpairs(
    A: Operators,
    start: Tensor,
    search: Search,
    *,
    vectors: bool = False,
    verify: bool = False,
    keeper: Keeper | None = None,
) -> RitzPairs:
    """k eigenpairs of a symmetric operator, by thick-restart Lanczos with full reorthogonalisation.

    The search stops when each of the k wanted residuals is at most tol * |value| (or no more than rounding) and the
    next Ritz pair at each end has converged, or could not become a wanted one even if it moved by twice its residual;
    when the basis spans the whole space; or after `max_products` products, and then the pairs that have not converged
    are marked. The error of a converged value is of the order of residual^2 / gap, far below its residual.

    Parameters
    ----------
    A
        One operator, such as `landscape.Curvature`.
    start
        (n,) or (b, n). It fixes the dtype, the device and every number that follows. Approximate eigenvectors make a
        warm start. Unless the Krylov space is exhausted, one vector finds one copy of a multiple eigenvalue, and a
        block of b vectors finds b copies.
    search
        What is wanted. Beyond max_basis vectors the basis is cut down to the best Ritz vectors (thick restart).
        second_look: when all pairs are found, search again from a random start orthogonal to them. A start that by
        chance holds next to nothing of a wanted eigenvector misses it without a sign.
    vectors
        Whether the pairs come with their vectors.
    verify
        Spend k more products on the true residuals ||A u - value u||.
    keeper
        Keeps the state of the search. If it holds the state of an earlier search, that search continues to the same
        numbers. If it asks the search to stop, the pairs found so far are returned, and they are not `finished`.

    Raises
    ------
    UserError
        For a k outside 1..n, a max_basis below k + b + 1, or an operator that turns out not to be symmetric.
    """
    block = start[None] if start.ndim == 1 else start
    stages = Stages(keeper)
    try:
        pairs = _in_stages(A, block, search, stages, vectors=vectors or verify)
        if verify and pairs.vectors is not None:
            pairs = _verified(A, pairs, search.tol, stages)
    except Paused as paused:
        return replace(paused.pairs, vectors=None, finished=False)
    return pairs if vectors else replace(pairs, vectors=None)


def eigenpairs_in_lockstep(A: Operators, start: Tensor, search: Search, *, vectors: bool = False) -> list[RitzPairs]:
    """The `eigenpairs` of G operators of one size at once; operators that have converged leave the group.

    Parameters
    ----------
    A
        The operators.
    start
        (G, b, n), a block of start vectors for each operator.
    search, vectors
        As in `eigenpairs`.

    Returns
    -------
    list of RitzPairs
        For each operator what `eigenpairs` gives for it alone, to rounding.
    """
    if not search.second_look:
        return _found(Seeking(A, start, search, vectors=vectors))
    first = _found(Seeking(A, start, search, vectors=True))
    looked = [_looked_again(Member(A, g), start[g], pairs, search, Stages()) for g, pairs in enumerate(first)]
    return looked if vectors else [replace(pairs, vectors=None) for pairs in looked]


def _found(seeking: Seeking) -> list[RitzPairs]:
    while not seeking.ended:
        stop_if_asked()
        seeking.step()
    return seeking.pairs


def _in_stages(A: Operators, start: Tensor, search: Search, stages: Stages, *, vectors: bool) -> RitzPairs:
    pairs = _stage(A, start, search, stages, vectors=vectors or search.second_look)
    return _looked_again(A, start, pairs, search, stages) if search.second_look else pairs


def _stage(A: Operators, start: Tensor, search: Search, stages: Stages, *, vectors: bool) -> RitzPairs:
    return stages.carried_out(lambda: Seeking(A, start[None], search, vectors=vectors), search.k, start)


class Seeking:
    """A search under way: a Krylov basis that grows by one product with each operator per step, and its results so far.

    start: (G, b, n). `pairs` may be read once the search has `ended`.
    """

    def __init__(self, A: Operators, start: Tensor, search: Search, *, vectors: bool) -> None:
        self.G, b, n = start.shape
        k = search.k
        if k > n:
            raise UserError(f"k={k} eigenvalues were asked of an operator of size {n}; take 1 to {n}")
        self.most = n if search.max_basis is None else search.max_basis
        if self.most < min(k + b + 1, n):
            raise UserError(
                f"max_basis={search.max_basis} is too small for k={k} with blocks of {b}; take {k + b + 1} or more"
            )
        self.search, self.vectors = search, vectors
        self.lanczos = Lanczos(A, start, min(self.most, max(search.max_products, b)))
        self._found: dict[int, RitzPairs] = {}
        self._before_fresh: dict[int, np.ndarray] = {}
        self._checked = 0
        self.sound = True  # whether `state` may be called

    @property
    def ended(self) -> bool:
        """Whether the pairs of every operator are found."""
        return not self.lanczos.members

    @property
    def pairs(self) -> list[RitzPairs]:
        """The pairs of each operator."""
        return [self._found[g] for g in range(self.G)]

    def step(self) -> None:
        """Take one more product with each operator still in the group, and look at the Ritz values where due."""
        lanczos = self.lanczos
        lanczos.step()
        width = 0 if lanczos.X is None else lanczos.X.shape[1]
        last = lanczos.products + width > self.search.max_products or lanczos.exhausted
        full = lanczos.m + width > self.most
        # Ritz values cost little beside a product while there are few, and are of no use while there are at most k.
        due = lanczos.m > self.search.k and lanczos.m - self._checked >= max(1, lanczos.m // 32)
        if not (due or last or full or not lanczos.finite.all()):
            return
        self._checked = lanczos.m
        self.sound = False
        theta, S = self._looked_at(last)
        if full and lanczos.members:
            self._restarted(theta, S, width)
        self.sound = True

    def _looked_at(self, last: bool) -> tuple[np.ndarray, np.ndarray]:
        """Ritz values and vectors of the operators that continue; the others leave the group with their pairs."""
        lanczos = self.lanczos
        theta, S, residuals = lanczos.ritz()
        finished = []
        for place, member in enumerate(lanczos.members):
            if not lanczos.finite[place]:
                self._found[member] = nothing_finite(self.search.k, lanczos.products)
                finished.append(place)
                continue
            picked, complete, reached = self._judged(place, theta[place], residuals[place])
            if last or (complete and reached):
                pairs = self._recorded(place, theta[place], residuals[place], picked, complete)
                self._found[member] = replace(pairs, vectors=self._vectors(place, S, picked)) if self.vectors else pairs
                finished.append(place)
        if finished:
            going = [place for place in range(len(lanczos.members)) if place not in finished]
            theta, S = theta[going], S[going]
            lanczos.keep(going)
        return theta, S

    def _judged(self, place: int, t: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, bool, bool]:
        """The wanted Ritz values, whether none of them can be missing, and whether their residuals are small enough."""
        search, lanczos = self.search, self.lanczos
        member = lanczos.members[place]
        picked = wanted(t, search)
        rounding = ROUNDING * torch.finfo(lanczos.dtype).eps * np.abs(t).max()
        slack = np.maximum(search.tol * np.abs(t[picked]), rounding)
        reached = bool((r[picked] <= slack).all())  # a residual below rounding tells nothing
        complete = len(picked) == search.k and nothing_missed(t, r, picked, search)
        if complete and lanczos.broken[place]:  # only a step along the fresh direction shows what lies in it
            known = self._before_fresh.get(member)
            self._before_fresh[member] = t[picked]
            complete = known is not None and bool((np.abs(t[picked] - known) <= slack).all())
        return picked, complete, reached

    def _recorded(self, place: int, t: np.ndarray, r: np.ndarray, picked: np.ndarray, complete: bool) -> RitzPairs:
        lanczos, k, tol = self.lanczos, self.search.k, self.search.tol
        rounding = known_rounding(float(lanczos.asymmetry[place]), t, lanczos.dtype)
        values = _padded(t[picked], k)
        residuals = _padded(floored(r[picked], t[picked], rounding, lanczos.dtype), k)
        met = converged(values, residuals, tol, rounding)
        complete = complete or lanczos.exhausted
        return RitzPairs(values, residuals, met, complete, None, lanczos.products, rounding=rounding)

    def _vectors(self, place: int, S: np.ndarray, picked: np.ndarray) -> Tensor:
        k = self.search.k
        if self.G == 1:  # in place: k eigenvectors never need more memory than the basis did
            self.lanczos.rotate(S[:, :, picked])
            return _filled(self.lanczos.Q[0], k)
        Q = self.lanczos.Q[place]
        return _filled(torch.as_tensor(S[place][:, picked].T.copy()).to(Q) @ Q, k)

    def _restarted(self, theta: np.ndarray, S: np.ndarray, width: int) -> None:
        k = self.search.k
        p = min(self.most - width, k + (self.most - k) // 2)
        kept = replace(self.search.within(self.lanczos.n), k=p)
        chosen = np.stack([np.sort(wanted(t, kept)) for t in theta])
        self.lanczos.restart(
            np.take_along_axis(theta, chosen, axis=1), np.take_along_axis(S, chosen[:, None, :], axis=2)
        )
        self._checked = self.lanczos.m

    def so_far(self) -> RitzPairs:
        """The pairs of a single operator as they stand; NaN for those that it has not reached."""
        theta, _, residuals = self.lanczos.ritz()
        picked = wanted(theta[0], self.search)
        return self._recorded(0, theta[0], residuals[0], picked, complete=False)

    def state(self) -> dict[str, Tensor | np.ndarray]:
        """What `restore` needs to continue to the same numbers, for a single operator; empty before the first step."""
        if not self.lanczos.m:
            return {}
        fresh = {"before_fresh": self._before_fresh[0]} if self._before_fresh else {}
        return {**self.lanczos.state(), "checked": np.array(self._checked), **fresh}

    def restore(self, state: State) -> None:
        """Continue from the `state` of the same search. Raises ValueError for a state of other shapes."""
        self.lanczos.restore(state)
        self._checked = int(state["checked"])
        self._before_fresh = {0: np.array(state["before_fresh"])} if "before_fresh" in state else {}


def _looked_again(A: Operators, start: Tensor, pairs: RitzPairs, search: Search, stages: Stages) -> RitzPairs:
    """The pairs, completed by those that the first search missed: each vector found in the space orthogonal to them
    becomes a further row of the start of a new search.
    """
    k, n, products = search.k, start.shape[-1], pairs.products
    while pairs.vectors is not None and pairs.complete and pairs.converged.all() and k < n:
        U = pairs.vectors
        fresh = gaussian(start[0], products)
        for _ in range(2):
            fresh = fresh - (U @ fresh) @ U
        count = min(2 if search.which == "BE" and k > 1 else 1, n - k)
        enough = max(pairs.products, count + 2)
        one = replace(search.within(n), k=count, max_products=enough, max_basis=None)
        look = _stage(Deflated(A, U), fresh[None], one, stages, vectors=True)
        products += look.products
        beside = missed(pairs.values, look.values, search)
        if not beside.any() or look.vectors is None or len(start) + beside.sum() > n - k:
            break
        start = torch.cat([start, look.vectors[torch.as_tensor(beside, device=look.vectors.device)]])
        pairs = _stage(A, start, search, stages, vectors=True)
        products += pairs.products
    return replace(pairs, products=products)


def _verified(A: Operators, pairs: RitzPairs, tol: float, stages: Stages) -> RitzPairs:
    """The pairs with residuals ||A u - value u||, each from a product of its own."""
    assert pairs.vectors is not None
    k = len(pairs.values)
    for row in range(len(stages.lengths), k):
        u, value = pairs.vectors[row], float(pairs.values[row])
        remainder = A.rows(u[None, None], [0])[0, 0] - value * u
        stages.measured(float(torch.linalg.vector_norm(remainder, dtype=torch.float64)), pairs)
    residuals = floored(np.array(stages.lengths[:k]), pairs.values, pairs.rounding, pairs.vectors.dtype)
    return replace(
        pairs,
        residuals=residuals,
        converged=converged(pairs.values, residuals, tol, pairs.rounding),
        products=pairs.products + len(residuals),
        verified=True,
    )


def _padded(a: np.ndarray, k: int) -> np.ndarray:
    return np.pad(a, (0, k - len(a)), constant_values=np.nan)


def _filled(u: Tensor, k: int) -> Tensor:
    return u if len(u) == k else torch.cat([u, u.new_full((k - len(u), u.shape[1]), torch.nan)])
