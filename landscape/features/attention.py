"""What self-attention passes on: the constant part and the rest, in attention matrices and in a block's input and
output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from landscape.models.blocks import Block

PARTS = ("zero", "elsewhere")


def matrix_gains(matrices: Tensor) -> Tensor:
    """The power that attention matrices A (..., t, t) pass, at frequency zero and elsewhere: (..., 2).

    With J = 1 1^T / t these are ||J A J||_F^2 = (1^T A 1 / t)^2, which is 1 if rows sum to 1, and
    ||(I - J) A (I - J)||_F^2 / (t - 1), the mean over unit inputs without a constant part, all directions alike. Wang
    et al. (2022, arXiv:2203.05962, sec. 2) split tokens in this way, and show that the second part decays with depth.
    """
    t = matrices.shape[-1]
    matrices = matrices.double()
    centred = matrices - matrices.mean(dim=-1, keepdim=True)
    centred = centred - centred.mean(dim=-2, keepdim=True)
    zero = (matrices.sum(dim=(-2, -1)) / t).square()
    return torch.stack([zero, centred.square().sum(dim=(-2, -1)) / max(t - 1, 1)], dim=-1)


def parts_of(tokens: Tensor) -> Tensor:
    """The mean squares of the constant part of tokens and of the rest: (n, 2).

    tokens: (n, t, channels), or a map (n, channels, height, width).
    """
    if tokens.ndim == 4:
        tokens = tokens.flatten(2).mT
    tokens = tokens.double()
    constant = tokens.mean(dim=1, keepdim=True)
    return torch.stack([constant.square().mean(dim=(1, 2)), (tokens - constant).square().mean(dim=(1, 2))], dim=-1)


class Watched:
    """What the attention of a block did in the last call, one row per image; `take` returns it once."""

    def __init__(self) -> None:
        self._gains: list[Tensor] = []
        self._parts: tuple[Tensor, Tensor] | None = None

    def take(self, images: int) -> dict[str, np.ndarray]:
        """What was recorded, by name; NaN for what was not seen.

        matrix (images, 2): `matrix_gains`, averaged over heads and windows. before, after (images, 2): `parts_of` the
        input of the attention, after the norm, and of its output, after value and output projections. With attention in
        windows, the constant part is that of each window.
        """
        none = np.full((images, len(PARTS)), np.nan)
        gains = [g.reshape(images, -1, 2).mean(dim=1) for g in self._gains]
        found = {
            "matrix": torch.stack(gains).mean(dim=0).cpu().numpy() if gains else none,
            "before": none,
            "after": none,
        }
        if self._parts is not None:
            before, after = (p.reshape(images, -1, 2).mean(dim=1).cpu().numpy() for p in self._parts)
            found |= {"before": before, "after": after}
        self._gains, self._parts = [], None
        return found


class _Recording(TorchFunctionMode):
    """Passes every attention matrix to `record`, also of fused attention; one image at a time, as they may be large."""

    def __init__(self, record: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.record = record

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            self.record(torch.stack([matrix_gains(m) for m in _fused_matrices(*args, **kwargs)]))
        elif func in (Tensor.softmax, torch.softmax, F.softmax) and out.ndim >= 3 and out.shape[-1] == out.shape[-2]:
            self.record(torch.stack([matrix_gains(m) for m in out]))
        return out


def _fused_matrices(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, **_: Any,
) -> Iterator[Tensor]:  # fmt: skip
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    for i, (q, k) in enumerate(zip(query, key, strict=True)):
        logits = q @ k.mT * scale
        if is_causal:
            logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).triu(1), -torch.inf)
        if attn_mask is not None:
            mask = attn_mask[i % len(attn_mask)] if attn_mask.ndim == query.ndim else attn_mask
            logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
        yield logits.softmax(dim=-1)


@contextmanager
def watched(blocks: dict[int, Block]) -> Iterator[dict[int, Watched]]:
    """Within the `with` block, record by number what the attention of each of these blocks does in every call."""
    found = {number: Watched() for number, block in blocks.items() if block.attends is not None}
    with ExitStack() as stack:
        for number, watch in found.items():
            stack.enter_context(_watching(blocks[number].attends, watch))
        yield found


@contextmanager
def _watching(module: nn.Module | None, watch: Watched) -> Iterator[None]:
    assert module is not None
    modes: list[_Recording] = []

    def before(_: nn.Module, __: Any) -> None:
        watch._gains, watch._parts = [], None
        modes.append(_Recording(watch._gains.append))
        modes[-1].__enter__()

    def after(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if modes:
            modes.pop().__exit__(None, None, None)
        watch._parts = parts_of(args[0]), parts_of(output)

    handles = module.register_forward_pre_hook(before), module.register_forward_hook(after)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        while modes:  # the module raised
            modes.pop().__exit__(None, None, None)
