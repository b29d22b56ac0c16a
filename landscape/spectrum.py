"""Per-mini-batch Hessian spectra with NEP and APE, whole-data top eigenvalues, spectral density and trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.stats import bootstrap

from landscape.curvature import Hessian, MiniBatchHessian
from landscape.errors import UserError
from landscape.lanczos import RitzPairs, eigenpairs, quadrature
from landscape.objective import Objective
from landscape.resumable import Save, begin, each_not_done


def hessian_spectrum(
    objective: Objective,
    *,
    k: int = 5,
    which: str = "LM",
    batch_size: int = 16,
    batches: int | None = None,
    tol: float = 1e-2,
    max_products: int = 200,
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
    partial, save, save_every: as in `evaluate_surface`; the unit is a mini-batch.

    Returns a Dataset with dims (batch, rank): eigenvalue, residual, converged; (batch): products and done;
    (statistic, bound): summary, as `summarize` gives it, once every mini-batch is done.
    """
    minibatches = objective.minibatches(batch_size, batches)
    config: dict[str, Any] = {
        "analysis": "spectrum",
        "k": k,
        "which": which,
        "batch_size": batch_size,
        "batches": len(minibatches),
        "tol": tol,
        "max_products": max_products,
        "seed": seed,
        "objective": objective.config(),
    }
    result = begin(_empty_spectrum(len(minibatches), k), config, partial)

    def compute(index: tuple[int, ...]) -> None:
        (i,) = index
        H = MiniBatchHessian(objective, *minibatches[i])
        pairs = eigenpairs(H, _start(H.zeros(), seed, i), k, which=which, tol=tol, max_products=max_products)
        _record(result, pairs, i)

    each_not_done(result, compute, save=save, save_every=save_every, progress=progress)
    return result.drop_vars(("summary", "statistic", "bound"), errors="ignore").assign(summarize(result, seed=seed))


def hessian_top(
    objective: Objective,
    *,
    k: int = 10,
    which: str = "LM",
    tol: float = 1e-3,
    max_products: int = 200,
    seed: int = 0,
) -> xr.Dataset:
    """The k eigenvalues of the Hessian on the whole frozen data set.

    Returns a Dataset with dim (rank): eigenvalue, residual, converged; and products.
    """
    H = Hessian(objective)
    pairs = eigenpairs(H, _start(H.zeros(), seed, 0), k, which=which, tol=tol, max_products=max_products)
    result = _empty_spectrum(1, k)
    _record(result, pairs, 0)
    result = result.isel(batch=0, drop=True).drop_vars("done")
    result.attrs["config"] = {
        "analysis": "top",
        "k": k,
        "which": which,
        "tol": tol,
        "max_products": max_products,
        "seed": seed,
        "objective": objective.config(),
    }
    return result


def spectral_density(
    objective: Objective,
    *,
    probes: int = 10,
    steps: int = 80,
    seed: int = 0,
    partial: xr.Dataset | None = None,
    save: Save | None = None,
    save_every: float = 10.0,
    progress: bool = False,
) -> xr.Dataset:
    """The spectral density of the Hessian on the whole frozen data set, by stochastic Lanczos quadrature.

    Each probe has entries +-1 (Rademacher); its nodes and weights are kept raw, the weights summing to 1
    (Ghorbani et al. 2019, sec. 2.1; Ubaru, Chen & Saad 2017).

    Returns a Dataset with dims (probe, node): node, weight; (probe): mean_eigenvalue and mean_square_eigenvalue, the
    first two moments, each exact for its probe; scalars trace and frobenius_squared with their standard errors
    across probes, trace_sem and frobenius_squared_sem; done per probe.
    """
    if probes < 1 or steps < 1:
        raise UserError(f"probes={probes} and steps={steps} must both be 1 or more")
    H = Hessian(objective)
    config = {
        "analysis": "density",
        "probes": probes,
        "steps": steps,
        "seed": seed,
        "parameters": H.n,
        "objective": objective.config(),
    }
    result = begin(_empty_density(probes, steps), config, partial)

    def compute(index: tuple[int, ...]) -> None:
        (i,) = index
        generator = torch.Generator().manual_seed(_seed(seed, i))
        signs = torch.randint(0, 2, (H.n,), generator=generator) * 2 - 1
        result["node"].values[i], result["weight"].values[i] = quadrature(H, signs.to(H.zeros()), steps)

    each_not_done(result, compute, save=save, save_every=save_every, progress=progress)
    return result.assign(_moments(result["node"], result["weight"], H.n))


def summarize(spectrum: xr.Dataset, *, seed: int = 0, confidence: float = 0.95) -> xr.Dataset:
    """Statistics of a per-mini-batch spectrum, with bootstrap intervals over mini-batches.

    nep: share of the gathered eigenvalues that are negative. ape: mean of the positive ones (NaN without one).
    largest, smallest: medians over mini-batches of the extreme gathered eigenvalues. Mini-batches with an eigenvalue
    that is not a number are left out. Intervals are BCa (scipy.stats.bootstrap), 2000 resamples; one over
    mini-batches that all agree has no width, one over a single mini-batch is NaN.

    Returns a Dataset with summary (statistic, bound), bound being estimate, low, high.
    """
    eigenvalue = spectrum["eigenvalue"].values
    eigenvalue = eigenvalue[np.isfinite(eigenvalue).all(axis=1)]
    rows = {name: _interval(statistic, eigenvalue, seed, confidence) for name, statistic in _STATISTICS.items()}
    return xr.Dataset(
        {
            "summary": (
                ("statistic", "bound"),
                np.array(list(rows.values())),
                {"long_name": f"statistics with {confidence:.0%} bootstrap intervals over mini-batches"},
            )
        },
        {"statistic": list(rows), "bound": ["estimate", "low", "high"]},
    )


def _nep(e: np.ndarray) -> float:
    return float((e < 0).mean())


def _ape(e: np.ndarray) -> float:
    return float(e[e > 0].mean()) if (e > 0).any() else np.nan


def _largest(e: np.ndarray) -> float:
    return float(np.median(e.max(axis=1)))


def _smallest(e: np.ndarray) -> float:
    return float(np.median(e.min(axis=1)))


_STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "nep": _nep,
    "ape": _ape,
    "largest": _largest,
    "smallest": _smallest,
}


def _interval(
    statistic: Callable[[np.ndarray], float], eigenvalue: np.ndarray, seed: int, confidence: float
) -> tuple[float, float, float]:
    if len(eigenvalue) == 0:
        return np.nan, np.nan, np.nan
    estimate = statistic(eigenvalue)
    if len(eigenvalue) == 1 or np.isnan(estimate):
        return estimate, np.nan, np.nan
    jackknife = [statistic(np.delete(eigenvalue, i, axis=0)) for i in range(len(eigenvalue))]
    if np.ptp(jackknife) == 0 and all(statistic(e[None]) == estimate for e in eigenvalue):
        return estimate, estimate, estimate
    # BCa divides by the spread of the jackknife; a median can have none, and then the percentiles serve.
    method = "BCa" if np.ptp(jackknife) > 0 else "percentile"
    interval = bootstrap(
        (np.arange(len(eigenvalue)),),
        lambda index: statistic(eigenvalue[index]),
        vectorized=False,
        n_resamples=2000,
        confidence_level=confidence,
        method=method,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return estimate, float(interval.low), float(interval.high)


def _seed(seed: int, i: int) -> int:
    """A seed of its own for unit i, so that any order and any split of the units gives the same numbers."""
    return int(np.random.SeedSequence([seed, i]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _start(like: torch.Tensor, seed: int, i: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(_seed(seed, i))
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)


def _record(result: xr.Dataset, pairs: RitzPairs, i: int) -> None:
    result["eigenvalue"].values[i] = pairs.values
    result["residual"].values[i] = pairs.residuals
    result["converged"].values[i] = pairs.converged
    result["products"].values[i] = pairs.products


def _empty_spectrum(batches: int, k: int) -> xr.Dataset:
    pairs, per_batch = ("batch", "rank"), ("batch",)
    return xr.Dataset(
        {
            "eigenvalue": (pairs, np.full((batches, k), np.nan), {"long_name": "Hessian eigenvalue"}),
            "residual": (pairs, np.full((batches, k), np.nan), {"long_name": "||H u - eigenvalue u||"}),
            "converged": (pairs, np.zeros((batches, k), bool), {"long_name": "residual within tolerance"}),
            "products": (per_batch, np.zeros(batches, np.int64), {"long_name": "Hessian products spent"}),
            "done": (per_batch, np.zeros(batches, bool), {"long_name": "computed"}),
        },
        {"batch": np.arange(batches), "rank": np.arange(k)},
    )


def _empty_density(probes: int, steps: int) -> xr.Dataset:
    nodes = ("probe", "node")
    return xr.Dataset(
        {
            "node": (
                nodes,
                np.full((probes, steps), np.nan),
                {"long_name": "Hessian eigenvalue (Ritz value)"},
            ),
            "weight": (nodes, np.full((probes, steps), np.nan), {"long_name": "share of the spectral mass"}),
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
