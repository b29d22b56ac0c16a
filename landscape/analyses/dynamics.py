"""An analysis of features applied to one checkpoint after another, such as those of one training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import xarray as xr

from landscape.analyses.base import Analysis, Held, Subject, Values
from landscape.analyses.blockwise import Looked
from landscape.analyses.estimates import Estimate
from landscape.analyses.fourier import Fourier
from landscape.analyses.lesion import Lesion
from landscape.analyses.robustness import Robustness
from landscape.analyses.similarity import Similarity
from landscape.analyses.variance import Variance
from landscape.store.units import Index, Work

if TYPE_CHECKING:
    from landscape.objective.objective import Objective

ANALYSES: dict[str, type[Analysis]] = {
    "fourier": Fourier, "variance": Variance, "similarity": Similarity, "lesion": Lesion, "robustness": Robustness,
}  # fmt: skip
BOUNDS = ("estimate", "low", "high")
LOSS = {
    "nll": "mean negative log-likelihood of the images",
    "nll_sem": "its standard error",
    "accuracy": "accuracy on them",
    "accuracy_sem": "its standard error",
}


@dataclass(frozen=True, kw_only=True)
class Dynamics(Looked, Analysis):
    """An analysis of features over checkpoints of a training, against their epochs and their losses.

    For each checkpoint: all estimates of the analysis with their intervals, and NLL and accuracy on the same images.

    Example: landscape dynamics epochs/ --what fourier --out dynamics.h5

    Parameters
    ----------
    what
        The analysis; its settings are the usual ones, except for images and modules.
    """

    name: ClassVar[str] = "dynamics"
    unit: ClassVar[str] = "checkpoint"
    several: ClassVar[bool] = True

    what: Literal["fourier", "variance", "similarity", "lesion", "robustness"] = "fourier"

    @property
    def variant(self) -> str:
        """The analysis in question, so that each has a group of its own."""
        return self.what

    @property
    def each(self) -> Analysis:
        """The analysis that each checkpoint is given."""
        cls = ANALYSES[self.what]
        asked = {"images": self.images, "modules": self.modules}
        return cls(**{name: value for name, value in asked.items() if name in cls.__dataclass_fields__})

    def prepare_several(self, subjects: Mapping[str, Subject]) -> dict[str, tuple[Objective, Any]]:
        """For each checkpoint, the loss on the images and what the analysis is given."""
        one = self.each
        return {label: (s.objective(one.examples), one.prepare(s, Held())) for label, s in subjects.items()}

    def context(self, objective: Mapping[str, tuple[Objective, Any]]) -> Mapping[str, Any]:
        """The settings of the analysis, and the loss of each checkpoint."""
        one = self.each
        return {
            "settings": one.asdict(),
            "each": {label: dict(one.context(given)) for label, (_, given) in objective.items()},
        }

    def empty(self, objective: Mapping[str, tuple[Objective, Any]]) -> xr.Dataset:
        """The result over (checkpoint); the first checkpoint adds (quantity, bound), since its estimates name them."""
        count = len(objective)
        numbers = {name: ("checkpoint", np.full(count, np.nan), {"long_name": text}) for name, text in LOSS.items()}
        return xr.Dataset(
            {
                **numbers,
                "done": ("checkpoint", np.zeros(count, bool), {"long_name": "computed"}),
            },
            {"checkpoint": list(objective)},
        )

    def compute(self, ready: Mapping[str, tuple[Objective, Any]], unit: Index) -> Values:
        """NLL and accuracy of one checkpoint, and the bounds of what the analysis estimates, by name."""
        loss, given = ready[list(ready)[unit[0]]]
        one, evaluation = self.each, loss.evaluate().asdict()
        found = one.estimates(one.run(given))
        return {**{name: evaluation[name] for name in LOSS}, **{e.name: _bounds(e) for e in found}}

    def fill(self, objective: Mapping[str, tuple[Objective, Any]], result: xr.Dataset, work: Work) -> xr.Dataset:
        """Compute one checkpoint after another; within each, the units are shared out among the processes."""
        if "quantities" not in result:
            nothing = ("checkpoint", "quantity", "bound"), np.full((len(objective), 0, 3), np.nan)
            named = {"quantity": np.array([], dtype=object), "bound": list(BOUNDS)}
            result = result.assign(quantities=nothing).assign_coords(named)
        for unit, label in enumerate(objective):
            at = {"checkpoint": label}
            if result["done"].sel(at):
                continue
            values = dict(self.compute(objective, (unit,)))
            for name in LOSS:
                result[name].loc[at] = values.pop(name)
            known = list(dict.fromkeys([*result["quantity"].values.tolist(), *values]))
            result = result.reindex(quantity=known).copy(deep=True)  # reindexed arrays may be read-only views
            result["quantities"].loc[{**at, "quantity": list(values)}] = list(values.values())
            result["done"].loc[at] = True
            if work.save is not None:
                work.save(result)
            if work.spent:
                break
        return result

    def estimates(self, result: xr.Dataset) -> list[Estimate]:
        """The estimates of the last checkpoint."""
        return list(self.rows(result).values())[-1] if result["done"].any() else []

    def rows(self, result: xr.Dataset) -> Mapping[str, list[Estimate]]:
        """For each checkpoint that is done, its NLL and what the analysis estimates."""
        found = {}
        for label in result["checkpoint"].values[result["done"].values]:
            one = result.sel(checkpoint=label)
            nll = Estimate(name="NLL", value=float(one["nll"]), sem=float(one["nll_sem"]), column=True)
            each = [
                Estimate(name=str(name), value=float(value), low=float(low), high=float(high))
                for name, (value, low, high) in zip(one["quantity"].values, one["quantities"].values, strict=True)
                if not np.isnan(value)
            ]
            found[str(label)] = [nll, *each]
        return found


def _bounds(e: Estimate) -> tuple[float, float, float]:
    """The estimate with its interval, or else two standard errors to either side."""
    if np.isnan(e.low):
        return e.value, e.value - 2 * e.sem, e.value + 2 * e.sem
    return e.value, e.low, e.high
