"""The progress of a training, within an epoch or between two, and the file that keeps it."""

from __future__ import annotations

import json
import os
import pickle
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from landscape.runtime import processes
from landscape.runtime.errors import UserError
from landscape.runtime.files import replacing


class Unfinished(Exception):
    """The budget of a training is spent; it is stored after so many epochs and steps of one more, its arguments."""


@dataclass
class Standing:
    """How far a training has come.

    losses, rates: those of the finished epochs. step: how many steps of the current epoch are finished.
    total, examples: the summed loss and the number of examples of those steps, in this process. draws: the random
    states of this process after them; None for those with which the epoch begins.
    """

    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    step: int = 0
    total: float = 0.0
    examples: int = 0
    draws: Mapping[str, Any] | None = None

    def end_epoch(self, rate: float) -> float:
        """Finish the epoch, and return its mean loss over all processes."""
        shares = processes.gathered((self.total, self.examples))
        self.losses.append(sum(t for t, _ in shares) / sum(n for _, n in shares))
        self.rates.append(rate)
        self.step, self.total, self.examples, self.draws = 0, 0.0, 0, None
        return self.losses[-1]


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of Python's, numpy's, torch's and the device's generators, in types that a weights-only load takes."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.as_tensor(np.asarray(keys, np.int64)), *rest),
        "torch": torch.default_generator.get_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Restore what `random_states` returned."""
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.default_generator.set_state(states["torch"].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["device"].cpu(), device)


def store(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: Mapping[str, Any],
    standing: Standing,
    device: torch.device,
) -> None:
    """Keep all that is needed to continue. Every process calls this with its own part, and the first one writes.

    Raises UserError if the file cannot be written.
    """
    draws = random_states(device) if standing.step else None
    shares = processes.gathered((standing.total, standing.examples, draws))
    if processes.rank() != 0:
        return
    held = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "identity": json.dumps(identity, sort_keys=True),
        "losses": standing.losses,
        "rates": standing.rates,
        "step": standing.step,
        "shares": shares,
    }
    try:
        with replacing(path) as part:
            torch.save(held, part)
    except (OSError, RuntimeError) as e:  # torch's writer raises RuntimeError without a reason
        why = getattr(e, "strerror", None) or "the disk is full, or the file too large"
        raise UserError(f"cannot write {path}: {why}; choose another place") from e


def restored(
    path: str | os.PathLike[str] | None,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: Mapping[str, Any],
    device: torch.device,
) -> Standing:
    """The progress that `path` keeps, with network and optimiser set to their state then; without a file, the start.

    Raises UserError for a file of another training, or for a damaged one.
    """
    if path is None or not Path(path).exists():
        return Standing()
    try:
        held = torch.load(path, map_location=device, weights_only=True)
        there, asked = json.loads(held["identity"]), json.loads(json.dumps(identity))
        if there != asked:
            differences = [f"{k}: {there.get(k)} there, {v} asked" for k, v in asked.items() if there.get(k) != v]
            raise UserError(
                f"{path} is from a training with other settings ({', '.join(differences)}); use the same settings "
                "to continue it, or remove the file to start anew"
            )
        network.load_state_dict(held["network"])
        optimizer.load_state_dict(held["optimizer"])
        standing = Standing(list(held["losses"]), list(held["rates"]))
        if held.get("step"):  # older files were written at the end of an epoch only
            standing.step = held["step"]
            standing.total, standing.examples, standing.draws = held["shares"][processes.rank()]
        return standing
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, EOFError, OSError) as e:
        raise UserError(f"{path} is not the state of such a training, or is damaged; remove it to start anew") from e
