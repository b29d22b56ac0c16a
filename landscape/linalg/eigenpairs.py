"""Lanczos: given a matvec, Ritz pairs with residuals, quadrature nodes and weights.

References: Parlett, The Symmetric Eigenvalue Problem, ch. 13; Golub & Meurant, Matrices, Moments and Quadrature, ch. 6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.linalg.krylov import ROUNDING, Lanczos, ManyMatvec
from landscape.runtime.errors import UserError
from landscape.runtime.random import gaussian

Matvec = Callable[[Tensor], Tensor]


WHICH = ("LM", "LA", "SA", "BE")


OF_VALUE = 300  # in units of eps: a network's forward pass rounds too, which scales eigenvalues. ResNet-20: up to 66


SAFETY = 2  # residuals by which an unconverged Ritz value may still rise; at 1, 3 of 90 spectra of a ViT missed one


@dataclass(frozen=True)
class RitzPairs:
    """k Ritz pairs, in the order of `which`: by magnitude for LM, descending for LA and BE, ascending for SA.

    residuals[i] is ||A u_i - values[i] u_i||: a true eigenvalue lies within it of values[i]. It comes from the
    Lanczos relation, or where `verified` from a product with u_i itself, and is never less than the operator's own
    rounding. That is `rounding`, by which a product may be wrong (ROUNDING * eps * ||A||, or where it is more, what
    products that should agree were seen to differ by), and OF_VALUE * eps * |values[i]|.
    converged[i]: the residual is at most tol * |values[i]|, or value and residual are 0 to rounding. Pairs that the
    search did not reach are NaN.
    `vectors` (k, n) has the u_i as rows. `complete`: no other Ritz pair could still turn into a wanted one by
    its residual. `products` counts every vector that the operator was applied to.
    """

    values: np.ndarray
    residuals: np.ndarray
    converged: np.ndarray
    complete: bool
    vectors: Tensor | None
    products: int
    verified: bool = False
    rounding: float = 0.0


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


def _converged(values: np.ndarray, residuals: np.ndarray, tol: float, rounding: float) -> np.ndarray:
    return residuals <= np.where(np.abs(values) <= rounding, rounding, tol * np.abs(values))


def _floored(residuals: np.ndarray, values: np.ndarray, rounding: float, dtype: torch.dtype) -> np.ndarray:
    return np.maximum(residuals, np.maximum(rounding, OF_VALUE * torch.finfo(dtype).eps * np.abs(values)))


def _rounding(lanczos: Lanczos, place: int, theta: np.ndarray) -> float:
    """What a product of this operator of the group may be wrong by.

    Raises UserError for one that is not symmetric: neither Ritz values nor residuals say anything of it.
    """
    norm, asymmetry = float(np.abs(theta).max()), float(lanczos.asymmetry[place])
    refuse_asymmetric(asymmetry, norm, lanczos.dtype)
    return max(ROUNDING * torch.finfo(lanczos.dtype).eps * norm, asymmetry)


def refuse_asymmetric(asymmetry: float, norm: float, dtype: torch.dtype) -> None:
    """Raises UserError where <u, A v> and <v, A u> of unit vectors differ by more than rounding makes of a norm."""
    if asymmetry > torch.finfo(dtype).eps ** 0.5 * norm:
        raise UserError(
            f"the operator is not symmetric: <u, A v> and <v, A u> differ by {asymmetry:.2g} where its largest "
            f"eigenvalue is about {norm:.2g}; a Hessian is not where a second derivative is wrong, as torch's of "
            "weight_norm is, or the loss draws random numbers, as dropout that is always on: take that out"
        )


def _nothing_missed(theta: np.ndarray, residuals: np.ndarray, picked: np.ndarray, which: str, tol: float) -> bool:
    """Whether the next Ritz value at each wanted end has either converged too, and so is known to come after the ones
    picked, or could not pass them even by SAFETY times its residual. As the basis grows, Ritz values interlace: what
    is still to be found passes through the next one.
    """
    rest = np.setdiff1d(np.arange(len(theta)), picked)
    if not len(rest):
        return True
    rounding = ROUNDING * np.finfo(float).eps * np.abs(theta).max()
    least = np.abs(theta[picked]).min()
    split = {"LM": 0, "LA": len(picked), "SA": 0, "BE": len(picked) - len(picked) // 2}[which]
    high, low = theta[picked[:split]], theta[picked[split:]]
    for end, i in (("low", rest[0]), ("high", rest[-1])):
        reach = SAFETY * residuals[i]
        if residuals[i] <= tol * abs(theta[i]):
            continue
        if which == "LM":
            passes = abs(theta[i]) + reach > least + rounding
        elif end == "high":
            passes = len(high) > 0 and theta[i] + reach > high.min() + rounding
        else:
            passes = len(low) > 0 and theta[i] - reach < low.max() - rounding
        if passes:
            return False
    return True


def eigenpairs(
    matvec: Matvec,
    start: Tensor,
    k: int,
    *,
    which: str = "LM",
    tol: float = 1e-2,
    max_products: int = 200,
    max_basis: int | None = None,
    vectors: bool = False,
    verify: bool = False,
    second_look: bool = False,
) -> RitzPairs:
    """k eigenpairs of a symmetric operator, by thick-restart Lanczos with full reorthogonalisation.

    Stops when each of the k wanted residuals is at most tol * |value| (or no more than rounding) and the next Ritz pair
    at each end has converged, or could not be a wanted one by twice its residual; when the whole space is spanned; or
    after `max_products` products: then what has not converged is marked.
    The error of a converged value is of the order of residual^2 / gap, far below its residual.

    matvec: maps a vector (n,) to (n,), or where `start` is a block (b, n), rows (b, n) to rows (b, n).
    start: (n,) or (b, n), fixes type, device and, with it, every number that follows. Approximate eigenvectors make
        a warm start. One vector finds one copy of a multiple eigenvalue unless the Krylov space is exhausted, a block
        of b vectors b copies.
    max_basis: vectors held at once; beyond it, the basis is cut down to the best Ritz vectors (thick restart).
    verify: spend k more products on the true residuals ||A u - value u||.
    second_look: once all is found, search again from a random start orthogonal to it, for no more products than were
        spent: a start that by chance holds next to nothing of a wanted eigenvector misses it unseen.

    Raises UserError for a k outside 1..n, an unknown `which`, a max_basis below k + b + 1, or an operator that turns
    out not to be symmetric.
    """
    single = start.ndim == 1
    block = start[None] if single else start

    def apply(X: Tensor, _: Sequence[int]) -> Tensor:
        return matvec(X[0, 0])[None, None] if single else matvec(X[0])[None]

    (pairs,) = eigenpairs_in_lockstep(
        apply,
        block[None],
        k,
        which=which,
        tol=tol,
        max_products=max_products,
        max_basis=max_basis,
        vectors=vectors or verify,
        second_look=second_look,
    )
    if verify and pairs.vectors is not None:
        u = pairs.vectors
        remainders = (
            (matvec(row) if single else matvec(row[None])[0]) - value * row
            for value, row in zip(pairs.values.tolist(), u, strict=True)
        )
        lengths = np.array([float(torch.linalg.vector_norm(r, dtype=torch.float64)) for r in remainders])
        residuals = _floored(lengths, pairs.values, pairs.rounding, start.dtype)
        pairs = replace(
            pairs,
            residuals=residuals,
            converged=_converged(pairs.values, residuals, tol, pairs.rounding),
            vectors=u if vectors else None,
            products=pairs.products + k,
            verified=True,
        )
    return pairs


def eigenpairs_in_lockstep(
    matvec: ManyMatvec,
    start: Tensor,
    k: int,
    *,
    which: str = "LM",
    tol: float = 1e-2,
    max_products: int = 200,
    max_basis: int | None = None,
    vectors: bool = False,
    second_look: bool = False,
) -> list[RitzPairs]:
    """`eigenpairs` of G operators of one size at once; those that have converged leave the group.

    matvec: from rows (G', b, n) and the numbers of the G' operators still sought to the products (G', b, n).
    start: (G, b, n). Each operator's result is that of `eigenpairs` for it alone, to rounding.

    It is one loop from start to end, since all of its parts share the whole state of the search.
    """
    if second_look:
        settings: dict[str, Any] = {"which": which, "tol": tol, "max_products": max_products, "max_basis": max_basis}
        found_first = eigenpairs_in_lockstep(matvec, start, k, vectors=True, **settings)
        looked = [_looked_again(matvec, g, start[g], pairs, settings) for g, pairs in enumerate(found_first)]
        return looked if vectors else [replace(pairs, vectors=None) for pairs in looked]
    G, b, n = start.shape
    if not 1 <= k <= n:
        raise UserError(f"k={k} eigenvalues asked of an operator of size {n}; take 1 to {n}")
    wanted(np.zeros(1), 1, which)
    most = n if max_basis is None else max_basis
    if most < min(k + b + 1, n):
        raise UserError(f"max_basis={max_basis} is too small for k={k} by blocks of {b}; take {k + b + 1} or more")
    lanczos = Lanczos(matvec, start, min(most, max(max_products, b)))
    found: dict[int, RitzPairs] = {}
    before_fresh: dict[int, np.ndarray] = {}
    checked = 0
    while lanczos.members:
        lanczos.step()
        width = 0 if lanczos.X is None else lanczos.X.shape[1]
        spent = lanczos.products + width > max_products
        full = lanczos.m + width > most
        last = spent or lanczos.exhausted
        # A look at the Ritz values is cheap beside a product while there are few, and of no use while fewer than k + 1.
        due = lanczos.m > k and lanczos.m - checked >= max(1, lanczos.m // 32)
        if not (due or last or full or not lanczos.finite.all()):
            continue
        checked = lanczos.m
        theta, S, residuals = lanczos.ritz()
        finished = []
        for place, member in enumerate(lanczos.members):
            if not lanczos.finite[place]:
                found[member] = _nothing_finite(k, lanczos.products)
                finished.append(place)
                continue
            t, r = theta[place], residuals[place]
            picked = wanted(t, k, which)
            rounding = ROUNDING * torch.finfo(start.dtype).eps * np.abs(t).max()
            slack = np.maximum(tol * np.abs(t[picked]), rounding)
            reached = r[picked] <= slack  # what is less than rounding is no longer known
            complete = len(picked) == k and _nothing_missed(t, r, picked, which, tol)
            if complete and lanczos.broken[place]:  # what the fresh direction holds is not known before a step with it
                known = before_fresh.get(member)
                before_fresh[member] = t[picked]
                complete = known is not None and bool((np.abs(t[picked] - known) <= slack).all())
            if last or (complete and bool(reached.all())):
                rounding = _rounding(lanczos, place, t)
                values = _padded(t[picked], k)
                r = _padded(_floored(r[picked], t[picked], rounding, start.dtype), k)
                u = _vectors(lanczos.Q[place], S[place][:, picked], k) if vectors and G > 1 else None
                found[member] = RitzPairs(
                    values,
                    r,
                    _converged(values, r, tol, rounding),
                    complete or lanczos.exhausted,
                    u,
                    lanczos.products,
                    rounding=rounding,
                )
                finished.append(place)
                if vectors and G == 1:  # in place: k eigenvectors never need more than the basis did
                    lanczos.rotate(S[:, :, picked])
                    found[member] = replace(found[member], vectors=_filled(lanczos.Q[0], k))
        if finished:
            going = [place for place in range(len(lanczos.members)) if place not in finished]
            theta, S = theta[going], S[going]
            lanczos.keep(going)
        if full and lanczos.members:
            p = min(most - width, k + (most - k) // 2)
            chosen = np.stack([np.sort(wanted(t, p, which)) for t in theta])
            lanczos.restart(
                np.take_along_axis(theta, chosen, axis=1), np.take_along_axis(S, chosen[:, None, :], axis=2)
            )
            checked = lanczos.m
    return [found[g] for g in range(G)]


def _looked_again(matvec: ManyMatvec, g: int, start: Tensor, pairs: RitzPairs, settings: dict[str, Any]) -> RitzPairs:
    """The pairs of the g-th operator, with those that they lacked: what is found beside them goes into the start of a
    new search, as rows of their own.
    """

    def rowwise(X: Tensor, _: Sequence[int] = ()) -> Tensor:
        return torch.cat([matvec(row[None, None], [g]) for row in X[0]], dim=1)

    k, n, products = len(pairs.values), start.shape[-1], pairs.products
    while pairs.vectors is not None and pairs.complete and pairs.converged.all() and k < n:
        U = pairs.vectors

        def deflated(X: Tensor, _: Sequence[int], U: Tensor = U) -> Tensor:
            W = rowwise(X)
            return W - (W @ U.T) @ U

        fresh = gaussian(start[0], products)
        for _ in range(2):
            fresh = fresh - (U @ fresh) @ U
        count = min(2 if settings["which"] == "BE" and k > 1 else 1, n - k)
        enough = max(pairs.products, count + 2)
        (look,) = eigenpairs_in_lockstep(
            deflated, fresh[None, None], count, vectors=True, **{**settings, "max_products": enough, "max_basis": None}
        )
        products += look.products
        missed = _missed(pairs.values, look.values, settings["which"], settings["tol"])
        if not missed.any() or look.vectors is None or len(start) + missed.sum() > n - k:
            break
        start = torch.cat([start, look.vectors[torch.as_tensor(missed, device=look.vectors.device)]])
        (pairs,) = eigenpairs_in_lockstep(rowwise, start[None], k, vectors=True, **settings)
        products += pairs.products
    return replace(pairs, products=products)


def _missed(found: np.ndarray, beside: np.ndarray, which: str, tol: float) -> np.ndarray:
    """Which of the values seen beside the wanted ones that were found come before one of these by more than `tol`."""
    split = {"LM": 0, "LA": len(found), "SA": 0, "BE": len(found) - len(found) // 2}[which]
    high, low = found[:split], found[split:]
    if which == "LM":
        return np.abs(beside) > (1 + tol) * np.abs(found).min()
    missed = np.zeros(len(beside), bool)
    if len(high):
        missed |= beside > high.min() + tol * abs(high.min())
    if len(low):
        last = low.max()
        missed |= beside < last - tol * abs(last)
    if which == "BE":  # each was sought at its own end
        ends = np.arange(len(beside)) < len(beside) - len(beside) // 2
        missed &= np.where(ends, beside > high.min(), beside < (low.max() if len(low) else -np.inf))
    return missed


def _nothing_finite(k: int, products: int) -> RitzPairs:
    nan = np.full(k, np.nan)
    return RitzPairs(nan, nan.copy(), np.zeros(k, bool), False, None, products)


def _padded(a: np.ndarray, k: int) -> np.ndarray:
    return np.pad(a, (0, k - len(a)), constant_values=np.nan)


def _vectors(Q: Tensor, S: np.ndarray, k: int) -> Tensor:
    return _filled(torch.as_tensor(S.T.copy()).to(Q) @ Q, k)


def _filled(u: Tensor, k: int) -> Tensor:
    return u if len(u) == k else torch.cat([u, u.new_full((k - len(u), u.shape[1]), torch.nan)])
