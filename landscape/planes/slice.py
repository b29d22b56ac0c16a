"""The loss over a plane: the network placed at coordinates, and what is evaluated there."""

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
ACTIVATION_BYTES = 4 << 30  # rough bound on the memory of forward passes of points computed side by side


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
        "stored" for the statistics that the network was trained with; or "recalibrated" for statistics gathered anew at
        each point from the frozen data, in the batches they come in, at the cost of one more pass.
    dtype
        The arithmetic of the network's products: "float32" for the objective's own, whatever that is, or "bfloat16".
    """

    objective: Objective
    plane: Plane
    batchnorm: str = "stored"
    dtype: str = "float32"

    @property
    def moves(self) -> list[Direction]:
        """What moves along each direction: the parameters, and for a plane towards checkpoints the buffers."""
        buffers = self.plane.buffers or ({},) * self.plane.dims
        return [{**d, **b} for d, b in zip(self.plane.directions, buffers, strict=True)]

    @contextmanager
    def at(self, coordinates: Sequence[float]) -> Iterator[Objective]:
        """Within the block, which is given this thread's own objective, the network stands at these coordinates."""
        mine = self.objective.in_this_thread()
        with true_float32(), displaced(mine.model, self.moves, coordinates):
            if self.batchnorm == "stored":
                yield mine
            else:
                with recalibrated(mine):
                    yield mine

    def evaluate(self, coordinates: Sequence[float], *, exactly: bool = False) -> Evaluation:
        """The objective evaluated at a point; with `exactly`, in its own arithmetic whatever `dtype` is."""
        with self.at(coordinates) as here:
            return here.evaluate(autocast=None if exactly else self.autocast)

    @property
    def autocast(self) -> torch.dtype | None:
        """The type that the network's products are computed in; None for the objective's own."""
        return DTYPES[self.dtype]

    def penalty(self, coordinates: Sequence[float]) -> float:
        """The penalty at a point, which needs no data."""
        with displaced(self.objective.model, self.moves, coordinates):
            return float(self.objective.penalty_value())

    def config(self) -> dict[str, Any]:
        """The configurations of the plane and the objective, which determine the numbers."""
        return {"plane": self.plane.config, "objective": self.objective.config()}


def worker_count(objective: Objective) -> int:
    """How many points to compute side by side: 1 on a GPU, and on a CPU up to as many as torch has threads.

    For each point ACTIVATION_BYTES must hold four outputs as large as the largest in the network.
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
