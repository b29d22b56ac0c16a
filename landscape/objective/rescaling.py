"""Other weights of the same function: channels scaled up in one layer and down in the layer that takes them in.

This is possible if everything between the two layers is positively homogeneous, such as ReLU, or linear, such as the
scale of a LayerNorm before the next layer (Dinh et al. 2017, arXiv:1703.04933, sec. 5; Neyshabur et al. 2015, sec. 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.objective.nests import leaves, rows
from landscape.objective.objective import Objective
from landscape.runtime.arithmetic import true_float32

FACTORS = (0.25, 0.5, 2.0, 4.0)  # powers of 2: multiplying by them is exact in floating point
ROUNDING = 8  # in units of eps times the largest output: by how much outputs may differ, as sums change their order
FELT = 16  # times that: by how much scaling the first layer alone must change the outputs, or the test says nothing
EXAMPLES = 8
CONSUMERS = 3  # the most layers that take in one layer's output, such as queries, keys and values
NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Rescaling:
    """Factors on the weights that leave the network's outputs unchanged.

    factors: by the name of a parameter, in a shape that broadcasts to the parameter's own.
    layers: each rescaled pair, such as "bn1 -> conv2".
    change: the largest measured change of an output, relative to the largest output.
    """

    factors: Mapping[str, Tensor]
    layers: tuple[str, ...]
    change: float

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within the block `model` has the rescaled weights; after it, its own, to the bit."""
        yield from _multiplied(model, self.factors)


def _multiplied(model: nn.Module, factors: Mapping[str, Tensor]) -> Iterator[None]:
    parameters = {name: p for name, p in model.named_parameters() if name in factors}
    before = {name: p.detach().clone() for name, p in parameters.items()}
    try:
        with torch.no_grad():
            for name, p in parameters.items():
                p.mul_(factors[name].to(p))
        yield
    finally:
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(before[name])


def find_rescaling(objective: Objective, seed: int = 0) -> Rescaling | None:
    """A rescaling of as many layers as allow one; None if no layer does.

    Nothing is assumed about the architecture. The channels of every layer with a weight for each channel (linear,
    convolution, norm) are multiplied by random members of FACTORS, and the inputs of the linear layer or convolution
    that runs next (after a norm, also of the next two or three) are divided by them. A pair is kept if it leaves the
    outputs of some examples unchanged while scaling the first layer alone does not.
    """
    model = objective.model
    x = rows(objective.data.stores[0][0], slice(EXAMPLES))

    def outputs(factors: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad(), Rescaling(factors, (), 0.0).applied(model):
            return torch.cat([t.reshape(-1) for t in leaves(objective.outputs(x))])

    with true_float32():
        here = outputs({})
        tolerance = ROUNDING * torch.finfo(objective.dtype).eps

        def change(factors: Mapping[str, Tensor]) -> float:
            return float((outputs(factors) - here).abs().max() / here.abs().max())

        factors: dict[str, Tensor] = {}
        layers = []
        for number, (name, scaled, consumers) in enumerate(_candidates(objective, x)):
            draw = np.random.default_rng([seed, number]).choice(FACTORS, _weight(scaled).shape[0])
            up = _of_outputs(name, scaled, torch.as_tensor(draw))
            if not change(up) > FELT * tolerance:
                continue
            for several in consumers:
                pair = up | {f"{n}.weight": _of_inputs(m, torch.as_tensor(1 / draw)) for n, m in several}
                if change(pair) <= tolerance:
                    factors |= {n: factors[n] * f if n in factors else f for n, f in pair.items()}
                    layers.append(f"{name} -> {', '.join(consumer for consumer, _ in several)}")
                    break
        together = change(factors) if factors else 0.0
    return Rescaling(factors, tuple(layers), together) if layers and together <= tolerance else None


Named = tuple[str, nn.Module]


def _candidates(objective: Objective, x: object) -> Iterator[tuple[str, nn.Module, list[list[Named]]]]:
    """Each layer whose channels can be scaled, with the layers that may take them in: the next, or a few together."""
    order = _as_they_run(objective, x)
    for place, (name, module) in enumerate(order):
        if not _has_channels(module):
            continue
        channels = _weight(module).shape[0]
        after: list[Named] = [
            (n, m) for n, m in order[place + 1 :] if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
        ]
        few = CONSUMERS if isinstance(module, NORMS) else 1
        several = [after[:k] for k in range(1, min(few, len(after)) + 1)]
        yield name, module, [taking for taking in several if all(_takes(m, channels) for _, m in taking)]


def _as_they_run(objective: Objective, x: object) -> list[Named]:
    """The layers that have weights, each once, in the order in which they are called."""
    called: list[Named] = []
    names = {m: name for name, m in objective.model.named_modules()}

    def note(module: nn.Module, *_: object) -> None:
        if (names[module], module) not in called:
            called.append((names[module], module))

    some = [m for m in names if isinstance(getattr(m, "weight", None), nn.Parameter)]
    hooks = [m.register_forward_hook(note) for m in some]
    try:
        with torch.no_grad():
            objective.outputs(x)
    finally:
        for hook in hooks:
            hook.remove()
    return called


def _has_channels(module: nn.Module) -> bool:
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return _weight(module).ndim == 1
    return isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *NORMS))


def _takes(module: nn.Module, channels: int) -> bool:
    return _weight(module).shape[1] % channels == 0 and getattr(module, "groups", 1) == 1


def _weight(module: nn.Module) -> Tensor:
    return module.get_parameter("weight")


def _of_outputs(name: str, module: nn.Module, factor: Tensor) -> dict[str, Tensor]:
    weight = _weight(module)
    found = {f"{name}.weight": factor.reshape(-1, *[1] * (weight.ndim - 1))}
    return found if getattr(module, "bias", None) is None else {**found, f"{name}.bias": factor}


def _of_inputs(module: nn.Module, factor: Tensor) -> Tensor:
    """The factor along the axis of inputs; a flattened map has one input for each position of a channel."""
    weight = _weight(module)
    each = factor.repeat_interleave(weight.shape[1] // len(factor))
    return each.reshape(1, -1, *[1] * (weight.ndim - 2))
