"""Which network the weights in a file are of, in whose names and with which arguments; or else what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from landscape.checkpoints import mismatch
from landscape.checkpoints.build import Build, Shapes, builder, shapes_of
from landscape.checkpoints.dialects import readings
from landscape.models import list_models
from landscape.runtime.errors import a_few

IMAGE_SIZES = (32, 224, 8, 16, 28, 64, 96, 128, 160, 192, 240, 256, 288, 299, 320, 384, 448, 512)
SIZES_TOLD_APART = (32, 224)  # for small images a network may have other parts than for large ones
ARGUMENTS = ("num_classes", "image_size", "in_channels")


@dataclass(frozen=True)
class Fit:
    """Weights beside one network.

    Attributes
    ----------
    model
        The name of the network.
    dialect
        Whose names the weights came in; None for the network's own.
    state
        The weights in the network's own names.
    arguments
        What the network is made with, as inferred from the weights.
    wanted
        The shape of each key of the network.
    prefix
        What was removed from the names.
    held
        The shape of each key of the weights.
    differing
        The number of keys that are missing, left over or of another shape.
    """

    model: str
    dialect: str | None
    state: Mapping[str, Tensor]
    arguments: dict[str, int | None]
    wanted: Shapes
    prefix: str = ""

    @property
    def held(self) -> Shapes:
        return shapes_in(self.state)

    @property
    def differing(self) -> int:
        return mismatch.count(self.wanted, self.held)

    def __str__(self) -> str:
        """The network with its arguments, such as "resnet_50 (100 classes, 3 input channels)"."""
        labels = {"num_classes": "classes", "image_size": "px", "in_channels": "input channels"}
        said = [f"{n} {labels[k]}" for k, n in self.arguments.items() if n is not None]
        if self.dialect:
            said.append(f"in the names of {self.dialect}")
        return f"{self.model} ({', '.join(said)})" if said else self.model

    def differences(self) -> str:
        """What differs, in words where the names have a meaning, and by key; "" if the weights fit."""
        words = mismatch.in_words(self.wanted, self.held)
        return "; ".join(p for p in (", ".join(words), mismatch.in_full(self.wanted, self.held)) if p)


def shapes_in(state: Mapping[str, Tensor]) -> Shapes:
    """The shapes that must agree: those of all tensors except BatchNorm's counters of batches."""
    return _without_counters({k: tuple(t.shape) for k, t in state.items()})


def best_reading(
    build: Build, name: str, spellings: Sequence[tuple[str, Mapping[str, Tensor]]], asked: Mapping[str, int | None]
) -> Fit | None:
    """The weights beside one network, in the names that differ least from its own; None if the network cannot be made.

    spellings: the weights with and without prefixes, as `Checkpoint` has them.

    asked: num_classes, image_size and in_channels; None for those that are to be inferred from the weights.
    """
    given = {k: v for k, v in asked.items() if v is not None}
    usual = ({"num_classes": 10, "image_size": size, "in_channels": 3, **given} for size in SIZES_TOLD_APART)
    known = [shapes for arguments in usual if (shapes := shapes_of(build, arguments))]
    if not known:
        return None

    def strangers(keys: Iterable[str]) -> int:
        return min(len(shapes.keys() ^ set(keys)) for shapes in known)

    readable = [(prefix, *reading) for prefix, state in reversed(spellings) for reading in readings(state)]
    prefix, dialect, read = min(readable, key=lambda reading: strangers(reading[2]))
    arguments = infer_arguments(build, read, asked)
    tried = [arguments]
    if arguments["image_size"] is None:  # weights that fit at no size are compared at the nearer of two
        tried += [{**arguments, "image_size": size} for size in SIZES_TOLD_APART]
    made = ((told, shapes_of(build, told)) for told in tried)
    fits = [Fit(name, dialect, read, told, _without_counters(wanted), prefix) for told, wanted in made if wanted]
    return min(fits, key=lambda fit: fit.differing) if fits and fits[0].arguments is arguments else None


def fitting(state: Mapping[str, Tensor]) -> list[Fit]:
    """The networks of `list_models` whose keys and shapes are those of the weights, in the names of any dialect."""
    fits = [_fit(name, state) for name in list_models() if _in_common(name, state) == 1]
    return [fit for fit in fits if fit is not None and not fit.differing]


def closest(state: Mapping[str, Tensor]) -> Fit | None:
    """The network of `list_models` from which the weights differ least; None if none shares over half of the keys."""
    shared = {name: _in_common(name, state) for name in list_models()}
    likely = sorted((name for name in shared if shared[name] > 0.5), key=lambda name: -shared[name])[:6]
    fits = [fit for name in likely if (fit := _fit(name, state)) is not None]
    return min(fits, key=lambda fit: fit.differing, default=None)


def _fit(name: str, state: Mapping[str, Tensor]) -> Fit | None:
    return best_reading(builder(name)[0], name, [("", state)], dict.fromkeys(ARGUMENTS))


def _in_common(name: str, state: Mapping[str, Tensor]) -> float:
    """The share of the keys of network and weights together that both have: 1 if the keys are the same."""
    best = 0.0
    for _, read in readings(state):
        held = {k for k in read if not _counter(k)}
        for wanted in _usual_keys(name):
            best = max(best, len(held & wanted) / max(1, len(held | wanted)))
    return best


def hint(state: Mapping[str, Tensor], but: str | None = None) -> str:
    """Which of our networks the weights fit, or else the closest one and what differs; "" if that is `but`."""
    fits = fitting(state)
    if fits:
        return f"the weights fit {a_few(fit.model for fit in fits) if len(fits) > 1 else fits[0]}"
    near = closest(state)
    if near is None:
        return "no network of this toolkit has such weights"
    if near.model == but:
        return ""
    return f"the closest of this toolkit's networks is {near}, but for {near.differences()}"


@cache
def _usual_keys(name: str) -> tuple[frozenset[str], ...]:
    made = (shapes_of(builder(name)[0], {"image_size": size}) for size in SIZES_TOLD_APART)
    return tuple(frozenset(_without_counters(shapes)) for shapes in made if shapes)


def _counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")  # older checkpoints do not have them, and evaluation does not use them


def _without_counters(shapes: Shapes) -> Shapes:
    return {k: shape for k, shape in shapes.items() if not _counter(k)}


def infer_arguments(
    build: Build, state: Mapping[str, Tensor], asked: Mapping[str, int | None]
) -> dict[str, int | None]:
    """num_classes, image_size and in_channels, each as asked or else inferred from the shapes of `state`.

    If the shape of a weight depends on an argument, it shows the argument's value. To find such a weight, the network
    is made twice, without memory, with two values of the argument; where the two shapes differ, the shape in the
    checkpoint is the value that it was made with. An argument that no weight shows stays None.
    """
    arguments = dict(asked)
    for name, (a, b) in {"num_classes": (10, 11), "in_channels": (3, 1)}.items():
        if arguments[name] is None:
            arguments[name] = _read_off(build, state, arguments, name, a, b)
    if arguments["image_size"] is None:
        arguments["image_size"] = _image_size(build, state, arguments)
    return arguments


def _read_off(
    build: Build, state: Mapping[str, Tensor], arguments: Mapping[str, Any], name: str, a: int, b: int
) -> int | None:
    one, two = (shapes_of(build, {**arguments, name: value}) for value in (a, b))
    if one is None or two is None:
        return None
    for key, shape in one.items():
        if key in state and key in two and len(shape) == len(two[key]) == state[key].ndim:
            for axis, (m, n) in enumerate(zip(shape, two[key], strict=True)):
                if (m, n) == (a, b):
                    return int(state[key].shape[axis])
    return None


def _image_size(build: Build, state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> int | None:
    """The first of the usual sizes at which the weights have the network's shapes; None if all or none of them fit."""

    def fits(size: int) -> bool:
        shapes = shapes_of(build, {**arguments, "image_size": size}) or {}
        shared = [key for key in shapes if key in state]
        return bool(shared) and all(shapes[key] == tuple(state[key].shape) for key in shared)

    found = next(filter(fits, IMAGE_SIZES), None)
    return None if found == IMAGE_SIZES[0] and fits(2 * found) else found
