"""Hessian spectra, per mini-batch and of the whole data, whole or by layer and stage; NEP and APE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from landscape import distributed
from landscape.curvature import Curvature, MiniBatchCurvatures, exact_arithmetic, parts_of
from landscape.draws import gaussian, unit_seed
from landscape.errors import UserError, a_few
from landscape.krylov import rows_held
from landscape.lanczos import RitzPairs, eigenpairs, eigenpairs_in_lockstep
from landscape.objective import Objective
from landscape.parameters import chosen
from landscape.power_iteration import pyhessian_eigenpairs
from landscape.resumable import Index, Save, begin, each_not_done
from landscape.summaries import ADDED, summarize
from landscape.workers import stop_if_asked

METHODS = ("lanczos", "pyhessian")
BASIS_BYTES = 4 << 30  # what the basis of a whole-data search holds at most, unless asked otherwise
GRAPH_BYTES = 4 << 30  # what the graphs of the mini-batches computed side by side hold at most, unless asked otherwise


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
        fitting = _group_size(objective, batch_size, k, rows, kind, parameters) if method == "lanczos" else 1
        lockstep = min(distributed.gathered(fitting))
    if workers is None:
        workers = _worker_count(objective, minibatches, kind) if method == "lanczos" and lockstep == 1 else 1

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


def minibatch_eigenpairs(
    objective: Objective,
    minibatches: Mapping[int, tuple[torch.Tensor, torch.Tensor]],
    k: int,
    *,
    kind: str = "hessian",
    parameters: str | Sequence[str] | None = None,
    seed: int = 0,
    **settings: Any,
) -> list[RitzPairs]:
    """The k eigenpairs of each of some mini-batches: of one by the kept graph, of several of one size in lockstep.

    minibatches: by number; number and seed fix the start, so that any grouping gives the same but for rounding.
    settings: those of `landscape.lanczos.eigenpairs`. k is cut down to the number of parameters.
    """
    objective = objective.in_this_thread()
    each = {i: Curvature(objective, x, y, kind=kind, parameters=parameters) for i, (x, y) in minibatches.items()}
    if len(each) == 1:
        ((i, H),) = each.items()

        def product(v: torch.Tensor) -> torch.Tensor:
            stop_if_asked()
            return H(v)

        return [eigenpairs(product, _start(H.gradient(), seed, i), min(k, H.n), **settings)]
    starts = torch.stack([_start(H.gradient(), seed, i) for i, H in each.items()])
    x, y = (torch.stack([batch[j] for batch in minibatches.values()]) for j in (0, 1))
    del each  # and the graphs they keep
    together = MiniBatchCurvatures(objective, x, y, kind=kind, parameters=parameters)

    def matvec(X: torch.Tensor, members: Sequence[int]) -> torch.Tensor:
        return together(X[:, 0], members)[:, None]

    return eigenpairs_in_lockstep(matvec, starts[:, None], min(k, starts.shape[1]), **settings)


def hessian_top(
    objective: Objective,
    *,
    k: int = 10,
    which: str = "LM",
    tol: float = 1e-3,
    max_products: int = 400,
    max_basis: int | None = None,
    second_look: bool = False,
    chunk_size: int | None = None,
    kind: str = "hessian",
    per: str | None = None,
    parameters: str | Sequence[str] | None = None,
    verify: bool = True,
    seed: int = 0,
    partial: xr.Dataset | None = None,
    save: Save | None = None,
    save_every: float = 10.0,
    progress: bool = False,
) -> xr.Dataset:
    """The k eigenvalues of the Hessian on the whole frozen data set, "BE" for both of its ends.

    max_basis: vectors of the network's size held at once; None for as many as 4 GiB hold, and k + 6 at the least.
    chunk_size: examples differentiated at once: bounds the memory, does not change the numbers beyond rounding.
    verify: residuals from k more products, ||H u - eigenvalue u||, rather than from the Lanczos relation.
    kind, per, parameters, second_look: as in `hessian_spectrum`. partial, save: the unit is a part.

    Returns a Dataset with dim (rank): eigenvalue, residual, converged; and products, complete and done; with `per`, all
    of them along a leading dim part.
    """
    names = list(chosen(objective.model, parameters))
    parts = parts_of(names, per) if per else {"": names}
    config = {
        "analysis": "top",
        "k": k,
        "which": which,
        "tol": tol,
        "max_products": max_products,
        "max_basis": max_basis,
        **({"second_look": True} if second_look else {}),
        "kind": kind,
        "per": per,
        "parameters": [parameters] if isinstance(parameters, str) else parameters,
        "verify": verify,
        "seed": seed,
        "objective": objective.config(),
    }
    result = begin(_empty_spectrum(list(parts) if per else None, None, k, False), config, partial)

    def compute(indices: list[Index]) -> None:
        (index,) = indices
        H = Curvature(
            objective, kind=kind, parameters=list(parts.values())[index[0] if per else 0], chunk_size=chunk_size
        )
        wanted = min(k, H.n)
        held = max(wanted + 6, BASIS_BYTES // (H.n * H.zeros().element_size())) if max_basis is None else max_basis
        pairs = eigenpairs(
            H, _start(H.gradient(), seed, 0), wanted, which=which, tol=tol, max_products=max_products,
            max_basis=held, verify=verify, second_look=second_look,
        )  # fmt: skip
        _record(result, pairs, index)

    each_not_done(result, compute, save=save, save_every=save_every, progress=progress)
    return result


def hessian_series(objectives: Mapping[str, Objective], **settings: Any) -> xr.Dataset:
    """`hessian_spectrum` of one network after another, such as the checkpoints of one training.

    objectives: by label, in order. settings: those of `hessian_spectrum`; partial and save are of the whole series.

    Returns its variables along a leading dim checkpoint.
    Raises UserError for an empty series, or a partial result of other checkpoints.
    """
    if not objectives:
        raise UserError("a series needs at least one checkpoint")
    partial, save = settings.pop("partial", None), settings.pop("save", None)
    labels = list(objectives)
    others = [] if partial is None else [str(c) for c in partial["checkpoint"].values if c not in objectives]
    if others:
        raise UserError(
            f"the stored series has {a_few(others)}, not asked for now; ask for all, or write to another file"
        )

    def stored(label: str) -> xr.Dataset:
        assert partial is not None
        one = partial.sel(checkpoint=label, drop=True)
        one.attrs = {"config": partial.attrs["config"]["each"][label]}
        return one

    finished: list[xr.Dataset] = []
    for label, objective in objectives.items():
        before = stored(label) if partial is not None and label in partial["checkpoint"] else None

        def save_all(one: xr.Dataset, label: str = label) -> None:
            if save is not None:
                later = (
                    [] if partial is None else [k for k in labels[len(finished) + 1 :] if k in partial["checkpoint"]]
                )
                save(_joined([*finished, one, *map(stored, later)], [*labels[: len(finished)], label, *later]))

        finished.append(hessian_spectrum(objective, partial=before, save=save_all, **settings))
    return _joined(finished, labels)


def _joined(spectra: Sequence[xr.Dataset], labels: Sequence[str]) -> xr.Dataset:
    finished = all("summary" in one for one in spectra)  # the last of an unfinished series has none yet
    spectra = [one.drop_vars(ADDED, errors="ignore") for one in spectra]
    joined = xr.concat(spectra, "checkpoint", join="outer", combine_attrs="drop").assign_coords(checkpoint=list(labels))
    if finished:
        joined = joined.assign(summarize(joined))
    first = spectra[0].attrs["config"]
    joined.attrs["config"] = {
        **first,
        "analysis": "series",
        "each": {label: one.attrs["config"] for label, one in zip(labels, spectra, strict=True)},
    }
    return joined


def _start(gradient: torch.Tensor, seed: int, i: int) -> torch.Tensor:
    """A random vector (n,) and, where there is one, the gradient, which leans towards the top eigenvectors, to equal
    parts: on a ResNet-20 this saves 6 % of the products. The eigenvectors of the mini-batch before save none there, and
    would make the numbers depend on what came before; these depend on (seed, i) only.
    """
    noise = gaussian(gradient, seed, i)
    norm = torch.linalg.vector_norm(gradient)
    start = noise / torch.linalg.vector_norm(noise)
    leaning = start + gradient / norm
    # Two unit vectors may cancel where there are few parameters; of one parameter they often do.
    return leaning if torch.linalg.vector_norm(leaning) > 0.5 else start


def _worker_count(objective: Objective, minibatches: Sequence[tuple[torch.Tensor, torch.Tensor]], kind: str) -> int:
    """As many as torch has threads, while GRAPH_BYTES hold what one mini-batch's graph saves; 1 on a GPU."""
    most = min(torch.get_num_threads(), len(minibatches))
    if objective.device.type != "cpu" or most == 1:
        return 1
    saved: dict[int, int] = {}

    def weigh(t: torch.Tensor) -> torch.Tensor:
        saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(weigh, lambda t: t):
        Curvature(objective, *minibatches[0], kind=kind).gradient()
    return int(max(1, min(most, GRAPH_BYTES // max(1, sum(saved.values())))))


def _group_size(
    objective: Objective, batch_size: int, k: int, rows: int, kind: str, parameters: str | Sequence[str] | None
) -> int:
    """Mini-batches that fill half of a GPU's free memory, from what a product and a basis of `rows` take; 1 elsewhere,
    and where the network cannot be vectorised: one at a time, the kept graph is faster.
    """
    if objective.device.type != "cuda":
        return 1
    H = MiniBatchCurvatures(
        objective, objective.x[None, :batch_size], objective.y[None, :batch_size], kind=kind, parameters=parameters
    )
    n = sum(p.numel() for p in H.parameters.values())
    v = next(iter(H.parameters.values())).new_ones(1, n)
    torch.cuda.reset_peak_memory_stats(objective.device)
    before = torch.cuda.memory_allocated(objective.device)
    H(v, [0])
    product = torch.cuda.max_memory_allocated(objective.device) - before
    free, _ = torch.cuda.mem_get_info(objective.device)
    return that_fit(free // 2, product, k, rows, v) if H.vectorised else 1


def that_fit(memory: int, product: int, k: int, rows: int, v: torch.Tensor) -> int:
    """How many mini-batches `memory` bytes hold, 1 to 64: each with the bytes of a product, and vectors like v, of a
    Krylov basis of up to `rows`, grown from few, and of k eigenvectors and the four that a step works with.
    """
    vectors = rows_held(min(rows, v.numel())) + k + 4
    return int(max(1, min(64, memory // (product + vectors * v.numel() * v.element_size()))))


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
