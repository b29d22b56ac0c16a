"""A curved path between two networks: a quadratic Bezier curve whose bend is trained (Garipov et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.objective.folding import unfolded
from landscape.objective.objective import Objective
from landscape.objective.parameters import Direction, displaced, trainable, unflatten
from landscape.planes.plane import Plane
from landscape.runtime.arithmetic import true_float32
from landscape.runtime.threads import stop_if_asked

MOMENTS, EPSILON = (0.9, 0.999), 1e-8  # of Adam, as Kingma & Ba (2015) have them


@dataclass
class Bend:
    """Where the control point of a curve is, from its start, and how its training stands.

    Attributes
    ----------
    control
        theta - w_1, (n,), over the trainable parameters.
    first, second
        The moments of its gradient that Adam keeps, (n,).
    steps
        Taken so far.
    """

    control: Tensor
    first: Tensor
    second: Tensor
    steps: int = 0

    @classmethod
    def straight(cls, delta: Tensor) -> Bend:
        """The control point halfway: the curve is the straight line."""
        return cls(delta / 2, torch.zeros_like(delta), torch.zeros_like(delta))


def place(t: float) -> tuple[float, float]:
    """phi(t) = (1 - t)^2 w_1 + 2 t (1 - t) theta + t^2 w_2, as coordinates along w_2 - w_1 and theta - w_1."""
    return t * t, 2 * t * (1 - t)


def curved_plane(ends: Plane, control: Direction) -> Plane:
    """The plane that a Bezier curve lies in, from the line between its ends: by `place` at t.

    Buffers, such as BatchNorm statistics, move as (1 - t) b_1 + t b_2.
    """
    (delta,), buffers = ends.directions, (ends.buffers or ({},))[0]
    halfway = {name: b / 2 for name, b in buffers.items()}
    return Plane((delta, control), {**ends.config, "directions": "curve"}, (buffers, halfway))


def trained_bend(
    objective: Objective, ends: Plane, bend: Bend, examples: np.ndarray, until: int, *,
    steps: int, lr: float, batch_size: int, seed: int, batch_statistics: bool,
) -> Bend:  # fmt: skip
    """The bend after `until` of `steps` steps: min over theta of E_t L(phi(t)), t uniform on [0, 1] (Garipov et al.
    2018, eq. 4), by Adam on mini-batches, lr kept for half of the steps and then falling to a hundredth by nine tenths
    of them (their appendix A.3). Step k draws t and its mini-batch by (seed, k), so that it may stop anywhere.

    objective: its private copy moves, and is put back. examples: the numbers of those to train on. batch_statistics:
        whether BatchNorm takes those of the mini-batch, as in training, or those that are stored.
    """
    parameters = trainable(objective.model)
    tensors = list(parameters.values())
    (delta,), buffers = ends.directions, (ends.buffers or ({},))[0]
    fixed = {**delta, **buffers}
    halfway = {name: b / 2 for name, b in buffers.items()}
    control, first, second = bend.control.clone(), bend.first.clone(), bend.second.clone()
    with true_float32(), _batch_statistics(objective) if batch_statistics else nullcontext():
        for k in range(bend.steps, until):
            stop_if_asked()
            rng = np.random.default_rng([seed, k])
            t = float(rng.uniform())
            chosen = np.sort(rng.choice(examples, min(batch_size, len(examples)), replace=False))
            along, off = place(t)
            moves: list[Mapping[str, Tensor]] = [fixed, {**unflatten(control, parameters), **halfway}]
            with displaced(objective.model, moves, [along, off]):
                gradient = off * _gradient(objective, chosen, tensors)
            first.lerp_(gradient, 1 - MOMENTS[0])
            second.lerp_(gradient.square(), 1 - MOMENTS[1])
            a, b = (m / (1 - decay ** (k + 1)) for m, decay in zip((first, second), MOMENTS, strict=True))
            control -= lr * _share(k / max(steps, 1)) * a / (b.sqrt() + EPSILON)
    return Bend(control, first, second, max(until, bend.steps))


def _gradient(objective: Objective, chosen: np.ndarray, tensors: list[Any]) -> Tensor:
    batches = [objective.data.at(place) for place in objective.data.places(chosen, len(chosen))]
    units = sum(objective.units_in(y) for _, y in batches)
    loss = sum((objective.nll_sum(x, y) for x, y in batches), torch.zeros((), device=objective.device)) / units
    loss = loss + objective.penalty.value(dict(objective.model.named_parameters()))
    parts = torch.autograd.grad(loss, tensors, materialize_grads=True)
    return torch.cat([part.reshape(-1) for part in parts])


def _share(done: float) -> float:
    """Of the learning rate, once this share of the steps is done."""
    return 1.0 if done <= 0.5 else 0.01 if done > 0.9 else 1.0 - (done - 0.5) / 0.4 * 0.99


@contextmanager
def _batch_statistics(objective: Objective) -> Iterator[None]:
    """Within the block BatchNorm normalises by the mini-batch's own statistics, and keeps none of them."""
    norms = [m for m in objective.model.modules() if isinstance(m, _BatchNorm)]
    before = [(m.momentum, None if m.num_batches_tracked is None else m.num_batches_tracked.clone()) for m in norms]
    try:
        with unfolded(objective.model):
            for m in norms:
                m.momentum = 0.0
                m.train()
            yield
    finally:
        for m, (momentum, seen) in zip(norms, before, strict=True):
            m.momentum = momentum
            m.eval()
            if seen is not None and m.num_batches_tracked is not None:
                m.num_batches_tracked.copy_(seen)
