"""Products that the processes of torchrun make together: each differentiates its share of the chunks.

The first process leads: it searches, keeps states and decides when to stop; the others wait for vectors, multiply them
by their share, and have no say. So no two processes can come to disagree on what is next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from landscape.curvature.jackknife import FoldedCurvature
from landscape.curvature.operators import Curvature
from landscape.objective.objective import Objective
from landscape.runtime import processes

Found = TypeVar("Found")
END, GRADIENT, BY_FOLD = -1, 0, -2  # in the place of a number of rows


def by_all(
    search: Callable[[Curvature], Found],
    objective: Objective,
    *,
    kind: str = "hessian",
    parameters: str | Sequence[str] | None = None,
    chunk_size: int | None = None,
) -> Found:
    """What `search` finds with the curvature of the whole frozen data, whose products all processes make together.

    Parameters
    ----------
    search
        Called by the first process alone; what it returns or raises, all processes return or raise.
    objective, kind, parameters, chunk_size
        As `landscape.Curvature` has them. Without a chunk_size there is at least one chunk for each process.
    """
    of: dict[str, Any] = {"kind": kind, "parameters": parameters, "chunk_size": chunk_size}
    if processes.size() == 1:
        return search(Curvature(objective, **of))
    H = Spread(objective, **of)
    return led(lambda: search(H), H)


def led(search: Callable[[], Found], H: Together) -> Found:
    """What `search`, which the first process alone carries out, finds by products with H of all processes.

    What it returns or raises, all processes return or raise.
    """
    found: Found | None = None
    raised: BaseException | None = None
    if processes.rank():
        H.serve()
    else:
        try:
            found = search()
        except BaseException as e:
            raised = e
        H.dismiss()
    found, raised = processes.from_first((found, raised))
    if raised is not None:
        raise raised
    return found  # type: ignore[return-value]


class Together(Curvature):
    """A curvature of the whole frozen data, of which this process has a share. Its products are asked of the first
    process while the others `serve`; they equal those of one process up to the order of the sum.
    """

    def serve(self) -> None:
        """Multiply what the first process sends, until it dismisses this one."""
        while (rows := self._told()) != END:
            if rows == GRADIENT:
                self._joined(super().gradient())
                continue
            V = self.zeros().new_empty(max(rows, 1), self.n)
            processes.spread(V)
            self._joined(self._share_by_fold(V[0]) if rows == BY_FOLD else super()._product(V))

    def dismiss(self) -> None:
        """Let the other processes go on."""
        self._tell(END)

    def gradient(self) -> Tensor:
        """The gradient (n,) of the mean NLL, without the penalty."""
        self._tell(GRADIENT)
        return self._joined(super().gradient())

    def _product(self, V: Tensor) -> Tensor:
        self._tell(len(V))
        processes.spread(V.contiguous())
        return self._joined(super()._product(V))

    def _share_by_fold(self, v: Tensor) -> Tensor:
        raise NotImplementedError

    def _joined(self, share: Tensor) -> Tensor:
        processes.sum_up(share)
        return share

    def _tell(self, rows: int) -> None:
        processes.spread(torch.tensor(rows))

    def _told(self) -> int:
        told = torch.tensor(0)
        processes.spread(told)
        return int(told)

    def _between_chunks(self) -> None:
        """A process that stopped here would leave the others waiting."""


class Spread(Together):
    """`Curvature`, every process with a share of its chunks."""

    def __init__(
        self, objective: Objective, *, kind: str, parameters: str | Sequence[str] | None, chunk_size: int | None
    ) -> None:
        if chunk_size is None and len(objective.data.chunks(None)) < processes.size():
            chunk_size = -(-objective.examples // processes.size())
        super().__init__(objective, kind=kind, parameters=parameters, chunk_size=chunk_size)
        self._chunks = list(self._chunks)[processes.rank() :: processes.size()]
        self._keep = len(self._chunks) == 1


class SpreadFolds(Together, FoldedCurvature):
    """`FoldedCurvature`, every process with a share of the folds' chunks."""

    def __init__(self, objective: Objective, *, kind: str = "hessian", chunk_size: int | None = None) -> None:
        super().__init__(objective, kind=kind, chunk_size=chunk_size)
        self._take_share()
        self._chunks = list(self._folds) if self._keep else self._folds

    def _cut(self, size: int) -> None:
        super()._cut(size)
        self._take_share()

    def _take_share(self) -> None:
        self._folds.share(processes.rank(), processes.size())

    def _by_fold(self, v: Tensor) -> Tensor:
        self._tell(BY_FOLD)
        processes.spread(v.contiguous()[None])
        return self._joined(self._share_by_fold(v))

    def _share_by_fold(self, v: Tensor) -> Tensor:
        return FoldedCurvature._by_fold(self, v)
