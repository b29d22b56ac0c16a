"""How many mini-batches fit at once: into a GPU's memory, or beside each other on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from landscape.curvature.lockstep import MiniBatchCurvatures
from landscape.curvature.operators import Curvature
from landscape.linalg.krylov import rows_held
from landscape.objective.nests import Batch, stacked
from landscape.objective.objective import Objective

GRAPH_BYTES = 4 << 30  # bound on the memory of the graphs of mini-batches computed side by side


def worker_count(objective: Objective, minibatches: Sequence[Batch], kind: str) -> int:
    """How many mini-batches to compute side by side: a thread each, while their graphs fit GRAPH_BYTES; 1 on a GPU."""
    most = min(torch.get_num_threads(), len(minibatches))
    if objective.device.type != "cpu" or most == 1:
        return 1
    saved: dict[int, int] = {}

    def weigh(t: torch.Tensor) -> torch.Tensor:
        saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(weigh, lambda t: t):
        Curvature(objective, *minibatches[0], kind=kind).gradient()
    return int(max(1, min(most, GRAPH_BYTES // max(1, sum(saved.values())))))


def group_size(
    objective: Objective, batch_size: int, k: int, rows: int, kind: str, parameters: str | Sequence[str] | None
) -> int:
    """How many mini-batches fill half of a GPU's free memory, each with a product and a basis of `rows` vectors.

    1 on other devices and for a network that cannot be vectorised: one at a time, a kept graph is faster.
    """
    if objective.device.type != "cuda":
        return 1
    x, y = stacked([objective.minibatches(batch_size, 1)[0]])
    H = MiniBatchCurvatures(objective, x, y, kind=kind, parameters=parameters)
    n = sum(p.numel() for p in H.parameters.values())
    v = next(iter(H.parameters.values())).new_ones(1, n)
    torch.cuda.reset_peak_memory_stats(objective.device)
    before = torch.cuda.memory_allocated(objective.device)
    H(v, [0])
    product = torch.cuda.max_memory_allocated(objective.device) - before
    free, _ = torch.cuda.mem_get_info(objective.device)
    return that_fit(free // 2, product, k, rows, v) if H.vectorised else 1


def that_fit(memory: int, product: int, k: int, rows: int, v: torch.Tensor) -> int:
    """How many mini-batches fit into `memory` bytes, 1 to 64.

    Each takes the bytes of a product and vectors like v: those of a Krylov basis that grows up to `rows`, k
    eigenvectors, and four that a step works with.
    """
    vectors = rows_held(min(rows, v.numel())) + k + 4
    return int(max(1, min(64, memory // (product + vectors * v.numel() * v.element_size()))))
