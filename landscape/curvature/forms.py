"""The forms of curvature by name: the Hessian, its Gauss-Newton part, and the rest."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from landscape.runtime.errors import UserError

KINDS = ("hessian", "ggn", "residual")


Parts = Sequence[Tensor]


Named = dict[str, Tensor]


def known_kind(kind: str) -> str:
    if kind not in KINDS:
        raise UserError(f"kind={kind!r} is not one of {', '.join(KINDS)}")
    return kind
