"""The eigenpairs of mini-batches, one by one or in lockstep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from landscape.curvature.lockstep import MiniBatchCurvatures
from landscape.curvature.operators import Curvature
from landscape.linalg.eigenpairs import eigenpairs_in_lockstep
from landscape.linalg.operators import Operators
from landscape.linalg.ritz import RitzPairs
from landscape.linalg.search import Search
from landscape.objective.nests import Batch, alike, stacked
from landscape.objective.objective import Objective
from landscape.runtime.random import gaussian


def minibatch_eigenpairs(
    objective: Objective,
    minibatches: Mapping[int, Batch],
    search: Search,
    *,
    kind: str = "hessian",
    parameters: str | Sequence[str] | None = None,
    seed: int = 0,
    vectors: bool = False,
) -> list[RitzPairs]:
    """The eigenpairs of each of some mini-batches: for one by the kept graph, for several of one shape in lockstep.

    Parameters
    ----------
    objective
        The loss.
    minibatches
        The batches, by number. Number and seed fix the start vector, so that any grouping gives the same result up to
        rounding.
    search
        What to search for. Its k is lowered to the number of parameters if that is smaller.
    kind, parameters
        As in `landscape.Curvature`.
    seed
        The seed of the start vectors.
    vectors
        Whether the pairs come with their vectors.

    Returns
    -------
    list of RitzPairs
        The pairs of each mini-batch, in the order of `minibatches`.
    """
    objective = objective.in_this_thread()
    batch, *others = minibatches.values()
    if not all(alike(batch, other) for other in others):
        groups = [{i: batch} for i, batch in minibatches.items()]
    else:
        groups = [dict(minibatches)]
    found = []
    for group in groups:
        each = {i: Curvature(objective, x, y, kind=kind, parameters=parameters) for i, (x, y) in group.items()}
        starts = torch.stack([start_vector(H.gradient(), seed, i)[None] for i, H in each.items()])
        A: Operators = next(iter(each.values()))
        if len(group) > 1:
            del each, A  # and the graphs they keep
            x, y = stacked(list(group.values()))
            A = MiniBatchCurvatures(objective, x, y, kind=kind, parameters=parameters)
        found += eigenpairs_in_lockstep(A, starts, search.within(starts.shape[-1]), vectors=vectors)
    return found


def start_vector(gradient: torch.Tensor, seed: int, i: int) -> torch.Tensor:
    """A start (n,) of equal parts of a random vector and, unless it is 0, the gradient.

    The gradient leans towards the top eigenvectors: on a ResNet-20 it saves 6 % of the products. The eigenvectors of
    the previous mini-batch save none there, and results would depend on it; with this start they depend on (seed, i)
    only.
    """
    noise = gaussian(gradient, seed, i)
    norm = torch.linalg.vector_norm(gradient)
    start = noise / torch.linalg.vector_norm(noise)
    leaning = start + gradient / norm
    # With few parameters two unit vectors may cancel; with one parameter they often do.
    return leaning if torch.linalg.vector_norm(leaning) > 0.5 else start
