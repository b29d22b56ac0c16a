"""The forms of curvature, one class each: the Hessian, the Gauss-Newton matrix, their difference, the Fisher matrix.

A form computes its product by reverse over reverse, from a graph that may be kept; and the products of many
mini-batches at once, by forward over reverse under vmap.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp
from torch.utils._pytree import tree_flatten, tree_unflatten

from landscape.objective.clusters import LEAST_UNITS
from landscape.objective.nests import Nest, mapped, uniform_by_content
from landscape.objective.networks import refuse_differentiated_once
from landscape.objective.objective import Objective
from landscape.objective.task import Task
from landscape.runtime.errors import UserError
from landscape.store.comparable import KINDS

Parts = Sequence[Tensor]


Named = dict[str, Tensor]
Total = Callable[[Task, Nest, Nest], Tensor]
LossBy = Callable[[Total], Callable[[Nest], Tensor]]  # from a sum over the units of a task to a function of the outputs


@dataclass(frozen=True)
class Local:
    """One chunk, differentiated: its gradient, and its product with v; `keep` if another product will follow."""

    gradient: Callable[[], Parts]
    product: Callable[[Parts, bool], list[Tensor]]


class Form(ABC):
    """A symmetric matrix made of the second derivatives of the loss."""

    name: ClassVar[str]
    penalised: ClassVar[bool] = True  # whether the penalty contributes to it

    @property
    def title(self) -> str:
        """The name of the form in words."""
        return KINDS[self.name]

    @abstractmethod
    def local(self, objective: Objective, parameters: Parts, x: Nest, y: Nest, scale: float) -> Local:
        """Differentiate scale * sum_i l_i over one chunk."""

    @abstractmethod
    def pushed(self, outputs: Callable[[Named], Nest], loss: LossBy, theta: Named, v: Named) -> Named:
        """The product with v for one mini-batch, from functions that vmap can transform: theta -> outputs -> loss. What
        of the task is the loss is up to the form.
        """


class Hessian(Form):
    """H = grad^2 L: the gradient of <gradient, v>."""

    name = "hessian"

    def local(self, objective: Objective, parameters: Parts, x: Nest, y: Nest, scale: float) -> Local:
        """Reverse over reverse."""
        loss = objective.nll_sum(x, y) * scale
        gradient = _backward([loss], parameters, [torch.ones_like(loss)], keep=True, create=True)
        refuse_differentiated_once(gradient)
        return Local(lambda: gradient, lambda v, keep: _backward(gradient, parameters, v, keep=keep))

    def pushed(self, outputs: Callable[[Named], Nest], loss: LossBy, theta: Named, v: Named) -> Named:
        """Forward over reverse."""

        def of_parameters(t: Named) -> Tensor:
            return total(outputs(t))

        total = loss(Task.total)
        product: Named = jvp(grad(of_parameters), (theta,), (v,))[1]
        return product


class GaussNewton(Form):
    """G = sum_i J_i^T (grad_f^2 l_i) J_i, J_i the Jacobian of the network's outputs (Schraudolph 2002)."""

    name = "ggn"

    def outputs(self, objective: Objective, x: Nest, y: Nest) -> Nest:
        """What J is the Jacobian of."""
        return objective.outputs(x)

    def total(self, task: Task, outputs: Nest, y: Nest) -> Tensor:
        """What the second derivative between J^T and J is of."""
        return task.total_linearised(outputs, y)

    def local(self, objective: Objective, parameters: Parts, x: Nest, y: Nest, scale: float) -> Local:
        """J v is the derivative of w -> J^T w times v (a double backward)."""
        f, form = tree_flatten(self.outputs(objective, x, y))
        at = [t.detach().requires_grad_() for t in f]
        loss = self.total(objective.task, tree_unflatten(at, form), y) * scale
        df = torch.autograd.grad(loss, at, create_graph=True, materialize_grads=True)
        w = [torch.zeros_like(t, requires_grad=True) for t in f]
        Jw = _backward(f, parameters, w, keep=True, create=True)
        refuse_differentiated_once(Jw)

        def product(v: Parts, keep: bool) -> list[Tensor]:
            Jv = _backward(Jw, w, v, keep=True)
            return _backward(f, parameters, _backward(df, at, Jv, keep=keep), keep=keep)

        def gradient() -> list[Tensor]:
            nll = objective.nll_sum(x, y) * scale
            return _backward([nll], parameters, [torch.ones_like(nll)], keep=False)

        return Local(gradient, product)

    def pushed(self, outputs: Callable[[Named], Nest], loss: LossBy, theta: Named, v: Named) -> Named:
        """J v forward, then J^T in reverse."""
        f, Jv = jvp(outputs, (theta,), (v,))[:2]
        pull_back = vjp(outputs, theta)[1]
        product: Named = pull_back(jvp(grad(loss(self.total)), (f,), (Jv,))[1])[0]
        return product


class Residual(Form):
    """H - G: summed over outputs, the slope of the loss times the Hessian of the output; the penalty cancels."""

    name = "residual"
    penalised = False

    def local(self, objective: Objective, parameters: Parts, x: Nest, y: Nest, scale: float) -> Local:
        """Both, and their difference."""
        h, g = (form.local(objective, parameters, x, y, scale) for form in (Hessian(), GaussNewton()))

        def product(v: Parts, keep: bool) -> list[Tensor]:
            return [a - b for a, b in zip(h.product(v, keep), g.product(v, keep), strict=True)]

        return Local(h.gradient, product)

    def pushed(self, outputs: Callable[[Named], Nest], loss: LossBy, theta: Named, v: Named) -> Named:
        """Both, and their difference."""
        H, G = (form.pushed(outputs, loss, theta, v) for form in (Hessian(), GaussNewton()))
        return {name: H[name] - G[name] for name in H}


class Fisher(GaussNewton):
    """F = sum_i J_i^T E[grad_f^2 l_i] J_i, the mean over labels from the network's own distribution given x_i.

    It is also the mean of grad l_i grad l_i^T, and for a canonical task the Gauss-Newton matrix (Martens 2020, sec. 9).
    """

    name = "fisher"

    def total(self, task: Task, outputs: Nest, y: Nest) -> Tensor:
        """The loss expected of the network's own labels."""
        return task.total_expected(outputs, y)


@dataclass(frozen=True)
class MonteCarloFisher(GaussNewton):
    """The mean of grad l_i grad l_i^T over a few labels drawn from the network's own distribution given x_i.

    With the losses of drawn labels in the place of outputs, it is the Gauss-Newton matrix of half their squares.

    Parameters
    ----------
    draws
        How many labels each unit is given.
    seed
        Of the draws. Those of an example depend on this seed and on its inputs, not on its place in the data.
    only
        The one draw to take; None for the mean over all.
    """

    draws: int = LEAST_UNITS
    seed: int = 0
    only: int | None = None

    name = "fisher_mc"

    def outputs(self, objective: Objective, x: Nest, y: Nest) -> Nest:
        """The losses of all drawn labels, (draws, n, ...)."""
        f, task = objective.outputs(x), objective.task
        fixed = mapped(Tensor.detach, f)
        taken = range(self.draws) if self.only is None else [self.only]
        with torch.no_grad():
            labels = [task.drawn(fixed, y, partial(uniform_by_content, x, self.seed, i)) for i in taken]
        return torch.stack([task.scores(f, drawn) for drawn in labels])

    def total(self, task: Task, outputs: Nest, y: Nest) -> Tensor:
        """Half the squares, and their mean over draws."""
        return outputs.square().sum() / (2 * len(outputs))

    def pushed(self, outputs: Callable[[Named], Nest], loss: LossBy, theta: Named, v: Named) -> Named:
        """There is none: labels are drawn by the content of each example."""
        raise NotImplementedError("labels are drawn example by example")


FORMS: dict[str, Form] = {
    form.name: form for form in (Hessian(), GaussNewton(), Residual(), Fisher(), MonteCarloFisher())
}


def form_of(kind: str | Form) -> Form:
    """The form of this name. Raises UserError for an unknown one."""
    if isinstance(kind, Form):
        return kind
    if kind not in FORMS:
        raise UserError(f"kind={kind!r} is not one of {', '.join(FORMS)}")
    return FORMS[kind]


def _backward(outputs: Parts, inputs: Parts, v: Parts, *, keep: bool, create: bool = False) -> list[Tensor]:
    # An output that does not depend on the inputs, or only linearly, has no graph: it contributes 0.
    live = [(o, u) for o, u in zip(outputs, v, strict=True) if o.requires_grad]
    if not live:
        return [torch.zeros_like(p) for p in inputs]
    return list(
        torch.autograd.grad(
            [o for o, _ in live],
            list(inputs),
            grad_outputs=[u for _, u in live],
            retain_graph=keep or create,
            create_graph=create,
            materialize_grads=True,
        )
    )
