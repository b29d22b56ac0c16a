"""A training, from the names of a network and its data to a checkpoint that says all that an analysis needs to know."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

from landscape.runtime.errors import UserError, a_few
from landscape.runtime.settings import Settings
from landscape.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Training(Settings):
    """What is trained, on which data, and where the result goes.

    Parameters
    ----------
    model
        A name of landscape.models, timm:NAME, or file.py:function.
    data
        digits, torch/NAME, hfds/NAME-or-folder, or an image folder.
    out
        The checkpoint to write (.safetensors).
    recipe
        plain; or strong or weak, as in the reference study. The other options override it.
    trajectory
        A folder for a checkpoint of every epoch.
    overwrite
        Replace the network of another training in --out.
    mean
        Mean of the images, for their normalisation: a number for each channel; by default the data set's.
    std
        Standard deviation of the images: a number for each channel; by default the data set's.
    image_size
        Side of the images; by default the data's.
    root
        The folder where torch/ data sets are kept and to which they are downloaded.
    workers
        Processes that draw examples; by default none, or with a GPU one per core.
    device
        cpu, cuda, cuda:1, ...; by default a GPU if there is one.
    quiet
        Show no progress bar and print no report.
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
        """Raise UserError if the checkpoint is not a safetensors file."""
        if self.out.suffix != ".safetensors":
            raise UserError(f"`out` {self.out} must end in .safetensors")


def stated_drop_path(model: str) -> float | None:
    """The rate of stochastic depth that the settings of a network ask for, as in vit_ti(drop_path_rate=0.1)."""
    from landscape.runtime.own import split_settings

    found: float | None = split_settings(model)[1].get("drop_path_rate")
    return found


def carry_out(
    asked: Training, recipe: Recipe, *, epochs: Collection[int] | None = None, budget: float | None = None
) -> list[float] | None:
    """Train, or continue a training, and save the checkpoint.

    Parameters
    ----------
    asked
        The training; its recipe is only a name, for the metadata.
    recipe
        The recipe, with everything that overrides it.
    epochs
        The epochs of the trajectory to keep; None for all.
    budget
        Seconds after which the training is stopped, to be continued later.

    Returns
    -------
    list of float or None
        The training loss of each epoch; None if the finished checkpoint was there already.

    Raises
    ------
    UserError
        If `out` or the trajectory holds another training, and as in `landscape.train`.
    Unfinished
        If the budget is spent.
    """
    from landscape.checkpoints.read import save_checkpoint
    from landscape.data.sources import open_source
    from landscape.data.transforms import input_settings
    from landscape.runtime import processes
    from landscape.runtime.devices import chosen_device
    from landscape.runtime.files import alone
    from landscape.training.train import train, training_metadata

    processes.start()
    device = chosen_device(asked.device)
    source = open_source(asked.data, "train", asked.root)
    inputs = input_settings(source, asked.image_size, None, asked.mean, asked.std)
    of = {"num_classes": source.num_classes, "image_size": inputs.image_size, "in_channels": inputs.in_channels}
    network, name = untrained(asked.model, recipe, of)
    named = {"model": asked.model, "recipe": asked.recipe, **training_metadata(source, recipe, inputs)}
    first = processes.rank() == 0
    with alone(asked.out, "training") if first else nullcontext():
        state = asked.out.with_name(asked.out.name + ".training")
        if processes.from_first(first and not asked.overwrite and finished(asked.out, named, recipe.epochs)):
            if first:
                state.unlink(missing_ok=True)
            return None

        def keep(epoch: int, now: nn.Module) -> None:
            if epochs is None or epoch in epochs:
                _keep(asked, recipe, epoch, now, named)

        trained = train(
            network, source, recipe, inputs, device=device, workers=asked.workers, state=state, budget=budget,
            each_epoch=keep if asked.trajectory is not None else None, progress=not asked.quiet, label=name,
        )  # fmt: skip
        if first:
            save_checkpoint(asked.out, trained.model, {**named, **trained.metadata})
            state.unlink(missing_ok=True)
    losses: list[float] = trained.metadata["training_loss"]
    return losses


def epoch_checkpoint(folder: Path, epoch: int, epochs: int) -> Path:
    """The path of an epoch's checkpoint in a trajectory; all names have one width, so that they sort by epoch."""
    return folder / f"epoch{epoch:0{len(str(epochs))}d}.safetensors"


def _keep(asked: Training, recipe: Recipe, epoch: int, now: nn.Module, named: Mapping[str, Any]) -> None:
    from landscape.checkpoints.read import read_checkpoint, save_checkpoint

    assert asked.trajectory is not None
    place = epoch_checkpoint(asked.trajectory, epoch, recipe.epochs)
    other = place.exists() and read_checkpoint(place).metadata != json.loads(json.dumps(named))
    if other and not asked.overwrite:
        raise UserError(
            f"{place} is from another training; choose another `trajectory`, or replace it with `overwrite`"
        )
    save_checkpoint(place, now, named)


def untrained(model: str, recipe: Recipe, of: Mapping[str, int]) -> tuple[nn.Module, str]:
    """The network with the weights that its recipe draws, and its name.

    of: num_classes, image_size and in_channels. Raises UserError if the network cannot be made with these.
    """
    from landscape.checkpoints.build import builder
    from landscape.runtime.random import seeded

    dropping = recipe.drop_path or stated_drop_path(model)
    build, name = builder(model, {"drop_path_rate": recipe.drop_path} if dropping else None)
    with seeded(recipe.seed):
        try:
            return build(**of), name
        except (TypeError, UserError) as e:
            hint = "; `drop_path` 0 asks for none" if recipe.drop_path else ""
            raise UserError(f"cannot make {model}: {' '.join(str(e).split())}{hint}") from e


def finished(out: Path, named: Mapping[str, Any], epochs: int) -> bool:
    """Whether `out` holds the network of this very training; False if there is no such file.

    Raises UserError if it holds another network.
    """
    from landscape.checkpoints.read import read_checkpoint

    if not out.exists():
        return False
    metadata = read_checkpoint(out).metadata
    losses = metadata.get("training_loss")
    asked = json.loads(json.dumps(named))  # in the form in which the file has it
    differing = [f"{k}: {metadata.get(k)} there, {v} asked" for k, v in asked.items() if metadata.get(k) != v]
    if not differing and isinstance(losses, list) and len(losses) == epochs:
        return True
    why = a_few(differing) or "not by this command"
    raise UserError(f"{out} has another network ({why}); choose another place, or replace it with `overwrite`")
