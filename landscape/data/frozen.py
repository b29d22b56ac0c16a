"""Batches that are drawn, augmented and mixed once, and frozen.

Every example has its own seed, made of the data set's seed and the example's place: any order, any number of workers
and any batch size give the same pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Lt
from PIL import Image
from pydantic import FiniteFloat
from timm.data import Mixup
from timm.data.mixup import mixup_target
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from landscape.data.sources import Source, balanced, open_source
from landscape.data.transforms import input_settings, make_transform
from landscape.runtime.caller import undisturbed
from landscape.runtime.errors import UserError
from landscape.runtime.interrupts import ignored, stop_if_interrupted
from landscape.runtime.memory import refuse_beyond_memory
from landscape.runtime.progress import bar
from landscape.runtime.random import seeded
from landscape.runtime.settings import Settings
from landscape.store.comparable import MIXING

LOG = logging.getLogger(__name__)

MIX_BLOCK = 128


@dataclass(frozen=True)
class FrozenData:
    """Examples x (N, ...) with classes y (N,) or soft labels (N, classes); iterates over (x, y) batches.

    Parameters
    ----------
    x, y
        The examples, in the frozen order.
    batch_size
        Examples per batch when iterating; the last batch may be shorter.
    num_classes
        The number of classes.
    config
        How the examples were drawn.
    clusters
        (N,) integers, equal for examples that share an image and so have dependent losses; None if all are
        independent.
    """

    x: Tensor
    y: Tensor
    batch_size: int
    num_classes: int
    config: dict[str, Any] = field(default_factory=dict)
    clusters: Tensor | None = None

    def __repr__(self) -> str:
        """The number, shape and origin of the examples, in one line."""
        words = {"name": "{}", "split": "{} split", "transform": "{} transform"}
        drawn = ", ".join(text.format(self.config[k]) for k, text in words.items() if k in self.config)
        return (
            f"FrozenData({self.samples:,} examples of {tuple(self.x.shape[1:])}, {self.num_classes} classes, "
            f"batches of {self.batch_size}{'; ' + drawn if drawn else ''})"
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(self.x.split(self.batch_size), self.y.split(self.batch_size), strict=True))

    def __len__(self) -> int:
        return -(-len(self.y) // self.batch_size)

    @property
    def samples(self) -> int:
        return len(self.y)

    def begins(self, samples: int | None) -> bool:
        """Whether the first `samples` examples are those that a call for only so many would draw.

        Examples are drawn one by one, but mixed in whole blocks.
        """
        mixed = self.clusters is not None
        return samples is not None and samples <= self.samples and not (mixed and samples % MIX_BLOCK)

    def first(self, samples: int) -> FrozenData:
        """The first `samples` examples as a set of their own."""
        clusters = None if self.clusters is None else self.clusters[:samples]
        config = {**self.config, "samples": samples}
        return replace(self, x=self.x[:samples], y=self.y[:samples], config=config, clusters=clusters)


@dataclass(frozen=True, kw_only=True)
class DataSettings(Settings):
    """Which examples of a data set are taken, and how they are drawn.

    Parameters
    ----------
    split
        "train" or "test" (which also finds validation, val, ...), or a split's name in the data set.
    samples
        The number of examples, drawn without replacement; None for all, up to `at_most`.
    at_most
        The number of examples if `samples` is None; None for all.
    fraction
        Take this share of the split, the same of each class: the examples of a network trained with that `fraction`.
    fraction_seed
        The seed by which that share is drawn.
    transform
        "eval" resizes the shorter side, crops to the centre and normalises; "train" also augments as in training: a
        random crop (below 128 px of the same square padded by an eighth of its side; otherwise a random resized crop),
        a random mirror image if that keeps the class, and `auto_augment`.
    batch_size
        Examples per batch of the frozen data.
    seed
        The seed of every draw; None takes the examples in the order of the data set.
    mean, std
        The normalisation, one number per channel; None for the data set's own if known, otherwise ImageNet's.
    image_size
        The side of the images; None for the data set's.
    in_channels
        1 or 3 channels; None for the data set's.
    auto_augment
        Automatic augmentation in timm's notation, such as "rand-m9-n2-mstd1.0".
    mixup, cutmix, smoothing
        The alphas of the Beta distributions of mixup and cutmix (0 for off), and label smoothing, as in timm's Mixup;
        each of the three makes y soft. They belong to training: with transform="eval" they are refused. Examples 2j
        and 2j + 1 are mixed with each other and form one cluster. Each has its own weight (or box), whereas training
        draws one for a whole batch. An odd last example stays unmixed.
    num_classes
        The number of classes; None for the data set's.
    root
        The folder where torch/ data sets are kept and to which they are downloaded.
    download
        Whether a data set that is not here may be downloaded.
    """

    split: str = "train"
    samples: int | None = None
    at_most: int | None = None
    fraction: float = 1.0
    fraction_seed: Annotated[int, Ge(0)] = 0
    transform: Literal["train", "eval"] = "train"
    batch_size: Annotated[int, Ge(1)] = 256
    seed: Annotated[int, Ge(0)] | None = 0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: Annotated[int, Ge(1)] | None = None
    in_channels: int | None = None
    auto_augment: str | None = None
    mixup: Annotated[FiniteFloat, Ge(0)] = 0.0
    cutmix: Annotated[FiniteFloat, Ge(0)] = 0.0
    smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    num_classes: Annotated[int, Ge(1)] | None = None
    root: str | Path | None = None
    download: bool = True

    def check(self) -> None:
        """Raise UserError for mixing or augmentation outside of training."""
        if self.transform == "eval" and (self.mixup or self.cutmix or self.smoothing or self.auto_augment):
            raise UserError("mixup, cutmix, smoothing and auto_augment belong to transform='train'")

    @property
    def mixes(self) -> bool:
        """Whether examples share images."""
        return bool(self.mixup or self.cutmix)


@undisturbed()
def load_data(name: str, *, workers: int = 0, progress: bool = False, **settings: Any) -> FrozenData:
    """Frozen batches of a data set, drawn once.

    Parameters
    ----------
    name
        "digits" (embedded, 8 x 8), a name of timm.data.create_dataset ("torch/cifar100",
        "hfds/NAME-or-local-folder"), or the path of an image folder.
    workers
        Processes that draw examples; 0 for none beside this one.
    progress
        Whether a progress bar is shown.
    settings
        The settings of `DataSettings`, by name.

    Raises
    ------
    UserError
        For an unknown name or setting, an empty or missing split, more samples than examples, images of different sizes
        without `image_size`, or a label that is not a class.
    """
    asked = DataSettings.asked(settings)
    seed = asked.seed or 0
    source = balanced(open_source(name, asked.split, asked.root, asked.download), asked.fraction, asked.fraction_seed)
    if asked.samples is not None and not 1 <= asked.samples <= len(source):
        raise UserError(
            f"samples={asked.samples}: the {source.split} split of {name} has {len(source)} examples; "
            f"ask for 1 to {len(source)}"
        )
    inputs = input_settings(source, asked.image_size, asked.in_channels, asked.mean, asked.std)
    count = min(len(source), asked.samples or asked.at_most or len(source))
    soft = (asked.num_classes or source.num_classes) if asked.mixes or asked.smoothing else 1
    refuse_beyond_memory(
        8 * count * (inputs.in_channels * inputs.image_size**2 + soft),
        f"{count} images of {inputs.image_size} x {inputs.image_size} (`samples`, `image_size`)",
    )
    transformation = make_transform(
        inputs, training=asked.transform == "train", mirror=source.mirror, auto_augment=asked.auto_augment
    )
    n = len(source)
    order = np.arange(n) if asked.seed is None else np.random.default_rng(asked.seed).permutation(n)
    drawn = Drawn(source, order[: asked.samples or asked.at_most], transformation, seed)
    x, y = _drawn_whole(drawn, workers, progress)
    if int(y.min()) < 0:
        raise UserError(f"label {int(y.min())} in the {source.split} split of {name} is not a class")
    num_classes = asked.num_classes or max(source.num_classes, int(y.max()) + 1)
    if (asked.mixes or asked.smoothing) and int(y.max()) >= num_classes:
        raise UserError(f"label {int(y.max())} in {name} is out of range for num_classes={num_classes}")
    clusters = None
    if asked.mixes:
        mix = Mixup(asked.mixup, asked.cutmix, label_smoothing=asked.smoothing, num_classes=num_classes, mode="elem")
        x, y = mixed(x, y, mix, seed)
        clusters = torch.arange(len(y)) // 2
    elif asked.smoothing:
        y = mixup_target(y, num_classes, smoothing=asked.smoothing)
    config = {
        "name": name,
        "split": source.split,
        "samples": len(y),
        "available": n,
        "fraction": [asked.fraction, asked.fraction_seed],
        "transform": asked.transform,
        "seed": asked.seed,
        **asdict(inputs),
        **{key: getattr(asked, key) for key in MIXING},
        **({"mixing": "pairs of neighbours, per element"} if clusters is not None else {}),
    }
    LOG.debug("drew %d of the %d examples of %s %s, transform %s", len(y), n, name, source.split, asked.transform)
    return FrozenData(x, y, asked.batch_size, num_classes, config, clusters)


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
    batches = DataLoader(drawn, batch_size=64, num_workers=workers, generator=torch.Generator(), worker_init_fn=ignored)
    xs, ys = [], []
    for x, y in bar(batches, shown=progress, desc=f"{drawn.source.name} {drawn.source.split}", unit="batch"):
        stop_if_interrupted()
        xs.append(x)
        ys.append(y)
    return torch.cat(xs), torch.cat(ys)


def mixed(x: Tensor, y: Tensor, mix: Mixup, seed: int) -> tuple[Tensor, Tensor]:
    """mixup, cutmix and label smoothing of neighbours, examples 2j and 2j + 1; an odd last example with itself.

    It is done in blocks of fixed length, so that the batch size does not change the pixels. mix: of mode "elem", in
    which each example has its own weight.
    """
    blocks = []
    for i, (xb, yb) in enumerate(zip(x.split(MIX_BLOCK), y.split(MIX_BLOCK), strict=True)):
        n = len(xb)
        if n % 2:
            xb, yb = torch.cat([xb, xb[-1:]]), torch.cat([yb, yb[-1:]])
        # timm mixes the i-th example from the start with the i-th from the end
        order = torch.cat([torch.arange(0, len(xb), 2), torch.arange(1, len(xb), 2).flip(0)])
        with seeded(seed, i, -1):
            xm, ym = mix(xb[order], yb[order])
        back = order.argsort()
        blocks.append((xm[back][:n], ym[back][:n]))
    return torch.cat([b[0] for b in blocks]), torch.cat([b[1] for b in blocks])
