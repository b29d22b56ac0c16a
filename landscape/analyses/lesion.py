"""What a network loses without each of its blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import xarray as xr

from landscape.analyses import paired
from landscape.analyses.base import Values
from landscape.analyses.eigenvalues import Patterns
from landscape.analyses.estimates import Estimate
from landscape.store.units import Index

if TYPE_CHECKING:
    from landscape.features.intervene import Lesions
    from landscape.objective.objective import Objective


class Ready(NamedTuple):
    """The network, what removes its blocks, and what each image gives with all blocks in place."""

    lesions: Lesions
    whole: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Lesion(paired.Paired):
    """The change of accuracy and NLL when one block is removed, for each block in turn (Park & Kim 2022, fig. 10).

    In a residual block the branch is left out, and the skip connection (in a stage's first block the shortcut) remains.
    A block without a skip connection whose output has the shape of its input is replaced by the identity. Changes are
    measured on the test split and paired over its images; the network is not trained again.

    Example: landscape lesion vit.safetensors --data digits --out vit.h5

    Parameters
    ----------
    modules
        Names or patterns, such as layer1.*, of modules to replace by the identity; by default the network's blocks, if
        they are known.
    """

    name: ClassVar[str] = "lesion"
    unit: ClassVar[str] = "block"

    modules: Patterns | None = None

    def empty(self, objective: Objective) -> xr.Dataset:
        """The result over (block), and over (block, example)."""
        removable = self._lesions(objective).removable
        return xr.Dataset(
            paired.empty(["block"], [len(removable)], objective),
            {
                "block": [block.name for block in removable],
                "block_type": ("block", [block.type for block in removable], {"long_name": "type of the block"}),
                "stage": ("block", [block.stage for block in removable]),
                "removal": ("block", [block.removal for block in removable], {"long_name": "what is left out"}),
            },
        )

    def ready(self, objective: Objective) -> Ready:
        """The losses and hits of the whole network, computed in the same way as those without a block."""
        lesions = self._lesions(objective)
        return Ready(lesions, objective.unit_by_unit(lesions.outputs))

    def compute(self, ready: Ready, unit: Index) -> Values:
        """One pass without the block."""
        lesions, whole = ready
        (block,) = unit
        return paired.values(whole, lesions.objective.unit_by_unit(lambda x: lesions.outputs(x, without=block)))

    def finish(self, result: xr.Dataset) -> xr.Dataset:
        """The result with the changes and their intervals."""
        return paired.summarised(result)

    def estimates(self, result: xr.Dataset) -> list[Estimate]:
        """The changes without each block, and how much more the attention at the ends of stages matters."""
        if "nll_change" not in result:
            return []
        return [
            *_ends(result),
            *(
                estimate
                for i, name in enumerate(result["block"].values)
                if result["done"].values[i]
                for estimate in paired.estimates(result, {"block": i}, f"without {name}")
            ),
        ]

    def _lesions(self, objective: Objective) -> Lesions:
        from landscape.features.intervene import Lesions

        return Lesions(objective, self.modules)


def _ends(result: xr.Dataset) -> list[Estimate]:
    """The mean change of the NLL over attention blocks that end a stage, less that over the other blocks, with its
    interval over images (Park & Kim 2022, fig. 10).

    There is none if the network has not both, or if a block is not done.
    """
    stage, done = result["stage"].values, result["done"].values
    last = np.append(stage[1:] != stage[:-1], True) & (result["block_type"].values == "attention")
    if not done.all() or not last.any() or last.all() or len(np.unique(stage)) < 2:
        return []
    change = result["loss_change"].transpose("block", "example").values
    more = change[last].mean(axis=0) - change[~last].mean(axis=0)
    value, low, high = paired.change_of_mean(more, result["cluster"].values)
    return [Estimate(name="excess change of the NLL without attention that ends a stage", value=float(value),
                     low=float(low), high=float(high), n=paired.images(result), counts="images",
                     how=f"paired, {last.sum()} and {(~last).sum()} blocks, over images", column=False)]  # fmt: skip


def network_lesions(objective: Objective, **settings: Any) -> xr.Dataset:
    """What the network loses without each of its blocks: `Lesion(**settings)` of `objective`.

    Parameters
    ----------
    objective
        The network and its examples.
    settings
        Those of `Lesion` by name; and partial, save, save_every, budget and progress, as for `hessian_spectrum`; the
        unit is a block.

    Returns
    -------
    xarray.Dataset
        With dims (block): nll, accuracy (without the block), mcnemar (the p-value of no change of the accuracy), done;
        (block, bound): nll_change, accuracy_change; (block, example): loss_change, hit_change; and by block its
        block_type, stage, and removal, what is left out: its branch, or the block.

    Raises
    ------
    UserError
        If the blocks are not known and no modules are named, or if the network cannot run without any one of them.
    """
    return Lesion.called(objective, settings)
