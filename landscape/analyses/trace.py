"""Trace and Frobenius norm of the Hessian, by random probes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import xarray as xr
from annotated_types import Ge

from landscape.analyses.base import Examples, Values
from landscape.analyses.moments import MOMENTS, Probing, empty_folds, errors, penalty_trace
from landscape.objective.clusters import LEAST_UNITS
from landscape.runtime import processes
from landscape.runtime.errors import UserError
from landscape.runtime.memory import refuse_beyond_memory
from landscape.runtime.progress import bar
from landscape.store.units import Index

if TYPE_CHECKING:
    import torch

    from landscape.curvature.jackknife import FoldedCurvature, Moments
    from landscape.objective.objective import Objective

USUAL_EXAMPLES = 256
LOG = logging.getLogger(__name__)


class Sketch(NamedTuple):
    """The operator, orthonormal rows Q (rank, n) near its top eigenvectors, and the moments on their span.

    Under torchrun all processes have a share of the operator, and the first one alone has Q.
    """

    H: FoldedCurvature
    Q: torch.Tensor
    exact: Moments


@dataclass(frozen=True, kw_only=True)
class Trace(Probing):
    """The trace and Frobenius norm of the Hessian on the whole frozen data, with errors over probes and examples.

    Example: landscape trace vit.safetensors --data digits --out vit.h5

    Parameters
    ----------
    products
        The number of Hessian products.
    estimator
        hutchinson: means of v^T H v and ||H v||^2 over probes v with entries +1 and -1. hutch++: a third of the
        products finds an orthonormal Q near the top eigenvectors, a third gives tr(Q^T H Q) and ||H Q||_F^2 exactly,
        and probes estimate the rest (Meyer et al., arXiv:2010.09649, alg. 1). hutch++ has far less variance if few
        eigenvalues carry the trace, as a network's outliers do; for a flat spectrum hutchinson, with more probes, has
        less.
    """

    name: ClassVar[str] = "trace"

    products: Annotated[int, Ge(1)] = 60
    estimator: Literal["hutchinson", "hutch++"] = "hutch++"

    def check(self) -> None:
        """At least two probes are needed."""
        super().check()
        probes = self.products - 2 * (self.products // 3 if self.estimator == "hutch++" else 0)
        if probes < 2:
            raise UserError(
                f"products={self.products} leaves {max(probes, 0)} probes; a standard error needs {LEAST_UNITS} or more"
            )

    @property
    def examples(self) -> Examples:
        """256, unless the user says."""
        return Examples(usual=USUAL_EXAMPLES)

    def _curvature(self, objective: Objective) -> FoldedCurvature:
        from landscape.curvature.jackknife import FoldedCurvature

        return FoldedCurvature(objective, kind=self.kind, chunk_size=self.chunk_size)

    def _rank(self, n: int) -> int:
        return min(self.products // 3, n) if self.estimator == "hutch++" else 0

    def context(self, objective: Objective) -> Mapping[str, Any]:
        """The number of parameters, and the loss."""
        return {"parameters": self._curvature(objective).n, **super().context(objective)}

    def empty(self, objective: Objective) -> xr.Dataset:
        """The result over probes."""
        H = self._curvature(objective)
        probes = self.products - 2 * self._rank(H.n)
        held = 2 * self._rank(H.n) * H.n * H.zeros().element_size()
        refuse_beyond_memory(held, f"a sketch of {self._rank(H.n)} vectors, a third of `products`,")
        variables: dict[str, Any] = {
            f"{name}_estimate": ("probe", np.full(probes, np.nan), {"long_name": f"{text}, by one probe"})
            for name, text in MOMENTS.items()
        }
        variables["done"] = ("probe", np.zeros(probes, bool), {"long_name": "computed"})
        return xr.Dataset(
            {**variables, **empty_folds(probes, H.folds), "products": self.products, **penalty_trace(H)},
            {"probe": np.arange(probes)},
        )

    def by_all(self) -> bool:
        """Each process differentiates its share of the examples."""
        return True

    def ready(self, objective: Objective) -> Sketch:
        """Q with orthonormal rows spanning H S for random signs S; tr(Q H Q^T) and ||H Q^T||_F^2.

        Raises UserError where Q H Q^T is not symmetric.
        """
        if processes.size() == 1:
            return self._sketch(self._curvature(objective))
        from landscape.curvature.spread import SpreadFolds, led

        H = SpreadFolds(objective, kind=self.kind, chunk_size=self.chunk_size)
        found = Sketch(H, H.zeros()[None][:0], H.no_moments())

        def search() -> None:
            nonlocal found
            found = self._sketch(H)

        led(search, H)
        return found

    def _sketch(self, H: FoldedCurvature) -> Sketch:
        import torch

        from landscape.linalg.ritz import refuse_asymmetric
        from landscape.runtime.random import rademacher

        rank = self._rank(H.n)
        if rank:
            LOG.info("a sketch by %d products, then the probes", 2 * rank)
        Q = H.zeros().new_empty(rank, H.n)
        with bar(desc="trace: sketch", unit="product", total=2 * rank, shown=None if rank else False) as shown:
            for i in range(rank):
                Q[i] = H(rademacher(H.zeros(), self.seed, 0, i))
                shown.update()
            if not rank or not torch.isfinite(Q).all():
                return Sketch(H, Q[:0], H.no_moments())
            Q = torch.linalg.qr(Q.T)[0].T.contiguous()
            exact, within = H.no_moments(), Q.new_empty(rank, rank)
            for q, row in zip(Q, within, strict=True):
                product, moments = H.with_moments(q)
                exact += moments
                torch.mv(Q, product, out=row)
                shown.update()
        if torch.isfinite(within).all():
            asymmetry, norm = (within - within.T).abs().max(), torch.linalg.matrix_norm(within, 2)
            refuse_asymmetric(float(asymmetry), float(norm), Q.dtype)
        return Sketch(H, Q, exact)

    def compute(self, ready: Sketch, unit: Index) -> Values:
        """What one probe adds to the exact part."""
        from landscape.curvature.spread import Together, led

        H = ready.H
        return led(lambda: self._probed(ready, unit), H) if isinstance(H, Together) else self._probed(ready, unit)

    def _probed(self, ready: Sketch, unit: Index) -> Values:
        from landscape.runtime.random import rademacher

        H, Q, exact = ready
        v = rademacher(H.zeros(), self.seed, 1, *unit)
        v = v - (Q @ v) @ Q
        moments = exact + H.with_moments(v)[1]
        return {
            "trace_estimate": moments.first,
            "frobenius_squared_estimate": moments.second,
            "trace_without_fold": moments.first_without,
            "frobenius_squared_without_fold": moments.second_without,
        }

    def finish(self, result: xr.Dataset) -> xr.Dataset:
        """The result with the means over probes and their errors."""
        done = result["done"].values
        found: dict[str, Any] = {}
        for name in MOMENTS:
            estimates = result[f"{name}_estimate"].values[done]
            found[name] = float(estimates.mean()) if done.any() else np.nan
            found |= errors(name, estimates, result[f"{name}_without_fold"].values[done])
        return result.assign(found)


def hessian_trace(objective: Objective, **settings: Any) -> xr.Dataset:
    """Trace and squared Frobenius norm of the Hessian on the whole frozen data: `Trace(**settings)` of `objective`.

    Parameters
    ----------
    objective
        The loss.
    settings
        Those of `Trace` by name; and partial, save, save_every, budget and progress, as for `hessian_spectrum`; the
        unit is a probe. hutch++ holds Q in memory, which is a third of `products` vectors of the network's size, and
        ten more vectors for the folds of the examples.

    Returns
    -------
    xarray.Dataset
        With dims (probe): trace_estimate, frobenius_squared_estimate (each the exact part plus the probe's) and done;
        (probe, fold): trace_without_fold, frobenius_squared_without_fold, the same without a fold of the examples;
        scalars products, trace and frobenius_squared, each of the last two with its standard errors: trace_sem_probes,
        how much other probes would change the number; trace_sem_examples, how much other examples would, whatever the
        probes, by delete-one-fold jackknife with Q held fixed; and trace_sem, the root of the sum of their squares.
        From fewer than 8 probes or folds a standard error is NaN, and so is that over examples where it drowns in that
        over probes, which trace_sem then equals. With a penalty also penalty_trace, its exact share in the trace.

    Raises
    ------
    UserError
        For an unknown estimator, or too few products for two probes.
    """
    return Trace.called(objective, settings)
