"""Trace and Frobenius norm of the Hessian, by random probes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr

from landscape.analyses.density import MOMENTS, _empty_folds, _errors, _penalty_trace
from landscape.curvature.jackknife import FoldedCurvature, Moments
from landscape.objective.clusters import LEAST_UNITS
from landscape.objective.objective import Objective
from landscape.runtime.errors import UserError
from landscape.runtime.random import rademacher
from landscape.store.units import Index, Save, begin, each_not_done

ESTIMATORS = ("hutchinson", "hutch++")


def hessian_trace(
    objective: Objective,
    *,
    products: int = 60,
    estimator: str = "hutch++",
    chunk_size: int | None = None,
    kind: str = "hessian",
    seed: int = 0,
    partial: xr.Dataset | None = None,
    save: Save | None = None,
    save_every: float = 10.0,
    progress: bool = False,
) -> xr.Dataset:
    """Trace and squared Frobenius norm of the Hessian on the whole frozen data, from `products` Hessian products.

    "hutchinson": means of v^T H v and ||H v||^2 over probes v with entries +-1.
    "hutch++": a third of the products finds an orthonormal Q near the top eigenvectors, a third gives tr(Q^T H Q) and
    ||H Q||_F^2 exactly, and probes estimate what is left, tr(P H P) and ||H P||_F^2 with P = I - Q Q^T (Meyer et al.,
    arXiv:2010.09649, alg. 1): far less variance where few eigenvalues carry the trace. Of a network's outliers that is
    so; where the spectrum is flat, Hutchinson's more probes win. Q is held: a third of `products` vectors of the
    network's size, and ten more for the folds of the examples.

    Returns a Dataset with dims (probe): trace_estimate, frobenius_squared_estimate (each the exact part plus the
    probe's) and done; (probe, fold): trace_without_fold, frobenius_squared_without_fold, the same without a fold of the
    examples; scalars products, trace and frobenius_squared, and for each its standard errors: trace_sem_probes, how far
    other probes would have given another number; trace_sem_examples, how far other examples, whatever the
    probes, by delete-one-fold jackknife with Q held; and trace_sem, the root of the sum of their squares. From fewer
    than 8 probes or folds a standard error is NaN. With a penalty penalty_trace, its exact share in the trace.
    Raises UserError for an unknown estimator, or too few products for two probes.
    """
    if estimator not in ESTIMATORS:
        raise UserError(f"estimator={estimator!r} is not one of {', '.join(ESTIMATORS)}")
    H = FoldedCurvature(objective, kind=kind, chunk_size=chunk_size)
    rank = min(products // 3, H.n) if estimator == "hutch++" else 0
    probes = products - 2 * rank
    if probes < 2:
        raise UserError(
            f"products={products} leave {max(probes, 0)} probes; a standard error needs {LEAST_UNITS} or more"
        )
    config = {
        "analysis": "trace",
        "products": products,
        "estimator": estimator,
        "kind": kind,
        "seed": seed,
        "parameters": H.n,
        "objective": objective.config(),
    }
    result = begin(_empty_trace(probes).assign(_empty_folds(probes, H.folds)), config, partial)
    if not result["done"].all():
        Q, exact = _sketched(H, rank, seed)

        def compute(indices: list[Index]) -> None:
            ((i,),) = indices
            v = rademacher(H.zeros(), seed, 1, i)
            v = v - (Q @ v) @ Q
            moments = exact + H.with_moments(v)[1]
            result["trace_estimate"].values[i] = moments.first
            result["frobenius_squared_estimate"].values[i] = moments.second
            result["trace_without_fold"].values[i] = moments.first_without
            result["frobenius_squared_without_fold"].values[i] = moments.second_without

        each_not_done(result, compute, save=save, save_every=save_every, progress=progress)
    found: dict[str, Any] = {"products": products}
    for name in MOMENTS:
        estimates = result[f"{name}_estimate"].values
        found[name] = float(estimates.mean())
        found |= _errors(name, estimates, result)
    return result.assign(found | _penalty_trace(H))


def _sketched(H: FoldedCurvature, rank: int, seed: int) -> tuple[torch.Tensor, Moments]:
    """Q (rank, n) with orthonormal rows spanning H S for random signs S; tr(Q H Q^T) and ||H Q^T||_F^2."""
    Q = H.zeros().new_empty(rank, H.n)
    for i in range(rank):
        Q[i] = H(rademacher(H.zeros(), seed, 0, i))
    if not rank or not torch.isfinite(Q).all():
        return Q[:0], H.no_moments()
    Q = torch.linalg.qr(Q.T)[0].T.contiguous()
    return Q, sum((H.with_moments(q)[1] for q in Q), H.no_moments())


def _empty_trace(probes: int) -> xr.Dataset:
    one = ("probe",)
    return xr.Dataset(
        {
            "trace_estimate": (one, np.full(probes, np.nan), {"long_name": "trace, by one probe"}),
            "frobenius_squared_estimate": (
                one,
                np.full(probes, np.nan),
                {"long_name": "squared Frobenius norm, by one probe"},
            ),
            "done": (one, np.zeros(probes, bool), {"long_name": "computed"}),
        },
        {"probe": np.arange(probes)},
    )
