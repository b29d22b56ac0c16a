"""Batches that are drawn, augmented and mixed once, and frozen.

Every example is drawn from a seed of its own, made of the data set's seed and the example's place: any order, any
number of workers and any batch size give the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import Mixup
from timm.data.mixup import mixup_target
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from landscape.data.sources import Source, balanced, open_source
from landscape.data.transforms import input_settings, make_transform
from landscape.runtime.errors import UserError
from landscape.runtime.random import seeded

MIX_BLOCK = 128


@dataclass(frozen=True)
class FrozenData:
    """Examples x (N, ...) with classes y (N,) or soft labels (N, classes); iterates over (x, y) batches.

    clusters: (N,) integers, equal where examples share an image, so that their losses are not independent; None where
        all are.
    """

    x: Tensor
    y: Tensor
    batch_size: int
    num_classes: int
    config: dict[str, Any] = field(default_factory=dict)
    clusters: Tensor | None = None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(self.x.split(self.batch_size), self.y.split(self.batch_size), strict=True))

    def __len__(self) -> int:
        return -(-len(self.y) // self.batch_size)

    @property
    def samples(self) -> int:
        return len(self.y)

    def begins(self, samples: int | None) -> bool:
        """Whether its first `samples` are those that would be drawn if no more were asked for: examples are drawn one
        by one, but mixed in whole blocks.
        """
        mixed = self.clusters is not None
        return samples is not None and samples <= self.samples and not (mixed and samples % MIX_BLOCK)

    def first(self, samples: int) -> FrozenData:
        """The first examples, as a set of their own."""
        clusters = None if self.clusters is None else self.clusters[:samples]
        config = {**self.config, "samples": samples}
        return replace(self, x=self.x[:samples], y=self.y[:samples], config=config, clusters=clusters)


def load_data(
    name: str,
    *,
    split: str = "train",
    samples: int | None = None,
    at_most: int | None = None,
    fraction: float = 1.0,
    fraction_seed: int = 0,
    transform: str = "train",
    batch_size: int = 256,
    seed: int | None = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: int | None = None,
    in_channels: int | None = None,
    auto_augment: str | None = None,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    smoothing: float = 0.0,
    num_classes: int | None = None,
    root: str | Path | None = None,
    download: bool = True,
    workers: int = 0,
    progress: bool = False,
) -> FrozenData:
    """Frozen batches of a data set, drawn once.

    name: "digits" (embedded, 8 x 8), a name of timm.data.create_dataset ("torch/cifar100",
        "hfds/NAME-or-local-folder"), or the path of an image folder.
    split: "train" or "test" (also found as validation, val, ...), or a name of the data set's own.
    samples: how many, drawn without replacement; None for all, up to `at_most`. seed=None takes the data set's
        own order.
    fraction: of the split, the same share of each class, by `fraction_seed`: what a network was trained on with it.
    transform: "eval" resizes the shorter side, crops to the centre and normalises; "train" also augments as the recipe
        does: a random crop (of the same square, padded by an eighth of the side, below 128 px; random-resized from
        there on), a mirror image where that keeps the class, and `auto_augment` (timm's notation, such as
        "rand-m9-n2-mstd1.0").
    mean, std: per channel, of the recipe; by default the data set's own where known, else ImageNet's.
    mixup, cutmix: the alphas of their Beta distributions, 0 for off, with smoothing as timm's Mixup has it; any of
        the three makes y soft. They belong to training: with transform="eval" they are refused. Examples 2j and 2j + 1
        are mixed with each other, each by a weight (or a box) of its own, where training draws one for a whole batch;
        the two are one of `clusters`. An odd last example stays unmixed.
    root: where torch/ data sets are kept and downloaded to. download: whether one that is not here may be fetched.

    Raises UserError for an unknown name, an empty or missing split, more samples than there are, images of
    different sizes without `image_size`, or a label that is no class.
    """
    source = balanced(open_source(name, split, root, download), fraction, fraction_seed)
    if samples is not None and not 1 <= samples <= len(source):
        raise UserError(
            f"samples={samples}: the {source.split} split of {name} has {len(source)} examples; "
            f"ask for 1 to {len(source)}"
        )
    if transform not in ("train", "eval"):
        raise UserError(f"transform={transform!r} is not one of train, eval")
    if transform == "eval" and (mixup or cutmix or smoothing or auto_augment):
        raise UserError("mixup, cutmix, smoothing and auto_augment belong to transform='train'")
    if mixup < 0 or cutmix < 0 or not 0 <= smoothing < 1:
        raise UserError(f"mixup={mixup} and cutmix={cutmix} must be 0 or more, smoothing={smoothing} from 0 to below 1")
    settings = input_settings(source, image_size, in_channels, mean, std)
    transformation = make_transform(
        settings, training=transform == "train", mirror=source.mirror, auto_augment=auto_augment
    )
    order = np.arange(len(source)) if seed is None else np.random.default_rng(seed).permutation(len(source))
    drawn = Drawn(source, order[: samples or at_most], transformation, seed or 0)
    x, y = _drawn_whole(drawn, workers, progress)
    if int(y.min()) < 0:
        raise UserError(f"label {int(y.min())} in the {source.split} split of {name} is no class")
    num_classes = num_classes or max(source.num_classes, int(y.max()) + 1)
    clusters = None
    if mixup or cutmix or smoothing:
        if int(y.max()) >= num_classes:
            raise UserError(f"label {int(y.max())} in {name} is out of range for num_classes={num_classes}")
        if mixup or cutmix:
            mix = Mixup(mixup, cutmix, label_smoothing=smoothing, num_classes=num_classes, mode="elem")
            x, y = mixed(x, y, mix, seed or 0)
            clusters = torch.arange(len(y)) // 2
        else:
            y = mixup_target(y, num_classes, smoothing=smoothing)
    config = {
        "name": name,
        "split": source.split,
        "samples": len(y),
        "available": len(source),
        "fraction": [fraction, fraction_seed],
        "transform": transform,
        "seed": seed,
        **asdict(settings),
        "auto_augment": auto_augment,
        "mixup": mixup,
        "cutmix": cutmix,
        "smoothing": smoothing,
        **({"mixing": "pairs of neighbours, per element"} if clusters is not None else {}),
    }
    return FrozenData(x, y, batch_size, num_classes, config, clusters)


class Drawn(Dataset[tuple[Tensor, int]]):
    """Examples `index` of a source, example i transformed under a seed made of (*seed, index[i])."""

    def __init__(
        self, source: Source, index: np.ndarray, transform: Callable[[Image.Image], Tensor], *seed: int
    ) -> None:
        self.source, self.index, self.transform, self.seed = source, index, transform, seed

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        at = int(self.index[i])
        image, label = self.source.images[at]
        with seeded(*self.seed, at):
            return self.transform(image), int(label)


def _drawn_whole(drawn: Drawn, workers: int, progress: bool) -> tuple[Tensor, Tensor]:
    batches = DataLoader(drawn, batch_size=64, num_workers=workers, generator=torch.Generator())
    xs, ys = [], []
    for x, y in tqdm(batches, f"{drawn.source.name} {drawn.source.split}", disable=not progress, unit="batch"):
        xs.append(x)
        ys.append(y)
    return torch.cat(xs), torch.cat(ys)


def mixed(x: Tensor, y: Tensor, mix: Mixup, seed: int) -> tuple[Tensor, Tensor]:
    """mixup, cutmix and label smoothing of neighbours, examples 2j and 2j + 1; an odd last one with itself.

    In blocks of fixed length, so that no batch size changes the pixels. mix: of mode "elem", each example with a weight
    of its own.
    """
    blocks = []
    for i, (xb, yb) in enumerate(zip(x.split(MIX_BLOCK), y.split(MIX_BLOCK), strict=True)):
        n = len(xb)
        if n % 2:
            xb, yb = torch.cat([xb, xb[-1:]]), torch.cat([yb, yb[-1:]])
        # timm mixes the i-th from the start with the i-th from the end
        order = torch.cat([torch.arange(0, len(xb), 2), torch.arange(1, len(xb), 2).flip(0)])
        with seeded(seed, i, -1):
            xm, ym = mix(xb[order], yb[order])
        back = order.argsort()
        blocks.append((xm[back][:n], ym[back][:n]))
    return torch.cat([b[0] for b in blocks]), torch.cat([b[1] for b in blocks])
