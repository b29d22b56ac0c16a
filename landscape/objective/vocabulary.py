"""Cross-entropy over a large vocabulary, from hidden states: the logits of a few tokens at a time, never of all.

With hidden states h (tokens, width), the weight W (classes, width) and the bias b of the last layer, the logits are
z = h W^T + b, and l = logsumexp(z) - z_y. Automatic differentiation would keep z, and several tensors of its size for a
second derivative; here each derivative is written out and computes z again, chunk by chunk, from h, W and b.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from landscape.objective.networks import Network
from landscape.objective.task import class_drawn


def head_of(network: Network) -> nn.Linear | None:
    """The layer from hidden states to logits, if the network says which it is and it is a plain one."""
    if not isinstance(network, nn.Module):
        return None
    named = getattr(network, "get_output_embeddings", None)
    head = named() if callable(named) else getattr(network, "lm_head", None)
    return head if type(head) is nn.Linear and not (head._forward_hooks or head._forward_pre_hooks) else None


@contextmanager
def before(head: nn.Linear) -> Iterator[list[dict[str, Tensor]]]:
    """Within the block `head` gives back its input, which is listed with the weight and bias that it would meet."""
    seen: list[dict[str, Tensor]] = []

    def forward(hidden: Tensor) -> Tensor:
        bias = {} if head.bias is None else {"bias": head.bias}
        seen.append({"hidden": hidden, "weight": head.weight, **bias})
        return hidden

    head.forward = forward  # type: ignore[method-assign, assignment]
    try:
        yield seen
    finally:
        del head.forward


def in_parts(outputs: Any) -> TypeGuard[Mapping[str, Tensor]]:
    """Whether outputs are hidden states and a head, not logits."""
    return isinstance(outputs, Mapping)


def cross_entropy(head: Mapping[str, Tensor], y: Tensor, logits_at_once: int, *, linear: bool = False) -> Tensor:
    """The cross-entropy of each token, in the shape of y.

    Parameters
    ----------
    head
        The hidden states (..., width), the weight (classes, width) and the bias (classes,), if there is one.
    y
        The class of each token, (...).
    logits_at_once
        How many logits are held at once.
    linear
        Take the logits, in the second derivative, to be linear in h, W and b, as the Gauss-Newton matrix does.
    """
    weight = head["weight"]
    bias = head.get("bias", weight.new_zeros(len(weight)))
    rows = max(1, logits_at_once // len(weight))
    losses: Tensor = _Losses.apply(head["hidden"].flatten(0, -2), weight, bias, y.flatten(), rows, linear)
    return losses.view(y.shape)


def largest_is(head: Mapping[str, Tensor], y: Tensor, logits_at_once: int) -> Tensor:
    """Whether the largest logit is that of the token and all logits are finite, in the shape of y."""

    def right(z: Tensor, classes: Tensor) -> Tensor:
        return (z.argmax(-1) == classes) & z.isfinite().all(-1)

    return _by_token(right, head, y, logits_at_once)


def drawn_from(head: Mapping[str, Tensor], u: Tensor, logits_at_once: int) -> Tensor:
    """The class at which each token's distribution function exceeds u, in the shape of u."""
    return _by_token(class_drawn, head, u, logits_at_once)


def _by_token(
    f: Callable[[Tensor, Tensor], Tensor], head: Mapping[str, Tensor], t: Tensor, logits_at_once: int
) -> Tensor:
    rows = max(1, logits_at_once // len(head["weight"]))
    chunks = zip(head["hidden"].flatten(0, -2).split(rows), t.flatten().split(rows), strict=True)
    return torch.cat([f(F.linear(h, head["weight"], head.get("bias")), part) for h, part in chunks]).view(t.shape)


class _Losses(Function):
    """l (tokens,) from h, W, b and the classes; its gradient is computed by `_Slopes`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(h: Tensor, W: Tensor, b: Tensor, y: Tensor, rows: int, linear: bool) -> Tensor:
        chunks = zip(h.split(rows), y.split(rows), strict=True)
        return torch.cat([F.cross_entropy(F.linear(part, W, b), classes, reduction="none") for part, classes in chunks])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        h, W, b, y, ctx.rows, ctx.linear = inputs
        ctx.save_for_backward(h, W, b, y)
        ctx.save_for_forward(h, W, b, y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return (*_Slopes.apply(*ctx.saved_tensors, g, ctx.rows, ctx.linear), None, None, None)

    @staticmethod
    def jvp(ctx: Any, dh: Tensor | None, dW: Tensor | None, db: Tensor | None, *_: Any) -> Tensor:
        h, W, b, y = ctx.saved_tensors
        return _second(h, W, b, y, torch.zeros_like(h[:, 0]), (dh, dW, db, None), ctx.rows, ctx.linear)[3]


class _Slopes(Function):
    """The gradient of S = sum_i g_i l_i by h, W and b. Its own derivative is a product with the symmetric matrix of
    second derivatives of S, so that one formula serves in both directions.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        h: Tensor, W: Tensor, b: Tensor, y: Tensor, g: Tensor, rows: int, linear: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        by_h, by_W, by_b = [], torch.zeros_like(W), torch.zeros_like(b)
        for part, classes, weight in zip(h.split(rows), y.split(rows), g.split(rows), strict=True):
            p = F.linear(part, W, b).softmax(-1)
            by_z = weight[:, None] * _less_one(p, classes)
            by_h.append(by_z @ W)
            by_W, by_b = by_W + by_z.T @ part, by_b + by_z.sum(0)
        return torch.cat(by_h), by_W, by_b

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        h, W, b, y, g, ctx.rows, ctx.linear = inputs
        ctx.save_for_backward(h, W, b, y, g)
        ctx.save_for_forward(h, W, b, y, g)

    @staticmethod
    def backward(ctx: Any, dh: Tensor, dW: Tensor, db: Tensor) -> Any:
        h, W, b, y, g = ctx.saved_tensors
        by_h, by_W, by_b, by_g = _second(h, W, b, y, g, (dh, dW, db, None), ctx.rows, ctx.linear)
        return by_h, by_W, by_b, None, by_g, None, None

    @staticmethod
    def jvp(
        ctx: Any, dh: Tensor | None, dW: Tensor | None, db: Tensor | None, _: Any, dg: Tensor | None, *__: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        h, W, b, y, g = ctx.saved_tensors
        return _second(h, W, b, y, g, (dh, dW, db, dg), ctx.rows, ctx.linear)[:3]


Moved = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def _second(
    h: Tensor, W: Tensor, b: Tensor, y: Tensor, g: Tensor, moved: Moved, rows: int, linear: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The product of the second derivatives of S = sum_i g_i l_i by (h, W, b, g) with the vector `moved`.

    With p = softmax(z), e the one of the class and dz = dh W^T + h dW^T + db, the slope by z moves by
    g (p * dz - p <p, dz>) + dg (p - e). linear: without what h and W move each other's slopes by.
    """
    dh, dW, db, dg = (torch.zeros_like(t) if d is None else d for t, d in zip((h, W, b, g), moved, strict=True))
    by_h, by_g, by_W, by_b = [], [], torch.zeros_like(W), torch.zeros_like(b)
    parts = (t.split(rows) for t in (h, y, g, dh, dg))
    for part, classes, weight, moves, weighs in zip(*parts, strict=True):
        p = F.linear(part, W, b).softmax(-1)
        dz = F.linear(moves, W, db) + F.linear(part, dW)
        mean = (p * dz).sum(-1, keepdim=True)
        by_g.append(mean[:, 0] - dz.gather(-1, classes[:, None])[:, 0])
        slope = _less_one(p, classes)
        turn = weight[:, None] * p * (dz - mean) + weighs[:, None] * slope
        back, across = turn @ W, turn.T @ part
        if not linear:
            slope = weight[:, None] * slope
            back, across = back + slope @ dW, across + slope.T @ moves
        by_h.append(back)
        by_W, by_b = by_W + across, by_b + turn.sum(0)
    return torch.cat(by_h), by_W, by_b, torch.cat(by_g)


def _less_one(p: Tensor, y: Tensor) -> Tensor:
    """p less 1 at each row's class."""
    return p.scatter_add(-1, y[:, None], -torch.ones_like(p[:, :1]))
