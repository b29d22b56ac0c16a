"""The Hessian spectrum of each mini-batch, whole or by layer and stage; NEP and APE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import xarray as xr
from annotated_types import Ge

from landscape.analyses.base import Analysis, Examples, Values
from landscape.analyses.eigenvalues import Eigenvalues, by_part, empty_pairs, pairs_remarks, recorded
from landscape.analyses.estimates import Estimate
from landscape.analyses.summaries import ADDED, summarize, summary_estimates
from landscape.runtime.errors import UserError
from landscape.store.units import Index

if TYPE_CHECKING:
    from landscape.objective.objective import Objective

USUAL_BATCHES = 64


@dataclass(frozen=True, kw_only=True)
class Spectrum(Eigenvalues, Analysis):
    """The top Hessian eigenvalues of each mini-batch, with NEP and APE.

    These are k eigenvalues of H_B = grad^2 L_B for each frozen mini-batch B, the "Hessian max eigenvalue spectra" of
    Park & Kim (2022), fig. 1c.

    Example: landscape spectrum vit.safetensors --data digits --out vit.h5 --batches 32

    Parameters
    ----------
    k
        Eigenvalues per mini-batch.
    batch_size
        Examples per mini-batch.
    batches
        Mini-batches, in the frozen order; by default all full ones, but at most 64.
    ggn_part
        Compute also u^T G u for each eigenvector u, the part of its eigenvalue that the Gauss-Newton matrix G gives.
    method
        lanczos; or pyhessian, the power iteration of PyHessian at its own settings, with true residuals added.
    lockstep
        Mini-batches computed at once by vectorised products; by default as many as a GPU's memory holds, or 1 on a CPU.
    workers
        Groups of mini-batches computed side by side, one thread each; by default as many as cores and memory allow.
    """

    name: ClassVar[str] = "spectrum"
    unit: ClassVar[str] = "mini-batch"
    unstored: ClassVar[tuple[str, ...]] = ("lockstep", "workers")
    formerly: ClassVar[Mapping[str, str]] = {"split": "ggn_part"}

    batch_size: Annotated[int, Ge(1)] = 16
    batches: Annotated[int, Ge(1)] | None = None
    ggn_part: bool = False
    method: Literal["lanczos", "pyhessian"] = "lanczos"
    lockstep: Annotated[int, Ge(1)] | None = None
    workers: Annotated[int, Ge(1)] | None = None

    def check(self) -> None:
        """PyHessian finds only the largest magnitudes, and only of the whole Hessian."""
        asked = (self.which, self.kind, self.per, self.parameters, self.ggn_part, self.second_look)
        if self.method == "pyhessian" and asked != ("LM", "hessian", None, None, False, False):
            raise UserError(
                "method='pyhessian' finds the largest magnitudes of the whole Hessian only; leave out the rest"
            )

    @property
    def variant(self) -> str:
        """The form of the curvature, the method and the division, so that each has a group of its own."""
        method = self.method if self.method != "lanczos" else ""
        return "_".join(filter(None, (self.form, method, self.division)))

    @property
    def examples(self) -> Examples:
        """As many as the mini-batches need."""
        return Examples(at_most=self.batch_size * (self.batches or USUAL_BATCHES))

    def context(self, objective: Objective) -> dict[str, Any]:
        """The number of mini-batches, and the loss."""
        return {"batches": len(self._minibatches(objective)), **super().context(objective)}

    def empty(self, objective: Objective) -> xr.Dataset:
        """The result over (batch, rank), or with `per` over (part, batch, rank)."""
        parts = {"part": list(self.parts(objective))} if self.per else {}
        result = empty_pairs({**parts, "batch": range(len(self._minibatches(objective)))}, self.k, self.title)
        nll = np.full(result["done"].shape, np.nan)
        result["nll"] = (result["done"].dims, nll, {"long_name": "mean negative log-likelihood"})
        if self.ggn_part:
            share = np.full(result["eigenvalue"].shape, np.nan)
            result["ggn_part"] = (result["eigenvalue"].dims, share, {"long_name": "u^T G u, the Gauss-Newton share"})
        return result

    def group_size(self, objective: Objective) -> int:
        """The number of mini-batches in lockstep, the same on every process."""
        if self.lockstep is not None or self.method != "lanczos":
            return self.lockstep or 1
        from landscape.curvature.capacity import group_size
        from landscape.runtime import processes

        rows = self.max_products if self.max_basis is None else min(self.max_basis, self.max_products)
        fitting = group_size(objective, self.batch_size, self.k, rows, self.kind, self.parameters)
        return min(processes.gathered(fitting))

    def side_by_side(self, objective: Objective) -> int:
        """Threads."""
        if self.workers is not None or self.method != "lanczos" or (self.lockstep or 1) > 1:
            return self.workers or 1
        from landscape.curvature.capacity import worker_count

        return worker_count(objective, self._minibatches(objective), self.kind)

    def arithmetic(self) -> AbstractContextManager[None]:
        """True float32, and attention with a second derivative."""
        from landscape.runtime.arithmetic import exact_arithmetic

        return exact_arithmetic()

    def compute(self, ready: Objective, unit: Index) -> Values:
        """One mini-batch of one part."""
        return self.compute_together(ready, [unit])[0]

    def compute_together(self, objective: Objective, units: Sequence[Index]) -> list[Values]:
        """The eigenpairs of some mini-batches of one part."""
        import torch

        from landscape.curvature.operators import Curvature

        here = objective.in_this_thread()
        minibatches = self._minibatches(here)
        part = list(self.parts(here).values())[units[0][0] if self.per else 0]
        numbers = [unit[-1] for unit in units]
        found: list[Values] = []
        for number, pairs in zip(numbers, self._pairs(objective, part, numbers), strict=True):
            values = recorded(pairs, self.k)
            x, y = minibatches[number]
            with torch.no_grad():
                values["nll"] = float(here.nll_sum(x, y)) / here.units_in(y)
            if self.ggn_part and pairs.vectors is not None:
                G = Curvature(here, x, y, kind="ggn", parameters=part)
                share = [float(torch.dot(u, G(u))) for u in pairs.vectors]
                values["ggn_part"] = np.pad(share, (0, self.k - len(share)), constant_values=np.nan)
            found.append(values)
        return found

    def _pairs(self, objective: Objective, part: Sequence[str], numbers: Sequence[int]) -> Sequence[Any]:
        from landscape.curvature.minibatches import minibatch_eigenpairs
        from landscape.curvature.pyhessian import pyhessian_eigenpairs
        from landscape.runtime.random import unit_seed

        minibatches = self._minibatches(objective)
        some = {number: minibatches[number] for number in numbers}
        if self.method == "pyhessian":
            return [
                pyhessian_eigenpairs(objective, x, y, self.k, seed=unit_seed(self.seed, i))
                for i, (x, y) in some.items()
            ]
        return minibatch_eigenpairs(
            objective, some, self, kind=self.kind, parameters=part, seed=self.seed, vectors=self.ggn_part
        )

    def _minibatches(self, objective: Objective) -> list[Any]:
        return objective.minibatches(self.batch_size, self.batches)

    def finish(self, result: xr.Dataset) -> xr.Dataset:
        """The result with the summary over mini-batches."""
        result = result.drop_vars(ADDED, errors="ignore")
        return result.assign(summarize(result))

    def rows(self, result: xr.Dataset) -> Mapping[str, list[Estimate]]:
        """The estimates of each layer or stage, if the network is divided."""
        return by_part(result, self.estimates)

    def estimates(self, result: xr.Dataset) -> list[Estimate]:
        """The NLL of the mini-batches, the extremes, NEP and APE; none if the network is divided into parts."""
        return [] if "part" in result.dims else summary_estimates(result)

    def tabled(self, result: xr.Dataset) -> tuple[str, ...]:
        """A row an eigenvalue."""
        return (*super().tabled(result), "rank")

    def remarks(self, result: xr.Dataset) -> list[str]:
        """What did not converge."""
        return pairs_remarks(result)


def hessian_spectrum(objective: Objective, **settings: Any) -> xr.Dataset:
    """The spectrum of each frozen mini-batch: `Spectrum(**settings)` of `objective`.

    Parameters
    ----------
    objective
        The loss.
    settings
        Those of `Spectrum` by name; and partial, an earlier unfinished result; save, save_every, budget and progress,
        as `landscape.store.units.Work` has them.

    Returns
    -------
    xarray.Dataset
        With dims (batch, rank): eigenvalue, residual, converged, and ggn_part where asked; (batch): products, complete
        (no other Ritz pair could still be a wanted one), nll (the mini-batch's mean, the penalty left out) and done;
        (statistic, bound): summary, as `summarize` gives it. With `per` all along a leading dim part.

    Raises
    ------
    UserError
        For settings that are unknown, out of range, or do not go together.
    """
    return Spectrum.called(objective, settings)
