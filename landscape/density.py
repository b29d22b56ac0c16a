"""Averages over the whole spectrum, by random probes: spectral density, trace, Frobenius norm, each with its error."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr

from landscape.curvature import Curvature
from landscape.draws import rademacher
from landscape.errors import UserError
from landscape.lanczos import quadrature
from landscape.objective import Objective
from landscape.resumable import Index, Save, begin, each_not_done

ESTIMATORS = ("hutchinson", "hutch++")


def spectral_density(
    objective: Objective,
    *,
    probes: int = 10,
    steps: int = 80,
    batch_size: int | None = None,
    batches: int | None = None,
    chunk_size: int | None = None,
    kind: str = "hessian",
    seed: int = 0,
    partial: xr.Dataset | None = None,
    save: Save | None = None,
    save_every: float = 10.0,
    progress: bool = False,
) -> xr.Dataset:
    """The spectral density of the Hessian, by stochastic Lanczos quadrature.

    Each probe has entries +-1 (Rademacher); its nodes and weights are kept raw, the weights summing to 1
    (Ghorbani et al. 2019, sec. 2.1; Ubaru, Chen & Saad 2017).

    batch_size, batches: None for the Hessian of the whole frozen data; otherwise those of the first `batches` frozen
        mini-batches in turn, probe i on mini-batch i modulo their number: the density averaged over mini-batches, its
        errors over both draws.
    chunk_size, kind: as in `Curvature`.

    Returns a Dataset with dims (probe, node): node, weight; (probe): mean_eigenvalue and mean_square_eigenvalue, the
    first two moments, each exact for its probe, batch (-1 for the whole data) and done; scalars trace and
    frobenius_squared with their standard errors across probes, trace_sem and frobenius_squared_sem; with a penalty
    penalty_trace, its exact share in the trace.
    Raises UserError for fewer than one probe or step, or fewer probes than mini-batches.
    """
    if probes < 1 or steps < 1:
        raise UserError(f"probes={probes} and steps={steps} must both be 1 or more")
    minibatches = None if batch_size is None else objective.minibatches(batch_size, batches or 1)
    if minibatches and probes < len(minibatches):
        raise UserError(f"probes={probes} cannot visit {len(minibatches)} mini-batches; take as many or more")
    whole = Curvature(objective, kind=kind, chunk_size=chunk_size)
    config = {
        "analysis": "density",
        "probes": probes,
        "steps": steps,
        "batch_size": batch_size,
        "batches": len(minibatches) if minibatches else None,
        "kind": kind,
        "seed": seed,
        "parameters": whole.n,
        "objective": objective.config(),
    }
    result = begin(_empty_density(probes, steps, len(minibatches or [])), config, partial)

    def compute(indices: list[Index]) -> None:
        ((i,),) = indices
        H = whole
        if minibatches:
            H = Curvature(objective, *minibatches[i % len(minibatches)], kind=kind, chunk_size=chunk_size)
        result["node"].values[i], result["weight"].values[i] = quadrature(H, rademacher(H.zeros(), seed, i), steps)

    each_not_done(result, compute, save=save, save_every=save_every, progress=progress)
    return result.assign(_moments(result["node"], result["weight"], whole.n) | _penalty_trace(whole))


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
    so; where the spectrum is flat, Hutchinson's more probes win. Both standard errors are across probes. Q is held: a
    third of `products` vectors of the network's size.

    Returns a Dataset with dims (probe): trace_estimate, frobenius_squared_estimate (each the exact part plus the
    probe's) and done; scalars trace, trace_sem, frobenius_squared, frobenius_squared_sem, products; with a penalty
    penalty_trace, its exact share in the trace.
    Raises UserError for an unknown estimator, or too few products for two probes.
    """
    if estimator not in ESTIMATORS:
        raise UserError(f"estimator={estimator!r} is not one of {', '.join(ESTIMATORS)}")
    H = Curvature(objective, kind=kind, chunk_size=chunk_size)
    rank = min(products // 3, H.n) if estimator == "hutch++" else 0
    probes = products - 2 * rank
    if probes < 2:
        raise UserError(f"products={products} leave {max(probes, 0)} probes; a standard error needs 2 or more")
    config = {
        "analysis": "trace",
        "products": products,
        "estimator": estimator,
        "kind": kind,
        "seed": seed,
        "parameters": H.n,
        "objective": objective.config(),
    }
    result = begin(_empty_trace(probes), config, partial)
    if not result["done"].all():
        Q, trace, frobenius = _sketched(H, rank, seed)

        def compute(indices: list[Index]) -> None:
            ((i,),) = indices
            v = rademacher(H.zeros(), seed, 1, i)
            v = v - (Q @ v) @ Q
            Hv = H(v)
            result["trace_estimate"].values[i] = trace + float(torch.dot(v.double(), Hv.double()))
            result["frobenius_squared_estimate"].values[i] = frobenius + float(Hv.double().square().sum())

        each_not_done(result, compute, save=save, save_every=save_every, progress=progress)
    found: dict[str, Any] = {"products": products}
    for name in ("trace", "frobenius_squared"):
        estimates = result[f"{name}_estimate"]
        found[name] = float(estimates.mean(skipna=False))
        found[f"{name}_sem"] = float(estimates.std(ddof=1, skipna=False)) / np.sqrt(probes)
    return result.assign(found | _penalty_trace(H))


def _penalty_trace(H: Curvature) -> dict[str, float]:
    """The exact share of the penalty in the trace, where there is a penalty in it."""
    if H.kind == "residual" or not H.objective.weight_decay:
        return {}
    return {"penalty_trace": H.objective.penalty_trace(H.parameters)}


def _sketched(H: Curvature, rank: int, seed: int) -> tuple[torch.Tensor, float, float]:
    """Q (rank, n) with orthonormal rows spanning H S for random signs S; tr(Q H Q^T) and ||H Q^T||_F^2."""
    Q = H.zeros().new_empty(rank, H.n)
    for i in range(rank):
        Q[i] = H(rademacher(H.zeros(), seed, 0, i))
    if not rank or not torch.isfinite(Q).all():
        return Q[:0], 0.0, 0.0
    Q = torch.linalg.qr(Q.T)[0].T.contiguous()
    trace = frobenius = 0.0
    for q in Q:
        Hq = H(q)
        trace += float(torch.dot(q.double(), Hq.double()))
        frobenius += float(Hq.double().square().sum())
    return Q, trace, frobenius


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


def _empty_density(probes: int, steps: int, batches: int) -> xr.Dataset:
    nodes = ("probe", "node")
    return xr.Dataset(
        {
            "node": (
                nodes,
                np.full((probes, steps), np.nan),
                {"long_name": "Hessian eigenvalue (Ritz value)"},
            ),
            "weight": (nodes, np.full((probes, steps), np.nan), {"long_name": "share of the spectral mass"}),
            "batch": (
                ("probe",),
                np.arange(probes) % batches if batches else np.full(probes, -1),
                {"long_name": "mini-batch, -1 for the whole data"},
            ),
            "done": (("probe",), np.zeros(probes, bool), {"long_name": "computed"}),
        },
        {"probe": np.arange(probes)},
    )


def _moments(node: xr.DataArray, weight: xr.DataArray, n: int) -> dict[str, Any]:
    first, second = ((weight * node**p).sum("node", skipna=True) for p in (1, 2))
    probes = node.sizes["probe"]

    def sem(moment: xr.DataArray) -> float:
        return float(n * moment.std(ddof=1) / np.sqrt(probes)) if probes > 1 else np.nan

    return {
        "mean_eigenvalue": first,
        "mean_square_eigenvalue": second,
        "trace": float(n * first.mean()),
        "trace_sem": sem(first),
        "frobenius_squared": float(n * second.mean()),
        "frobenius_squared_sem": sem(second),
    }
