"""How alike the features of all blocks are, of one network or of several: unbiased linear CKA."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import xarray as xr
from annotated_types import Ge

from landscape.analyses.alignment import LEAST_IMAGES, alignment, averaged, hsic
from landscape.analyses.base import Analysis, Examples, Subject
from landscape.analyses.blockwise import Looked, Means, over_folds
from landscape.analyses.estimates import Estimate
from landscape.runtime.errors import UserError
from landscape.store.units import Index

if TYPE_CHECKING:
    from torch import Tensor

    from landscape.features.capture import Capture, Features
    from landscape.objective.objective import Objective

FOLDS = 20  # of the images, that are left out in turn


@dataclass(frozen=True, kw_only=True)
class Similarity(Looked, Analysis):
    """Unbiased linear CKA between the features of all blocks, within one network or between several.

    CKA(K, L) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) for the Gram matrices K, L of the features after two blocks,
    with positions, channels and class tokens in one row per image (Kornblith et al. 2019, arXiv:1905.00414), and with
    the unbiased HSIC_1 of Song et al. (2012, J. Mach. Learn. Res. 13, eq. 5). Gram matrices are computed from two
    mini-batches at a time, for all pairs: CKA is exactly that of all images at once, and the features of at most two
    mini-batches are in memory. park-kim is mini-batch CKA (Nguyen et al. 2021, arXiv:2010.15327, eq. 2), with HSIC
    averaged over mini-batches: it takes a quarter of the time or less, and has more noise.

    Several checkpoints are given the same images, and all pairs of their blocks are compared.

    Example: landscape similarity vit.safetensors --data digits --out vit.h5

    Parameters
    ----------
    images
        The number of images of the test split, without augmentation; for each block its square is stored.
    batch_size
        Images per mini-batch.
    definition
        full: CKA of all images at once. park-kim: HSIC averaged over mini-batches.
    """

    name: ClassVar[str] = "similarity"
    unit: ClassVar[str] = "mini-batch"
    several: ClassVar[bool] = True

    images: Annotated[int, Ge(LEAST_IMAGES)] = 256
    batch_size: Annotated[int, Ge(LEAST_IMAGES)] = 32
    definition: Literal["full", "park-kim"] = "full"

    @property
    def variant(self) -> str:
        """The definition, so that the mini-batch form has a group beside the full one."""
        return "" if self.definition == "full" else "park_kim"

    @property
    def examples(self) -> Examples:
        """As many as are asked for, from the test split."""
        return Examples(exactly=self.images, split="test", transform="eval")

    def prepare(self, subject: Subject, held: Mapping[str, xr.Dataset]) -> dict[str, Objective]:
        """The network alone."""
        return self.prepare_several({subject.label: subject})

    def prepare_several(self, subjects: Mapping[str, Subject]) -> dict[str, Objective]:
        """Each network on the images, by label."""
        return {label: subject.objective(self.examples) for label, subject in subjects.items()}

    def context(self, objective: Mapping[str, Objective]) -> Mapping[str, Any]:
        """The losses, without penalties; for a single network in the same form as in other analyses."""
        each = {label: one.config(penalised=False) for label, one in objective.items()}
        return {"objective": next(iter(each.values()))} if len(each) == 1 else {"each": each}

    def empty(self, objective: Mapping[str, Objective]) -> xr.Dataset:
        """Gram matrices (batch, block, image, other), with `other` over all images, filled with NaN."""
        sizes = {one.examples for one in objective.values()}
        (count,) = sizes if len(sizes) == 1 else (0,)
        labels = [_labels(one) for one in objective.values()]
        if not count or any(not np.array_equal(one, labels[0]) for one in labels):
            raise UserError("the networks see different images; give them the same data, and the same `images`")
        if count < LEAST_IMAGES:
            raise UserError(f"{count} images are too few for an unbiased similarity; it needs {LEAST_IMAGES}")
        captures = self._captures(objective)
        batches = -(-count // self.batch_size)
        if self.definition == "park-kim" and 0 < count % self.batch_size < LEAST_IMAGES:
            batches -= 1  # the remaining images are too few by themselves
        places = [(label, p) for label, capture in captures.items() for p in capture.places]
        shape = (batches, len(places), min(self.batch_size, count), count)
        return xr.Dataset(
            {
                "gram": (("batch", "block", "image", "other"), np.full(shape, np.nan),
                         {"long_name": "inner products of the features of two images"}),
                "done": ("batch", np.zeros(batches, bool), {"long_name": "computed"}),
            },
            {
                "block": [p.name if len(captures) == 1 else f"{label}: {p.name}" for label, p in places],
                "network": ("block", [label for label, _ in places]),
                "block_type": ("block", [p.type for _, p in places], {"long_name": "type of the block"}),
                "stage": ("block", [p.stage for _, p in places]),
            },
        )  # fmt: skip

    def ready(self, objective: Mapping[str, Objective]) -> dict[str, Capture]:
        """The blocks of each network."""
        return self._captures(objective)

    def compute(self, ready: Mapping[str, Capture], unit: Index) -> dict[str, Any]:
        """The products of the features of one mini-batch with those of itself and of all later ones."""
        return {"gram": np.concatenate([self._rows(capture, unit[0] * self.batch_size) for capture in ready.values()])}

    def _rows(self, capture: Capture, first: int) -> np.ndarray:
        """The rows of the Gram matrices (block, image, other) of the mini-batch that begins with image `first`."""
        import torch

        count = capture.objective.examples
        gram = np.full((len(capture.places), min(self.batch_size, count), count), np.nan)
        parts: list[list[Tensor]] = [[] for _ in capture.places]
        for x, _ in _inputs(capture, first, min(first + self.batch_size, count)):
            for features in capture(x):
                parts[features.number].append(_flat(features))
        own = [torch.cat(part) for part in parts]
        for block, mine in enumerate(own):
            gram[block, : len(mine), first : first + len(mine)] = _products(mine, mine)
        later = range(first + self.batch_size, count if self.definition == "full" else 0, self.batch_size)
        for begin in later:
            for x, start in _inputs(capture, begin, min(begin + self.batch_size, count)):
                for features in capture(x):
                    mine, other = own[features.number], _flat(features)
                    gram[features.number, : len(mine), start : start + len(other)] = _products(mine, other)
        return gram

    def tabled(self, result: xr.Dataset) -> tuple[str, ...]:
        """One row for each pair of blocks."""
        return ("block", "other_block")

    def finish(self, result: xr.Dataset) -> xr.Dataset:
        """With CKA of all pairs of blocks, with intervals over images."""
        about = {"long_name": "unbiased linear CKA, 95 % intervals over images"}
        return result.assign(
            cka=(("block", "other_block", "bound"), over_folds(self.cka(result)), about)
        ).assign_coords(other_block=result["block"].values, bound=["estimate", "low", "high"])

    def cka(self, result: xr.Dataset) -> Means:
        """CKA (block, block) over the mini-batches that are done, and without each fold of their images."""
        gram, done = result["gram"].transpose("block", "batch", "image", "other").values, result["done"].values
        if self.definition == "park-kim":
            return averaged(gram[:, done], np.flatnonzero(done) * result.sizes["image"])
        blocks, batches, size, count = gram.shape
        present = np.flatnonzero(np.repeat(done, size)[:count])
        whole = gram.reshape(blocks, batches * size, count)[:, present][:, :, present]
        upper = np.triu(np.ones((len(present),) * 2, bool))
        whole = np.where(upper & ~np.isnan(whole), whole, whole.transpose(0, 2, 1))
        fold = np.arange(len(present)) % max(1, min(FOLDS, len(present)))
        rest = [alignment(hsic(whole[:, fold != f][:, :, fold != f])) for f in range(int(fold.max(initial=-1)) + 1)]
        return Means(alignment(hsic(whole)), np.array(rest))

    def estimates(self, result: xr.Dataset) -> list[Estimate]:
        """The estimates of every network, one after another."""
        return [estimate for each in self.rows(result).values() for estimate in each]

    def rows(self, result: xr.Dataset) -> Mapping[str, list[Estimate]]:
        """For each network, the mean similarity of neighbours, within and between stages, and of first and last block.

        All networks but the first also have that of their last block with the first network's.
        """
        if not result["done"].any():
            return {}
        cka, network, stage = self.cka(result), result["network"].values, result["stage"].values
        found: dict[str, list[Estimate]] = {}
        labels = list(dict.fromkeys(network.tolist()))
        for label in labels:
            here = np.flatnonzero(network == label)
            a, b = (here[i] for i in np.triu_indices(len(here), 1))
            inner, same = (stage[a] > 0) & (stage[b] > 0), stage[a] == stage[b]
            pairs = {
                "CKA of neighbouring blocks": (here[:-1], here[1:]),
                "CKA of first and last block": (here[:1], here[-1:]),
                "CKA within stages": (a[inner & same], b[inner & same]),
                "CKA between stages": (a[inner & ~same], b[inner & ~same]),
            }
            if label != labels[0]:
                first = np.flatnonzero(network == labels[0])
                pairs[f"CKA of last blocks with {labels[0]}"] = (first[-1:], here[-1:])
            each = [_mean_of(cka, name, *pair) for name, pair in pairs.items() if len(pair[0])]
            found[label if len(labels) > 1 else ""] = each
        return found

    def remarks(self, result: xr.Dataset) -> list[str]:
        """How many images there are, and what is an average."""
        done, count = result["done"].values, result.sizes["other"]
        images = int(np.repeat(done, result.sizes["image"])[:count].sum())
        if self.definition == "park-kim":
            return [f"averaged over {int(done.sum())} mini-batches of {result.sizes['image']} images"]
        return [f"of all pairs of {images} images"]

    def _captures(self, objective: Mapping[str, Objective]) -> dict[str, Capture]:
        from landscape.features.capture import Capture

        return {label: Capture(one, self.modules) for label, one in objective.items()}


def _mean_of(cka: Means, name: str, a: np.ndarray, b: np.ndarray) -> Estimate:
    """The mean over pairs of blocks."""
    mean = Means(*(part[..., a, b].mean(axis=-1, keepdims=True) for part in cka))
    value, low, high = over_folds(mean)[0].tolist()
    folds = len(cka.without)
    return Estimate(name=name, value=value, low=low, high=high, n=folds, counts="folds of the images",
                    how=f"jackknife over {folds} folds of the images")  # fmt: skip


def _inputs(capture: Capture, start: int, stop: int) -> Iterator[tuple[Any, int]]:
    """The inputs of the images from number `start` up to `stop`, in parts, each with the number of its first image."""
    from landscape.objective.nests import length

    for x in capture.batches(np.arange(start, stop), stop - start):
        yield x, start
        start += length(x)


def _flat(features: Features) -> Tensor:
    """The features at all positions and class tokens of each image in one row (n, values)."""
    import torch

    positions, tokens = features.stream
    return torch.cat([positions.flatten(1), tokens.flatten(1)], dim=1)


def _products(a: Tensor, b: Tensor) -> np.ndarray:
    """Inner products (a's images, b's images) in float64."""
    return (a.double() @ b.double().T).cpu().numpy()


def _labels(objective: Objective) -> np.ndarray:
    """What identifies the images whatever a network's own normalisation is: the labels in order."""
    return np.concatenate([np.asarray(y.cpu()) for _, y in objective.batches])
