"""The feature map after every block of a network, in order, for one mini-batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from landscape.features.maps import Layout, Maps, guessed, layout_of
from landscape.models.blocks import MAPS, Block, blocks
from landscape.objective.folding import unfolded
from landscape.objective.nests import Nest, leaves, rows
from landscape.runtime.arithmetic import true_float32
from landscape.runtime.errors import UserError, near_matches
from landscape.runtime.memory import give_back

if TYPE_CHECKING:
    import numpy as np

    from landscape.objective.objective import Objective

LARGE = 2**20  # bytes of a feature map from which on malloc's keeping them matters
BY_NAME = "module"  # the type of a place given by the name of its module
TYPES = (*MAPS, BY_NAME)


@dataclass(frozen=True)
class Place:
    """A block after which the feature map is taken.

    Attributes
    ----------
    name
        The name of the network's submodule.
    type
        One of TYPES.
    stage
        0 for the stem, then from 1; always 0 if modules are named.
    channels, height, width
        The size of the feature map after the block.
    same_size
        Whether the map before the block has this height and width.
    residual
        Whether the block adds a branch to its input.
    """

    name: str
    type: str
    stage: int
    channels: int
    height: int
    width: int
    same_size: bool
    residual: bool


@dataclass(frozen=True)
class Features:
    """The feature maps around one block for a mini-batch.

    Attributes
    ----------
    number
        The number of the block, from 0.
    stream
        The feature map after the block, with its skip connection.
    before
        The feature map before it; None for a stem, and if modules are named.
    branch
        What the block adds to its input; None if it adds nothing.
    """

    number: int
    stream: Maps
    before: Maps | None = None
    branch: Maps | None = None


class Capture:
    """The blocks of the network of an `Objective`, and their feature maps for its examples.

    The network is the objective's private copy, in eval mode: the caller's is not touched. The arithmetic is that of
    the objective, without autocast and without TF32; nothing is differentiated.

    Parameters
    ----------
    objective
        The network and its examples.
    modules
        For a network whose blocks are not known, or to look at other places: names of modules, or patterns with * and
        ?, whose outputs are the feature maps. They have no branch, and the map before them is not recorded.

    Attributes
    ----------
    places
        The blocks in order, without the head, which gives logits.

    Raises
    ------
    UserError
        If the blocks are not known and no modules are named; if a pattern matches no module, or one that is called
        twice or gives no feature map.
    """

    def __init__(self, objective: Objective, modules: str | Sequence[str] | None = None) -> None:
        self.objective = objective
        self._named = _matching(objective.model, modules)
        self._blocks: list[Block] = []
        self._layout: Layout | None = None
        if not self._named:
            try:
                self._blocks = [b for b in blocks(objective.model) if b.type != "head"]
            except ValueError as e:
                raise UserError(f"{e}; name the modules to look at, such as modules='layer*.*'") from e
            self._layout = layout_of(objective.model)
        first = rows(objective.batches[0][0], slice(1))
        self._order: list[str] = []
        self.places = [self._place(features) for features in self(first)]

    def __call__(self, x: Nest) -> Iterator[Features]:
        """The feature maps of the blocks for a batch's inputs, one block after another."""
        with _plain(self.objective.device):
            if self._named:
                outputs = self._hooked(x)
        if self._named:
            yield from (Features(i, self._apart(name, outputs[name])) for i, name in enumerate(self._order))
        else:
            yield from self._chained(x)

    def batches(self, examples: np.ndarray, size: int) -> Iterator[Nest]:
        """The inputs of these examples, whose numbers are ascending, at most `size` at a time."""
        data = self.objective.data
        for place in data.places(examples, size):
            yield data.at(place)[0]

    def module(self, number: int) -> nn.Module:
        """The module of a place; that of a block maps the feature map before it to the one after it."""
        return self._named[self._order[number]] if self._named else self._blocks[number].module

    def block(self, number: int) -> Block | None:
        """The block of a place, with its branch and its skip connection; None if modules are named."""
        return self._blocks[number] if self._blocks else None

    def _chained(self, x: Nest) -> Iterator[Features]:
        if not isinstance(x, Tensor):
            raise UserError("the blocks take one tensor of images; for a network with other inputs, name its `modules`")
        for number, block in enumerate(self._blocks):
            with _plain(self.objective.device):
                branch = None
                if block.branch is None or block.skip is None or block.after is None:
                    after = block.module(x)
                else:
                    branch = block.branch(x)
                    after = block.after(block.skip(x) + branch)
            yield Features(
                number,
                self._apart(block.name, after),
                None if number == 0 else self._apart(block.name, x),
                None if branch is None else self._apart(block.name, branch),
            )
            x = after
            if after.device.type == "cpu" and after.nbytes >= LARGE:
                give_back()

    def _hooked(self, x: Nest) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(_: nn.Module, __: object, output: Nest) -> None:
                tensors = [t for t in leaves(output) if isinstance(t, Tensor)]
                if name in found or not tensors:
                    why = "is called more than once for a batch" if name in found else "does not give a tensor"
                    raise UserError(f"module {name} {why}; name other modules")
                found[name] = tensors[0]

            return hook

        with ExitStack() as stack, unfolded(self.objective.model):
            for name, module in self._named.items():
                stack.callback(module.register_forward_hook(keep(name)).remove)
            self.objective.outputs(x)
        if not found:
            raise UserError(f"the network does not call {', '.join(self._named)}; name modules that it calls")
        self._order = self._order or list(found)
        return found

    def _apart(self, name: str, x: Tensor) -> Maps:
        return (self._layout or guessed(x, name)).apart(x)

    def _place(self, features: Features) -> Place:
        _, channels, height, width = features.stream.positions.shape
        before = features.before
        same = before is not None and before.positions.shape[2:] == (height, width)
        known = self._blocks[features.number] if self._blocks else None
        name, block_type, stage = (
            (known.name, known.type, known.stage) if known else (self._order[features.number], BY_NAME, 0)
        )
        return Place(name, block_type, stage, channels, height, width, same, features.branch is not None)


@contextmanager
def _plain(device: torch.device) -> Iterator[None]:
    """No gradients and no lower precision, whatever context the caller is in."""
    with torch.inference_mode(), true_float32(), torch.autocast(device.type, enabled=False):
        yield


def _matching(model: nn.Module, patterns: str | Sequence[str] | None) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    known = {name: module for name, module in model.named_modules() if name}
    for pattern in [patterns] if isinstance(patterns, str) else patterns or ():
        these = {name: module for name, module in known.items() if fnmatchcase(name, pattern)}
        if not these:
            raise UserError(f"modules={pattern!r} names no module of the network; {near_matches(pattern, list(known))}")
        found |= these
    return found
