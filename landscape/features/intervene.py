"""A network without one of its blocks. The network itself is not changed; the removed part is just not computed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from landscape.features.capture import BY_NAME, Capture
from landscape.models.blocks import Block, blocks
from landscape.objective.folding import unfolded
from landscape.objective.nests import Nest, leaves, rows
from landscape.objective.networks import called, one_tensor
from landscape.runtime.arithmetic import true_float32
from landscape.runtime.errors import UserError, a_few

if TYPE_CHECKING:
    from landscape.objective.objective import Objective


@dataclass(frozen=True)
class Removable:
    """A block without which the network can still be computed.

    Attributes
    ----------
    name, type, stage
        Those of the block, as in `landscape.features.capture.Place`.
    removal
        branch: what the block adds is left out, and its skip connection (in the first block of a stage its shortcut)
        and what follows the sum remain. identity: a block without a skip connection returns its input.
    """

    name: str
    type: str
    stage: int
    removal: Literal["branch", "identity"]


class Lesions:
    """The network of an `Objective`, with and without each of its blocks.

    Parameters
    ----------
    objective
        The network, its private copy in eval mode, and its examples.
    modules
        For a network whose blocks are not known, or to remove other parts: names or patterns of modules whose output
        has the shape of their input; each is replaced by the identity.

    Attributes
    ----------
    removable
        The removable blocks in order: all but the stem, the head, and blocks that change the map's shape without a
        shortcut.

    Raises
    ------
    UserError
        If the blocks are not known and no modules are named, or if no block can be removed.
    """

    def __init__(self, objective: Objective, modules: str | Sequence[str] | None = None) -> None:
        self.objective = objective
        self._blocks: list[Block] = []
        self._named: dict[str, nn.Module] = {}
        first = rows(objective.batches[0][0], slice(1))
        with torch.inference_mode(), true_float32():
            if modules is None:
                self._blocks = _known(objective.model)
                self._at, self.removable = self._removable_blocks(first)
            else:
                capture = Capture(objective, modules)
                self._named = {place.name: capture.module(i) for i, place in enumerate(capture.places)}
                self.removable = self._removable_modules(first)
        if not self.removable:
            raise UserError("no block of the network can be removed: none adds to its input or keeps its shape")

    def outputs(self, x: Nest, without: int | None = None) -> Nest:
        """The outputs for a batch's inputs; without: the place in `removable` of the block to leave out."""
        if self._named:
            return self._hooked(x, without)
        removed = None if without is None else self._at[without]
        return self.objective.task.outputs(lambda inputs: self._chained(inputs, removed), x)

    def _chained(self, x: Nest, removed: int | None) -> Tensor:
        for number, block in enumerate(self._blocks):
            if number != removed:
                x = block.module(x)
            elif block.branch is not None and block.skip is not None and block.after is not None:
                x = block.after(block.skip(x))
        return one_tensor(x)

    def _hooked(self, x: Nest, without: int | None) -> Nest:
        with ExitStack() as stack, unfolded(self.objective.model):
            if without is not None:
                module = self._named[self.removable[without].name]
                stack.callback(module.register_forward_hook(lambda _, inputs, __: inputs[0]).remove)
            return self.objective.outputs(x)

    def _removable_blocks(self, x: Nest) -> tuple[list[int], list[Removable]]:
        at, found = [], []
        for number, block in enumerate(self._blocks):
            before, x = x, called(block.module, x)
            same = isinstance(before, Tensor) and isinstance(x, Tensor) and before.shape == x.shape
            if block.type in ("stem", "head") or (block.branch is None and not same):
                continue
            at.append(number)
            removal: Literal["branch", "identity"] = "identity" if block.branch is None else "branch"
            found.append(Removable(block.name, block.type, block.stage, removal))
        return at, found

    def _removable_modules(self, x: Nest) -> list[Removable]:
        shapes: dict[str, bool] = {}
        with ExitStack() as stack, unfolded(self.objective.model):
            for name, module in self._named.items():

                def keep(_: nn.Module, inputs: tuple[Nest, ...], output: Nest, name: str = name) -> None:
                    shapes[name] = bool(inputs) and _shapes(inputs[0]) == _shapes(output)

                stack.callback(module.register_forward_hook(keep).remove)
            self.objective.outputs(x)
        if changed := [name for name in self._named if not shapes[name]]:
            raise UserError(
                f"{a_few(changed)} cannot be replaced by the identity, since input and output differ in shape; name "
                "modules that keep the shape"
            )
        return [Removable(name, BY_NAME, 0, "identity") for name in self._named]


def _shapes(x: Nest) -> list[tuple[int, ...]]:
    return [tuple(t.shape) for t in leaves(x) if isinstance(t, Tensor)]


def _known(model: nn.Module) -> list[Block]:
    try:
        return blocks(model)
    except ValueError as e:
        raise UserError(f"{e}; name the modules to remove, such as modules='layer*.*'") from e
