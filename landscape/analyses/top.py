"""The top eigenvalues of the Hessian on the whole frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import xarray as xr
from annotated_types import Ge

from landscape.analyses.base import Analysis, Examples, Kept, Values
from landscape.analyses.curved import Kind
from landscape.analyses.eigenvalues import Eigenvalues, by_part, empty_pairs, pairs_remarks, recorded
from landscape.analyses.estimates import Estimate
from landscape.runtime.errors import UserError
from landscape.runtime.memory import refuse_beyond_memory
from landscape.store.units import Index, Work

if TYPE_CHECKING:
    from landscape.curvature.operators import Curvature
    from landscape.linalg.ritz import RitzPairs
    from landscape.objective.objective import Objective
    from landscape.store.aside import Aside

USUAL_EXAMPLES = 256
BASIS_BYTES = 4 << 30  # the most that the basis of a whole-data search takes, unless asked otherwise


@dataclass(frozen=True, kw_only=True)
class Top(Eigenvalues, Analysis):
    """The top Hessian eigenvalues of the whole frozen data, each with its true residual.

    Example: landscape top vit.safetensors --data digits --out vit.h5 --which BE

    Parameters
    ----------
    kind
        hessian; ggn, the Gauss-Newton part of it; residual, the rest; fisher, the Fisher matrix, which for most tasks
        is ggn; or fisher_mc, the same from 8 draws of the labels, with the standard error over these.
    chunk_size
        Examples differentiated at once; it bounds the memory and changes the results by rounding only.
    verify
        Compute the residuals ||H u - eigenvalue u|| by k more products, instead of from the Lanczos relation.
    vectors
        Also store the eigenvectors, in the order of the network's parameters: k numbers for each parameter.
    """

    name: ClassVar[str] = "top"
    unit: ClassVar[str] = "part"
    unstored: ClassVar[tuple[str, ...]] = ("chunk_size",)

    kind: Kind | Literal["fisher_mc"] = "hessian"  # type: ignore[assignment]
    k: Annotated[int, Ge(1)] = 10
    tol: Annotated[float, Ge(0)] = 1e-3
    max_products: Annotated[int, Ge(1)] = 400
    chunk_size: Annotated[int, Ge(1)] | None = None
    verify: bool = True
    vectors: bool = False

    def check(self) -> None:
        """Vectors are not stored for parts, since they differ in length."""
        super().check()
        if self.vectors and self.per:
            raise UserError(f"vectors are of one search; leave out per={self.per!r}, or name `parameters`")

    @property
    def variant(self) -> str:
        """The form of the curvature and the division, so that each has a group of its own."""
        return "_".join(filter(None, (self.form, self.division)))

    @property
    def examples(self) -> Examples:
        """256, unless the user says."""
        return Examples(usual=USUAL_EXAMPLES)

    def empty(self, objective: Objective) -> xr.Dataset:
        """The result over (rank), or with `per` over (part, rank)."""
        result = empty_pairs({"part": list(self.parts(objective))} if self.per else {}, self.k, self.title)
        if self.kind == "fisher_mc":
            words = "standard error over the draws of the labels, the eigenvector held fixed"
            unknown = np.full(result["eigenvalue"].shape, np.nan)
            result = result.assign(eigenvalue_sem_draws=(result["eigenvalue"].dims, unknown, {"long_name": words}))
        return result.assign(vector=self._no_vectors(objective)) if self.vectors else result

    def _no_vectors(self, objective: Objective) -> tuple[tuple[str, str], np.ndarray, dict[str, str]]:
        from landscape.curvature.operators import Curvature

        (part,) = self.parts(objective).values()
        n = Curvature(objective, kind=self.kind, parameters=part).n
        refuse_beyond_memory(4 * self.k * n, f"{self.k} `vectors` (`k`) of {n} parameters")
        return ("rank", "weight"), np.full((self.k, n), np.nan, np.float32), {"long_name": "eigenvector, of length 1"}

    def fill(self, objective: Objective, result: xr.Dataset, work: Work) -> xr.Dataset:
        """Compute the parts; a search keeps its state aside and, when the budget is spent, stops between products."""
        self.visit(Kept(objective, work, result.attrs["config"]), result, work)
        return result

    def by_all(self) -> bool:
        """Each process differentiates its share of the examples."""
        return True

    def products_of_a_unit(self, objective: Kept) -> int:
        """The number of products that a search may take."""
        return self.max_products

    def compute(self, ready: Kept, unit: Index) -> Values:
        """The eigenpairs of one part; if the search had to stop, those found so far."""
        from landscape.curvature.draws import over_draws
        from landscape.curvature.spread import by_all

        objective, work, config = ready
        part = list(self.parts(objective).values())[unit[0] if self.per else 0]

        def search(H: Curvature) -> Values:
            pairs = self._found(H, work.aside(config, unit))
            found = recorded(pairs, self.k)
            if self.vectors and pairs.vectors is not None:
                vector = np.full((self.k, H.n), np.nan, np.float32)
                vector[: len(pairs.vectors)] = pairs.vectors.cpu().numpy()
                found["vector"] = vector
            if self.kind == "fisher_mc" and pairs.vectors is not None:
                sem = np.full(self.k, np.nan)
                _, sem[: len(pairs.vectors)] = over_draws(
                    objective, pairs.vectors, parameters=part, chunk_size=self.chunk_size
                )
                found["eigenvalue_sem_draws"] = sem
            return found

        return by_all(search, objective, kind=self.kind, parameters=part, chunk_size=self.chunk_size)

    def _found(self, H: Curvature, keeper: Aside) -> RitzPairs:
        from landscape.curvature.minibatches import start_vector
        from landscape.linalg.eigenpairs import eigenpairs

        search = self.within(H.n)
        least = (2 * search.k + 6) * H.n * H.zeros().element_size()
        if H.objective.device.type == "cpu":
            refuse_beyond_memory(least, f"a basis for {search.k} eigenvectors (`k`) of {H.n} parameters")
        held = self.max_basis or min(H.n, max(search.k + 6, BASIS_BYTES // (H.n * H.zeros().element_size())))
        start = start_vector(H.gradient(), self.seed, 0)
        search = replace(search, max_basis=held)
        vectors = self.vectors or self.kind == "fisher_mc"
        return eigenpairs(H, start, search, vectors=vectors, verify=self.verify, keeper=keeper)

    def rows(self, result: xr.Dataset) -> Mapping[str, list[Estimate]]:
        """The estimates of each layer or stage, if the network is divided."""
        return by_part(result, self.estimates)

    def estimates(self, result: xr.Dataset) -> list[Estimate]:
        """The largest and the smallest eigenvalue that were found, each with its residual as its bound.

        For a search that is not finished they are those found so far.
        """
        if "part" in result.dims or not np.isfinite(result["eigenvalue"]).any():
            return []
        e, r = result["eigenvalue"].values, result["residual"].values
        found = []
        for name, i in (
            ("largest of the whole data", np.nanargmax(e)),
            ("smallest of the whole data", np.nanargmin(e)),
        ):
            reservations = ("" if result["done"] else "the search is not finished",
                            "" if result["converged"].values[i] else "not converged")  # fmt: skip
            found.append(
                Estimate(
                    name=name, value=float(e[i]), low=float(e[i] - r[i]), high=float(e[i] + r[i]), confidence=1.0,
                    how="residual: a true eigenvalue of these examples lies within",
                    note=", ".join(filter(None, reservations)), column=bool(self.per),
                )
            )  # fmt: skip
        return found

    def tabled(self, result: xr.Dataset) -> tuple[str, ...]:
        """One row for each eigenvalue."""
        return (*super().tabled(result), "rank")

    def remarks(self, result: xr.Dataset) -> list[str]:
        """What did not converge."""
        return pairs_remarks(result)


def hessian_top(objective: Objective, **settings: Any) -> xr.Dataset:
    """The k eigenvalues of the Hessian on the whole frozen data set: `Top(**settings)` of `objective`.

    Parameters
    ----------
    objective
        The loss.
    settings
        Those of `Top` by name, "BE" for both ends; and partial, save, save_every, budget and progress, as for
        `hessian_spectrum`; the unit is a part.

    Returns
    -------
    xarray.Dataset
        With dim (rank): eigenvalue, residual, converged; and products, complete and done; with `per`, all of them along
        a leading dim part; of fisher_mc also eigenvalue_sem_draws, the error over the draws of the labels; with
        `vectors` (rank, weight) vector, of length 1, in the order of the parameters.
    """
    return Top.called(objective, settings)
