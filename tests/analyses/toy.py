"""The smallest whole analysis: the mean square of the weights of each layer, as CONTRIBUTING has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import xarray as xr
from annotated_types import Ge

from landscape.analyses.base import Analysis
from landscape.analyses.estimates import Estimate


@dataclass(frozen=True, kw_only=True)
class Weights(Analysis):
    """The mean square of the weights of each parameter.

    Example: landscape weights vit.safetensors --data digits --out vit.h5

    Parameters
    ----------
    least
        Parameters of fewer dimensions are passed over.
    """

    name: ClassVar[str] = "weights"
    unit: ClassVar[str] = "parameter"
    least: Annotated[int, Ge(1)] = 2

    def empty(self, objective: Any) -> xr.Dataset:
        names = [n for n, p in objective.model.named_parameters() if p.ndim >= self.least]
        nothing = np.full(len(names), np.nan)
        return xr.Dataset(
            {
                "mean_square": ("parameter", nothing, {"long_name": "mean square"}),
                "done": ("parameter", np.zeros(len(names), bool)),
            },
            {"parameter": names},
        )

    def compute(self, objective: Any, unit: tuple[int, ...]) -> Mapping[str, Any]:
        name = self.empty(objective)["parameter"].values[unit[0]]
        return {"mean_square": float(objective.model.get_parameter(name).detach().square().mean())}

    def estimates(self, result: xr.Dataset) -> list[Estimate]:
        found = result["mean_square"].values[result["done"].values]
        return [Estimate(name="mean square of the weights", value=float(np.mean(found)))]
