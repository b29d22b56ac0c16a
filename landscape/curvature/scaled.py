"""The loss of one mini-batch around the weights w, in units of their size: f(u) = L(w + c u), with a scale c each."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.curvature.operators import Curvature
from landscape.objective.nests import Batch
from landscape.objective.objective import Objective
from landscape.objective.parameters import displaced, flatten, trainable, unflatten
from landscape.runtime.threads import stop_if_asked

SCALES = ("common", "elementwise")
RATIO = 1.01  # between the two steps that bracket a critical step at the end
DOUBLINGS = 60  # at most, up or down from the step of a quadratic model; then there is no critical step


def scale_of(weights: Tensor, kind: str) -> Tensor:
    """The scales c (n,) of weights (n,): "common", ||w|| / sqrt(n) for all of them; "elementwise", |w_i| for each."""
    if kind == "elementwise":
        return weights.abs()
    norm = torch.linalg.vector_norm(weights, dtype=torch.float64)
    return torch.full_like(weights, float(norm) / math.sqrt(len(weights)))


class ScaledLoss:
    """f(u) = L(w + c u) for one mini-batch, penalty included; the gradient of f, and its Hessian at 0.

    The ball ||u|| <= rho is ||delta / c|| <= rho in the weights: the ball of the standard sharpness if c is one number,
    and of the elementwise adaptive sharpness if c = |w| (Andriushchenko et al. 2023, arXiv:2302.07011, sec. 3.1). In
    the latter a weight of 0 does not move.

    Parameters
    ----------
    objective
        An objective that only this thread uses; its weights are moved and put back.
    batch
        One mini-batch (x, y).
    kind
        One of SCALES.
    """

    def __init__(self, objective: Objective, batch: Batch, kind: str) -> None:
        self.objective, self.batch = objective, batch
        self.parameters = trainable(objective.model)
        self.c = scale_of(flatten({name: p.detach() for name, p in self.parameters.items()}), kind)
        self.units = objective.units_in(batch[1])
        self._hessian: Curvature | None = None
        with torch.no_grad():
            self.at_0 = float(self._loss())

    def value(self, u: Tensor) -> float:
        """f(u), or inf if it is NaN: both exceed every bound."""
        with torch.no_grad(), self._moved(u):
            found = float(self._loss())
        return math.inf if math.isnan(found) else found

    def with_gradient(self, u: Tensor) -> tuple[float, Tensor]:
        """f(u) and its gradient (n,) with respect to u."""
        with self._moved(u):
            loss = self._loss()
            parts = torch.autograd.grad(loss, list(self.parameters.values()), materialize_grads=True)
        found = float(loss.detach())
        gradient = self.c * flatten(dict(zip(self.parameters, parts, strict=True)))
        return math.inf if math.isnan(found) else found, gradient

    def product(self, v: Tensor) -> Tensor:
        """The product of the Hessian of f at 0 with v: c H (c v)."""
        if self._hessian is None:
            self._hessian = Curvature(self.objective, *self.batch)
        return self.c * self._hessian(self.c * v)

    def _loss(self) -> Tensor:
        stop_if_asked()
        loss = self.objective.nll_sum(*self.batch) / self.units
        return loss + self.objective.penalty.value(dict(self.objective.model.named_parameters()))

    def _moved(self, u: Tensor) -> AbstractContextManager[None]:
        self._hessian = None  # its graph holds weights that are about to change
        return displaced(self.objective.model, [unflatten(self.c * u, self.parameters)], [1.0])


@dataclass(frozen=True)
class Ascent:
    """The highest point found in a ball: u, the rise of f from 0 to u, and how far u is from a maximum.

    angle: in radians, between u and the gradient at u, which is 0 at a maximum on the sphere; NaN if the gradient is
    not finite or u lies inside the ball.
    """

    u: Tensor
    rise: float
    angle: float


def highest(f: ScaledLoss, radius: float, starts: list[Tensor], steps: int) -> Ascent:
    """The largest f(u) - f(0) over ||u|| <= radius that projected gradient ascent finds from any of the starts.

    A step goes along the normalised gradient and is projected onto the ball. A step that does not raise f is halved and
    taken from the best point again; otherwise the next one is twice as long. The result is a lower bound of the
    maximum. Starts are scaled to the sphere. A loss that is not finite within the ball ends the search with a rise of
    inf.
    """
    best = Ascent(torch.zeros_like(starts[0]), 0.0, math.nan)
    for start in starts:
        u = _on_sphere(start, radius)
        here, gradient = f.with_gradient(u)
        size = 2 * radius
        for _ in range(steps):
            if not (math.isfinite(here) and torch.isfinite(gradient).all()):
                break
            tried = _within(u + size * _unit(gradient), radius)
            there, slope = f.with_gradient(tried)
            if there > here:
                u, here, gradient, size = tried, there, slope, min(2 * size, 16 * radius)
            else:
                size /= 2
        rise = here - f.at_0
        if rise > best.rise:
            best = Ascent(u, rise, _angle(u, gradient, radius))
        if not math.isfinite(rise):
            break
    return best


def critical_step(f: ScaledLoss) -> float:
    """The step eta along -grad f(0) after which the loss has fallen and is back at its value: f(-eta grad f(0)) = f(0).

    The sharpness is 2 / eta, which for a quadratic is g^T H g / g^T g (critical sharpness, arXiv:2601.16979). The step
    is doubled or halved from 2 g^T g / g^T H g (or from 1, if that is not positive) until a step lowers the loss and
    its double does not; bisection follows until the two differ by a factor of at most RATIO. The step is inf if no step
    tried raises the loss, and NaN without a gradient or if no step tried lowers it.
    """
    _, g = f.with_gradient(torch.zeros_like(f.c))
    norm = float(torch.linalg.vector_norm(g, dtype=torch.float64))
    if not (math.isfinite(norm) and norm > 0):
        return math.nan
    unit = (g / norm).to(g)
    curvature = float(torch.dot(unit.double(), f.product(unit).double()))
    length = 2 * norm / curvature if math.isfinite(curvature) and curvature > 0 else norm

    def raised(length: float) -> bool:
        return f.value(-length * unit) > f.at_0

    up = raised(length)
    for _ in range(DOUBLINGS):
        following = length / 2 if up else 2 * length
        if raised(following) != up:
            break
        length = following
    else:
        return math.nan if up else math.inf
    low, high = sorted((length, following))
    while high > RATIO * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if raised(middle) else (middle, high)
    return math.sqrt(low * high) / norm


def _unit(v: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(v)
    return v / norm if norm > 0 else v


def _on_sphere(u: Tensor, radius: float) -> Tensor:
    return radius * _unit(u)


def _within(u: Tensor, radius: float) -> Tensor:
    return u if torch.linalg.vector_norm(u) <= radius else _on_sphere(u, radius)


def _angle(u: Tensor, gradient: Tensor, radius: float) -> float:
    a, b = u.double(), gradient.double()
    norms = float(torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b))
    if not (math.isfinite(norms) and norms > 0) or float(torch.linalg.vector_norm(a)) < 0.999 * radius:
        return math.nan
    return math.acos(max(-1.0, min(1.0, float(torch.dot(a, b)) / norms)))
