"""The loss over a plane: where the network stands at coordinates, and what is evaluated there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from landscape.objective.batchnorm import recalibrated
from landscape.objective.nests import length, rows
from landscape.objective.objective import Evaluation, Objective
from landscape.objective.parameters import Direction, displaced
from landscape.planes.plane import Plane
from landscape.runtime.arithmetic import true_float32

DTYPES = {"float32": None, "bfloat16": torch.bfloat16}
ACTIVATION_BYTES = 4 << 30  # what the forward passes of points computed side by side hold at most, about


@dataclass(frozen=True)
class Slice:
    """An objective over a plane through its network.

    Parameters
    ----------
    objective
        The loss.
    plane
        The directions.
    batchnorm
        "stored", the statistics that the network was trained with; or "recalibrated", gathered anew at each point from
        the frozen data, batch by batch as they are cut, at the cost of one more pass.
    dtype
        Of the network's products: "float32", whatever the objective's own is, or "bfloat16".
    """

    objective: Objective
    plane: Plane
    batchnorm: str = "stored"
    dtype: str = "float32"

    @property
    def moves(self) -> list[Direction]:
        """What moves along each direction: parameters, and the buffers of a plane towards checkpoints."""
        buffers = self.plane.buffers or ({},) * self.plane.dims
        return [{**d, **b} for d, b in zip(self.plane.directions, buffers, strict=True)]

    @contextmanager
    def at(self, coordinates: Sequence[float]) -> Iterator[Objective]:
        """Within the block the network, of this thread's own objective, which is given, stands at these coordinates."""
        mine = self.objective.in_this_thread()
        with true_float32(), displaced(mine.model, self.moves, coordinates):
            if self.batchnorm == "stored":
                yield mine
            else:
                with recalibrated(mine):
                    yield mine

    def evaluate(self, coordinates: Sequence[float], *, exactly: bool = False) -> Evaluation:
        """The objective at a point; `exactly` whatever `dtype` says."""
        with self.at(coordinates) as here:
            return here.evaluate(autocast=None if exactly else self.autocast)

    @property
    def autocast(self) -> torch.dtype | None:
        """What the network's products are computed in, if not in the objective's own dtype."""
        return DTYPES[self.dtype]

    def penalty(self, coordinates: Sequence[float]) -> float:
        """The penalty there, which needs no data."""
        with displaced(self.objective.model, self.moves, coordinates):
            return float(self.objective.penalty_value())

    def config(self) -> dict[str, Any]:
        """What fixes the numbers."""
        return {"plane": self.plane.config, "objective": self.objective.config()}


def worker_count(objective: Objective) -> int:
    """Points side by side: as many as torch has threads on a CPU, while ACTIVATION_BYTES hold four of the largest
    output in each; one on a GPU.
    """
    if objective.device.type != "cpu" or torch.get_num_threads() == 1:
        return 1
    largest = 1

    def weigh(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.untyped_storage().nbytes())

    hooks = [m.register_forward_hook(weigh) for m in objective.model.modules()]
    try:
        with torch.inference_mode():
            objective.outputs(rows(objective.batches[0][0], slice(1)))
    finally:
        for hook in hooks:
            hook.remove()
    examples = max(map(length, objective.batches))
    return int(max(1, min(torch.get_num_threads(), ACTIVATION_BYTES // (4 * largest * examples))))
