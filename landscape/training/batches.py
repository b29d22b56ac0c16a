"""The batches of a training: drawn anew in each epoch, augmented, and mixed as the recipe says."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import torch
from timm.data import Mixup
from torch import Tensor
from torch.utils.data import DataLoader

from landscape.data.frozen import Drawn
from landscape.data.sources import Source
from landscape.data.transforms import InputSettings, make_transform
from landscape.runtime import processes
from landscape.runtime.interrupts import ignored
from landscape.training.recipe import Recipe


class Batches:
    """The batches of each epoch, of which this process has its share.

    Parameters
    ----------
    source
        The data set.
    recipe
        How batches are made and mixed, and the seed.
    settings
        The size, channels and normalisation of the images.
    device
        The device that they go to.
    layout
        The memory format of images.
    workers
        Processes that draw examples; by default none on a CPU, and with a GPU one for each core, up to 16.

    Attributes
    ----------
    share
        The number of examples of this process in each batch.
    smoothing
        The label smoothing that is left to the loss; 0 if mixing does it.
    """

    def __init__(
        self,
        source: Source,
        recipe: Recipe,
        settings: InputSettings,
        device: torch.device,
        layout: torch.memory_format,
        workers: int | None,
    ) -> None:
        self.source, self.recipe, self.device, self.layout = source, recipe, device, layout
        self.transform = make_transform(settings, training=True, mirror=source.mirror, auto_augment=recipe.auto_augment)
        self.mix: Mixup | None = None
        if recipe.mixup or recipe.cutmix:
            self.mix = Mixup(
                recipe.mixup, recipe.cutmix, label_smoothing=recipe.smoothing, num_classes=source.num_classes
            )
        self.smoothing = 0.0 if self.mix is not None else recipe.smoothing
        # One example has no batch statistics, and mixing needs pairs: the remainder of an epoch is left out.
        size = processes.size()
        self.share = max(1, min(recipe.batch_size, len(source) - len(source) % 2) // size)
        if self.mix is not None and self.share > 1:
            self.share -= self.share % 2
        if workers is None:
            workers = min(os.cpu_count() or 1, 16) if device.type == "cuda" else 0
        self.workers = workers

    def epoch(self, epoch: int, behind: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch after the first `behind`."""
        order = np.random.default_rng([self.recipe.seed, epoch]).permutation(len(self.source))
        size = processes.size()
        steps = max(1, len(order) // (self.share * size))
        mine = np.concatenate(
            [
                part[processes.rank() :: size][: self.share]
                for part in np.array_split(order[: steps * self.share * size], steps)
            ]
        )
        mine = mine[behind * self.share :]
        if not len(mine):
            return
        drawn = Drawn(self.source, mine, self.transform, self.recipe.seed, epoch)
        loader = DataLoader(
            drawn, self.share, num_workers=self.workers, drop_last=True, generator=torch.Generator(),
            pin_memory=self.device.type == "cuda", worker_init_fn=ignored,
        )  # fmt: skip
        for x, y in loader:
            x, y = x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)
            x, y = self.mix(x, y) if self.mix is not None else (x, y)
            yield (x.contiguous(memory_format=self.layout) if x.ndim == 4 else x), y
