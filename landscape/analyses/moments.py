"""Trace and squared Frobenius norm from random probes, with the errors over probes and over examples.

The error over examples is by jackknife: each fold of the examples is multiplied with the probes, and no fold splits a
cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import xarray as xr
from annotated_types import Ge

from landscape.analyses.base import Analysis
from landscape.analyses.curved import Curved
from landscape.analyses.estimates import Estimate
from landscape.objective.clusters import jackknife_sem, mean_and_sem, numbered, sem_within
from landscape.objective.penalised import in_trace

if TYPE_CHECKING:
    from landscape.curvature.operators import Curvature

MOMENTS = {"trace": "trace", "frobenius_squared": "squared Frobenius norm"}


def empty_folds(probes: int, folds: int) -> dict[str, Any]:
    """Each probe's estimates without a fold of the examples, with nothing computed."""
    return {
        f"{name}_without_fold": (
            ("probe", "fold"),
            np.full((probes, folds), np.nan),
            {"long_name": f"{text}, by one probe, without a fold of the examples"},
        )
        for name, text in MOMENTS.items()
    }


def penalty_trace(H: Curvature) -> dict[str, float]:
    """The exact share of the penalty in the trace, if there is a penalty in it."""
    if not H.form.penalised or not H.objective.penalty.weight_decay:
        return {}
    return {"penalty_trace": H.objective.penalty.trace(dict(H.objective.model.named_parameters()), H.parameters)}


def errors(name: str, estimates: np.ndarray, without: np.ndarray) -> dict[str, float]:
    """The errors of the mean of the probes' estimates (probe,): across probes, over examples, and of both.

    without: (probe, fold), the estimates without a fold of the examples. The jackknife of the mean over P probes
    contains 1/P of what examples change in each probe apart from the others, which the spread across probes contains
    too; how much that is follows from the difference between the jackknives of one probe and of the mean.
    """
    probes = len(estimates)
    if not probes:
        return _named(name, np.nan, np.nan, np.nan)
    over_probes = sem_within(estimates, np.zeros(probes, np.int64))
    of_mean, of_one = (float(np.mean(jackknife_sem(r) ** 2)) for r in (without.mean(axis=0), without.T))
    over_examples = float(np.sqrt(np.maximum(of_mean - (of_one - of_mean) / max(probes - 1, 1), 0)))
    return _named(name, float(np.hypot(over_probes, over_examples)), over_probes, over_examples)


def errors_over_mini_batches(name: str, estimates: np.ndarray, batch: np.ndarray) -> dict[str, float]:
    """The same for probes on mini-batches of their own, whose means are independent and contain both errors."""
    clusters = numbered(batch)
    _, total = mean_and_sem(estimates, clusters)
    over_probes = sem_within(estimates, clusters)
    return _named(name, total, over_probes, float(np.sqrt(np.maximum(total**2 - over_probes**2, 0))))


def _named(name: str, total: float, over_probes: float, over_examples: float) -> dict[str, float]:
    """The errors by name; that over examples is NaN, not 0, if it cannot be told from that over probes."""
    known = over_examples if over_examples > 0 else np.nan
    return {f"{name}_sem": total, f"{name}_sem_probes": over_probes, f"{name}_sem_examples": known}


def _influence(result: xr.Dataset, name: str) -> np.ndarray | None:
    """What each fold of the examples adds (fold,), by the jackknife's pseudo-values; None if no folds are stored."""
    if f"{name}_without_fold" not in result or not result["done"].any():
        return None
    without = result[f"{name}_without_fold"].values[result["done"].values].mean(axis=0)
    return np.asarray((len(without) - 1) * (without.mean() - without))


@dataclass(frozen=True, kw_only=True)
class Probing(Curved, Analysis):
    """Moments of the curvature from random probes.

    Parameters
    ----------
    chunk_size
        Examples differentiated at once; it bounds the memory and changes the results by rounding only.
    seed
        The seed of the probes.
    """

    unit: ClassVar[str] = "probe"
    unstored: ClassVar[tuple[str, ...]] = ("chunk_size",)

    chunk_size: Annotated[int, Ge(1)] | None = None
    seed: Annotated[int, Ge(0)] = 0

    @property
    def variant(self) -> str:
        """The form of the curvature, so that each has a group of its own."""
        return self.form

    def estimates(self, result: xr.Dataset) -> list[Estimate]:
        """The trace and the squared Frobenius norm, each with the standard error from both sources."""
        return [
            Estimate(
                name=text, symbol={"trace": "tr H", "frobenius_squared": "||H||_F^2"}[name], value=float(result[name]),
                sem=float(result.get(f"{name}_sem", np.nan)), n=int(result["done"].sum()), counts="probes",
                how="standard error over probes and, by jackknife, over examples", column=False,
                compared="ratio", influence=_influence(result, name),
            )
            for name, text in MOMENTS.items()
            if name in result
        ]  # fmt: skip

    def remarks(self, result: xr.Dataset) -> list[str]:
        """How much of each error is over probes and how much over examples; and the share of the penalty."""
        said = []
        for name, text in MOMENTS.items():
            sources = [
                f"{float(result[f'{name}_sem_{source}']):.2g} over {source}"
                for source in ("probes", "examples")
                if float(result.get(f"{name}_sem_{source}", np.nan)) > 0
            ]
            said.append(f"error of the {text}: {', '.join(sources)}" if sources else "")
        return [*filter(None, said), in_trace(result)]
