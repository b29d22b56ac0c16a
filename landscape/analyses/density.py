"""The spectral density of the Hessian, by stochastic Lanczos quadrature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

import numpy as np
import xarray as xr
from annotated_types import Ge

from landscape.analyses.base import Examples, Kept, Values
from landscape.analyses.moments import (
    MOMENTS,
    Probing,
    empty_folds,
    errors,
    errors_over_mini_batches,
    penalty_trace,
)
from landscape.runtime import processes
from landscape.runtime.errors import UserError
from landscape.runtime.memory import refuse_beyond_memory
from landscape.store.units import Index, Work

if TYPE_CHECKING:
    import torch

    from landscape.curvature.jackknife import FoldedCurvature, Moments
    from landscape.curvature.operators import Curvature
    from landscape.objective.objective import Objective
    from landscape.store.aside import Aside

USUAL_EXAMPLES = 128


class Operators(NamedTuple):
    """What a probe is multiplied with: the whole data, once also by folds of the examples; or mini-batches in turn.

    With them, what keeps the state of a probe under way.
    """

    whole: Curvature
    folded: FoldedCurvature | None
    minibatches: list[tuple[torch.Tensor, torch.Tensor]]
    objective: Objective
    keeper: Callable[[Index], Aside] | None = None


@dataclass
class Probed:
    """The operator of one probe.

    If there are folds, the product with the probe itself, normalised to unit length, is computed fold by fold, which
    also gives the probe's moments.
    """

    whole: Curvature
    folded: FoldedCurvature | None
    probe: torch.Tensor
    moments: Moments | None = None

    def rows(self, X: torch.Tensor, members: Sequence[int]) -> torch.Tensor:
        """As `landscape.linalg.operators.Operators` defines it."""
        if self.folded is None or not self.probe.equal(X):
            return self.whole.rows(X, members)
        Hv, self.moments = self.folded.with_moments(X[0, 0])
        return Hv[None, None]


@dataclass(frozen=True, kw_only=True)
class Density(Probing):
    """The spectral density of the Hessian, by stochastic Lanczos quadrature.

    Each probe has random entries +1 and -1 (Rademacher). Its nodes and weights are stored without smoothing, and the
    weights sum to 1 (Ghorbani et al. 2019, sec. 2.1; Ubaru, Chen & Saad 2017).

    Example: landscape density vit.safetensors --data digits --out vit.h5 --probes 4

    Parameters
    ----------
    probes
        The number of random probes.
    steps
        Lanczos steps for each probe, each of which is one Hessian product.
    batch_size
        Examples per mini-batch. The probes then visit mini-batches in turn; the density is averaged over them, and its
        errors cover both draws. By default the density is that of the whole frozen data.
    batches
        The number of mini-batches to visit.
    density_samples
        Frozen examples for the density; by default all, but at most 128.
    """

    name: ClassVar[str] = "density"
    unstored: ClassVar[tuple[str, ...]] = ("chunk_size", "density_samples")

    probes: Annotated[int, Ge(1)] = 10
    steps: Annotated[int, Ge(1)] = 80
    batch_size: Annotated[int, Ge(1)] | None = None
    batches: Annotated[int, Ge(1)] | None = None
    density_samples: Annotated[int, Ge(1)] | None = None

    def check(self) -> None:
        """Every mini-batch needs a probe."""
        if self.batch_size is not None and self.probes < (self.batches or 1):
            raise UserError(
                f"probes={self.probes} cannot visit {self.batches} mini-batches; take at least one probe for each"
            )

    @property
    def examples(self) -> Examples:
        """Only a few, since a density takes hundreds of products."""
        return Examples(at_most=self.density_samples or USUAL_EXAMPLES)

    def _operators(self, objective: Objective) -> Operators:
        from landscape.curvature.jackknife import FoldedCurvature
        from landscape.curvature.operators import Curvature

        of: dict[str, Any] = {"kind": self.kind, "chunk_size": self.chunk_size}
        minibatches = [] if self.batch_size is None else objective.minibatches(self.batch_size, self.batches or 1)
        # only one of a probe's products is computed by folds: the others take fewer launches on a GPU
        folded = None if minibatches else FoldedCurvature(objective, keep=False, **of)
        return Operators(Curvature(objective, **of), folded, minibatches, objective)

    def context(self, objective: Objective) -> Mapping[str, Any]:
        """The number of mini-batches and of parameters, and the loss."""
        has = self._operators(objective)
        return {
            "batches": len(has.minibatches) or None,
            "parameters": has.whole.n,
            **super().context(objective),
        }

    def empty(self, objective: Objective) -> xr.Dataset:
        """The result over (probe, node), with the moments of each probe."""
        has = self._operators(objective)
        nodes, probes, batches = ("probe", "node"), self.probes, len(has.minibatches)
        refuse_beyond_memory(16 * probes * self.steps, f"{probes} `probes` of {self.steps} `steps`")
        nothing = np.full((probes, self.steps), np.nan)
        batch = np.arange(probes) % batches if batches else np.full(probes, -1)
        return xr.Dataset(
            {
                "node": (nodes, nothing, {"long_name": f"{self.title} eigenvalue (Ritz value)"}),
                "weight": (nodes, nothing.copy(), {"long_name": "share of the spectral mass"}),
                "batch": (("probe",), batch, {"long_name": "mini-batch, -1 for the whole data"}),
                "done": (("probe",), np.zeros(probes, bool), {"long_name": "computed"}),
                **({} if has.folded is None else empty_folds(probes, has.folded.folds)),
                **penalty_trace(has.whole),
            },
            {"probe": np.arange(probes)},
        )

    def fill(self, objective: Objective, result: xr.Dataset, work: Work) -> xr.Dataset:
        """A probe keeps its state beside the results file, and stops between two products where the budget is spent."""
        self.visit(Kept(objective, work, result.attrs["config"]), result, work)
        return result

    def by_all(self) -> bool:
        """If there are fewer probes than processes, each process differentiates its share of the examples."""
        return self.batch_size is None and self.probes < processes.size()

    def products_of_a_unit(self, objective: Kept) -> int:
        """The steps of a probe."""
        return self.steps

    def ready(self, kept: Kept) -> Operators:
        """The operators, which keep their graphs from probe to probe."""
        objective, work, config = kept
        keeper = (lambda unit: work.aside(config, unit)) if work.keeps_aside else None
        return self._operators(objective)._replace(keeper=keeper)

    def compute(self, ready: Operators, unit: Index) -> Values:
        """The nodes and weights of one probe; on the whole data also its moments without each fold."""
        from landscape.curvature.operators import Curvature

        H = ready.whole
        if ready.minibatches:
            x, y = ready.minibatches[unit[0] % len(ready.minibatches)]
            H = Curvature(ready.objective, x, y, kind=self.kind, chunk_size=self.chunk_size)
        if not self.by_all():
            return self._probed(ready, H, unit)
        from landscape.curvature.spread import by_all

        return by_all(
            lambda H: self._probed(ready, H, unit), ready.objective, kind=self.kind, chunk_size=self.chunk_size
        )

    def _probed(self, ready: Operators, H: Curvature, unit: Index) -> Values:
        from landscape.linalg.quadrature import quadrature, unit_start
        from landscape.runtime.random import rademacher

        (i,), folded = unit, ready.folded
        probe = rademacher(H.zeros(), self.seed, i)
        probed = Probed(H, folded, unit_start(H, probe))
        found = quadrature(probed, probe, self.steps, None if ready.keeper is None else ready.keeper(unit))
        if found is None:
            return {"done": False}
        values: dict[str, Any] = dict(zip(("node", "weight"), found, strict=True))
        if folded is not None and probed.moments is None:  # that product was made before an interruption
            probed.rows(unit_start(H, probe), [0])
        if probed.moments is not None:
            values["trace_without_fold"] = H.n * probed.moments.first_without
            values["frobenius_squared_without_fold"] = H.n * probed.moments.second_without
        return values

    def tabled(self, result: xr.Dataset) -> tuple[str, ...]:
        """One row for each node of each probe."""
        return ("probe", "node")

    def check_result(self, result: xr.Dataset) -> None:
        """Each probe's weights are shares, and sum to 1."""
        weight = result["weight"].transpose("probe", "node").values[result["done"].values]
        known = weight[~np.isnan(weight).any(axis=1)]
        if (known < -1e-6).any() or not np.allclose(known.sum(axis=1), 1, rtol=0, atol=1e-3):
            raise UserError("its weights are not shares that sum to 1 for each probe")

    def finish(self, result: xr.Dataset) -> xr.Dataset:
        """The result with the first two moments, and with the trace and squared Frobenius norm from them."""
        n, done = result.attrs["config"]["parameters"], result["done"].values
        first, second = ((result["weight"] * result["node"].fillna(0) ** p).sum("node", skipna=False) for p in (1, 2))
        found: dict[str, Any] = {"mean_eigenvalue": first, "mean_square_eigenvalue": second}
        for name, moment in zip(MOMENTS, (first, second), strict=True):
            estimates = n * moment.values[done]
            found[name] = float(estimates.mean()) if done.any() else np.nan
            if self.batch_size is not None:
                found |= errors_over_mini_batches(name, estimates, result["batch"].values[done])
            else:
                found |= errors(name, estimates, result[f"{name}_without_fold"].values[done])
        return result.assign(found)


def spectral_density(objective: Objective, **settings: Any) -> xr.Dataset:
    """The spectral density of the Hessian: `Density(**settings)` of `objective`.

    Parameters
    ----------
    objective
        The loss.
    settings
        Those of `Density` by name; and partial, save, save_every, budget and progress, as for `hessian_spectrum`; the
        unit is a probe.

    Returns
    -------
    xarray.Dataset
        With dims (probe, node): node, weight; (probe): mean_eigenvalue and mean_square_eigenvalue, the first two
        moments, each exact for its probe, batch (-1 for the whole data) and done; (probe, fold), of the whole data:
        trace_without_fold and frobenius_squared_without_fold, each probe's estimates without a fold of the examples;
        scalars trace, frobenius_squared and their standard errors, as `hessian_trace` names them. Of mini-batches
        trace_sem comes from the spread of their means, and its square less that of trace_sem_probes is the part of the
        examples; it is NaN for fewer than 8 mini-batches. With a penalty also penalty_trace, its exact share in the
        trace.

    Raises
    ------
    UserError
        For fewer than one probe or step, or fewer probes than mini-batches.
    """
    return Density.called(objective, settings)
