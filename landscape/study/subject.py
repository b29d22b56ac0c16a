"""A network and the data that it is studied on, opened once and asked by every analysis."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Lt

from landscape.analyses.base import Analysis, Examples
from landscape.runtime.errors import UserError
from landscape.runtime.own import is_own
from landscape.runtime.settings import Settings
from landscape.study.files import by_name, checkpoints_in

if TYPE_CHECKING:
    from torch import Tensor, nn

    from landscape.data.frozen import FrozenData
    from landscape.data.own import OwnData
    from landscape.objective.objective import Objective
    from landscape.objective.task import Task
    from landscape.planes.plane import Plane
    from landscape.study.run import Result

LOG = logging.getLogger(__name__)
RECIPE = ("auto_augment", "mixup", "cutmix", "smoothing")
Numbers = tuple[float, ...]
ALL = Examples()


@dataclass(frozen=True, kw_only=True)
class SubjectSettings(Settings):
    """The network, the data and the loss.

    What is None is settled when the subject is opened: by the checkpoint's metadata, its weights, or the data.

    Parameters
    ----------
    model
        A name of landscape.models, timm:NAME, or file.py:function; by default the model that the checkpoint names.
    data
        digits, torch/NAME, hfds/NAME-or-folder, an image folder, or file.py:function, which returns batches for the
        network; by default the data that the checkpoint names.
    task
        classification, regression, gaussian-regression, multi-label, segmentation, next-token, or file.py:function; by
        default classification, and for a Hugging Face folder of a language model what that was trained for.
    tokens
        Tokens in a sequence, where the data are texts (hfds/NAME-or-folder, for a language model).
    samples
        Frozen examples of the training split; by default all, up to what an analysis can use.
    transform
        train: augmented as in training, drawn once and frozen. eval: the images as they are.
    mean, std
        Mean and standard deviation of the images, for their normalisation, a number for each channel; by default the
        checkpoint's, or the data set's.
    num_classes
        The number of classes; by default inferred from the weights.
    image_size
        The side of the images; by default inferred from the weights, or that of the data.
    weight_decay
        lambda of a penalty to study with the loss. The recipe's is not used by default: decoupled weight decay, as in
        AdamW, is not part of any loss that was minimised.
    penalty
        l2: (lambda / 2) sum ||p||^2 over the decayed parameters. norm-sum: lambda sum ||p||.
    auto_augment
        Automatic augmentation in timm's notation, such as rand-m9-n2-mstd1.0, or none; by default the checkpoint's.
    mixup, cutmix, smoothing
        Settings of the training recipe, 0 for off; by default the checkpoint's.
    root
        The folder where torch/ data sets are kept and to which they are downloaded.
    eval_batch_size
        Examples per forward pass; it changes the results by rounding only.
    seed
        The seed of every random draw.
    device
        cpu, cuda, cuda:1, ...; by default a GPU if there is one.
    """

    model: str | None = None
    data: str | None = None
    task: str | None = None
    tokens: Annotated[int, Ge(2)] = 128
    samples: Annotated[int, Ge(1)] | None = None
    transform: Literal["train", "eval"] = "train"
    mean: Numbers | None = None
    std: Numbers | None = None
    num_classes: Annotated[int, Ge(1)] | None = None
    image_size: Annotated[int, Ge(1)] | None = None
    weight_decay: Annotated[float, Ge(0)] = 0.0
    penalty: Literal["l2", "norm-sum"] = "l2"
    auto_augment: str | None = None
    mixup: Annotated[float, Ge(0)] | None = None
    cutmix: Annotated[float, Ge(0)] | None = None
    smoothing: Annotated[float, Ge(0), Lt(1)] | None = None
    root: str | None = None
    eval_batch_size: Annotated[int, Ge(1)] = 256
    seed: Annotated[int, Ge(0)] = 0
    device: str | None = None

    def check(self) -> None:
        """A form of penalty needs a lambda."""
        if self.penalty != "l2" and not self.weight_decay:
            raise UserError(f"penalty={self.penalty!r} adds nothing without its lambda; give that with `weight_decay`")
        if self.data is not None and is_own(self.data):
            given = [name for name in ("mean", "std", *RECIPE) if getattr(self, name) is not None]
            if given or self.transform == "eval":
                name = given[0] if given else "transform"
                raise UserError(
                    f"`{name}` is of the images of a data set by name; what {self.data} gives is taken as it is"
                )


class Subject:
    """A network with the frozen data and losses that analyses need; each is made once, however many use it.

    Parameters
    ----------
    checkpoint
        A file or folder of weights; `landscape.open` is short for this class.
    settings
        The settings as they were given.
    progress
        Whether progress bars are shown.

    Attributes
    ----------
    model
        The network, in eval mode.
    provenance
        Where the weights came from, as `load_checkpoint` returns it.
    label
        The checkpoint's name without its ending.
    """

    def __init__(
        self, checkpoint: str | os.PathLike[str], settings: SubjectSettings | None = None, *, progress: bool = False
    ) -> None:
        from landscape.checkpoints.load import load_checkpoint
        from landscape.checkpoints.stated import stated
        from landscape.runtime.devices import chosen_device

        self.settings = settings = settings or SubjectSettings()
        self.device = chosen_device(settings.device)
        self.model, self.provenance = load_checkpoint(
            checkpoint, settings.model, num_classes=settings.num_classes, image_size=settings.image_size,
            device=self.device,
        )  # fmt: skip
        self.label = Path(checkpoint).stem
        self._progress = progress
        metadata = self.provenance["metadata"]

        def settled(key: str) -> Any:
            asked = getattr(settings, key, None)
            return asked if asked is not None else stated(metadata, key, checkpoint)

        self.data = settled("data")
        if self.data is None:
            raise UserError(f"{checkpoint} does not name the data it was trained on; give them with `data`")
        if is_own(self.data) and settings.data is None:
            raise UserError(f"{checkpoint} names code as its data, {self.data}; if you trust it, give it with `data`")
        self._data_settings: dict[str, Any] = {
            **{key: value for key in ("mean", "std", *RECIPE) if (value := settled(key)) not in (None, "none", "")},
            "image_size": self.provenance["image_size"] or settings.image_size,
            "in_channels": self.provenance["in_channels"],
            "num_classes": self.provenance["num_classes"],
            "batch_size": settings.eval_batch_size,
            "seed": settings.seed,
            "root": settings.root,
            "download": settings.data is not None,
        }
        fraction, drawn = (stated(metadata, key, checkpoint) for key in ("fraction", "seed"))
        self._part: dict[str, Any] = {"fraction": 1.0 if fraction is None else fraction, "fraction_seed": drawn or 0}
        self._drawn: dict[tuple[str, str], FrozenData | OwnData] = {}
        self._objectives: dict[tuple[str, str, int], Objective] = {}

    def frozen(self, examples: Examples = ALL) -> FrozenData | OwnData:
        """Frozen examples of a split; a smaller set is the beginning of a larger one."""
        transform, (asked, at_most) = self._transform(examples), self._count(examples)
        key, wanted = (examples.split, transform), at_most if asked is None else asked
        held = self._drawn.get(key)
        if held is not None and wanted is not None and held.begins(wanted):
            return held.first(wanted)
        drawn = self._draw(split=examples.split, transform=transform, samples=asked, at_most=at_most)
        if held is None or drawn.samples > held.samples:
            self._drawn[key] = drawn
        return drawn

    def _draw(self, *, split: str, transform: str, samples: int | None, at_most: int | None) -> FrozenData | OwnData:
        if is_own(self.data):
            from landscape.data.own import own_data

            settings = self.settings
            return own_data(
                self.data, split=split, samples=samples, at_most=at_most, batch_size=settings.eval_batch_size,
                seed=settings.seed,
            )  # fmt: skip
        if self._language is not None:
            return self._draw_texts(split=split, samples=samples, at_most=at_most)
        from landscape.data.frozen import load_data

        drawn = load_data(
            self.data, split=split, transform=transform, samples=samples, at_most=at_most, progress=self._progress,
            **self._data_settings_for(transform), **(self._part if split == "train" else {}),
        )  # fmt: skip
        if "mean" not in self._data_settings and not self._drawn:
            mean, std = (", ".join(f"{x:.4g}" for x in drawn.config[key]) for key in ("mean", "std"))
            LOG.info("%s does not say how its images were normalised: by mean %s and std %s, as %s usually are; "
                     "if it was by others, give them", self.provenance["file"], mean, std, self.data)  # fmt: skip
        return drawn

    @property
    def _language(self) -> str | None:
        """The task of a language model from a Hugging Face folder; None for any other network."""
        return self.provenance["metadata"].get("task") if "transformers:" in str(self.provenance["model"]) else None

    def _draw_texts(self, *, split: str, samples: int | None, at_most: int | None) -> OwnData:
        from landscape.data.text import text_data

        if not str(self.data).startswith("hfds/"):
            raise UserError(
                f"{self.data} are no texts, which a language model needs; give hfds/NAME or file.py:function"
            )
        settings = self.settings
        masked = "shifted=False" in str(self._language)
        return text_data(
            self.data, Path(self.provenance["file"]), split=split, samples=samples, at_most=at_most,
            tokens=settings.tokens, masked=masked, batch_size=settings.eval_batch_size, seed=settings.seed,
        )  # fmt: skip

    @cached_property
    def task(self) -> Task:
        """The task: how a batch becomes losses."""
        from landscape.objective.tasks import task_named

        return task_named(self.settings.task or self._language or "classification")

    def _transform(self, examples: Examples) -> str:
        return examples.transform or (self.settings.transform if examples.split == "train" else "eval")

    def _count(self, examples: Examples) -> tuple[int | None, int | None]:
        """How many examples are asked for, or else the most that can be used."""
        asked, at_most = (self.settings.samples if examples.split == "train" else None), examples.usual
        if examples.at_most is not None:
            asked, at_most = (None if asked is None else min(asked, examples.at_most)), examples.at_most
        return (None, examples.exactly) if examples.exactly is not None else (asked, at_most)

    def _data_settings_for(self, transform: str) -> dict[str, Any]:
        return {k: v for k, v in self._data_settings.items() if transform == "train" or k not in RECIPE}

    def known_of(self, examples: Examples, available: int | None = None) -> dict[str, Any]:
        """What is known of the loss on these examples before they are drawn, under the names of a stored configuration.

        available: how many examples the split has, if that is known.
        """
        asked, at_most = self._count(examples)
        transform = self._transform(examples)
        known: dict[str, Any] = {}
        if not is_own(self.data):
            settings = self._data_settings_for(transform)
            known = {"name": self.data, "transform": transform}
            known |= {key: list(v) if isinstance(v, tuple) else v for key in ("mean", "std", *RECIPE, "seed")
                      if (v := settings.get(key)) is not None}  # fmt: skip
        if examples.counted and available is not None:
            known["samples"] = min(available, asked or at_most or available)
        decay = self.settings.weight_decay
        return {
            "data": known,
            "weight_decay": decay,
            **({"penalty": self.settings.penalty} if decay else {}),
        }

    def objective(self, examples: Examples = ALL) -> Objective:
        """The loss on these examples."""
        from landscape.objective.objective import Objective

        data = self.frozen(examples)
        key = (examples.split, str(data.config["transform"]), data.samples)
        if key not in self._objectives:
            self._objectives[key] = Objective(
                self.model, data, weight_decay=self.settings.weight_decay, penalty=self.settings.penalty,
                task=self.task, device=self.device, provenance=self.provenance,
            )  # fmt: skip
        return self._objectives[key]

    def states(self, paths: Sequence[Path]) -> Mapping[str, Mapping[str, Tensor]]:
        """The weights of other checkpoints of the same network, by label; each is read when it is asked for."""
        return LazyStates(by_name(paths), self._state)

    def trajectory(self, folder: Path) -> Mapping[str, Mapping[str, Tensor]]:
        """The weights of the checkpoints in a folder, ordered by the numbers in their names.

        Raises
        ------
        UserError
            For a folder without checkpoints.
        """
        found = checkpoints_in(folder)
        if not found:
            raise UserError(f"{folder} is not a folder of checkpoints, which a trajectory needs")
        return self.states(found)

    def stored_plane(self, file: Path) -> Plane:
        """The plane of a results file, FILE.h5, or one of several, FILE.h5:GROUP.

        Raises
        ------
        UserError
            If the file has no such plane, or it belongs to another network.
        """
        from landscape.planes.plane import Plane
        from landscape.study.reading import load

        path, _, group = str(file).rpartition(":") if ":" in file.name else (str(file), "", "")
        planes = {name: data for name, data in load(path).items() if name.startswith("plane")}
        if not planes or (group and group not in planes) or (not group and len(planes) > 1):
            known = ", ".join(planes) or "none; make one with a surface"
            raise UserError(f"directions={file} should name one plane of the file, as FILE.h5:GROUP; it has {known}")
        return Plane.from_dataset(planes[group or next(iter(planes))], self.model)

    def run(
        self,
        analysis: Analysis,
        out: str | os.PathLike[str] | None = None,
        *,
        budget: float | None = None,
        progress: bool = False,
        overwrite: bool = False,
    ) -> Result:
        """Carry out an analysis, as `landscape.study.run.run` does."""
        from landscape.study.run import run

        return run(self, analysis, out, budget=budget, progress=progress, overwrite=overwrite)

    def _state(self, path: Path) -> Mapping[str, Tensor]:
        from landscape.checkpoints.load import load_checkpoint

        return load_checkpoint(path, self._made_again)[0].state_dict()

    @cached_property
    def _made_again(self) -> Callable[[], nn.Module]:
        """Make the network anew without its code: a copy or, if only shapes are asked for, one without numbers."""
        import torch

        shapes = copy.deepcopy(self.model).to("meta")

        def made() -> nn.Module:
            return copy.deepcopy(shapes if torch.empty(0).is_meta else self.model)

        made.__qualname__ = str(self.provenance["model"])
        return made


class LazyStates(Mapping[str, Mapping[str, "Tensor"]]):
    """State dicts of checkpoints by label, each read when it is asked for, so that one at a time is in memory."""

    def __init__(self, paths: Mapping[str, Path], load: Callable[[Path], Mapping[str, Tensor]]) -> None:
        self.paths, self.load = paths, load

    def __getitem__(self, label: str) -> Mapping[str, Tensor]:
        return self.load(self.paths[label])

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)


def open(checkpoint: str | os.PathLike[str], *, progress: bool = False, **settings: Any) -> Subject:
    """Open the network of a checkpoint for analyses.

    Parameters
    ----------
    checkpoint
        A file or folder of weights.
    progress
        Whether progress bars are shown.
    settings
        The settings of `SubjectSettings`, by name.

    Raises
    ------
    UserError
        For a setting that is unknown or out of range, and as in `load_checkpoint` and `load_data`.

    Examples
    --------
    >>> subject = landscape.open("vit.safetensors", data="digits")  # doctest: +SKIP
    >>> subject.run(landscape.Spectrum(k=5)).plot()  # doctest: +SKIP
    """
    return Subject(checkpoint, SubjectSettings.asked(settings), progress=progress)
