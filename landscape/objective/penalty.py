"""The penalty: an L2 term of the parameters that decay, with its Hessian in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from landscape.runtime.errors import UserError

FORMS = ("l2", "norm-sum")
DECAYS = ("matrices", "all")


@dataclass(frozen=True)
class Penalty:
    """penalty(theta) for the parameters of one model.

    Parameters
    ----------
    weight_decay
        lambda; 0 for no penalty.
    form
        l2: (lambda/2) sum_p ||theta_p||^2 over the decayed parameters. norm-sum: lambda sum_p ||theta_p|| over every
        parameter, frozen ones too.
    decay
        Which parameters an l2 penalty includes. matrices: those that `timm.optim.param_groups_weight_decay` decays.
        all: every one that requires a gradient.
    names
        The names of the parameters that it includes, as `over` finds them.

    Raises
    ------
    UserError
        For an unknown form or decay, or a lambda that is negative or not finite.
    """

    weight_decay: float = 0.0
    form: str = "l2"
    decay: str = "matrices"
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UserError(f"penalty={self.form!r} is not one of {', '.join(FORMS)}")
        if self.decay not in DECAYS:
            raise UserError(f"decay={self.decay!r} is not one of {', '.join(DECAYS)}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise UserError(f"weight_decay={self.weight_decay} must be a finite number, 0 or more")

    def over(self, model: nn.Module) -> Penalty:
        """The same penalty for the parameters of `model`."""
        skipped = set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()  # type: ignore[operator]
        names = (name for name, p in model.named_parameters() if self._touches(name, p, skipped))
        return Penalty(self.weight_decay, self.form, self.decay, tuple(names))

    def _touches(self, name: str, p: Tensor, skipped: Iterable[str]) -> bool:
        if self.form == "norm-sum" or self.decay == "all":
            return p.requires_grad or self.form == "norm-sum"
        matrix = p.ndim >= 2 and not name.endswith(".bias")  # timm's rule
        return p.requires_grad and matrix and not any(fnmatchcase(name, pattern) for pattern in skipped)

    def __str__(self) -> str:
        return f"{self.form} penalty of {self.weight_decay:g}" if self.weight_decay else "no penalty"

    def config(self) -> dict[str, Any]:
        """What determines it, as it is stored in results files."""
        decay = "all" if self.form == "norm-sum" else self.decay
        return {"weight_decay": self.weight_decay, "penalty": self.form, "decay": decay}

    def _touched(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: parameters[name] for name in self.names} if self.weight_decay else {}

    def value(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """penalty(theta) of all named parameters, a scalar, differentiable; others are ignored."""
        total = next(iter(parameters.values())).new_zeros(())
        for p in self._touched(parameters).values():
            total = total + (torch.linalg.vector_norm(p) if self.form == "norm-sum" else 0.5 * p.square().sum())
        return self.weight_decay * total

    def product(self, parameters: Mapping[str, Tensor], v: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The Hessian of the penalty at these parameters times v, for the parameters that it includes.

        l2: lambda v. norm-sum, for each parameter p: lambda (v - p <p, v> / ||p||^2) / ||p||, and nothing where p is 0.
        """
        out: dict[str, Tensor] = {}
        for name, p in self._touched(parameters).items():
            if name not in v:
                continue
            u = v[name]
            if self.form == "norm-sum":
                norm = torch.linalg.vector_norm(p.detach())
                if norm == 0:  # not differentiable at 0: the subgradient 0 is taken
                    continue
                unit = p.detach() / norm
                u = (u - unit * (unit * u).sum()) / norm
            out[name] = self.weight_decay * u
        return out

    def trace(self, parameters: Mapping[str, Tensor], among: Iterable[str]) -> float:
        """The trace of the penalty's Hessian at these parameters over those `among` them.

        l2: lambda n. norm-sum, for each parameter p of n_p entries: lambda (n_p - 1) / ||p||.
        """
        total, among = 0.0, set(among)
        for name, p in self._touched(parameters).items():
            if name in among:
                norm = float(torch.linalg.vector_norm(p.detach().double()))
                curved = (p.numel() - 1) / norm if norm > 0 else 0.0
                total += curved if self.form == "norm-sum" else p.numel()
        return self.weight_decay * total
