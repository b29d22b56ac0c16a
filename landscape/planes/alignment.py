"""The permutation of one network's channels that brings its weights closest to another's: weight matching."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor

from landscape.objective.nests import leaves, rows
from landscape.objective.objective import Objective
from landscape.planes.permutations import Permutations, State, permutations_of
from landscape.runtime.arithmetic import true_float32
from landscape.runtime.errors import UserError
from landscape.runtime.progress import bar

LOG = logging.getLogger(__name__)
SWEEPS = 50  # over all groups, at most; a descent ends sooner if nothing improves
EXAMPLES = 8

Permutation = dict[str, np.ndarray]


def aligned_to(objective: Objective, other: State, seed: int = 0) -> dict[str, Tensor]:
    """`other`, a state of the same architecture, with its channels permuted to match those of the objective's network.

    The permutations sought are those that make sum_l <theta_l, P(theta'_l)> largest (Ainsworth et al. 2023,
    arXiv:2209.04836, sec. 3.2 and alg. 1): linear assignments, group by group in random order, until none improves the
    sum. This ends in a local optimum, so the better of two starts is kept. One start is the identity; the other matches
    each group in turn, from the inputs on, by the groups that are matched already, which finds the permutation of a
    permuted copy. Attention heads are matched first, by their products W_q^T W_k and W_out W_v, which do not depend on
    the order of the channels in a head; then the channels within them are matched.

    Parameters
    ----------
    objective
        The loss; its network stays as it is.
    other
        The state dict to permute.
    seed
        The seed of the order of the groups.

    Returns
    -------
    dict of str to Tensor
        The permuted state dict.

    Raises
    ------
    UserError
        If the permutations of the network are not known, or if they change its outputs.
    """
    own = {name: t.detach().double().cpu() for name, t in objective.model.state_dict().items()}
    theirs = {name: t.detach().double().cpu() for name, t in other.items()}
    groups = permutations_of(objective.model)
    refuse_unlike(objective, groups, seed)
    matching = _Matching(groups, own, theirs)
    LOG.info(
        "aligning %d groups of channels, in %d sweeps at most from each of two starts", len(matching.order), SWEEPS
    )
    with bar(desc="alignment, at most", unit="group", total=2 * SWEEPS * len(matching.order)) as shown:
        found = max(
            (matching.descended(start, seed, shown.update) for start in (groups.identity(), matching.swept())),
            key=matching.inner,
        )
    return groups.applied(other, found)


def refuse_unlike(objective: Objective, groups: Permutations, seed: int) -> None:
    """Raise UserError if permuting the network's channels changes its outputs, as in a variant that is not known."""
    model, x = objective.model, rows(objective.data.stores[0][0], slice(EXAMPLES))
    state = {name: t.clone() for name, t in model.state_dict().items()}
    with torch.no_grad(), true_float32():
        before = torch.cat([t.reshape(-1) for t in leaves(objective.outputs(x))])
        try:
            model.load_state_dict(groups.applied(state, groups.random(seed)))
            after = torch.cat([t.reshape(-1) for t in leaves(objective.outputs(x))])
        finally:
            model.load_state_dict(state)
    if not (after - before).abs().max() <= 1e-3 * before.abs().max():
        raise UserError(
            f"this variant of {type(model).__name__} changes with its channels permuted, so that networks of it "
            "cannot be aligned; ask for no alignment"
        )


class _Matching:
    def __init__(self, groups: Permutations, own: State, theirs: State) -> None:
        self.groups, self.own, self.theirs = groups, own, theirs
        self.parameters = {t for t in own if not t.rsplit(".", 1)[-1].startswith(("running_", "num_batches"))}
        by_head = {f"{name}.{part}" for name in groups.heads for part in ("qk", "v")}
        self.order = list(
            dict.fromkeys(group.rsplit(".", 1)[0] if group in by_head else group for group in groups.members)
        )

    def inner(self, permutation: Permutation) -> float:
        """sum_l <theta_l, P(theta'_l)>, summed over the parameters."""
        there = self.groups.applied(self.theirs, permutation)
        return sum(float((self.own[t] * there[t]).sum()) for t in self.parameters)

    def descended(self, start: Permutation, seed: int, count: Callable[[], Any] = bool) -> Permutation:
        """The permutation reached from `start` by assignments group by group, until none of them improves the sum.

        `count` is called after each of them.
        """
        found, rng = dict(start), np.random.default_rng(seed)
        reached = self.inner(found)
        for _ in range(SWEEPS):
            before = reached
            for group in rng.permutation(self.order):
                other = {**found, **self._matched(str(group), found, None)}
                if (value := self.inner(other)) > reached:
                    found, reached = other, value
                count()
            if not reached > before + 1e-12 * abs(before):
                break
        return found

    def swept(self) -> Permutation:
        """Every group matched once, in the order of the network, by the tensors whose other axes are settled."""
        found = self.groups.identity()
        settled: set[str] = set()
        for group in self.order:
            found |= self._matched(group, found, settled)
            settled |= {group, f"{group}.qk", f"{group}.v"}
        return found

    def _matched(self, group: str, permutation: Permutation, settled: set[str] | None) -> Permutation:
        if group not in self.groups.heads:
            return {group: _assigned(self._similarity([group], permutation, settled)[group])}
        heads, (qk, v) = self.groups.heads[group], (f"{group}.qk", f"{group}.v")
        factors = self._factors(group, permutation, settled)
        shape = (heads.count, heads.width, heads.count, heads.width)
        q, k, value, out = (f.reshape(shape).transpose(0, 2, 1, 3) for f in factors)
        order = _assigned((q * k).sum((2, 3)) + (value * out).sum((2, 3)))
        both, values = q + k, value + out
        return {
            name: np.concatenate([h * heads.width + _assigned(s[j, h]) for j, h in enumerate(order)])
            for name, s in ((qk, both), (v, values))
        }

    def _factors(self, group: str, permutation: Permutation, settled: set[str] | None) -> list[np.ndarray]:
        """The similarities (channels, channels) of queries, keys and values, and of the weights that read values."""
        both = [f"{group}.qk", f"{group}.v"]
        each: dict[tuple[str, int], np.ndarray] = {}
        for name in both:
            for number, (tensor, axis, places) in enumerate(self._of(name)):
                each[name, number] = self._one(tensor, axis, places, permutation, settled, both)
        # the similarity of a bias is added to that of its weight
        queries, keys = self._split(both[0])
        values = [n for n, (t, axis, _) in enumerate(self._of(both[1])) if axis == 0 and not _out(t)]
        outs = [n for n, (t, axis, _) in enumerate(self._of(both[1])) if axis == 1]
        return [
            sum(each[name, n] for n in numbers)  # type: ignore[misc]
            for name, numbers in ((both[0], queries), (both[0], keys), (both[1], values), (both[1], outs))
        ]

    def _split(self, name: str) -> tuple[list[int], list[int]]:
        """The members that are queries and those that are keys: in a joint tensor queries come first, else in to_q."""
        queries: list[int] = []
        keys: list[int] = []
        seen: set[str] = set()
        for number, (tensor, _, places) in enumerate(self._of(name)):
            first = places[0] == 0 and "to_kv" not in tensor and tensor not in seen
            (queries if first else keys).append(number)
            seen.add(tensor)
        return queries, keys

    def _of(self, group: str) -> list[tuple[str, int, np.ndarray]]:
        return [member for member in self.groups.members[group] if member[0] in self.parameters]

    def _similarity(
        self, names: Iterable[str], permutation: Permutation, settled: set[str] | None
    ) -> Mapping[str, np.ndarray]:
        return {
            name: sum(self._one(*member, permutation, settled, [name]) for member in self._of(name))  # type: ignore[misc]
            for name in names
        }

    def _one(
        self, tensor: str, axis: int, places: np.ndarray, permutation: Permutation, settled: set[str] | None,
        leave: list[str],
    ) -> np.ndarray:  # fmt: skip
        """The products <own channel j, their channel k> in one tensor, with their other axes permuted.

        They are 0 if the other axes are not settled; with None for `settled`, all axes are.
        """
        size = len(places)
        own, their = self.own[tensor], self.theirs[tensor]
        for group, members in self.groups.members.items():
            for name, other_axis, other_places in members:
                if name != tensor or group in leave:
                    continue
                if other_axis != axis and settled is not None and group not in settled:
                    return np.zeros((size, size))
                if other_axis != axis:
                    index = np.arange(their.shape[other_axis])
                    index[other_places] = other_places[permutation[group]]
                    their = their.index_select(other_axis, torch.as_tensor(index))
        at = torch.as_tensor(places)
        a, b = (t.index_select(axis, at).movedim(axis, 0).reshape(size, -1) for t in (own, their))
        return (a @ b.T).numpy()


def _out(tensor: str) -> bool:
    return "proj" in tensor or "to_out" in tensor


def _assigned(similarity: np.ndarray) -> np.ndarray:
    """Which of their channels goes to each of ours, by the assignment with the largest sum."""
    return np.asarray(scipy.optimize.linear_sum_assignment(similarity, maximize=True)[1])
