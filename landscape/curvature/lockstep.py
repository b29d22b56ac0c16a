"""The curvature of many mini-batches at once, in one vectorised product."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from landscape.curvature.forms import Form, Named, Total, form_of
from landscape.curvature.operators import Curvature
from landscape.curvature.penalty import with_penalty
from landscape.objective.nests import Nest, length, rows
from landscape.objective.networks import Called
from landscape.objective.objective import Objective
from landscape.objective.parameters import chosen
from landscape.runtime.arithmetic import exact_arithmetic
from landscape.runtime.threads import stop_if_asked


class MiniBatchCurvatures:
    """The curvature of G mini-batches of one size, each times its own vector, in one vectorised product.

    The product is forward over reverse under vmap. On a GPU it replaces G products whose time goes into kernel
    launches; on a CPU the kept graph of `Curvature` is faster. If the first product shows that vmap cannot transform
    the network's code (checkpointing, a GRU, writes into fresh zeros), `vectorised` becomes False, a warning says so,
    and the mini-batches are multiplied one at a time, without a kept graph.

    Parameters
    ----------
    objective
        The loss.
    x, y
        (G, b, ...), or nests of such tensors, one row per mini-batch.
    kind, parameters
        As in `Curvature`.
    """

    def __init__(
        self,
        objective: Objective,
        x: Nest,
        y: Nest,
        *,
        kind: str | Form = "hessian",
        parameters: str | Sequence[str] | None = None,
    ) -> None:
        self.objective, self.form, self.x, self.y = objective, form_of(kind), x, y
        self.parameters = chosen(objective.model, parameters)
        each = [objective.units_in(rows(y, i)) for i in range(length(y))]
        self._units = next(iter(self.parameters.values())).new_tensor(each)
        self.vectorised = True

    def rows(self, X: Tensor, members: Sequence[int]) -> Tensor:
        """The products (G', b, n) of the mini-batches `members` with X (G', b, n)."""
        return torch.stack([self(X[:, i], members) for i in range(X.shape[1])], dim=1)

    def __call__(self, V: Tensor, members: Sequence[int]) -> Tensor:
        """The products (G', n) of the mini-batches `members` with one vector each, V (G', n)."""
        stop_if_asked()
        if self.vectorised:
            try:
                return with_penalty(self, V, self._together(V, members))
            except torch.OutOfMemoryError:
                raise
            except Exception as e:  # the network's own code may raise anything under vmap
                self.vectorised = False
                why = str(e).split("\n", 1)[0]
            warnings.warn(
                f"the network's code cannot be vectorised over mini-batches ({why}); they are multiplied one at a time",
                RuntimeWarning,
                stacklevel=2,
            )
        names = list(self.parameters)
        products = [
            Curvature(self.objective, *rows((self.x, self.y), i), kind=self.form, parameters=names)(v)
            for i, v in zip(members, V, strict=True)
        ]
        return torch.stack(products)

    def _together(self, V: Tensor, members: Sequence[int]) -> Tensor:
        index = torch.as_tensor(list(members), device=self._units.device)
        sizes = [p.numel() for p in self.parameters.values()]
        parts = {
            name: part.reshape(-1, *p.shape)
            for (name, p), part in zip(self.parameters.items(), V.split(sizes, dim=1), strict=True)
        }
        with exact_arithmetic(), torch.no_grad():
            products = vmap(self._product)(parts, rows(self.x, index), rows(self.y, index), self._units[index])
        return torch.cat([p.reshape(len(V), -1) for p in products.values()], dim=1)

    def _product(self, v: Named, x: Nest, y: Nest, units: Tensor) -> Named:
        task = self.objective.task
        network = Called(self.objective.model, task.outputs)
        theta = {name: p.detach() for name, p in self.parameters.items()}

        def outputs(t: Named) -> Nest:
            return functional_call(network, {f"network.{name}": p for name, p in t.items()}, (x,))

        def loss(total: Total) -> Callable[[Nest], Tensor]:
            return lambda f: total(task, f, y) / units

        return self.form.pushed(outputs, loss, theta, v)
