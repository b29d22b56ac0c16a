"""The top eigenvalues of the Hessian on the whole frozen data."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from landscape.analyses.spectrum import _empty_spectrum, _record
from landscape.curvature.minibatches import start_vector
from landscape.curvature.operators import Curvature
from landscape.linalg.eigenpairs import eigenpairs
from landscape.objective.objective import Objective
from landscape.objective.parameters import chosen, parts_of
from landscape.store.units import Index, Save, begin, each_not_done

BASIS_BYTES = 4 << 30  # what the basis of a whole-data search holds at most, unless asked otherwise


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
            H, start_vector(H.gradient(), seed, 0), wanted, which=which, tol=tol, max_products=max_products,
            max_basis=held, verify=verify, second_look=second_look,
        )  # fmt: skip
        _record(result, pairs, index)

    each_not_done(result, compute, save=save, save_every=save_every, progress=progress)
    return result
