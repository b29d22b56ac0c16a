"""What is computed at a point of a surface: the loss and, if asked, the gradient's norm and the Hessian's extremes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.linalg.search import Search

if TYPE_CHECKING:
    import torch

    from landscape.objective.objective import Objective

LABELS = {
    "nll": "negative log-likelihood",
    "nll_sem": "standard error of nll over examples",
    "penalty": "penalty",
    "loss": "nll + penalty",
    "accuracy": "accuracy",
    "accuracy_sem": "standard error of accuracy over examples",
}
GRADIENT_LABELS = {
    "gradient_norm": "norm of the gradient of the loss",
    "gradient_norm_sem": "standard error of gradient_norm over examples",
}
EIGENVALUE_LABELS = {
    "eigenvalue_high": "largest Hessian eigenvalue",
    "eigenvalue_low": "smallest Hessian eigenvalue",
    "residual_high": "residual of the largest",
    "residual_low": "residual of the smallest",
}
EIGENVALUE_FLAGS = {
    "converged_high": "residual of the largest within tolerance",
    "converged_low": "residual of the smallest within tolerance",
    "complete": "no other Ritz pair could be the largest or smallest",
}


@dataclass(frozen=True)
class Quantities:
    """What is computed at every point.

    Parameters
    ----------
    gradient_norm
        Also the norm of the gradient.
    extremes
        The search for the largest and the smallest eigenvalue of the Hessian; None for neither.
    """

    gradient_norm: bool = False
    extremes: Search | None = None

    @property
    def labels(self) -> dict[str, str]:
        """The names of the numbers, each with a description."""
        gradient = GRADIENT_LABELS if self.gradient_norm else {}
        return {**LABELS, **gradient, **(EIGENVALUE_LABELS if self.extremes else {})}

    @property
    def flags(self) -> dict[str, str]:
        """The booleans, likewise."""
        return EIGENVALUE_FLAGS if self.extremes else {}

    def values(self, here: Objective, autocast: torch.dtype | None) -> dict[str, Any]:
        """All of these at the point where `here` stands, and the NLL of each fold."""
        values = here.evaluate(autocast=autocast).asdict()
        if self.gradient_norm:
            from landscape.curvature.jackknife import gradient_norm

            values["gradient_norm"], values["gradient_norm_sem"] = gradient_norm(here)
        if self.extremes:
            values |= _extremes(here, self.extremes)
        return {name: values[name] for name in (*self.labels, *self.flags)} | {"nll_fold": np.array(values["nll_fold"])}


def _extremes(here: Objective, search: Search) -> dict[str, Any]:
    from landscape.curvature.operators import Curvature
    from landscape.linalg.eigenpairs import eigenpairs
    from landscape.runtime.random import gaussian

    H = Curvature(here)
    pairs = eigenpairs(H, gaussian(H.zeros(), 0), search.within(H.n))
    values: dict[str, Any] = {"complete": pairs.complete}
    for end, i in {"high": 0, "low": -1}.items():
        values[f"eigenvalue_{end}"] = pairs.values[i]
        values[f"residual_{end}"] = pairs.residuals[i]
        values[f"converged_{end}"] = pairs.converged[i]
    return values
