"""Training by recipe: freshly drawn batches, warm-up and decay, resumable, in one process or many.

    landscape train --model vit_xs --data digits --epochs 60 --out vit_xs.safetensors
    landscape train --model vit_ti --data torch/cifar100 --recipe strong --out vit_ti.safetensors

On the CPU of one machine the same seed gives the same weights, to the bit, interrupted or not; on a GPU only up to
rounding, since some of torch's kernels do not add in a fixed order.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from landscape.data.sources import Source, balanced, open_source
from landscape.data.transforms import InputSettings, input_settings
from landscape.objective.folding import lay_out
from landscape.objective.networks import outputs
from landscape.objective.parameters import fingerprint
from landscape.runtime import processes
from landscape.runtime.caller import undisturbed
from landscape.runtime.devices import chosen_device
from landscape.runtime.errors import UserError
from landscape.runtime.interrupts import Interrupted, deferred, noted
from landscape.runtime.progress import bar
from landscape.runtime.random import seeded
from landscape.training.batches import Batches
from landscape.training.optimizers import optimizer_of
from landscape.training.recipe import Recipe
from landscape.training.recipe import recipe as named_recipe
from landscape.training.sam import ascended
from landscape.training.standing import Standing, Unfinished, restored, set_random_states, store

EachEpoch = Callable[[int, nn.Module], None]


@dataclass(frozen=True)
class Trained:
    """A trained copy of the network, in eval mode, and what a later reader of its weights needs to know.

    Parameters
    ----------
    model
        The trained network.
    metadata
        num_classes, image_size, in_channels, mean, std, data, the recipe's settings, and the mean training loss and
        the learning rate of each epoch.
    """

    model: nn.Module
    metadata: dict[str, Any]


@undisturbed()
def train(
    model: nn.Module,
    source: Source | str,
    recipe: Recipe | str = "plain",
    settings: InputSettings | None = None,
    *,
    device: torch.device | str | None = None,
    workers: int | None = None,
    state: str | os.PathLike[str] | None = None,
    save_every: float = 30.0,
    each_epoch: EachEpoch | None = None,
    progress: bool = False,
    label: str = "train",
    budget: float | None = None,
) -> Trained:
    """Train a copy of `model` on the examples of `source`, drawn anew in each epoch; `model` itself stays as it is.

    Under torchrun every process takes its share of each batch, and gradients are averaged. BatchNorm sees the process's
    share, or on GPUs the whole batch. Only the first process writes.

    Parameters
    ----------
    model
        The network with its initial weights.
    source
        The data set, from `landscape.open_source`; or its name.
    recipe
        How it is trained, a `landscape.Recipe`; or the name of one that comes with the toolkit: plain, strong, weak.
    settings
        The size, channels and normalisation of the images; by default those of the data set.
    device
        The device to train on; by default a GPU if there is one.
    workers
        Processes that draw examples. By default none on a CPU, where they would compete with the network, and with a
        GPU as many as the machine has cores, up to 16. The progress bar shows the share of time spent waiting for them.
    state
        A file that keeps what is needed to continue. It is written every `save_every` seconds, also within an epoch, at
        Ctrl-C, and at the end. If it exists, the training continues from it. Remove it once the weights are saved.
    save_every
        Seconds between two writes of `state`.
    each_epoch
        A function called with 0 and the network before the first epoch, and with n and the network after the n-th, such
        as one that saves a trajectory.
    progress
        Whether a progress bar is shown.
    label
        The text before the progress bar.
    budget
        Seconds after which no further step is taken: where it stands is in `state`.

    Raises
    ------
    Unfinished
        If the budget is spent before the end.
    UserError
        For an unknown optimiser, a state of another recipe, a network whose own code fails or that returns anything but
        one tensor, or a loss that is no longer finite.
    """
    device = chosen_device(device) if device is None else device
    recipe = named_recipe(recipe) if isinstance(recipe, str) else recipe
    source = open_source(source) if isinstance(source, str) else source
    network = copy.deepcopy(model).to(device).train()
    settings = settings or input_settings(source)
    layout = _layout(network, settings)
    lay_out(network, layout)
    source = balanced(source, recipe.fraction, recipe.seed)
    optimizer, schedule = optimizer_of(network, recipe)
    device = torch.device(device)
    if processes.size() > 1 and device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    wrapped = DistributedDataParallel(network) if processes.size() > 1 else network
    saved = Path(state) if state is not None else None
    identity = _identity(source, recipe, settings, network)
    standing = restored(saved, network, optimizer, identity, device)
    draw = Batches(source, recipe, settings, device, layout, workers)
    first = processes.rank() == 0
    if each_epoch is not None and first and not standing.losses and not standing.step:
        each_epoch(0, network)
    epochs = bar(
        range(len(standing.losses), recipe.epochs), desc=label, shown=progress and first, unit="epoch",
        initial=len(standing.losses), total=recipe.epochs,
    )  # fmt: skip
    with deferred():
        clock = _Clock(save_every, budget)
        stored = None if saved is None else partial(store, saved, network, optimizer, identity, standing, device)
        keep = partial(_keep, stored, standing, clock, recipe.epochs)
        for epoch in epochs:
            schedule.step(epoch)
            rate = optimizer.param_groups[0]["lr"]
            pace = _epoch(wrapped, optimizer, draw, standing, epoch, clock, keep)
            loss_of_epoch = standing.end_epoch(rate)
            epochs.set_postfix({"loss": f"{loss_of_epoch:.3f}", **pace})
            if not np.isfinite(loss_of_epoch):
                raise UserError(f"the loss is {loss_of_epoch} in epoch {epoch + 1}; lower `lr`, which is {recipe.lr:g}")
            if each_epoch is not None and first:
                each_epoch(epoch + 1, network)
            if clock.due(0) or epoch + 1 == recipe.epochs:
                keep()
    told = {"training_loss": standing.losses, "training_lr": standing.rates}
    lay_out(network, torch.contiguous_format)
    return Trained(network.eval(), {**training_metadata(source, recipe, settings), **told})


def training_metadata(source: Source, recipe: Recipe, settings: InputSettings) -> dict[str, Any]:
    """What a later reader of the weights needs to know, as far as it is known before the training."""
    return {**recipe.asdict(), "num_classes": source.num_classes, **asdict(settings), "data": source.name}


def _identity(source: Source, recipe: Recipe, settings: InputSettings, network: nn.Module) -> dict[str, Any]:
    """What tells this training from others whose state a file may keep; the network has its initial weights."""
    return {
        **training_metadata(source, recipe, settings),
        "examples": len(source),
        "processes": processes.size(),
        "start": fingerprint(network.state_dict()),
    }


def _keep(stored: Callable[[], None] | None, standing: Standing, clock: _Clock, epochs: int) -> None:
    """Store where the training stands, if it is stored at all; and end it here if the clock says so.

    Raises Interrupted after a signal, and Unfinished if the budget is spent before the end.
    """
    if stored is not None:
        stored()
    if clock.stop:
        raise Interrupted(clock.stop)
    if clock.spent and len(standing.losses) < epochs:
        raise Unfinished(len(standing.losses), standing.step)
    clock.last = time.monotonic()


@contextmanager
def _seeded(device: torch.device, *seed: int) -> Iterator[None]:
    """`seeded`, including the device's generator."""
    with seeded(*seed), ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(torch.random.fork_rng([device]))
            stack.enter_context(torch.cuda.device(device))
            torch.cuda.manual_seed(torch.initial_seed())
        yield


def _layout(network: nn.Module, settings: InputSettings) -> torch.memory_format:
    """Channels last if the network has convolutions and its code runs with it; a view may need the channels first.

    On a CPU a ResNet-20 then takes a fifth more images per second.
    """
    if not any(isinstance(m, nn.Conv2d) for m in network.modules()):
        return torch.contiguous_format
    trial = copy.deepcopy(network).eval()
    lay_out(trial, torch.channels_last)
    p = next(trial.parameters())
    x = p.new_zeros(2, settings.in_channels, settings.image_size, settings.image_size)
    try:
        with seeded(0), torch.no_grad():
            trial(x.contiguous(memory_format=torch.channels_last))
    except Exception:  # if the layout is not the cause, the first step raises again
        return torch.contiguous_format
    return torch.channels_last


def _epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    draw: Batches,
    standing: Standing,
    epoch: int,
    clock: _Clock,
    keep: Callable[[], None],
) -> dict[str, str]:
    """Take the steps of an epoch that are left, each counted in `standing`; `keep` is called when the clock is due.

    Returns the pace of the steps, as the progress bar shows it.
    """
    device, recipe = draw.device, draw.recipe
    # On the device: a copy at every step would wait for it.
    total = torch.tensor(standing.total, dtype=torch.float64, device=device)
    seen, waited, began = 0, 0.0, time.perf_counter()
    with _seeded(device, recipe.seed, epoch, *([processes.rank()] if processes.size() > 1 else [])):
        if standing.draws is not None:
            set_random_states(standing.draws, device)
        batches = draw.epoch(epoch, standing.step)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            x, y = batch
            loss = _step(network, optimizer, recipe, draw.smoothing, x, y)
            total += loss.double() * len(y)
            standing.examples += len(y)
            standing.step += 1
            seen += len(y)
            if clock.due(standing.step):
                standing.total = float(total)
                keep()
    standing.total = float(total)
    took = time.perf_counter() - began
    return {"images_a_second": f"{seen / took:.0f}", "waited": f"{waited / took:.0%}"}


def _step(
    network: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe, smoothing: float, x: Tensor, y: Tensor
) -> Tensor:
    def backward() -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=recipe.dtype == "bfloat16"):
            logits = outputs(network, x)
        loss = F.cross_entropy(logits.float(), y, label_smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()
        return loss.detach()

    loss = backward()
    with ascended(network, recipe.sam) if recipe.sam else nullcontext():
        if recipe.sam:
            backward()
    if recipe.clip is not None:
        nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
    optimizer.step()
    return loss


class _Clock:
    """When to store: `save_every` seconds after the last time, at Ctrl-C, and when the budget is spent, on which the
    processes agree.

    stop: the signal, if there was one. spent: whether the budget is.
    """

    TOGETHER = 16  # steps from one agreement to the next

    def __init__(self, save_every: float, budget: float | None = None) -> None:
        self.save_every, self.last = save_every, time.monotonic()
        self.ends = np.inf if budget is None else self.last + budget
        self.stop: int | None = None
        self.spent = False

    def due(self, step: int) -> bool:
        if step % self.TOGETHER and processes.size() > 1:
            return False
        now = time.monotonic()
        late, self.spent, self.stop = now - self.last >= self.save_every, now >= self.ends, noted()
        if processes.size() > 1:
            everyone = processes.gathered((late, self.spent, self.stop))
            late, self.spent = (any(each[i] for each in everyone) for i in (0, 1))
            self.stop = next((number for *_, number in everyone if number), None)
        return late or self.spent or self.stop is not None
