"""What the analyses of features block by block share: their images in folds, and statements of blocks of a type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

import numpy as np
import xarray as xr
from annotated_types import Ge
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from landscape.analyses.base import Analysis, Examples
from landscape.analyses.eigenvalues import Patterns
from landscape.analyses.estimates import Estimate
from landscape.analyses.intervals import Interval
from landscape.objective.clusters import LEAST_UNITS
from landscape.runtime.settings import Settings
from landscape.store.units import Index

if TYPE_CHECKING:
    from landscape.features.capture import Capture
    from landscape.objective.nests import Nest
    from landscape.objective.objective import Objective


@dataclass(frozen=True, kw_only=True)
class Looked(Settings):
    """The blocks whose features are studied, and the images.

    Parameters
    ----------
    images
        The number of images of the test split, without augmentation.
    modules
        Names or patterns, such as layer1.*, of the modules whose outputs are studied; by default the network's blocks,
        if they are known.
    """

    images: Annotated[int, Ge(1)] = 500
    modules: Patterns | None = None


@dataclass(frozen=True, kw_only=True)
class Blockwise(Looked, Analysis):
    """Features block by block.

    A unit is a fold of the images, so that the size of the result does not depend on their number. The errors of
    everything computed from means over images come from leaving out one fold at a time.

    Parameters
    ----------
    chunk_size
        The number of images whose features are held at once; it changes the results by rounding only.
    """

    unit: ClassVar[str] = "fold"
    unstored: ClassVar[tuple[str, ...]] = ("chunk_size",)

    chunk_size: Annotated[int, Ge(1)] = 32

    @property
    def examples(self) -> Examples:
        """As many as are asked for, from the test split."""
        return Examples(exactly=self.images, split="test", transform="eval")

    def context(self, objective: Objective) -> Mapping[str, Any]:
        """The loss, without the penalty, which has nothing to do with features."""
        return {"objective": objective.config(penalised=False)}

    def ready(self, objective: Objective) -> Capture:
        """The blocks."""
        from landscape.features.capture import Capture

        return Capture(objective, self.modules)

    def batches(self, capture: Capture, unit: Index) -> Iterator[tuple[Nest, int]]:
        """The inputs of the images of a fold, `chunk_size` at a time, each with the number of images in it."""
        from landscape.objective.nests import length

        for x in capture.batches(np.flatnonzero(capture.objective.fold == unit[0]), self.chunk_size):
            yield x, length(x)

    def remarks(self, result: xr.Dataset) -> list[str]:
        """How many images there are."""
        done = result["done"].values
        return [f"of {int(result['fold_images'].values[done].sum())} images in {int(done.sum())} folds"]


def empty_blocks(capture: Capture, **variables: Any) -> xr.Dataset:
    """A result over folds of the images and blocks, with nothing computed; `variables` as xarray takes them."""
    objective, places = capture.objective, capture.places
    shown = {
        "block_type": ("block", [p.type for p in places], {"long_name": "type of the block"}),
        "stage": ("block", [p.stage for p in places]),
        "height": ("block", [p.height for p in places], {"long_name": "height of the map after the block"}),
        "width": ("block", [p.width for p in places]),
        "same_size": ("block", [p.same_size for p in places], {"long_name": "whether the map before has this size"}),
    }
    return xr.Dataset(
        {
            **variables,
            "fold_images": ("fold", np.bincount(objective.fold), {"long_name": "images"}),
            "done": ("fold", np.zeros(objective.folds, bool), {"long_name": "computed"}),
        },
        {"block": [p.name for p in places], **shown},
    )


class Means(NamedTuple):
    """A mean over images: whole (...), over all that are done, and without each fold (folds, ...)."""

    whole: np.ndarray
    without: np.ndarray


def means(result: xr.Dataset, name: str) -> Means:
    """The means of a variable (fold, ...) over the images of the folds that are done; NaN if none is."""
    done = result["done"].values
    count = result["fold_images"].values[done].astype(float)
    sums = result[name].values[done] * count.reshape(-1, *(1,) * (result[name].ndim - 1))
    if not len(count):
        return Means(np.full(result[name].shape[1:], np.nan), sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        rest = (count.sum() - count).reshape(-1, *(1,) * (sums.ndim - 1))
        return Means(sums.sum(axis=0) / count.sum(), (sums.sum(axis=0) - sums) / rest)


def over_folds(values: Means, confidence: float = 0.95) -> np.ndarray:
    """Estimate, low and high (..., 3) of statistics of means over images, given for all folds and without each fold.

    The interval is Student's t with the jackknife's variance, (F - 1) / F sum_f (value_f - their mean)^2 (Efron & Stein
    1981), and F - 1 degrees of freedom. The bounds are NaN for fewer than LEAST_UNITS folds, or where a value is not
    finite.
    """
    count = len(values.without)
    reach = np.full(values.whole.shape, np.nan)
    if count >= LEAST_UNITS:
        with np.errstate(invalid="ignore"):
            reach = -stdtrit(count - 1, (1 - confidence) / 2) * np.sqrt((count - 1) * values.without.var(axis=0))
    reach = np.where(reach > 0, reach, np.nan)  # where no fold changes the value, its error is unknown
    return np.stack([values.whole, values.whole - reach, values.whole + reach], axis=-1)


def over_blocks(whole: ArrayLike, without: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean over blocks of a statistic, with an interval for other blocks and other images.

    whole (blocks,) is the statistic; without (folds, blocks) is the same without each fold of the images. All blocks
    see the same images, so blocks and folds are crossed. With y_bf the jackknife's pseudo-values,
    F whole - (F - 1) without, the variance of the mean is s_B^2 / B + s_F^2 / F - s_BF^2 / (B F), where the s^2 are the
    sample variances of the means of blocks, of the means of folds, and of what neither explains (two-way random
    effects; Searle, Casella & McCulloch 1992, sec. 4.3); it is taken as no less than the larger of the first two terms.
    The interval is Student's t with one degree of freedom less than the smaller of the two numbers.

    With fewer than LEAST_UNITS blocks or folds there are no bounds. If the statistic of a block is not finite, all is
    NaN.
    """
    whole, without = np.asarray(whole, float), np.asarray(without, float)
    estimate = float(whole.mean()) if whole.size else np.nan
    blocks, folds = len(whole), len(without)
    if min(blocks, folds) < LEAST_UNITS or not np.isfinite(without).all() or not np.isfinite(estimate):
        return Interval(estimate, np.nan, np.nan)
    y = folds * whole - (folds - 1) * without
    of_fold, of_block = y.mean(axis=1), y.mean(axis=0)
    rest = y - of_fold[:, None] - of_block + y.mean()
    between = of_block.var(ddof=1) / blocks, of_fold.var(ddof=1) / folds
    within = np.square(rest).sum() / ((blocks - 1) * (folds - 1)) / (blocks * folds)
    variance = max(sum(between) - within, *between)
    reach = float(-stdtrit(min(blocks, folds) - 1, (1 - confidence) / 2) * np.sqrt(variance))
    return Interval(estimate, estimate - reach, estimate + reach)


def of_type(
    result: xr.Dataset, values: Means, which: str, name: str, *, column: bool = True, among: np.ndarray | None = None
) -> Estimate | None:
    """The mean of a statistic (blocks,) over the blocks of a type, with its interval; None if there is no such block.

    With 8 blocks or more the interval is over blocks and images (`over_blocks`). With fewer it is over images alone,
    which its note says: it holds for these blocks, and says nothing of others of the type.

    among: a further condition (blocks,) on the blocks that count; those whose statistic is NaN never do.
    """
    chosen = (result["block_type"].values == which) & ~np.isnan(values.whole)
    chosen &= True if among is None else among
    count, folds = int(chosen.sum()), len(values.without)
    if not count:
        return None
    whole, without = values.whole[chosen], values.without[:, chosen]
    interval, how, note = over_blocks(whole, without), f"over {count} blocks and {folds} folds of the images", ""
    if count < LEAST_UNITS:
        interval = Interval(*over_folds(Means(whole.mean(keepdims=True), without.mean(axis=1, keepdims=True)))[0])
        how = f"over {folds} folds of the images"
        note = f"of {a_number(count)} alone: too few to tell of other blocks of {which}"
    return Estimate(name=name, value=interval.estimate, low=interval.low, high=interval.high, how=how, note=note,
                    n=min(count, folds) if count >= LEAST_UNITS else folds,
                    counts="blocks and folds of the images" if count >= LEAST_UNITS else "folds of the images",
                    column=column)  # fmt: skip


def a_number(count: int) -> str:
    """A number of blocks, in words."""
    return "this block" if count == 1 else f"these {count} blocks"


def verdict(estimate: Estimate, below: str, above: str) -> str:
    """`below` or `above` if the interval lies on that side of 0, else "neither"; "undecided" without an interval."""
    if np.isnan(estimate.low) or np.isnan(estimate.high):
        return "undecided"
    return below if estimate.high < 0 else above if estimate.low > 0 else "neither"


def types(result: xr.Dataset) -> list[str]:
    """The types of blocks about which something is said, in the order in which they come."""
    return list(dict.fromkeys(t for t in result["block_type"].values.tolist() if t not in ("stem", "pool")))
