"""What an intervention does to loss and accuracy, example by example: the same examples with and without it.

The group of such an analysis has loss_change and hit_change, over its units and `example` (the units of the loss);
from these `summarised` computes the changes with their intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import scipy
import xarray as xr
from annotated_types import Ge
from numpy.typing import ArrayLike
from scipy.special import ndtri

from landscape.analyses import intervals
from landscape.analyses.base import Analysis, Examples
from landscape.analyses.estimates import Estimate
from landscape.analyses.intervals import Interval
from landscape.objective.clusters import LEAST_UNITS

if TYPE_CHECKING:
    from landscape.objective.objective import Objective

BOUNDS = ("estimate", "low", "high")
PER_UNIT = {"nll": "mean negative log-likelihood", "accuracy": "accuracy"}
PER_EXAMPLE = {"loss_change": "change of the negative log-likelihood of the example",
               "hit_change": "change of whether the example is right"}  # fmt: skip
CHANGES = {"nll_change": "change of the NLL", "accuracy_change": "change of the accuracy"}


@dataclass(frozen=True, kw_only=True)
class Paired(Analysis):
    """The base class of an analysis of the test split with and without an intervention.

    Parameters
    ----------
    images
        The number of images of the test split, without augmentation; all if there are fewer.
    """

    images: Annotated[int, Ge(1)] = 2000

    @property
    def examples(self) -> Examples:
        """As many as are asked for, from the test split."""
        return Examples(split="test", transform="eval", exactly=self.images)

    def context(self, objective: Objective) -> Mapping[str, Any]:
        """The loss, without the penalty, which is no part of what is measured."""
        return {"objective": objective.config(penalised=False)}

    def remarks(self, result: xr.Dataset) -> list[str]:
        """How many images there are."""
        return [f"of {images(result)} images"]


def empty(dims: Sequence[str], shape: Sequence[int], objective: Objective) -> dict[str, Any]:
    """The variables of a group, with nothing computed."""
    n, over = len(objective.unit_cluster), (*dims, "example")
    each = {
        name: (over, np.full((*shape, n), np.nan, np.float32), {"long_name": text})
        for name, text in PER_EXAMPLE.items()
    }
    means = {name: (tuple(dims), np.full(shape, np.nan), {"long_name": text}) for name, text in PER_UNIT.items()}
    cluster = ("example", objective.unit_cluster, {"long_name": "equal where examples are not independent"})
    done = (tuple(dims), np.zeros(shape, bool), {"long_name": "computed"})
    return {**means, **each, "cluster": cluster, "done": done}


def values(before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """The values of one unit, from losses and hits (examples,) without and with the intervention."""
    with np.errstate(invalid="ignore"):
        loss_change, hit_change = after[0] - before[0], after[1] - before[1]
    return {
        "nll": float(after[0].mean()),
        "accuracy": float(after[1].mean()),
        "loss_change": loss_change,
        "hit_change": hit_change,
    }


def summarised(result: xr.Dataset) -> xr.Dataset:
    """The result with nll_change and accuracy_change (units, bound), and mcnemar (units), the p-value of no change of
    the accuracy.
    """
    dims, done = result["done"].dims, result["done"].values
    cluster = result["cluster"].values
    found = {name: np.full((*done.shape, len(BOUNDS)), np.nan) for name in CHANGES}
    p = np.full(done.shape, np.nan)
    losses, hits = (result[name].transpose(*dims, "example").values for name in PER_EXAMPLE)
    for unit in map(tuple, np.argwhere(done)):
        found["nll_change"][unit] = change_of_mean(losses[unit], cluster)
        found["accuracy_change"][unit] = change_of_share(hits[unit], cluster)
        p[unit] = mcnemar(hits[unit]) if len(np.unique(cluster)) == len(cluster) else np.nan
    said = {name: ((*dims, "bound"), found[name], {"long_name": text}) for name, text in CHANGES.items()}
    test = (dims, p, {"long_name": "p-value of no change of the accuracy, McNemar's, mid-p"})
    return result.assign({**said, "mcnemar": test}).assign_coords(bound=list(BOUNDS))


def images(result: xr.Dataset) -> int:
    """How many images there are, or else how many examples that are independent of each other."""
    return len(np.unique(result["cluster"].values))


def change_of_mean(change: ArrayLike, cluster: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """The mean of the changes (examples,) of a loss, by the paired bootstrap over clusters; no interval without change.

    Changes of a loss are skewed, since a few images lose much: `bootstrapped_mean` covers the truth where Student's t
    does not (`benchmarks/changes.py`).
    """
    return _over_clusters(intervals.bootstrapped_mean, change, cluster, confidence)


def mean_change_of_hits(change: ArrayLike, cluster: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """The same for changes in the share of right answers, which are bounded, by Student's t over clusters."""
    return _over_clusters(intervals.mean, change, cluster, confidence)


def _over_clusters(
    interval: Callable[..., Interval], change: ArrayLike, cluster: np.ndarray, confidence: float
) -> Interval:
    change = np.asarray(change, float)
    if not np.isfinite(change).all() or not change.any():
        return Interval(float(change.mean()), np.nan, np.nan)
    return interval(np.bincount(cluster, weights=change), np.bincount(cluster), confidence=confidence)


def change_of_share(change: ArrayLike, cluster: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """The mean of changes (examples,) of -1, 0 and 1: the difference of two paired proportions.

    The interval is Bonett & Price's (2012, eq. 3): Wald's after adding one example of each kind of change, which covers
    with few changes too and never has zero width. If clusters have several examples, the variance over clusters takes
    the place of that over examples where it is larger.
    """
    change = np.asarray(change, float)
    n, estimate = len(change), float(change.mean())
    if len(np.unique(cluster)) < LEAST_UNITS or not np.isfinite(estimate):
        return Interval(estimate, np.nan, np.nan)
    gained, lost = ((change > 0).sum() + 1) / (n + 2), ((change < 0).sum() + 1) / (n + 2)
    variance = (gained + lost - (gained - lost) ** 2) / (n + 2)
    counts = np.bincount(cluster)
    if (counts > 1).any():
        apart = np.bincount(cluster, weights=change - estimate)
        variance = max(variance, len(counts) / (len(counts) - 1) * np.square(apart).sum() / n**2)
    reach = float(-ndtri((1 - confidence) / 2) * np.sqrt(variance))
    return Interval(estimate, max(gained - lost - reach, -1.0), min(gained - lost + reach, 1.0))


def mcnemar(change: ArrayLike) -> float:
    """The p-value of as many gains as losses, for independent examples.

    It is McNemar's exact test with the mid-p correction (Fagerland, Lydersen & Laake 2013), without which the test is
    conservative.
    """
    change = np.asarray(change, float)
    if not np.isfinite(change).all():
        return np.nan
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    n, fewer = gained + lost, min(gained, lost)
    if gained == lost:
        return 1.0 if n == 0 else 1 - float(scipy.stats.binom.pmf(fewer, n, 0.5)) / 2
    binom = scipy.stats.binom(n, 0.5)
    return float(2 * binom.cdf(fewer) - binom.pmf(fewer))


def between(one: xr.Dataset, other: xr.Dataset) -> xr.DataArray | None:
    """How much more the accuracy of the other network changes than that of the one, (units, bound), paired over images.

    None unless both are of the same perturbations of the same images.
    """
    dims = tuple(one["done"].dims)
    images_of = [{k: group.attrs.get("config", {}).get("objective", {}).get("data", {}).get(k)
                  for k in ("name", "split", "samples", "seed")} for group in (one, other)]  # fmt: skip
    same = images_of[0] == images_of[1] and all(one[dim].equals(other[dim]) for dim in dims)
    if not same or one.sizes["example"] != other.sizes["example"]:
        return None
    cluster = one["cluster"].values
    more = (other["hit_change"] - one["hit_change"]).transpose(*dims, "example").values.astype(float)
    found = np.full((*one["done"].shape, len(BOUNDS)), np.nan)
    for unit in map(tuple, np.argwhere(np.isfinite(more).all(-1))):
        found[unit] = mean_change_of_hits(more[unit], cluster)
    return xr.DataArray(found, dims=(*dims, "bound"), coords={dim: one[dim] for dim in dims} | {"bound": list(BOUNDS)})


def estimates(result: xr.Dataset, unit: Mapping[str, int], what: str) -> list[Estimate]:
    """The changes of one unit: `what`, such as "without layer1.0", follows the name."""
    found, n = [], images(result)
    for name, text in CHANGES.items():
        value, low, high = result[name].isel(unit).values
        share = name == "accuracy_change"
        if np.isnan(value) and share:
            continue  # the task has no right and wrong answers
        how = "paired, Bonett & Price's" if share else "paired, bootstrap-t"
        found.append(
            Estimate(name=f"{text} {what}", value=float(value), low=float(low), high=float(high),
                     measure="%" if share else "", n=n, counts="images", how=f"{how} over images", column=False)
        )  # fmt: skip
    return found


def mean_estimates(result: xr.Dataset, what: str) -> list[Estimate]:
    """The changes averaged over all units that are done, with the error over images that all of them share."""
    done = result["done"].values
    if not done.any():
        return []
    cluster = result["cluster"].values
    found = []
    for (name, text), each in zip(CHANGES.items(), PER_EXAMPLE, strict=True):
        change = result[each].transpose(*result["done"].dims, "example").values[done].mean(axis=0)
        share = name == "accuracy_change"
        value, low, high = (mean_change_of_hits if share else change_of_mean)(change, cluster)
        if np.isnan(value) and share:
            continue
        how = "Student's t" if share else "bootstrap-t"
        found.append(
            Estimate(name=f"{text} {what}", value=value, low=low, high=high,
                     measure="%" if share else "", n=images(result), counts="images",
                     how=f"paired, mean of {done.sum()} of {done.size}, {how} over images", column=False)
        )  # fmt: skip
    return found
