"""Several searches in turn that are one to the user: their state is kept and continued, and they may be stopped between
two products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from landscape.linalg.krylov import State
from landscape.linalg.ritz import RitzPairs
from landscape.runtime.threads import stop_if_asked


class Keeper(Protocol):
    """Keeps the state of a search that may be interrupted, and says when the search must stop."""

    def kept(self) -> State | None:
        """The state that an earlier, interrupted run of the very same search left, or None."""
        ...

    def unusable(self) -> None:
        """Take note that what `kept` returned is not the state of such a search."""
        ...

    def due(self) -> bool:
        """Whether it is time to keep the state again."""
        ...

    def keep(self, state: State) -> None:
        """Keep this state in place of the previous one."""
        ...

    def stop(self) -> bool:
        """Whether the search is to stop here."""
        ...


class Steps(Protocol):
    """One of the searches, step by step; `landscape.linalg.eigenpairs.Seeking` is one."""

    sound: bool

    @property
    def ended(self) -> bool: ...

    @property
    def pairs(self) -> list[RitzPairs]: ...

    def step(self) -> None: ...

    def so_far(self) -> RitzPairs: ...

    def state(self) -> dict[str, Tensor | np.ndarray]: ...

    def restore(self, state: State) -> None: ...


class Paused(Exception):
    """The keeper asked to stop; `pairs` are the best so far."""

    def __init__(self, pairs: RitzPairs) -> None:
        super().__init__("paused between two products")
        self.pairs = pairs


class Stages:
    """The searches that are finished, and the residuals that were measured after them.

    When an interrupted run is continued, the finished searches are known and the one under way continues from its
    state: the same searches in the same order give the same numbers.
    """

    def __init__(self, keeper: Keeper | None = None) -> None:
        self.keeper = keeper
        self.finished: list[RitzPairs] = []
        self.lengths: list[float] = []
        self._number = 0
        self._under_way: State = {}
        state = keeper.kept() if keeper is not None else None
        if keeper is not None and state is not None:
            try:
                self._restore(state)
            except (KeyError, ValueError, TypeError):
                self._forget(0)
                keeper.unusable()

    @property
    def products(self) -> int:
        """The number of products in what is finished."""
        return sum(pairs.products for pairs in self.finished) + len(self.lengths)

    def carried_out(self, search: Callable[[], Steps], k: int, like: Tensor) -> RitzPairs:
        """The k pairs of the next search, with vectors like `like` (b, n): begun, continued or already known."""
        number, keeper = self._number, self.keeper
        self._number += 1
        if number < len(self.finished):
            pairs, expected = self.finished[number], (k, like.shape[-1])
            if pairs.vectors is not None and pairs.vectors.shape == expected and pairs.values.shape == (k,):
                return replace(pairs, vectors=pairs.vectors.to(like))
            self._forget(number)
            assert keeper is not None
            keeper.unusable()
        one = search()
        if self._under_way and keeper is not None:
            try:
                one.restore(self._under_way)
            except (KeyError, ValueError, TypeError):
                one = search()
                keeper.unusable()
            self._under_way = {}
        while not one.ended:
            self._step(one)
        (pairs,) = one.pairs
        self.finished.append(pairs)
        return pairs

    def measured(self, length: float, pairs: RitzPairs) -> None:
        """Add the length of one more residual vector of `pairs`."""
        self.lengths.append(length)
        if len(self.lengths) < len(pairs.values):
            self._between(dict, lambda: replace(pairs, products=pairs.products + len(self.lengths)))

    def _step(self, one: Steps) -> None:
        try:
            one.step()
        except BaseException:
            if one.sound:
                self._keep(one.state())
            raise
        if not one.ended:
            self._between(one.state, lambda: self._so_far(one))

    def _between(self, state: Callable[[], State], pairs: Callable[[], RitzPairs]) -> None:
        """Between two products the state is kept, and the search stops if it is asked to."""
        try:
            stop_if_asked()
        except BaseException:
            self._keep(state())
            raise
        stop = self.keeper is not None and self.keeper.stop()
        if stop or (self.keeper is not None and self.keeper.due()):
            self._keep(state())
        if stop:
            raise Paused(pairs())

    def _keep(self, under_way: State) -> None:
        if self.keeper is not None:
            self.keeper.keep(self._state(under_way))

    def _so_far(self, one: Steps) -> RitzPairs:
        pairs = one.so_far()
        whole = self.finished[::2]  # every other search is a second look
        return replace(whole[-1], products=self.products + pairs.products) if whole else pairs

    def _state(self, under_way: State) -> dict[str, Tensor | np.ndarray]:
        state: dict[str, Tensor | np.ndarray] = {"finished": np.array(len(self.finished)), **under_way}
        for i, pairs in enumerate(self.finished):
            about = np.array([pairs.complete, pairs.products, pairs.rounding], float)
            found = {"values": pairs.values, "residuals": pairs.residuals, "converged": pairs.converged, "about": about}
            state |= {f"{name} {i}": value for name, value in found.items()}
            if pairs.vectors is not None:
                state[f"vectors {i}"] = pairs.vectors
        return {**state, "lengths": np.array(self.lengths)}

    def _restore(self, state: State) -> None:
        for i in range(int(state["finished"])):
            complete, products, rounding = np.asarray(state[f"about {i}"]).tolist()
            values, residuals, converged = (np.array(state[f"{n} {i}"]) for n in ("values", "residuals", "converged"))
            vectors = torch.as_tensor(state[f"vectors {i}"]) if f"vectors {i}" in state else None
            pairs = RitzPairs(values, residuals, converged, bool(complete), vectors, int(products), rounding=rounding)
            self.finished.append(pairs)
        self.lengths = np.array(state["lengths"], float).tolist()
        self._under_way = state if "numbers" in state else {}

    def _forget(self, number: int) -> None:
        self.finished, self.lengths, self._under_way = self.finished[:number], [], {}
