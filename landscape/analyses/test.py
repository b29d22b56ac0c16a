"""Accuracy and NLL on the test split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr

from landscape.analyses.base import Analysis, Examples, Values
from landscape.analyses.estimates import Estimate
from landscape.store.units import Index

if TYPE_CHECKING:
    from landscape.objective.objective import Objective

MEASURED = {
    "nll": "mean negative log-likelihood",
    "nll_sem": "standard error of nll over examples",
    "accuracy": "accuracy",
    "accuracy_sem": "standard error of accuracy over examples",
    "examples": "examples",
}


@dataclass(frozen=True, kw_only=True)
class Test(Analysis):
    """Accuracy and NLL on the test split, with standard errors.

    Example: landscape test vit.safetensors --data digits --out vit.h5
    """

    __test__: ClassVar[bool] = False  # no test case, whatever its name
    name: ClassVar[str] = "test"
    unit: ClassVar[str] = "pass"

    def context(self, objective: Objective) -> dict[str, Any]:
        """The loss, without the penalty, which is no part of what is measured."""
        loss = {k: v for k, v in objective.config().items() if k not in ("weight_decay", "penalty", "decay")}
        return {"objective": loss}

    @property
    def examples(self) -> Examples:
        """The whole test split, as it is."""
        return Examples(split="test", transform="eval")

    def empty(self, objective: Objective) -> xr.Dataset:
        """Scalars."""
        numbers = {name: ((), np.nan, {"long_name": text}) for name, text in MEASURED.items()}
        return xr.Dataset({**numbers, "done": ((), False, {"long_name": "computed"})})

    def compute(self, objective: Objective, unit: Index) -> Values:
        """One pass over the split."""
        values = objective.evaluate().asdict()
        return {name: values[name] for name in MEASURED}

    def remarks(self, result: xr.Dataset) -> list[str]:
        """How many examples there are."""
        return [f"of {int(result['examples'])} examples"] if "examples" in result else []

    def _completed(self, stored: xr.Dataset | None, config: Mapping[str, Any]) -> xr.Dataset | None:
        """Files of before have no `done`, and name a penalty that was not measured."""
        if stored is None:
            return None
        there = stored.attrs.get("config", {})
        loss = {k: v for k, v in there.get("objective", {}).items() if k in config["objective"]}
        known = stored if "done" in stored else stored.assign(done=True)
        return known.assign_attrs(config={**there, "objective": {**config["objective"], **loss}})

    def estimates(self, result: xr.Dataset) -> list[Estimate]:
        """Accuracy and NLL."""
        if not result.get("done", True):
            return []
        found = []
        for name, text in (("accuracy", "test accuracy"), ("nll", "test NLL")):
            if name not in result:
                continue
            sem = float(result.get(f"{name}_sem", np.nan))
            known = sem if name == "nll" or sem > 0 else np.nan  # all right or all wrong say nothing of the spread
            found.append(
                Estimate(name=text, value=float(result[name]), sem=known, n=int(result["examples"]), counts="examples",
                         how="standard error over examples", measure="%" if name == "accuracy" else "",
                         column=name == "accuracy")
            )  # fmt: skip
        return found
