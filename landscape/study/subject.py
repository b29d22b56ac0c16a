"""A network and the data that it is studied on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from landscape.checkpoints.load import load_checkpoint
from landscape.checkpoints.stated import stated
from landscape.data.frozen import FrozenData, load_data
from landscape.objective.objective import Objective
from landscape.runtime.errors import UserError

RECIPE = ("auto_augment", "mixup", "cutmix", "smoothing")


@dataclass(frozen=True)
class Subject:
    """A network and the data it is studied on; what its checkpoint says of its recipe holds where nothing was asked."""

    model: torch.nn.Module
    provenance: dict[str, Any]
    data: str
    data_settings: dict[str, Any]
    objective_settings: dict[str, Any]
    part: dict[str, Any]  # of the training split that it was trained on
    progress: bool

    def frozen(
        self,
        *,
        split: str = "train",
        transform: str = "train",
        samples: int | None = None,
        at_most: int | None = None,
    ) -> FrozenData:
        """Examples of a split, drawn once; how many, as in `load_data`."""
        settings = dict(self.data_settings)
        if transform == "eval":
            settings = {k: v for k, v in settings.items() if k not in RECIPE}
        if split == "train":
            settings |= self.part
        return load_data(
            self.data,
            split=split,
            transform=transform,
            samples=samples,
            at_most=at_most,
            progress=self.progress,
            **settings,
        )

    def objective(self, data: FrozenData) -> Objective:
        return Objective(self.model, data, provenance=self.provenance, **self.objective_settings)


def open_subject(
    checkpoint: str | os.PathLike[str],
    model: str | None,
    data: str,
    *,
    device: str,
    seed: int = 0,
    eval_batch_size: int = 256,
    num_classes: int | None = None,
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    weight_decay: float = 0.0,
    penalty: str = "l2",
    recipe: Mapping[str, Any] | None = None,
    root: str | None = None,
    download: bool = True,
    progress: bool = False,
) -> Subject:
    """Load the network, and settle each setting: as asked, else as the checkpoint's metadata has it, else the default.

    recipe: auto_augment, mixup, cutmix and smoothing, None where not asked.
    download: whether data that are not here may be fetched.
    weight_decay: of a penalty to study with the loss. The recipe's is not taken over: a decoupled one, as of AdamW,
        belongs to no loss that was ever minimised.

    Raises UserError for a form of penalty without a weight_decay.
    """
    if penalty != "l2" and not weight_decay:
        raise UserError(f"--penalty {penalty} adds nothing without its lambda; give that with --weight-decay")
    network, provenance = load_checkpoint(
        checkpoint, model, num_classes=num_classes, image_size=image_size, device=device
    )
    metadata = provenance["metadata"]
    asked = {"mean": mean, "std": std, **{key: (recipe or {}).get(key) for key in RECIPE}}
    settled = {key: value if value is not None else stated(metadata, key, checkpoint) for key, value in asked.items()}
    data_settings = {
        **{key: value for key, value in settled.items() if value not in (None, "none", "")},
        "image_size": provenance["image_size"] or image_size,
        "in_channels": provenance["in_channels"],
        "num_classes": provenance["num_classes"],
        "batch_size": eval_batch_size,
        "seed": seed,
        "root": root,
        "download": download,
    }
    objective_settings = {"weight_decay": weight_decay, "penalty": penalty, "device": device}
    fraction, drawn = (stated(metadata, key, checkpoint) for key in ("fraction", "seed"))
    part = {"fraction": 1.0 if fraction is None else fraction, "fraction_seed": drawn or 0}
    return Subject(network, provenance, data, data_settings, objective_settings, part, progress)
