"""Gradient and curvature by folds of the examples, for the standard errors that come from the choice of examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.forms import Local, Parts
from landscape.curvature.operators import Curvature, accumulate
from landscape.curvature.penalty import with_penalty
from landscape.objective.clusters import fold_of, jackknife_sem
from landscape.objective.nests import Batch, length
from landscape.objective.objective import CACHED, Objective
from landscape.objective.parameters import flatten, trainable, unflatten
from landscape.runtime.threads import stop_if_asked

FOLDS = 10


@dataclass(frozen=True)
class Moments:
    """v^T H v and ||H v||^2 for a vector v: over all examples and, (F,), over all but those of each fold."""

    first: float
    second: float
    first_without: np.ndarray
    second_without: np.ndarray

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.first + other.first,
            self.second + other.second,
            self.first_without + other.first_without,
            self.second_without + other.second_without,
        )


class FoldedCurvature(Curvature):
    """`Curvature` on the whole frozen data, with each fold of the examples differentiated separately.

    There are up to FOLDS folds of about equal size, and no cluster is in two of them. A product by folds costs no more
    time, since a fold is one chunk or several, but holds FOLDS further vectors (n,).
    keep: keep the graphs of the folds if all examples together fit into one chunk, as `Curvature` keeps its one graph.
    """

    def __init__(
        self, objective: Objective, *, kind: str = "hessian", chunk_size: int | None = None, keep: bool = True
    ) -> None:
        super().__init__(objective, kind=kind, chunk_size=chunk_size)
        size = max(map(length, self._chunks))
        self._folds = _Folds(objective, size)
        self._keep = keep and size >= objective.examples
        self._chunks = list(self._folds) if self._keep else self._folds

    def _cut(self, size: int) -> None:
        self._keep, self._kept = False, None
        self._chunks = self._folds = _Folds(self.objective, size)

    @property
    def folds(self) -> int:
        return self._folds.count

    def no_moments(self) -> Moments:
        """The moments to start a sum from: 0."""
        return Moments(0.0, 0.0, np.zeros(self.folds), np.zeros(self.folds))

    def with_moments(self, v: Tensor) -> tuple[Tensor, Moments]:
        """H v, (n,), and the moments of v."""
        rows = self._by_fold(v)
        self.products += 1
        penalty = with_penalty(self, v[None], torch.zeros_like(v)[None])[0]
        whole = rows.sum(0)
        product = whole + penalty
        without = [_moments(v, rest + penalty) for rest in self._folds.without(rows, whole)]
        first, second = np.array(without).T
        return product, Moments(*_moments(v, product), first, second)

    def _by_fold(self, v: Tensor) -> Tensor:
        """Each fold's part of H v, (F, n), without the penalty."""
        parts = self._parts(v)

        def add(totals: Sequence[Parts], local: Local, kept: bool, chunk: int) -> None:
            accumulate(totals[self._folds.of_chunk[chunk]], local.product(parts, kept))

        return self._summed(v.new_zeros(self.folds, len(v)), add)


def gradient_norm(objective: Objective) -> tuple[float, float]:
    """||grad L|| at the weights of the private copy, penalty included, and its standard error over examples.

    The jackknife holds FOLDS gradients in memory.
    """
    parameters = trainable(objective.model)
    tensors = list(parameters.values())
    folds = _Folds(objective, CACHED if objective.device.type == "cpu" else max(map(length, objective.batches)))
    n = sum(p.numel() for p in tensors)
    rows = torch.zeros(folds.count, n, dtype=objective.dtype, device=objective.device)
    for fold, (x, y) in zip(folds.of_chunk, folds, strict=True):
        stop_if_asked()
        loss = objective.nll_sum(x, y) / objective.units
        part = torch.autograd.grad(loss, tensors, materialize_grads=True)
        torch._foreach_add_(list(unflatten(rows[fold], parameters).values()), part)
    whole, penalty = rows.sum(0), torch.zeros_like(rows[0])
    if objective.penalty.weight_decay:
        loss = objective.penalty.value(dict(objective.model.named_parameters()))
        part = torch.autograd.grad(loss, tensors, materialize_grads=True)
        penalty = flatten(dict(zip(parameters, part, strict=True)))

    def norm(g: Tensor) -> float:
        return float(torch.linalg.vector_norm(g + penalty, dtype=torch.float64))

    return norm(whole), float(jackknife_sem([norm(rest) for rest in folds.without(rows, whole)]))


class _Folds:
    """The examples as (x, y) chunks, fold after fold, each gathered when it is needed."""

    def __init__(self, objective: Objective, size: int) -> None:
        self.objective = objective
        fold = fold_of(objective.clusters, FOLDS, objective.units_of_example)
        self.units = np.bincount(fold, weights=objective.units_of_example).astype(np.int64)
        self.count = len(self.units)
        places = [objective.data.places(np.flatnonzero(fold == f), size) for f in range(self.count)]
        self.of_chunk = [f for f, parts in enumerate(places) for _ in parts]
        self._places = [part for parts in places for part in parts]

    def __iter__(self) -> Iterator[Batch]:
        return map(self.objective.data.at, self._places)

    def share(self, first: int, step: int) -> None:
        """Keep every `step`-th chunk from number `first` on."""
        self.of_chunk, self._places = self.of_chunk[first::step], self._places[first::step]

    def without(self, rows: Tensor, whole: Tensor) -> Iterator[Tensor]:
        """The mean over all units but those of each fold, from the folds' parts (F, n) of the mean over all (n,)."""
        for row, units in zip(rows, self.units, strict=True):
            rest = self.objective.units - int(units)
            yield (whole - row) * (self.objective.units / rest if rest else torch.nan)


def _moments(v: Tensor, product: Tensor) -> tuple[float, float]:
    product = product.double()
    return float(torch.dot(v.double(), product)), float(product.square().sum())
