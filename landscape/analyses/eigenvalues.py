"""What the searches for eigenvalues share: their settings, the parts of a network, and how pairs are stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import xarray as xr
from annotated_types import Ge
from pydantic import BeforeValidator

from landscape.analyses.curved import Curved
from landscape.linalg.search import Search
from landscape.objective.penalised import in_curvature
from landscape.runtime.errors import UserError
from landscape.runtime.memory import refuse_beyond_memory

if TYPE_CHECKING:
    from landscape.analyses.estimates import Estimate
    from landscape.linalg.ritz import RitzPairs
    from landscape.objective.objective import Objective

Patterns = Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)]


@dataclass(frozen=True, kw_only=True)
class Eigenvalues(Search, Curved):
    """A search for eigenvalues: the form of curvature, and the parameters.

    Parameters
    ----------
    per
        layer or stage: a separate spectrum for the parameters of each layer or stage.
    parameters
        The parameters to differentiate by: names, their beginnings, or patterns; by default all.
    seed
        The seed of the random starts.
    """

    per: Literal["layer", "stage"] | None = None
    parameters: Patterns | None = None
    seed: Annotated[int, Ge(0)] = 0

    def check(self) -> None:
        """A basis holds the wanted vectors and two more: the next one, and one to continue with."""
        super().check()
        if self.max_basis is not None and self.max_basis < self.k + 2:
            raise UserError(f"max_basis={self.max_basis} is too small for k={self.k}; take {self.k + 2} or more")

    @property
    def division(self) -> str:
        """Layer or stage, where each of these has a row of its own in tables."""
        return f"per_{self.per}" if self.per else ""

    def parts(self, objective: Objective) -> dict[str, list[str]]:
        """The names of the parameters of each part; without `per`, all of them under ""."""
        sizes = self._sizes(objective)
        if self.per is None:
            return {"": list(sizes)}
        from landscape.objective.parameters import parts_of

        return parts_of(sizes, self.per)

    def _sizes(self, objective: Objective) -> dict[str, int]:
        from landscape.objective.parameters import chosen

        return {name: p.numel() for name, p in chosen(objective.model, self.parameters).items()}


def empty_pairs(units: Mapping[str, Sequence[Any]], k: int, title: str) -> xr.Dataset:
    """The variables of k eigenpairs for each of the units, with nothing computed.

    units: by dimension, such as part and batch. title: what the eigenvalues are of, such as "Hessian".
    """
    shape = tuple(len(c) for c in units.values())
    refuse_beyond_memory(17 * k * math.prod(shape), f"{k} eigenvalues (`k`) of {math.prod(shape)} searches")
    dims, pairs = tuple(units), (*units, "rank")
    variables: dict[str, Any] = {
        "eigenvalue": (pairs, np.full((*shape, k), np.nan), {"long_name": f"{title} eigenvalue"}),
        "residual": (pairs, np.full((*shape, k), np.nan), {"long_name": "||H u - eigenvalue u||"}),
        "converged": (pairs, np.zeros((*shape, k), bool), {"long_name": "residual within tolerance"}),
        "complete": (dims, np.zeros(shape, bool), {"long_name": "no other Ritz pair could be a wanted one"}),
        "products": (dims, np.zeros(shape, np.int64), {"long_name": "Hessian products spent"}),
        "done": (dims, np.zeros(shape, bool), {"long_name": "computed"}),
    }
    return xr.Dataset(variables, {**{dim: (dim, list(c)) for dim, c in units.items()}, "rank": np.arange(k)})


def by_part(result: xr.Dataset, estimates: Callable[[xr.Dataset], list[Estimate]]) -> Mapping[str, list[Estimate]]:
    """The estimates of each part of a divided result, or of the whole one under ""."""
    if "part" not in result.dims:
        return {"": estimates(result)}
    return {str(part): estimates(result.sel(part=part)) for part in result["part"].values}


def recorded(pairs: RitzPairs, k: int) -> dict[str, Any]:
    """The values of one unit; in a part with fewer than k parameters the remaining ranks stay NaN."""
    missing = (0, k - len(pairs.values))
    return {
        "eigenvalue": np.pad(pairs.values, missing, constant_values=np.nan),
        "residual": np.pad(pairs.residuals, missing, constant_values=np.nan),
        "converged": np.pad(pairs.converged, missing, constant_values=False),
        "complete": pairs.complete,
        "products": pairs.products,
        "done": pairs.finished,
    }


def pairs_remarks(result: xr.Dataset) -> list[str]:
    """How many eigenvalues did not converge, how many searches may have missed one, and what they cost."""
    if "converged" not in result:
        return [in_curvature(result)]
    pairs = result["converged"].values[np.isfinite(result["eigenvalue"].values)]
    unsure = int((result["done"] & ~result["complete"]).sum()) if "complete" in result else 0
    silent = result.attrs.get("config", {}).get("method") == "pyhessian"  # which does not report it
    marked = ", and every statistic of them is marked *" if "summary" in result and not pairs.all() else ""
    return [
        f"{(~pairs).sum()} of {pairs.size} eigenvalues not converged{marked}",
        f"{unsure} searches stopped before nothing could be missing" if unsure and not silent else "",
        f"{int(result['products'].sum())} Hessian products" if "products" in result else "",
        in_curvature(result),
    ]
