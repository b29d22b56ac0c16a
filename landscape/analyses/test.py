"""Accuracy, NLL and calibration on the test split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import xarray as xr
from annotated_types import Ge

from landscape.analyses import intervals
from landscape.analyses.base import Analysis, Examples, Values
from landscape.analyses.estimates import Estimate
from landscape.store.units import Index

if TYPE_CHECKING:
    from landscape.objective.nests import Nest
    from landscape.objective.objective import Objective

MEASURED = {
    "nll": "mean negative log-likelihood",
    "nll_sem": "standard error of nll over examples",
    "accuracy": "accuracy",
    "accuracy_sem": "standard error of accuracy over examples",
    "examples": "examples",
}
OF_EXAMPLES = {
    "example_nll": "negative log-likelihood of the example",
    "confidence": "largest probability",
    "right": "whether the most probable class is right",
    "top5": "whether the class is among the five most probable",
    "cluster": "equal where examples are not independent",
}
MEANS = {
    "brier": "Brier score",
    "miscalibration": "part of the Brier score that recalibration saves",
    "discrimination": "part of the Brier score that telling examples apart saves",
    "uncertainty": "Brier score of the shares of the classes",
    "temperature_nll_change": "change of the NLL by the temperature, on the other half",
}
TEMPERATURE = {
    "temperature": "temperature of least NLL, on one half",
    "temperature_low": "lower end of the interval of temperature",
    "temperature_high": "upper end of the interval of temperature",
}
FEWEST = 30  # examples in a bin


@dataclass(frozen=True, kw_only=True)
class Test(Analysis):
    """Accuracy and NLL on the test split and, for a classification, how well its probabilities are calibrated.

    Top-5 accuracy, the Brier score and its parts, the expected calibration error without the part due to chance, the
    accuracy of predictions with more than 90 % confidence, and the best temperature (`landscape.analyses.calibration`).

    Example: landscape test vit.safetensors --data digits --out vit.h5

    Parameters
    ----------
    samples
        Test examples, drawn by the seed; by default all.
    bins
        Bins for the calibration error, with about equally many examples in each, and at least 30.
    """

    __test__: ClassVar[bool] = False  # not a test case, in spite of its name
    name: ClassVar[str] = "test"
    unit: ClassVar[str] = "pass"

    samples: Annotated[int, Ge(1)] | None = None
    bins: Annotated[int, Ge(1)] = 15

    def context(self, objective: Objective) -> dict[str, Any]:
        """The loss, without the penalty, which is no part of what is measured."""
        return {"objective": objective.config(penalised=False)}

    @property
    def examples(self) -> Examples:
        """The test split as it is, whole unless the user says."""
        return Examples(split="test", transform="eval", exactly=self.samples)

    def empty(self, objective: Objective) -> xr.Dataset:
        """Scalars; for a classification also what each example says."""
        numbers: dict[str, Any] = {name: ((), np.nan, {"long_name": text}) for name, text in MEASURED.items()}
        if _classes(objective):
            nothing = np.full(objective.examples, np.nan, np.float32)
            numbers |= {name: ("example", nothing.copy(), {"long_name": text}) for name, text in OF_EXAMPLES.items()}
            numbers |= {name: ((), np.nan, {"long_name": text}) for name, text in {**MEANS, **TEMPERATURE}.items()}
            numbers |= {f"{name}_sem": ((), np.nan, {"long_name": f"standard error of {name}"}) for name in MEANS}
        return xr.Dataset({**numbers, "done": ((), False, {"long_name": "computed"})})

    def compute(self, objective: Objective, unit: Index) -> Values:
        """One pass over the split."""
        from landscape.analyses import calibration

        logits: list[np.ndarray] = []

        def kept(x: Nest) -> Nest:
            out = objective.outputs(x)
            logits.append(out.cpu().double().numpy())
            return out

        classified = _classes(objective)
        values = objective.evaluate(outputs=kept if classified else None).asdict()
        found = {name: values[name] for name in MEASURED}
        if not classified:
            return found
        z, y = np.concatenate(logits), np.concatenate([y.cpu().numpy() for _, y in objective.parts()])
        each = calibration.scores(z, y)
        each |= {"example_nll": calibration.nll(z, y), "cluster": objective.clusters}
        found |= {name: each[name] for name in OF_EXAMPLES}
        return found | calibration.measured(z, y, objective.clusters)

    def finish(self, result: xr.Dataset) -> xr.Dataset:
        """The result with the bins of the reliability diagram and the calibration error."""
        from landscape.analyses import calibration

        if "confidence" not in result or not result["done"] or not np.isfinite(result["confidence"]).all():
            return result
        confidence, right = (result[name].values.astype(float) for name in ("confidence", "right"))
        most = min(self.bins, max(1, len(right) // FEWEST))
        bins = calibration.equal_mass_bins(confidence, most)
        of = calibration.binned(confidence, right, bins)
        error = calibration.calibration_error(confidence, right, bins)
        ends = np.array([intervals.share(right[bins == b], 1)[1:] for b in range(len(of.examples))]).reshape(-1, 2)
        held = result.drop_dims("bin", errors="ignore")
        return held.assign(
            bin_examples=("bin", of.examples, {"long_name": "examples"}),
            bin_confidence=("bin", of.confidence, {"long_name": "mean confidence"}),
            bin_accuracy=("bin", of.accuracy, {"long_name": "accuracy"}),
            bin_accuracy_low=("bin", ends[:, 0], {"long_name": "lower end of the interval of the accuracy"}),
            bin_accuracy_high=("bin", ends[:, 1], {"long_name": "upper end of the interval of the accuracy"}),
            ece_plugin=((), error.plugin, {"long_name": "expected calibration error, as binned"}),
            ece=((), error.debiased, {"long_name": "expected calibration error, without the part that is chance"}),
            ece_low=((), error.low, {"long_name": "lower end of the interval of ece"}),
            ece_high=((), error.high, {"long_name": "upper end of the interval of ece"}),
        )

    def tabled(self, result: xr.Dataset) -> tuple[str, ...]:
        """One row for each example, if the examples are known."""
        return ("example",) if "example" in result.dims else ()

    def remarks(self, result: xr.Dataset) -> list[str]:
        """How many examples there are."""
        return [f"of {int(result['examples'])} examples"] if "examples" in result else []

    def _completed(self, stored: xr.Dataset | None, config: Mapping[str, Any]) -> xr.Dataset | None:
        """Older files have no `done`, name a penalty that was not measured, and know nothing of the calibration of a
        classification, which is measured now.
        """
        if stored is None:
            return None
        there = {**{f.name: f.default for f in fields(self)}, **stored.attrs.get("config", {})}
        loss = {k: v for k, v in there.get("objective", {}).items() if k in config["objective"]}
        done = bool(stored.get("done", True)) and ("confidence" in stored or loss.get("loss") != "cross_entropy")
        known = stored.assign(done=((), done, {"long_name": "computed"}))
        return known.assign_attrs(config={**there, "objective": {**config["objective"], **loss}})

    def estimates(self, result: xr.Dataset) -> list[Estimate]:
        """Accuracy and NLL, and for a classification what is known of its probabilities."""
        if not result.get("done", True):
            return []
        found = [
            _mean(result, name, text, measure="%" if name == "accuracy" else "", column=name == "accuracy")
            for name, text in (("accuracy", "test accuracy"), ("nll", "test NLL"))
            if name in result
        ]
        return [*found, *(_calibration(result) if "ece" in result else ())]


def _classes(objective: Objective) -> bool:
    """Whether it is a classification of examples with one class each, which alone has probabilities to judge."""
    from landscape.objective.task import Classification

    _, y = objective.data.stores[0]
    return isinstance(objective.task, Classification) and not y.is_floating_point() and y.ndim == 1


def _mean(result: xr.Dataset, name: str, text: str, **more: Any) -> Estimate:
    each = {"accuracy": "right", "nll": "example_nll"}.get(name)
    if each in result:
        more["influence"] = _influence(result[each].values.astype(float), 1.0, result["cluster"].values.astype(int))
    sem = float(result.get(f"{name}_sem", np.nan))
    known = sem if name != "accuracy" or sem > 0 else np.nan  # all right or all wrong says nothing of the spread
    return Estimate(
        name=text, value=float(result[name]), sem=known, n=int(result["examples"]), counts="examples",
        how="standard error over examples", **more,
    )  # fmt: skip


def _share(name: str, hits: np.ndarray, trials: np.ndarray, clusters: np.ndarray, counts: str, **more: Any) -> Estimate:
    """The estimate of a share of trials, where the trials of one cluster are taken together."""
    of = intervals.share(*(np.bincount(clusters, weights=each) for each in (hits, trials)))
    return Estimate(
        name=name, value=of.estimate, low=of.low, high=of.high, measure="%", n=int(trials.sum()), counts=counts,
        how="Bayesian bootstrap over examples", column=False, influence=_influence(hits, trials, clusters), **more,
    )  # fmt: skip


def _influence(values: np.ndarray, trials: np.ndarray | float, clusters: np.ndarray) -> np.ndarray | None:
    """What each cluster of examples adds to sum(values) / sum(trials), (clusters,), linearised."""
    trials = np.broadcast_to(np.asarray(trials, float), values.shape)
    if not trials.any():
        return None
    apart = np.bincount(clusters, weights=values - trials * (values.sum() / trials.sum()))
    return np.asarray(apart * len(apart) / trials.sum())


def _calibration(result: xr.Dataset) -> list[Estimate]:
    from landscape.analyses.calibration import CONFIDENT

    confidence, right, top5 = (result[name].values.astype(float) for name in ("confidence", "right", "top5"))
    clusters, everyone = result["cluster"].values.astype(int), np.ones(len(right))
    sure = (confidence > CONFIDENT).astype(float)
    n = int(result["examples"])
    bins = f"{result.sizes['bin']} bins of about equal mass"
    found = [
        _share("top-5 accuracy", top5, everyone, clusters, "examples"),
        *(
            _mean(result, name, text, column=False)
            for name, text in (
                ("brier", "Brier score"),
                ("miscalibration", "miscalibration"),
                ("discrimination", "discrimination"),
                ("uncertainty", "uncertainty"),
            )
        ),
        Estimate(name="calibration error", symbol="ECE", value=float(result["ece"]), low=float(result["ece_low"]),
                 high=float(result["ece_high"]), measure="%", n=n, counts="examples", column=False,
                 how=f"{bins}, the part that is chance taken off; by inversion of its distribution"),
        _share("accuracy at 90 % confidence", sure * right, sure, clusters, "examples of more than 90 % confidence"),
        _share("share at 90 % confidence", sure, everyone, clusters, "examples"),
    ]  # fmt: skip
    if np.isfinite(result["temperature"]):
        half = (n + 1) // 2
        found += [
            Estimate(name="best temperature", value=float(result["temperature"]),
                     low=float(result["temperature_low"]), high=float(result["temperature_high"]), n=half,
                     counts="examples", how="M-estimator, on one half of the examples", column=False),
            Estimate(name="change of the NLL by it", value=float(result["temperature_nll_change"]),
                     sem=float(result["temperature_nll_change_sem"]), n=n - half, counts="examples",
                     how="standard error over the other half, paired", column=False),
        ]  # fmt: skip
    return found
