"""Data sets by name: the embedded digits, those of timm and Hugging Face, and image folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from timm.data import create_dataset
from torch.utils.data import Subset

from landscape.runtime import processes
from landscape.runtime.errors import UserError, near_matches

SPLITS = {"train": ("train", "training"), "test": ("test", "validation", "val", "valid", "eval")}
FOLDERS = 30_000  # in a data set, at most: ImageNet-21k has 21,841
TORCH_NAMES = ("cifar10", "cifar100", "mnist", "kmnist", "fashion_mnist", "qmnist", "imagenet", "places365")


class MissingSplit(UserError):
    """The data set exists, but not the split that was asked for."""


@dataclass(frozen=True)
class Source:
    """A data set on disk: `images[i]` gives (PIL image, class). `mirror`: whether mirror images keep their class."""

    name: str
    split: str
    images: Sequence[tuple[Image.Image, int]]
    num_classes: int
    mirror: bool = True

    def __len__(self) -> int:
        return len(self.images)


def open_source(name: str, split: str = "train", root: str | Path | None = None, download: bool = True) -> Source:
    """A split of a data set: its images and labels, before any transform.

    Parameters
    ----------
    name
        digits, torch/NAME, hfds/NAME-or-folder, or the path of an image folder.
    split
        train or test.
    root
        The folder of the data sets of torch; by default ~/.cache/landscape/data.
    download
        Whether a data set that is not here may be downloaded.

    Raises
    ------
    UserError
        For an unknown name, or a split that is missing or empty.
    """
    prefix, _, rest = name.partition("/")
    if name == "digits":
        source = _digits(split)
    elif prefix == "torch":
        source = _torch_dataset(name, rest, split, root, download)
    elif prefix == "hfds":
        if not download and not Path(rest).expanduser().is_dir():
            raise UserError(
                f"{name} is not a folder here, and would be downloaded; if you want that, give it with `data`"
            )
        source = _hugging_face(name, split)
    elif Path(name).is_dir():
        source = _image_folder(name, split)
    elif Path(name).exists():
        raise UserError(f"{name} is a file; give an image folder, with a folder of images for each class")
    else:
        known = ["digits", "hfds/NAME-or-folder", *(f"torch/{n}" for n in TORCH_NAMES)]
        raise UserError(f"unknown data set {name!r}; {near_matches(name, known)} (or the path of an image folder)")
    if len(source) == 0:
        raise UserError(f"the {source.split} split of {name} is empty; a loss needs at least one example")
    return source


class _Digits(Sequence[tuple[Image.Image, int]]):
    def __init__(self, index: np.ndarray) -> None:
        digits = load_digits()
        self.pixels = np.round(digits.images[index] * (255 / 16)).astype(np.uint8)
        self.classes = digits.target[index]

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, i: Any) -> Any:
        return Image.fromarray(self.pixels[i]), int(self.classes[i])


def _digits(split: str) -> Source:
    """1442 training and 355 test images; the split is fixed: every fifth image of each class is for testing."""
    target = load_digits().target
    place = np.zeros(len(target), int)
    for c in range(10):
        place[target == c] = np.arange((target == c).sum())
    test = place % 5 == 4
    canonical = next((key for key, names in SPLITS.items() if split in names), None)
    if canonical is None:
        raise MissingSplit(f"digits has no split {split!r}; known: train, test")
    return Source("digits", canonical, _Digits(np.flatnonzero(test == (canonical == "test"))), 10, mirror=False)


def _torch_dataset(name: str, rest: str, split: str, root: str | Path | None, download: bool) -> Source:
    if rest not in TORCH_NAMES:
        raise UserError(f"unknown data set {name!r}; {near_matches(rest, TORCH_NAMES)}")
    folder = Path(root) if root is not None else Path.home() / ".cache" / "landscape" / "data"
    canonical = "train" if split in SPLITS["train"] else "validation"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if processes.rank() != 0:  # the first process downloads the data, the others find them
            processes.gathered(None)
        images = create_dataset(name, root=str(folder), split=canonical, download=download)
        if processes.rank() == 0:
            processes.gathered(None)
    except (OSError, RuntimeError, ValueError) as e:
        fetch = "" if download else "; to have it downloaded, give it with `data`"
        raise UserError(f"cannot read {name} in {folder}: {_first_line(e)}{fetch}") from e
    return Source(name, split, images, len(getattr(images, "classes", ())), mirror="mnist" not in rest)


def _hugging_face(name: str, split: str) -> Source:
    folder = name.removeprefix("hfds/")
    if folder.startswith((".", "/", "~")):
        if not Path(folder).expanduser().exists():
            raise UserError(f"no such folder: {folder}")
        _refuse_a_file_system(Path(folder).expanduser())
    tried = SPLITS.get(split, (split,))
    reason: Exception | None = None
    for candidate in tried:
        try:
            images = create_dataset(name, root=None, split=candidate)
        except ValueError as e:  # for an unknown split
            reason = e
            continue
        except Exception as e:  # a data set's files or a hub may raise anything
            raise UserError(f"cannot read {name}: {_first_line(e)}") from e
        return Source(name, candidate, images, len(images.reader.class_to_idx or ()))
    raise MissingSplit(f"{name} has no split {split!r}: {_first_line(reason)}")


def _image_folder(name: str, split: str) -> Source:
    """A folder of class folders, or of splits that are such folders. Without splits, all images are for training."""
    here = next((s for s in SPLITS.get(split, (split,)) if (Path(name) / s).is_dir()), None)
    has_splits = any((Path(name) / s).is_dir() for names in SPLITS.values() for s in names)
    if here is None and (has_splits or split not in SPLITS["train"]):
        raise MissingSplit(f"the image folder {name} has no folder for the split {split!r}")
    folder = Path(name) / here if here is not None else Path(name)
    _refuse_a_file_system(folder)
    try:
        images = create_dataset("", root=str(folder), split=split, search_split=False)
    except RuntimeError as e:
        raise UserError(
            f"no images in {folder}: the data set is empty; it needs a folder of images for each class"
        ) from e
    return Source(name, here or split, images, len(images.reader.class_to_idx))


def _refuse_a_file_system(folder: Path) -> None:
    """Raise UserError for a folder of so many folders that reading it would take hours."""
    for count, _ in enumerate(os.walk(folder, followlinks=True)):
        if count > FOLDERS:
            raise UserError(f"{folder} has over {FOLDERS:,} folders below it; give one whose folders are the classes")


def _first_line(e: Exception | None) -> str:
    return (str(e).strip() or type(e).__name__).splitlines()[0]


def balanced(source: Source, fraction: float, seed: int) -> Source:
    """A source with the same share of each class, and at least one example, drawn by the seed; for 1 all of it.

    Raises UserError for a fraction outside of (0, 1].
    """
    if not 0 < fraction <= 1:
        raise UserError(f"fraction={fraction} must be above 0 and at most 1")
    if fraction == 1:
        return source
    labels = np.array([int(source.images[i][1]) for i in range(len(source))])
    rng = np.random.default_rng([seed, 0])
    kept = [
        rng.permutation(at)[: max(1, round(fraction * len(at)))]
        for at in (np.flatnonzero(labels == c) for c in np.unique(labels))
    ]
    index = np.sort(np.concatenate(kept)).tolist()
    return replace(source, images=Subset(source.images, index))  # type: ignore[arg-type]
