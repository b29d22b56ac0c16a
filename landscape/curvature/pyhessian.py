"""PyHessian's own eigenvalues on our mini-batches: power iteration with deflation, for comparison."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.operators import Curvature
from landscape.linalg.ritz import RitzPairs
from landscape.objective.nests import Nest
from landscape.objective.networks import Called
from landscape.objective.objective import Objective
from landscape.runtime.arithmetic import exact_arithmetic
from landscape.runtime.errors import UserError
from landscape.runtime.random import seeded


def pyhessian_eigenpairs(
    objective: Objective,
    x: Nest,
    y: Nest,
    k: int,
    *,
    seed: int = 0,
    iterations: int = 100,
    tol: float = 1e-3,
    certify: float = 1e-2,
) -> RitzPairs:
    """What `pyhessian.hessian(...).eigenvalues(iterations, tol, top_n=k)` returns (Yao et al., arXiv:1912.07145).

    Its stopping rule looks at the change between two iterates and certifies nothing. The residuals are added here, from
    k more products that are not counted.

    Parameters
    ----------
    objective
        The loss.
    x, y
        One mini-batch.
    k
        The number of eigenvalues.
    seed
        The seed of PyHessian's random starts.
    iterations, tol
        The most iterations for one eigenvalue, and the relative change between two iterates at which it stops.
    certify
        A pair counts as `converged` when its residual is at most `certify` * |eigenvalue|.

    Raises
    ------
    UserError
        If pyhessian is not installed; if the network does not use one of its parameters, on which PyHessian fails; or,
        on a GPU, for inputs or labels of several tensors, which it does not take there.
    """
    try:
        from pyhessian import hessian
    except ImportError as e:
        raise UserError("method='pyhessian' needs PyHessian; install it with: python -m pip install pyhessian") from e
    on_gpu = objective.device.type == "cuda"
    if on_gpu and not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        raise UserError("PyHessian takes batches of one tensor x and one tensor y on a GPU; compute on the CPU")
    network = copy.deepcopy(objective.model)  # PyHessian leaves gradients behind
    model, units = Called(network, objective.task.outputs), objective.units_in(y)
    products = 0
    zero_grad = model.zero_grad

    def counted(set_to_none: bool = True) -> None:  # called once before each product
        nonlocal products
        products += 1
        zero_grad(set_to_none)

    def criterion(f: Nest, labels: Nest) -> Tensor:
        return objective.task.total(f, labels) / units + objective.penalty.value(dict(network.named_parameters()))

    with exact_arithmetic(), seeded(seed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using backward\\(\\) with create_graph=True", UserWarning)
        engine = hessian(model, criterion, data=(x, y), cuda=on_gpu)
        unused = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
        if unused:
            raise UserError(
                f"PyHessian fails on parameters that the network does not use, such as {unused[0]!r}; freeze them"
            )
        model.zero_grad = counted  # type: ignore[method-assign]
        values, vectors = engine.eigenvalues(iterations, tol, k)
    zero_grad(True)  # a gradient that holds its own graph is never freed
    order = np.argsort(-np.abs(values), kind="stable")
    H = Curvature(objective, x, y)
    residuals = []
    for i in order:
        u = torch.cat([part.reshape(-1) for part in vectors[i]])
        residuals.append(float(torch.linalg.vector_norm(H(u) - values[i] * u, dtype=torch.float64)))
    found, r = np.array(values)[order], np.array(residuals)
    return RitzPairs(found, r, r <= certify * np.abs(found), False, None, products, verified=True)
