"""Ritz pairs: which are wanted, which have converged, and whether a wanted one may have been missed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.linalg.krylov import ROUNDING
from landscape.linalg.search import Search
from landscape.runtime.errors import UserError

OF_VALUE = 300  # relative error of an eigenvalue, in units of eps, from rounding in the forward pass: up to 66 measured
SAFETY = 2  # residuals by which an unconverged Ritz value may still rise; with 1, 3 of 90 spectra of a ViT missed one


@dataclass(frozen=True)
class RitzPairs:
    """k Ritz pairs, in the order of `which`: by magnitude for LM, descending for LA and BE, ascending for SA.

    Parameters
    ----------
    values
        (k,); NaN where the search found none.
    residuals
        (k,), ||A u_i - values[i] u_i||: a true eigenvalue lies within this distance of values[i]. A residual comes from
        the Lanczos relation or, if `verified`, from a product with u_i itself. It is never smaller than `rounding` or
        OF_VALUE * eps * |values[i]|, which the arithmetic cannot resolve.
    converged
        (k,), whether the residual is at most tol * |values[i]|, or value and residual are 0 to rounding.
    complete
        Whether no other Ritz pair could still turn into a wanted one, as judged by its residual.
    vectors
        (k, n), the u_i as rows; None where they were not asked for.
    products
        The number of vectors to which the operator was applied.
    verified
        Whether the residuals come from products with the u_i.
    rounding
        The error that a product may have: ROUNDING * eps * ||A||, or the observed difference of products that should
        agree, if that is larger.
    finished
        Whether the search came to its end. Otherwise it was asked to stop, and these are the pairs so far.
    """

    values: np.ndarray
    residuals: np.ndarray
    converged: np.ndarray
    complete: bool
    vectors: Tensor | None
    products: int
    verified: bool = False
    rounding: float = 0.0
    finished: bool = True


def nothing_finite(k: int, products: int) -> RitzPairs:
    """The pairs of an operator whose product was not finite."""
    nan = np.full(k, np.nan)
    return RitzPairs(nan, nan.copy(), np.zeros(k, bool), False, None, products)


def wanted(values: np.ndarray, search: Search) -> np.ndarray:
    """Indices of the k wanted among `values` (ascending), best first; `which` as in scipy.sparse.linalg.eigsh."""
    m = len(values)
    if search.which == "LM":
        return np.argsort(-np.abs(values), kind="stable")[: search.k]
    high, low = search.ends(m)
    from_low = np.arange(low)[::-1] if search.which == "BE" else np.arange(low)
    return np.concatenate([np.arange(m)[::-1][:high], from_low])


def converged(values: np.ndarray, residuals: np.ndarray, tol: float, rounding: float) -> np.ndarray:
    """Which residuals are at most tol * |value|, or at most rounding where the value is no larger than that either."""
    return residuals <= np.where(np.abs(values) <= rounding, rounding, tol * np.abs(values))


def floored(residuals: np.ndarray, values: np.ndarray, rounding: float, dtype: torch.dtype) -> np.ndarray:
    """The residuals, raised to the least that the arithmetic resolves."""
    return np.maximum(residuals, np.maximum(rounding, OF_VALUE * torch.finfo(dtype).eps * np.abs(values)))


def known_rounding(asymmetry: float, theta: np.ndarray, dtype: torch.dtype) -> float:
    """The error that a product may have, for an operator with Ritz values theta.

    Raises UserError for an operator that is not symmetric: its Ritz values and residuals mean nothing.
    """
    norm = float(np.abs(theta).max())
    refuse_asymmetric(asymmetry, norm, dtype)
    return max(ROUNDING * torch.finfo(dtype).eps * norm, asymmetry)


def refuse_asymmetric(asymmetry: float, norm: float, dtype: torch.dtype) -> None:
    """Raise UserError if <u, A v> and <v, A u> of unit vectors differ by more than rounding at this norm explains."""
    if asymmetry > torch.finfo(dtype).eps ** 0.5 * norm:
        raise UserError(
            f"the operator is not symmetric: <u, A v> and <v, A u> differ by {asymmetry:.2g} where its largest "
            f"eigenvalue is about {norm:.2g}; a Hessian is not symmetric if a second derivative is wrong, such as "
            "torch's of weight_norm, if the loss draws random numbers, such as dropout that is always on, or if "
            "weights in float64 meet a part in float32: remove that part"
        )


def nothing_missed(theta: np.ndarray, residuals: np.ndarray, picked: np.ndarray, search: Search) -> bool:
    """Whether the next Ritz value at each wanted end has converged too, and so is known to come after those picked, or
    could not pass them even if it moved by SAFETY times its residual. As the basis grows, Ritz values interlace: an
    eigenvalue that is still to be found shows first in the next Ritz value.
    """
    rest = np.setdiff1d(np.arange(len(theta)), picked)
    if not len(rest):
        return True
    rounding = ROUNDING * np.finfo(float).eps * np.abs(theta).max()
    least = np.abs(theta[picked]).min()
    split = search.ends(len(picked))[0]
    high, low = theta[picked[:split]], theta[picked[split:]]
    for end, i in (("low", rest[0]), ("high", rest[-1])):
        reach = SAFETY * residuals[i]
        if residuals[i] <= search.tol * abs(theta[i]):
            continue
        if search.which == "LM":
            passes = abs(theta[i]) + reach > least + rounding
        elif end == "high":
            passes = len(high) > 0 and theta[i] + reach > high.min() + rounding
        else:
            passes = len(low) > 0 and theta[i] - reach < low.max() - rounding
        if passes:
            return False
    return True


def missed(found: np.ndarray, beside: np.ndarray, search: Search) -> np.ndarray:
    """Which of the values `beside`, from a second look, should have been among those `found`, by more than `tol`."""
    tol, split = search.tol, search.ends(len(found))[0]
    high, low = found[:split], found[split:]
    if search.which == "LM":
        return np.abs(beside) > (1 + tol) * np.abs(found).min()
    before = np.zeros(len(beside), bool)
    if len(high):
        before |= beside > high.min() + tol * abs(high.min())
    if len(low):
        last = low.max()
        before |= beside < last - tol * abs(last)
    if search.which == "BE":  # each was searched for at its own end
        ends = np.arange(len(beside)) < len(beside) - len(beside) // 2
        before &= np.where(ends, beside > high.min(), beside < (low.max() if len(low) else -np.inf))
    return before
