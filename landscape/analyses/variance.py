"""How much feature maps vary over their positions, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import xarray as xr

from landscape.analyses.blockwise import Blockwise, Means, empty_blocks, means, of_type, over_folds, types, verdict
from landscape.analyses.estimates import Estimate
from landscape.store.units import Index

if TYPE_CHECKING:
    from torch import Tensor

    from landscape.features.capture import Capture
    from landscape.objective.objective import Objective

TEXTS = {
    "variance": "variance of the stream over positions",
    "square": "mean square of the stream",
    "variance_branch": "variance of the branch alone",
    "square_branch": "mean square of the branch alone",
}


@dataclass(frozen=True, kw_only=True)
class Variance(Blockwise):
    """The variance of feature maps over positions after each block, and which blocks raise it.

    It is the variance over the positions of each image and channel, averaged over channels and images. relative:
    divided by the mean square, the share of the map that is not constant (1 less the share at frequency zero), which
    does not depend on scale. park-kim: the variance itself, divided by one less than the number of positions (Park &
    Kim 2022, figure 9, who took one batch in train mode; here it is eval mode). A step is what a block that keeps the
    size of the map adds to the variance.

    Example: landscape variance vit.safetensors --data digits --out vit.h5

    Parameters
    ----------
    definition
        relative: divided by the mean square. park-kim: the plain variance, as in Park & Kim.
    """

    name: ClassVar[str] = "variance"
    definition: Literal["relative", "park-kim"] = "relative"

    @property
    def variant(self) -> str:
        """The definition, so that the study's numbers have a group beside the others."""
        return "" if self.definition == "relative" else "park_kim"

    def empty(self, objective: Objective) -> xr.Dataset:
        """The result over (fold, block)."""
        capture = self.ready(objective)
        shape = (objective.folds, len(capture.places))
        variables = {
            name: (("fold", "block"), np.full(shape, np.nan), {"long_name": text}) for name, text in TEXTS.items()
        }
        return empty_blocks(capture, **variables)

    def compute(self, capture: Capture, unit: Index) -> dict[str, Any]:
        """The means over the images of a fold."""
        from landscape.features.moments import Moments

        found = {name: [Moments() for _ in capture.places] for name in TEXTS}
        for x, _ in self.batches(capture, unit):
            for features in capture(x):
                for suffix, maps in (("", features.stream), ("_branch", features.branch)):
                    if maps is not None:
                        variance, square = moments_of(maps.positions)
                        found[f"variance{suffix}"][features.number].add(variance)
                        found[f"square{suffix}"][features.number].add(square)
        return {name: [float(m.mean) if m.count else np.nan for m in each] for name, each in found.items()}

    def tabled(self, result: xr.Dataset) -> tuple[str, ...]:
        """One row for each block."""
        return ("block",)

    def finish(self, result: xr.Dataset) -> xr.Dataset:
        """The result with level and step of each block, with intervals over images."""
        dims, about = ("block", "bound"), "95 % intervals over images"
        here = levels(result, self.definition)
        return result.assign(
            level=(dims, over_folds(here), {"long_name": f"{self._text}, {about}"}),
            level_branch=(dims, over_folds(levels(result, self.definition, "_branch")),
                          {"long_name": f"{self._text}, of the branch alone, {about}"}),
            step=(dims, over_folds(steps(result, here)), {"long_name": f"what the block adds to it, {about}"}),
        ).assign_coords(bound=["estimate", "low", "high"])  # fmt: skip

    def estimates(self, result: xr.Dataset) -> list[Estimate]:
        """The level at the end, and the mean step over the blocks of each type."""
        if not result["done"].any():
            return []
        here = levels(result, self.definition)
        value, low, high = over_folds(here)[-1].tolist()
        folds = len(here.without)
        last = Estimate(name=f"{self._text} at the end", value=value, low=low, high=high, n=folds,
                        counts="folds of the images", how=f"jackknife over {folds} folds of the images")  # fmt: skip
        step = steps(result, here)
        each = [of_type(result, step, which, f"step of the variance over {which}") for which in types(result)]
        return [last, *(e for e in each if e is not None)]

    def remarks(self, result: xr.Dataset) -> list[str]:
        """Which types of blocks lower the variance and which raise it, and in how many blocks the interval says so."""
        said = []
        step = over_folds(steps(result, levels(result, self.definition))) if result["done"].any() else None
        for estimate in self.estimates(result)[1:]:
            assert step is not None
            which = estimate.name.removeprefix("step of the variance over ")
            here = step[(result["block_type"].values == which) & np.isfinite(step[:, 0])]
            lower, higher = int((here[:, 2] < 0).sum()), int((here[:, 1] > 0).sum())
            said.append(f"{which}: {verdict(estimate, 'lowers it', 'raises it')} "
                        f"({lower} of {len(here)} blocks lower it beyond doubt, {higher} raise it)")  # fmt: skip
        return [*said, *super().remarks(result)]

    @property
    def _text(self) -> str:
        return "variance over mean square" if self.definition == "relative" else "variance of the maps"


def moments_of(maps: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """For each image (n,), in float64: the variance over positions, with their number less one as divisor, and the mean
    square, both averaged over the channels of maps (n, channels, height, width).

    The variance over a single position is NaN.
    """
    flat = maps.flatten(2).double()
    positions = flat.shape[2]
    squares = (flat - flat.mean(dim=2, keepdim=True)).square().sum(dim=2).mean(dim=1).cpu().numpy()
    variance = squares / (positions - 1) if positions > 1 else np.full(len(maps), np.nan)
    return variance, flat.square().mean(dim=(1, 2)).cpu().numpy()


def levels(result: xr.Dataset, definition: str, suffix: str = "") -> Means:
    """The variance after each block (block,) by a definition: of the stream or, with suffix "_branch", the branch."""
    variance, square = means(result, f"variance{suffix}"), means(result, f"square{suffix}")
    if definition == "park-kim":
        return variance
    positions = (result["height"] * result["width"]).values
    with np.errstate(invalid="ignore", divide="ignore"):
        return Means(*(v * (1 - 1 / positions) / s for v, s in zip(variance, square, strict=True)))


def steps(result: xr.Dataset, level: Means) -> Means:
    """What each block adds to a level (block,); NaN where it changes the size of the map."""
    same = result["same_size"].values.astype(bool)
    return Means(*(np.where(same, np.diff(part, axis=-1, prepend=np.nan), np.nan) for part in level))
