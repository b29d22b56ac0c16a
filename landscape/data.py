"""Data sets by name, and batches that are drawn, augmented once and frozen.

Every example is drawn from a seed of its own, made of the data set's seed and the example's place: any order, any
number of workers and any batch size give the same pixels.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, Mixup, create_dataset, create_transform
from timm.data.mixup import mixup_target
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, RandomCrop, Resize
from tqdm import tqdm

from landscape import distributed
from landscape.errors import UserError, near_matches

SPLITS = {"train": ("train", "training"), "test": ("test", "validation", "val", "valid", "eval")}
TORCH_NAMES = ("cifar10", "cifar100", "mnist", "kmnist", "fashion_mnist", "qmnist", "imagenet", "places365")
STATISTICS = {  # per-channel mean and standard deviation of the training images, in [0, 1]
    "digits": ((0.3055,), (0.3764,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
MIX_BLOCK = 128


class MissingSplit(UserError):
    """The data set exists, but not the split that was asked for."""


@dataclass(frozen=True)
class Source:
    """A data set on disk: `images[i]` gives (PIL image, class). `mirror`: whether a mirror image keeps its class."""

    name: str
    split: str
    images: Sequence[tuple[Image.Image, int]]
    num_classes: int
    mirror: bool = True

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class InputSettings:
    """What a network sees of an image: its side, its channels, and their normalisation."""

    image_size: int
    in_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


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


def open_source(name: str, split: str = "train", root: str | Path | None = None, download: bool = True) -> Source:
    """The split of a data set, by name. download: whether one that is not here may be fetched.

    Raises UserError where there is none, or it is empty.
    """
    prefix, _, rest = name.partition("/")
    if name == "digits":
        source = _digits(split)
    elif prefix == "torch":
        source = _torch_dataset(name, rest, split, root, download)
    elif prefix == "hfds":
        if not download and not Path(rest).expanduser().is_dir():
            raise UserError(f"{name} is not a folder here, and would be fetched; if you want that, give it with --data")
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
    """1442 training and 355 test images; the split is fixed, every fifth image of each class for testing."""
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
        if distributed.rank() != 0:  # the first process downloads, the others find it there
            distributed.gathered(None)
        images = create_dataset(name, root=str(folder), split=canonical, download=download)
        if distributed.rank() == 0:
            distributed.gathered(None)
    except (OSError, RuntimeError, ValueError) as e:
        fetch = "" if download else "; to have it fetched, give it with --data"
        raise UserError(f"cannot read {name} in {folder}: {_first_line(e)}{fetch}") from e
    return Source(name, split, images, len(getattr(images, "classes", ())), mirror="mnist" not in rest)


def _hugging_face(name: str, split: str) -> Source:
    folder = name.removeprefix("hfds/")
    if folder.startswith((".", "/", "~")) and not Path(folder).expanduser().exists():
        raise UserError(f"no such folder: {folder}")
    tried = SPLITS.get(split, (split,))
    reason: Exception | None = None
    for candidate in tried:
        try:
            images = create_dataset(name, root=None, split=candidate)
        except ValueError as e:  # of an unknown split
            reason = e
            continue
        except Exception as e:  # whatever a data set's files or a hub may raise
            raise UserError(f"cannot read {name}: {_first_line(e)}") from e
        return Source(name, candidate, images, len(images.reader.class_to_idx or ()))
    raise MissingSplit(f"{name} has no split {split!r}: {_first_line(reason)}")


def _image_folder(name: str, split: str) -> Source:
    """A folder of class folders, or one with such folders for its splits. Without those, all of it is for training."""
    here = next((s for s in SPLITS.get(split, (split,)) if (Path(name) / s).is_dir()), None)
    has_splits = any((Path(name) / s).is_dir() for names in SPLITS.values() for s in names)
    if here is None and (has_splits or split not in SPLITS["train"]):
        raise MissingSplit(f"the image folder {name} has no folder for the split {split!r}")
    folder = Path(name) / here if here is not None else Path(name)
    try:
        images = create_dataset("", root=str(folder), split=split, search_split=False)
    except RuntimeError as e:
        raise UserError(f"no images in {folder}: the data set is empty; it wants a folder for each class") from e
    return Source(name, here or split, images, len(images.reader.class_to_idx))


def _first_line(e: Exception | None) -> str:
    return (str(e).strip() or type(e).__name__).splitlines()[0]


def _common_size(source: Source) -> int:
    sizes = {source.images[i][0].size for i in np.linspace(0, len(source) - 1, 16).astype(int)}
    (width, height), *others = sizes
    if others or width != height:
        raise UserError(f"the images of {source.name} differ in size or are not square; say which with image_size")
    return width


def input_settings(
    source: Source,
    image_size: int | None = None,
    in_channels: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> InputSettings:
    """What was asked, and for the rest what the data set has. Raises UserError as `load_data` does."""
    in_channels = in_channels or len(source.images[0][0].getbands())
    mean, std = _statistics(source.name, in_channels, mean, std)
    return InputSettings(image_size or _common_size(source), in_channels, mean, std)


def _statistics(
    name: str, channels: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    known = next((STATISTICS[part] for part in reversed(name.split("/")) if part in STATISTICS), None)
    default = known or (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    if len(default[0]) != channels:
        default = ((float(np.mean(default[0])),) * channels, (float(np.mean(default[1])),) * channels)
    chosen = (tuple(mean) if mean is not None else default[0], tuple(std) if std is not None else default[1])
    for label, values in zip(("mean", "std"), chosen, strict=True):
        if len(values) != channels:
            raise UserError(f"{label} has {len(values)} numbers for images of {channels} channels; give {channels}")
    if min(chosen[1]) <= 0:
        raise UserError(f"std={','.join(map(str, chosen[1]))} must be above 0")
    return chosen


def make_transform(
    settings: InputSettings, *, training: bool, mirror: bool = True, auto_augment: str | None = None
) -> Callable[[Image.Image], Tensor]:
    """timm's transform for training or evaluation.

    Below 128 px both see the same square: an image of that size as it is, any other resized by its shorter side and
    cropped to the centre. From 128 px on training crops and resizes at random, and evaluation has timm's margin.
    """
    image_size, in_channels = settings.image_size, settings.in_channels
    small = image_size < 128
    try:
        transform = create_transform(
            (in_channels, image_size, image_size),
            is_training=training,
            hflip=0.5 if mirror else 0.0,
            color_jitter=0.0,
            auto_augment=auto_augment,
            interpolation="bicubic",
            mean=settings.mean,
            std=settings.std,
            crop_pct=1.0 if small else None,
        )
    except (AssertionError, ValueError, KeyError) as e:  # timm asserts its notation
        raise UserError(f"auto_augment={auto_augment!r} is not in timm's notation, such as rand-m9-n2-mstd1.0") from e
    if training and small:  # as DeiT does for small images
        transform.transforms[0] = RandomCrop(image_size, padding=image_size // 8)
    mode = {1: "L", 3: "RGB"}.get(in_channels)
    if mode is None:
        raise UserError(f"in_channels={in_channels}: images have 1 or 3 channels")
    square = Compose([Resize(image_size, InterpolationMode.BICUBIC), CenterCrop(image_size)])

    def apply(image: Image.Image) -> Tensor:
        image = image.convert(mode)
        if small and image.size != (image_size, image_size):
            image = square(image)
        return transform(image)

    return apply


def balanced(source: Source, fraction: float, seed: int) -> Source:
    """The same share of each class of a source, at least one example, drawn by the seed; all of it for 1.

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


@contextmanager
def seeded(*seed: int) -> Iterator[None]:
    """Python's, numpy's and torch's global generators seeded within the block, and as they were after it."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002
    digest = int.from_bytes(hashlib.blake2b(repr(seed).encode(), digest_size=4).digest(), "big")
    try:
        random.seed(digest)
        np.random.seed(digest)  # noqa: NPY002  (the generator that timm's transforms use)
        torch.default_generator.manual_seed(digest)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.default_generator.set_state(states[2])


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
