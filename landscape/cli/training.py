"""The command that trains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

from landscape.cli.options import default_of, options_of, settled
from landscape.runtime.errors import UserError, a_few
from landscape.runtime.settings import Settings
from landscape.runtime.visible import say
from landscape.training.recipe import Recipe
from landscape.training.recipe import recipe as named_recipe

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Training(Settings):
    """What is trained, on what, and where it goes.

    Parameters
    ----------
    model
        A name of landscape.models, timm:NAME, or file.py:function.
    data
        digits, torch/NAME, hfds/NAME-or-folder, or an image folder.
    out
        The checkpoint to write (.safetensors).
    recipe
        plain, or the study's: strong or weak. The other options override it.
    trajectory
        Folder for a checkpoint of every epoch.
    overwrite
        Replace the network of another training that --out has.
    mean
        Normalisation of the images: a number for each channel; by default the data set's.
    std
        The standard deviation likewise.
    image_size
        Side of the images; by default the data's.
    root
        Where torch/ data sets are kept and downloaded to.
    workers
        Processes that draw examples; by default none, and beside a GPU one a core.
    device
        cpu, cuda, cuda:1, ...; by default a GPU where there is one.
    quiet
        No progress bar and no report.
    """

    model: str
    data: str
    out: Path
    recipe: str = "plain"
    trajectory: Path | None = None
    overwrite: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: Annotated[int, Ge(1)] | None = None
    root: str | None = None
    workers: Annotated[int, Ge(0)] | None = None
    device: str | None = None
    quiet: bool = False

    def check(self) -> None:
        """The checkpoint is a safetensors file."""
        if self.out.suffix != ".safetensors":
            raise UserError(f"--out {self.out} must end in .safetensors")


def train(*, what: Any, how: Any) -> None:
    """Train a network, and save it with all that an analysis needs to know of it; started again, it continues.

    Example: landscape train --model vit_xs --data digits --out vit.safetensors
    """
    from landscape.checkpoints.read import read_checkpoint, save_checkpoint
    from landscape.data.sources import open_source
    from landscape.data.transforms import input_settings
    from landscape.runtime import processes
    from landscape.runtime.devices import chosen_device
    from landscape.runtime.files import alone
    from landscape.runtime.own import split_settings
    from landscape.training.train import train as run_training
    from landscape.training.train import training_metadata

    asked = settled(Training, what)
    out, model = asked.out, asked.model
    stated = split_settings(model)[1].get("drop_path_rate")
    override = {f.name: getattr(how, f.name) for f in fields(Recipe)}
    if override["drop_path"] is None:
        override["drop_path"] = stated
    recipe = named_recipe(asked.recipe, **override)
    processes.start()
    device = chosen_device(asked.device)
    source = open_source(asked.data, "train", asked.root)
    inputs = input_settings(source, asked.image_size, None, asked.mean, asked.std)
    of = {"num_classes": source.num_classes, "image_size": inputs.image_size, "in_channels": inputs.in_channels}
    network, name = _untrained(model, recipe, of, bool(recipe.drop_path or stated))
    named = {"model": model, "recipe": asked.recipe, **training_metadata(source, recipe, inputs)}
    first = processes.rank() == 0
    with alone(out, "training") if first else nullcontext():
        state = out.with_name(out.name + ".training")
        if processes.from_first(first and not asked.overwrite and _finished(out, named, recipe.epochs)):
            if first:
                state.unlink(missing_ok=True)
                if not asked.quiet:
                    say(f"{out} has this training, finished; nothing to do")
            return

        def keep(epoch: int, now: nn.Module) -> None:
            assert asked.trajectory is not None
            width = len(str(recipe.epochs))  # of one width, for whatever sorts them by name
            place = asked.trajectory / f"epoch{epoch:0{width}d}.safetensors"
            other = place.exists() and read_checkpoint(place).metadata != json.loads(json.dumps(named))
            if other and not asked.overwrite:
                raise UserError(
                    f"{place} is of another training; choose another --trajectory, or replace it with --overwrite"
                )
            save_checkpoint(place, now, named)

        trained = run_training(
            network, source, recipe, inputs, device=device, workers=asked.workers, state=state,
            each_epoch=keep if asked.trajectory is not None else None, progress=not asked.quiet, label=name,
        )  # fmt: skip
        if not first:
            return
        save_checkpoint(out, trained.model, {**named, **trained.metadata})
        state.unlink(missing_ok=True)
    if not asked.quiet:
        loss = trained.metadata["training_loss"][-1]
        say(f"wrote {out}: training loss {loss:.4g}, {_test_accuracy(asked, recipe.seed, device)}")


def _untrained(model: str, recipe: Recipe, of: Mapping[str, int], dropping: bool) -> tuple[nn.Module, str]:
    """The network as its recipe draws it, and its name."""
    from landscape.checkpoints.build import builder
    from landscape.runtime.random import seeded

    build, name = builder(model, {"drop_path_rate": recipe.drop_path} if dropping else None)
    with seeded(recipe.seed):
        try:
            return build(**of), name
        except (TypeError, UserError) as e:
            hint = "; --drop-path 0 asks for none" if recipe.drop_path else ""
            raise UserError(f"cannot make {model}: {' '.join(str(e).split())}{hint}") from e


train.__annotations__ = {"what": options_of(Training), "how": options_of(Recipe, optional=True), "return": None}
train.__kwdefaults__ = {"how": default_of(train, "how")}


def _test_accuracy(asked: Training, seed: int, device: str) -> str:
    from landscape.analyses.test import Test
    from landscape.data.sources import MissingSplit
    from landscape.study.subject import Subject, SubjectSettings

    settings = SubjectSettings(model=asked.model, data=asked.data, device=device, seed=seed, root=asked.root)
    try:
        accuracy = Subject(asked.out, settings, progress=True).run(Test()).estimates[0]
    except MissingSplit:
        return "no test split found"
    return f"test accuracy {accuracy}"


def _finished(out: Path, named: Mapping[str, Any], epochs: int) -> bool:
    """Whether `out` has the network of the very training that is asked for, False where nothing is there.

    Raises UserError where it has another.
    """
    from landscape.checkpoints.read import read_checkpoint

    if not out.exists():
        return False
    metadata = read_checkpoint(out).metadata
    losses = metadata.get("training_loss")
    asked = json.loads(json.dumps(named))  # as it was written
    differing = [f"{k}: {metadata.get(k)} there, {v} asked" for k, v in asked.items() if metadata.get(k) != v]
    if not differing and isinstance(losses, list) and len(losses) == epochs:
        return True
    why = a_few(differing) or "not by this command"
    raise UserError(f"{out} has another network ({why}); choose another place, or replace it with --overwrite")
