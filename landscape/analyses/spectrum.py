"""The Hessian spectrum of each mini-batch, whole or by layer and stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from landscape.analyses.summaries import ADDED, summarize
from landscape.curvature.capacity import group_size, worker_count
from landscape.curvature.minibatches import minibatch_eigenpairs
from landscape.curvature.operators import Curvature
from landscape.curvature.pyhessian import pyhessian_eigenpairs
from landscape.linalg.eigenpairs import RitzPairs
from landscape.objective.objective import Objective
from landscape.objective.parameters import chosen, parts_of
from landscape.runtime import processes
from landscape.runtime.arithmetic import exact_arithmetic
from landscape.runtime.errors import UserError
from landscape.runtime.random import unit_seed
from landscape.store.units import Index, Save, begin, each_not_done

METHODS = ("lanczos", "pyhessian")


def hessian_spectrum(
    objective: Objective,
    *,
    k: int = 5,
    which: str = "LM",
    batch_size: int = 16,
    batches: int | None = None,
    tol: float = 1e-2,
    max_products: int = 200,
    max_basis: int | None = None,
    second_look: bool = False,
    kind: str = "hessian",
    per: str | None = None,
    parameters: str | Sequence[str] | None = None,
    split: bool = False,
    method: str = "lanczos",
    lockstep: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    partial: xr.Dataset | None = None,
    save: Save | None = None,
    save_every: float = 10.0,
    progress: bool = False,
) -> xr.Dataset:
    """The k eigenvalues of H_B = grad^2 L_B for each frozen mini-batch B: the "Hessian max eigenvalue spectra" of
    Park & Kim (2022), fig. 1c.

    batches: how many mini-batches of exactly `batch_size`, in the frozen order; None for all that are full.
    which: LM, LA, SA or BE. tol: a pair has converged when its residual is at most tol * |eigenvalue|.
    max_products: Hessian products allowed for one mini-batch; what has not converged by then is marked.
    max_basis: vectors of the network's size held at once; None for as many as there are products.
    second_look: search again, for as many products at most, from a start orthogonal to what was found.
        `complete` rests on a random start, which by chance may hold next to nothing of a wanted eigenvector:
        5 of 400 searches of a spectrum like a ResNet-20's missed one, 0 of 1,920 of those in results/study; a second
        look found all five (benchmarks/second_look.py).
    kind: "hessian", "ggn" or "residual", as in `Curvature`.
    per: "layer" or "stage" for the spectrum of each diagonal block of H_B, of one layer's or stage's parameters, with a
        leading dim part. parameters: names or patterns of the parameters to restrict everything to.
    split: also store u^T G u for each eigenvector u, the share of the Gauss-Newton matrix in its eigenvalue; the rest
        is the residual's. Costs k products of G.
    method: "lanczos", or "pyhessian" for PyHessian's power iteration with deflation on the same mini-batches at its
        own default settings, with the residuals of what it returns (LM only).
    lockstep: mini-batches computed at once by vectorised products; None for 1 on a CPU, where a kept graph is faster,
        and on a GPU for as many as fill half of its free memory. Does not change the numbers beyond rounding.
    workers: groups of `lockstep` mini-batches computed side by side, by a thread each; None for 1 on a GPU, and on a
        CPU for as many as torch has threads and 4 GiB hold. Does not change the numbers beyond rounding.
    partial, save, save_every: as in `evaluate_surface`; the unit is a mini-batch.

    Returns a Dataset with dims (batch, rank): eigenvalue, residual, converged, and ggn_part where split; (batch):
    products, complete (no other Ritz pair could still be a wanted one), nll (the mini-batch's mean, the penalty left
    out) and done; (statistic, bound): summary, as `summarize` gives it.
    Raises UserError for settings that are unknown or do not go together.
    """
    if method not in METHODS:
        raise UserError(f"method={method!r} is not one of {', '.join(METHODS)}")
    if method == "pyhessian" and (which, kind, per, parameters, split, second_look) != (
        "LM",
        "hessian",
        None,
        None,
        False,
        False,
    ):
        raise UserError("method='pyhessian' finds the largest magnitudes of the whole Hessian only; leave out the rest")
    minibatches = objective.minibatches(batch_size, batches)
    sizes = {name: p.numel() for name, p in chosen(objective.model, parameters).items()}
    parts = parts_of(sizes, per) if per else {"": list(sizes)}
    config: dict[str, Any] = {
        "analysis": "spectrum",
        "k": k,
        "which": which,
        "batch_size": batch_size,
        "batches": len(minibatches),
        "tol": tol,
        "max_products": max_products,
        "max_basis": max_basis,
        **({"second_look": True} if second_look else {}),
        "kind": kind,
        "per": per,
        "parameters": [parameters] if isinstance(parameters, str) else parameters,
        "split": split,
        "method": method,
        "seed": seed,
        "objective": objective.config(),
    }
    result = begin(_empty_spectrum(list(parts) if per else None, len(minibatches), k, split), config, partial)
    settings: dict[str, Any] = {"which": which, "tol": tol, "max_products": max_products, "max_basis": max_basis}
    settings["second_look"] = second_look
    if lockstep is None:
        rows = max_products if max_basis is None else min(max_basis, max_products)
        fitting = group_size(objective, batch_size, k, rows, kind, parameters) if method == "lanczos" else 1
        lockstep = min(processes.gathered(fitting))
    if workers is None:
        workers = worker_count(objective, minibatches, kind) if method == "lanczos" and lockstep == 1 else 1

    def compute(indices: list[Index]) -> None:
        these = list(parts.values())[indices[0][0] if per else 0]
        numbers = [index[-1] for index in indices]
        some = {i: minibatches[i] for i in numbers}
        if method == "pyhessian":
            found = [pyhessian_eigenpairs(objective, x, y, k, seed=unit_seed(seed, i)) for i, (x, y) in some.items()]
        else:
            found = minibatch_eigenpairs(
                objective, some, k, kind=kind, parameters=these, seed=seed, vectors=split, **settings
            )
        here = objective.in_this_thread()
        for index, number, pairs in zip(indices, numbers, found, strict=True):
            _record(result, pairs, index)
            with torch.no_grad():
                result["nll"].values[index] = float(here.nll_sum(*minibatches[number])) / batch_size
            if split and pairs.vectors is not None:
                G = Curvature(here, *minibatches[number], kind="ggn", parameters=these)
                for rank, u in enumerate(pairs.vectors):
                    result["ggn_part"].values[(*index, rank)] = float(torch.dot(u, G(u)))

    with exact_arithmetic():
        each_not_done(
            result, compute, together=lockstep, workers=workers, save=save, save_every=save_every, progress=progress
        )
    result = result.drop_vars(ADDED, errors="ignore")
    return result.assign(summarize(result))


def _record(result: xr.Dataset, pairs: RitzPairs, index: Index) -> None:
    for name, values in (("eigenvalue", pairs.values), ("residual", pairs.residuals), ("converged", pairs.converged)):
        result[name].values[index][: len(values)] = values  # a part may have fewer parameters than k
    result["products"].values[index] = pairs.products
    result["complete"].values[index] = pairs.complete


def _empty_spectrum(parts: Sequence[str] | None, batches: int | None, k: int, split: bool) -> xr.Dataset:
    sizes: dict[str, int] = {}
    coordinates: dict[str, Any] = {}
    if parts is not None:
        sizes["part"], coordinates["part"] = len(parts), list(parts)
    if batches is not None:
        sizes["batch"], coordinates["batch"] = batches, np.arange(batches)
    units, pairs = (*sizes,), (*sizes, "rank")
    shape = tuple(sizes.values())
    coordinates["rank"] = np.arange(k)
    variables: dict[str, Any] = {
        "eigenvalue": (pairs, np.full((*shape, k), np.nan), {"long_name": "Hessian eigenvalue"}),
        "residual": (pairs, np.full((*shape, k), np.nan), {"long_name": "||H u - eigenvalue u||"}),
        "converged": (pairs, np.zeros((*shape, k), bool), {"long_name": "residual within tolerance"}),
        "complete": (units, np.zeros(shape, bool), {"long_name": "no other Ritz pair could be a wanted one"}),
        "products": (units, np.zeros(shape, np.int64), {"long_name": "Hessian products spent"}),
        "done": (units, np.zeros(shape, bool), {"long_name": "computed"}),
    }
    if batches is not None:
        variables["nll"] = (units, np.full(shape, np.nan), {"long_name": "mean negative log-likelihood"})
    if split:
        variables["ggn_part"] = (pairs, np.full((*shape, k), np.nan), {"long_name": "u^T G u, the Gauss-Newton share"})
    return xr.Dataset(variables, coordinates)
