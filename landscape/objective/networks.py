"""A network as a twice differentiable map from a batch to tensors, or an error that says why it is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from landscape.objective.nests import Nest, leaves, shapes
from landscape.runtime.errors import UserError

ONCE = "the network cannot be differentiated twice ({}), so it has no curvature; replace this, or ask for a surface"


Network = Callable[..., Any]


def unwrapped(model: nn.Module) -> nn.Module:
    """The network itself, taken out of DataParallel, DistributedDataParallel or torch.compile, with its own names.

    Raises UserError if the model is not a module.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"the model is {what(model)}, not a torch.nn.Module; give the network itself")
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(model, torch._dynamo.OptimizedModule):
            model = model._orig_mod
        else:
            return model


def refuse_lazy(model: nn.Module) -> None:
    """Raise UserError for a network with lazy modules that have not yet taken their shapes from a first batch."""
    lazy = [name for name, p in model.named_parameters() if isinstance(p, nn.parameter.UninitializedParameter)]
    if lazy:
        raise UserError(f"{lazy[0]} is lazy and has no shape yet; call the model on one batch first")


def called(network: Network, x: Nest) -> Any:
    """network(x). Raises UserError if the network's own code fails on x."""
    try:
        return network(x)
    except UserError:
        raise
    except Exception as e:
        raise UserError(
            f"the network's own code fails on a batch of {shapes(x)} ({type(e).__name__}: {e}); give it "
            "data of the size and the channels that it takes, or correct its code"
        ) from e


def one_tensor(out: Any) -> Tensor:
    """What a network returned. Raises UserError unless it is one tensor with one row per example."""
    if not isinstance(out, Tensor) or out.ndim == 0:
        raise UserError(
            f"the network returns {what(out)}, not one tensor of logits; wrap it in a module whose forward returns "
            "the logits alone"
        )
    return out


def outputs(network: nn.Module, x: Tensor) -> Tensor:
    """network(x), one tensor of logits; raises UserError as `called` and `one_tensor` do."""
    return one_tensor(called(network, x))


class Called(nn.Module):
    """A network as a task calls it, as a module: from a batch's inputs to the task's outputs."""

    def __init__(self, network: nn.Module, outputs: Callable[[Network, Nest], Nest]) -> None:
        super().__init__()
        self.network, self._outputs = network, outputs

    def forward(self, x: Nest) -> Nest:
        """The outputs for x."""
        return self._outputs(self.network, x)


def what(out: object) -> str:
    """A description of a returned object in words."""
    if isinstance(out, Tensor):
        return f"a tensor of shape {tuple(out.shape)}"
    name = type(out).__name__
    article = "an" if name[:1] in "AEIOaeio" else "a"
    return f"{article} {name} of {len(out)}" if isinstance(out, (tuple, list, Mapping)) else f"{article} {name}"


@contextmanager
def second_derivatives() -> Iterator[None]:
    """Within the block, a second derivative that torch lacks raises UserError."""
    try:
        yield
    except RuntimeError as e:
        if "is not implemented" not in str(e):
            raise
        raise UserError(ONCE.format(e)) from e


def refuse_differentiated_once(gradient: Sequence[Tensor]) -> None:
    """Raise UserError if the graph of `gradient` holds a once_differentiable function, which torch silently ignores."""
    if any(node.name() == "torch::autograd::Error" for node in _graph(gradient)):
        raise UserError(ONCE.format("it has a function marked once_differentiable"))


def lacks_second_derivative(out: Nest) -> bool:
    """Whether the outputs depend on a hardsigmoid, the only activation of torch without a second derivative."""
    tensors = [t for t in leaves(out) if isinstance(t, Tensor)]
    return any(node.name() == "HardsigmoidBackward0" for node in _graph(tensors))


def _graph(outputs: Sequence[Tensor]) -> set[Any]:
    seen: set[Any] = set()
    to_see = [out.grad_fn for out in outputs]
    while to_see:
        node = to_see.pop()
        if node is not None and node not in seen:
            seen.add(node)
            to_see += [after for after, _ in node.next_functions]
    return seen


def supply_second_derivative(network: nn.Module) -> None:
    """Rewrite each hardsigmoid of `network`, a private copy, in place, in steps that torch differentiates twice."""
    kind: Any = type(network)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with _InSteps():
            return kind.forward(self, *args, **kwargs)

    network.__class__ = type(kind.__name__, (kind,), {"forward": forward})


class _InSteps(TorchFunctionMode):
    """hardsigmoid(x) = min(max(x + 3, 0), 6) / 6."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in (F.hardsigmoid, torch._C._nn.hardsigmoid, torch._C._nn.hardsigmoid_):
            return func(*args, **kwargs)
        x, *rest = (*args, *kwargs.values())
        y = F.relu6(x + 3) / 6
        return x.copy_(y) if func is torch._C._nn.hardsigmoid_ or any(rest) else y
