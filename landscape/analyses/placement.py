"""Which convolution of a network to replace by attention first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

import numpy as np
import xarray as xr
from annotated_types import Ge

from landscape.analyses import orders
from landscape.analyses.base import Analysis, Examples, Held, Subject, Values
from landscape.analyses.estimates import Estimate
from landscape.analyses.fourier import PATHS, Fourier
from landscape.analyses.lesion import Lesion
from landscape.analyses.similarity import Similarity
from landscape.runtime.errors import UserError
from landscape.store.units import Index, Work

if TYPE_CHECKING:
    from landscape.objective.objective import Objective

EVIDENCE = {
    "lesion": "change of the NLL without the block; the least costs least",
    "transfer": "tilt of the block's branch; the lowest is most like attention, a low-pass filter",
    "similarity": "1 - CKA of the features before and after the block; the least changes least",
}
ORDERS = (*EVIDENCE, "together", "study")
SURE = 0.95  # the share of the draws in which all evidence must agree


class Sources(NamedTuple):
    """The analyses that the evidence comes from: their settings, their groups if the file has them finished, and what
    they are computed from otherwise.
    """

    objective: Objective
    analyses: Mapping[str, Analysis]
    held: Mapping[str, xr.Dataset]
    prepared: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Placement(Analysis):
    """An order in which to replace convolutions by attention, as when AlterNet is built up (Park & Kim 2022, fig. 12).

    Three kinds of evidence rank the convolution blocks. lesion: the block whose removal costs least comes first.
    transfer: the block with the most low-pass branch comes first, since attention is a low-pass filter. similarity: the
    block that changes its features least comes first. together is the order of the mean ranks. study is the rule of the
    paper and the baseline: every other block from the end of each stage, the last stage first, then the rest. Ranks
    have intervals over images. Only training along an order shows whether it is a good one.

    Finished groups lesion, fourier and similarity of the results file are used; missing ones are computed, but not
    stored.

    Example: landscape placement resnet8.safetensors --data digits --out resnet8.h5

    Parameters
    ----------
    images
        The number of images of the test split, for evidence that the results file does not hold.
    seed
        The seed of the draws from which the intervals of the ranks come.
    """

    name: ClassVar[str] = "placement"
    unit: ClassVar[str] = "kind of evidence"

    images: Annotated[int, Ge(8)] = 256
    seed: Annotated[int, Ge(0)] = 0

    @property
    def examples(self) -> Examples:
        """Images of the test split, as they are."""
        return Examples(split="test", transform="eval", exactly=self.images)

    def prepare(self, subject: Subject, held: Held) -> Sources:
        """The groups that the file has, and what the others are computed from."""
        analyses: dict[str, Analysis] = {
            "lesion": Lesion(images=self.images),
            "transfer": Fourier(images=self.images),
            "similarity": Similarity(images=self.images),
        }
        groups = {kind: held[a.group] for kind, a in analyses.items() if a.group in held}
        stored = {kind: group for kind, group in groups.items() if group["done"].all() and _of_one(group)}
        prepared = {kind: a.prepare(subject, held) for kind, a in analyses.items() if kind not in stored}
        return Sources(subject.objective(self.examples), analyses, stored, prepared)

    def context(self, sources: Sources) -> Mapping[str, Any]:
        """The loss, without the penalty; and the images of each kind of evidence that comes from the file."""
        own = {"images", "definition", "modules"}
        used = {kind: {k: v for k, v in group.attrs["config"].items() if k in own}
                for kind, group in sources.held.items()}  # fmt: skip
        return {"objective": sources.objective.config(penalised=False), "stored": used}

    def empty(self, sources: Sources) -> xr.Dataset:
        """The result over (evidence, block, bound), of blocks of convolutions. Raises UserError for fewer than two."""
        from landscape.features.intervene import Lesions

        found = [block for block in Lesions(sources.objective).removable if block.type == "convolution"]
        if len(found) < 2:
            raise UserError(
                f"placement orders convolution blocks by which attention may replace them; the network has {len(found)}"
            )
        stage = np.array([block.stage for block in found])
        shape = (len(EVIDENCE), len(found), 3)
        return xr.Dataset(
            {
                "value": (
                    ("evidence", "block", "bound"),
                    np.full(shape, np.nan),
                    {"long_name": "what ranks the block"},
                ),
                "done": ("evidence", np.zeros(len(EVIDENCE), bool), {"long_name": "computed"}),
                "baseline": ("block", study_order(stage), {"long_name": "place in the study's order, from 0"}),
            },
            {
                "evidence": list(EVIDENCE),
                "block": [block.name for block in found],
                "bound": ["estimate", "low", "high"],
                "stage": ("block", stage),
            },
        )

    def compute(self, sources: Sources, unit: Index) -> Values:
        """One kind of evidence (block, bound), from the file's group or from one that is computed."""
        kind = list(EVIDENCE)[unit[0]]
        group = sources.held.get(kind)
        if group is None:
            group = sources.analyses[kind].run(sources.prepared[kind])
        return {"value": _EVIDENCE_OF[kind](group, self.empty(sources)["block"].values)}

    def fill(self, sources: Sources, result: xr.Dataset, work: Work) -> xr.Dataset:
        """Compute one kind of evidence after another, each with its units shared out among all processes."""
        from landscape.runtime import processes

        for i in range(len(EVIDENCE)):
            if result["done"].values[i] or (i and work.spent):
                continue
            result["value"][{"evidence": i}] = self.compute(sources, (i,))["value"]
            result["done"][{"evidence": i}] = True
            if work.save is not None and processes.rank() == 0:
                work.save(result)
        return result

    def finish(self, result: xr.Dataset) -> xr.Dataset:
        """The result with the ranks by each kind of evidence that is done, by all together, and by the study's rule.

        It also has what all of the evidence agrees on.
        """
        done = result["done"].values
        if not done.any():
            return result
        of = orders.ranks(result["value"].values[done], seed=self.seed)
        rank = np.full((len(ORDERS), result.sizes["block"], 3), np.nan)
        rank[: len(EVIDENCE)][done] = orders.interval(of)
        rank[len(EVIDENCE)] = orders.interval(orders.together(of))[0]
        baseline = result["baseline"].values / (result.sizes["block"] - 1)
        rank[len(EVIDENCE) + 1] = baseline[:, None]
        numbers = {"concordance": orders.concordance(of)}
        for i, kind in enumerate(result["evidence"].values[done]):
            numbers[f"{kind}_tau"] = orders.correlation(of, i, baseline)
        numbers["together_tau"] = orders.correlation(orders.together(of), 0, baseline)
        held = result.drop_dims("order", errors="ignore")
        return held.assign({name: ("bound", np.array(found)) for name, found in numbers.items()}).assign(
            rank=(("order", "block", "bound"), rank, {"long_name": "place in the order, from 0, first, to 1, last"}),
            agreed=(("block", "other_block"), orders.agreed(of),
                    {"long_name": "share of draws in which all evidence puts the block before the other"}),
        ).assign_coords(order=list(ORDERS), other_block=result["block"].values)  # fmt: skip

    def tabled(self, result: xr.Dataset) -> tuple[str, ...]:
        """One row for each block and kind of evidence."""
        return ("evidence", "block")

    def estimates(self, result: xr.Dataset) -> list[Estimate]:
        """How far the kinds of evidence agree with each other, and each with the study's rule."""
        if "rank" not in result:
            return []
        named = {"concordance": ("agreement of the evidence", "W")}
        named |= {f"{kind}_tau": (f"agreement of {kind} with the study's rule", "") for kind in ORDERS[:-1]}
        blocks = result.sizes["block"]
        found = []
        for name, (text, symbol) in named.items():
            if name not in result or np.isnan(result[name][0]):
                continue
            value, low, high = (float(v) for v in result[name])
            how = f"Kendall's W, {1 / max(1, _kinds(result)):.2f} by chance" if symbol else "Kendall's tau, 0 by chance"
            found.append(
                Estimate(name=text, symbol=symbol, value=value, low=low, high=high, n=blocks, counts="blocks",
                         how=f"{how}, over draws within the errors over images", column=False)
            )  # fmt: skip
        return found

    def remarks(self, result: xr.Dataset) -> list[str]:
        """The orders, and what they agree on."""
        if "rank" not in result:
            return []
        said = [f"order {order}: {', '.join(in_order(result, order))}" for order in ("together", "study")]
        pairs = result.sizes["block"] * (result.sizes["block"] - 1) // 2
        sure = int((result["agreed"].values >= SURE).sum())
        return [*said, f"all evidence agrees on {sure} of {pairs} pairs", "no order is tried by training"]


def study_order(stage: np.ndarray) -> np.ndarray:
    """The place of each block in the study's order, from 0.

    From the end of each stage it takes every other block, whose predecessor stays a convolution: the last blocks of all
    stages first, that of the last stage before the others; then the blocks in between.
    """
    from_end = np.array([(stage[i + 1 :] == s).sum() for i, s in enumerate(stage)])
    order = np.lexsort((-stage, from_end, from_end % 2))
    return np.argsort(order)


def in_order(result: xr.Dataset, order: str) -> list[str]:
    """The names of the blocks in one of the orders, the first to replace first; equal ranks in the study's order."""
    rank = result["rank"].sel(order=order, bound="estimate").values
    return [str(result["block"].values[i]) for i in np.lexsort((result["baseline"].values, rank))]


def _kinds(result: xr.Dataset) -> int:
    """How many kinds of evidence rank any block."""
    rank = result["rank"].sel(order=list(EVIDENCE), bound="estimate").values
    return int(np.isfinite(rank).any(axis=1).sum())


def _of_one(group: xr.Dataset) -> bool:
    """Whether a group describes one network, and the network's own blocks."""
    return len(set(group["network"].values.tolist())) == 1 if "network" in group.coords else True


def _lesion(group: xr.Dataset, names: np.ndarray) -> np.ndarray:
    return _of_blocks(group, group["nll_change"].values, names)


def _transfer(group: xr.Dataset, names: np.ndarray) -> np.ndarray:
    return _of_blocks(group, group["tilt"].values[PATHS.index("branch")], names)


def _similarity(group: xr.Dataset, names: np.ndarray) -> np.ndarray:
    cka = group["cka"].values
    at = np.arange(len(cka))
    change = 1 - cka[at, np.maximum(at - 1, 0)][:, [0, 2, 1]]  # low and high change places
    change[0] = np.nan
    return _of_blocks(group, change, names)


def _of_blocks(group: xr.Dataset, values: np.ndarray, names: np.ndarray) -> np.ndarray:
    """The values of the blocks with these names, (names, 3); NaN for those that the group does not have."""
    at = {str(name): i for i, name in enumerate(group["block"].values)}
    return np.array([values[at[name]] if name in at else [np.nan] * 3 for name in map(str, names)])


_EVIDENCE_OF = {"lesion": _lesion, "transfer": _transfer, "similarity": _similarity}
