"""Averages over the whole spectrum, by random probes: spectral density, trace, Frobenius norm, each with its error.

Errors have two sources: the probes, and the examples, of which others would have given another Hessian. That over
examples is by jackknife, from the products of folds of the examples, none of which parts a cluster, with the probes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr

from landscape.curvature.jackknife import FoldedCurvature, Moments
from landscape.curvature.operators import Curvature
from landscape.linalg.quadrature import quadrature
from landscape.objective.clusters import jackknife_sem, mean_and_sem, numbered, sem_within
from landscape.objective.objective import Objective
from landscape.runtime.errors import UserError
from landscape.runtime.random import rademacher
from landscape.store.units import Index, Save, begin, each_not_done

MOMENTS = ("trace", "frobenius_squared")


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
    first two moments, each exact for its probe, batch (-1 for the whole data) and done; (probe, fold), of the whole
    data: trace_without_fold and frobenius_squared_without_fold, each probe's estimates without a fold of the examples;
    scalars trace, frobenius_squared and their standard errors, as `hessian_trace` names them. Of mini-batches trace_sem
    comes from the spread of their means, and its square less that of trace_sem_probes is the examples'; it is NaN for
    fewer than 8 of them. With a penalty penalty_trace, its exact share in the trace.
    Raises UserError for fewer than one probe or step, or fewer probes than mini-batches.
    """
    if probes < 1 or steps < 1:
        raise UserError(f"probes={probes} and steps={steps} must both be 1 or more")
    minibatches = None if batch_size is None else objective.minibatches(batch_size, batches or 1)
    if minibatches and probes < len(minibatches):
        raise UserError(f"probes={probes} cannot visit {len(minibatches)} mini-batches; take as many or more")
    whole = Curvature(objective, kind=kind, chunk_size=chunk_size)
    # of a probe's products one is made by folds: the others are fewer launches on a GPU
    folded = None if minibatches else FoldedCurvature(objective, kind=kind, chunk_size=chunk_size, keep=False)
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
    empty = _empty_density(probes, steps, len(minibatches or []))
    result = begin(empty if folded is None else empty.assign(_empty_folds(probes, folded.folds)), config, partial)

    def compute(indices: list[Index]) -> None:
        ((i,),) = indices
        probe = rademacher(whole.zeros(), seed, i)
        moments: Moments | None = None

        def product(v: torch.Tensor) -> torch.Tensor:
            nonlocal moments
            if folded is None or moments is not None:
                return H(v)
            Hv, moments = folded.with_moments(v)  # of the probe itself, to unit length
            return Hv

        H = whole
        if minibatches:
            H = Curvature(objective, *minibatches[i % len(minibatches)], kind=kind, chunk_size=chunk_size)
        result["node"].values[i], result["weight"].values[i] = quadrature(product, probe, steps)
        if moments is not None:
            result["trace_without_fold"].values[i] = whole.n * moments.first_without
            result["frobenius_squared_without_fold"].values[i] = whole.n * moments.second_without

    each_not_done(result, compute, save=save, save_every=save_every, progress=progress)
    first, second = ((result["weight"] * result["node"].fillna(0) ** p).sum("node", skipna=False) for p in (1, 2))
    found: dict[str, Any] = {"mean_eigenvalue": first, "mean_square_eigenvalue": second}
    for name, moment in zip(MOMENTS, (first, second), strict=True):
        estimates = whole.n * moment.values
        found[name] = float(estimates.mean())
        found |= _over_mini_batches(name, estimates, result) if minibatches else _errors(name, estimates, result)
    return result.assign(found | _penalty_trace(whole))


def _penalty_trace(H: Curvature) -> dict[str, float]:
    """The exact share of the penalty in the trace, where there is a penalty in it."""
    if H.kind == "residual" or not H.objective.weight_decay:
        return {}
    return {"penalty_trace": H.objective.penalty_trace(H.parameters)}


def _errors(name: str, estimates: np.ndarray, result: xr.Dataset) -> dict[str, float]:
    """The errors of the mean of the probes' estimates (probe,): across probes, over examples, and of both.

    The jackknife of the mean over P probes has in it 1/P of what examples change in each probe apart, which the spread
    across probes has too: the difference between the jackknife of one probe and of the mean says how much that is.
    """
    probes, without = len(estimates), result[f"{name}_without_fold"].values
    over_probes = sem_within(estimates, np.zeros(probes, np.int64))
    of_mean, of_one = (float(np.mean(jackknife_sem(r) ** 2)) for r in (without.mean(axis=0), without.T))
    over_examples = float(np.sqrt(np.maximum(of_mean - (of_one - of_mean) / max(probes - 1, 1), 0)))
    return _named(name, float(np.hypot(over_probes, over_examples)), over_probes, over_examples)


def _over_mini_batches(name: str, estimates: np.ndarray, result: xr.Dataset) -> dict[str, float]:
    """The same of probes on mini-batches of their own, whose means are independent, and have both errors in them."""
    batch = numbered(result["batch"].values)
    _, total = mean_and_sem(estimates, batch)
    over_probes = sem_within(estimates, batch)
    return _named(name, total, over_probes, float(np.sqrt(np.maximum(total**2 - over_probes**2, 0))))


def _named(name: str, total: float, over_probes: float, over_examples: float) -> dict[str, float]:
    return {f"{name}_sem": total, f"{name}_sem_probes": over_probes, f"{name}_sem_examples": over_examples}


def _empty_folds(probes: int, folds: int) -> dict[str, Any]:
    words = {"trace": "trace", "frobenius_squared": "squared Frobenius norm"}
    return {
        f"{name}_without_fold": (
            ("probe", "fold"),
            np.full((probes, folds), np.nan),
            {"long_name": f"{text}, by one probe, without a fold of the examples"},
        )
        for name, text in words.items()
    }


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
