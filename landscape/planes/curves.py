"""A curved path between two networks: a quadratic Bezier curve whose control point is trained (Garipov et al. 2018)."""

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

MOMENTS, EPSILON = (0.9, 0.999), 1e-8  # of Adam, with the values of Kingma & Ba (2015)


@dataclass
class Bend:
    """The control point of a curve, relative to the start of the curve, and the state of its training.

    Attributes
    ----------
    control
        theta - w_1, (n,), over the trainable parameters.
    first, second
        The moments of its gradient that Adam keeps, (n,).
    steps
        The number of steps taken so far.
    """

    control: Tensor
    first: Tensor
    second: Tensor
    steps: int = 0

    @classmethod
    def straight(cls, delta: Tensor) -> Bend:
        """The control point halfway along `delta` = w_2 - w_1, where the curve is the straight line."""
        return cls(delta / 2, torch.zeros_like(delta), torch.zeros_like(delta))


def place(t: float) -> tuple[float, float]:
    """phi(t) = (1 - t)^2 w_1 + 2 t (1 - t) theta + t^2 w_2, as coordinates along w_2 - w_1 and theta - w_1."""
    return t * t, 2 * t * (1 - t)


def curved_plane(ends: Plane, control: Direction) -> Plane:
    """The plane that contains a Bezier curve, whose point at t has the coordinates `place(t)`.

    On the curve, buffers such as BatchNorm statistics are (1 - t) b_1 + t b_2.

    ends: the line between the ends of the curve. control: theta - w_1, by parameter.
    """
    (delta,), buffers = ends.directions, (ends.buffers or ({},))[0]
    halfway = {name: b / 2 for name, b in buffers.items()}
    return Plane((delta, control), {**ends.config, "directions": "curve"}, (buffers, halfway))


def trained_bend(
    objective: Objective, ends: Plane, bend: Bend, examples: np.ndarray, until: int, *,
    steps: int, lr: float, batch_size: int, seed: int, batch_statistics: bool,
) -> Bend:  # fmt: skip
    """The bend after `until` of `steps` training steps: min over theta of E_t L(phi(t)), with t uniform on [0, 1].

    The minimisation (Garipov et al. 2018, eq. 4) is by Adam on mini-batches. The learning rate stays at lr for half of
    the steps and then falls to a hundredth of it by nine tenths of them (their appendix A.3). Step k draws t and its
    mini-batch by (seed, k), so that training may stop and continue at any step.

    Parameters
    ----------
    objective
        The loss. Its private copy of the network is moved during the training, and then put back.
    ends
        The line between the ends of the curve.
    bend
        The bend to start from.
    examples
        The numbers of the examples to train on.
    until
        The number of the step to stop after.
    steps
        The number of steps of the whole training.
    lr
        The learning rate.
    batch_size
        The number of examples in a mini-batch.
    seed
        The seed of the draws.
    batch_statistics
        Whether BatchNorm normalises by the statistics of the mini-batch, as in training, or by the stored ones.

    Returns
    -------
    Bend
        The trained bend.
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
    """The share of the learning rate that applies once the share `done` of the steps is done."""
    return 1.0 if done <= 0.5 else 0.01 if done > 0.9 else 1.0 - (done - 0.5) / 0.4 * 0.99


@contextmanager
def _batch_statistics(objective: Objective) -> Iterator[None]:
    """Within the block BatchNorm normalises by the mini-batch's own statistics, and stores none of them."""
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
