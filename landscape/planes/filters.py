"""How the parameters of a network split into filters: along which axis, and which parameters are a single vector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrizations import _WeightNorm

WEIGHTS = ("weight", "weight_v", "weight_orig")  # also the names under weight_norm, spectral_norm and pruning
NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Filters:
    """How a parameter splits into filters, each the weights of one output.

    Parameters
    ----------
    output
        The axis of the outputs.
    groups
        The groups of a transposed convolution, whose axis of outputs has only the outputs of one group.
    vector
        Whether the parameter is one vector, such as a bias or a scale, and so a single filter.
    """

    output: int = 0
    groups: int = 1
    vector: bool = False

    def norms(self, t: Tensor) -> Tensor:
        """||t_f|| for the filter f that each entry belongs to, broadcast to the shape of t.

        If every filter has a single number, the whole tensor counts as one filter: normalised by itself, a single
        number d would become d / |d| * |theta| = +-theta.
        """
        if not self.vector:
            grouped = t.movedim(self.output, 0) if self.groups == 1 else self._grouped(t)
            apart = grouped.ndim - (t.ndim - 1)  # 1, or groups and outputs
            inner = tuple(range(apart, grouped.ndim))
            if any(grouped.shape[axis] > 1 for axis in inner):
                norm = torch.linalg.vector_norm(grouped, dim=inner, keepdim=True).expand_as(grouped)
                return norm.movedim(0, self.output) if self.groups == 1 else self._ungrouped(norm, t)
        return torch.linalg.vector_norm(t).expand_as(t)

    def _grouped(self, t: Tensor) -> Tensor:
        """t (inputs, outputs of a group, ...) as (groups, outputs of a group, inputs of a group, ...)."""
        return t.reshape(self.groups, -1, *t.shape[1:]).transpose(1, 2)

    def _ungrouped(self, grouped: Tensor, like: Tensor) -> Tensor:
        return grouped.transpose(1, 2).reshape(like.shape)


def filters_of(model: nn.Module) -> dict[str, Filters]:
    """How each parameter of `model` splits into filters, by name. It depends on the module that holds the parameter.

    The weights of linear layers, convolutions and recurrent layers have one filter for each output; in transposed
    convolutions the outputs are axis 1, within each group. A parameter is one vector if it belongs to a norm, whatever
    its number of dimensions, if it is a bias or a scale (one number per filter or head), or if it has at most one axis
    longer than 1, such as a class token (1, 1, d). All other matrices and tensors, embeddings among them, have a filter
    for each entry along axis 0, as in the code of Li et al. (2018).
    """
    modules = dict(model.named_modules())
    found = {}
    for name, p in model.named_parameters():
        holder, _, leaf = name.rpartition(".")
        found[name] = _filters(*_original(modules, holder, leaf), p)
    return found


def _original(modules: dict[str, nn.Module], holder: str, leaf: str) -> tuple[nn.Module, str]:
    """The module in which a parameter is used, and the name that it has there without its parametrizations."""
    outer, found, name = holder.rpartition("parametrizations.")
    if not found:
        return modules[holder], leaf
    normed = any(isinstance(m, _WeightNorm) for m in modules[holder].children())
    scale = normed and leaf == "original0"
    return modules[outer.removesuffix(".")], f"{name} scale" if scale else name


def _filters(module: nn.Module, leaf: str, p: Tensor) -> Filters:
    if leaf.endswith("bias") or p.ndim < 2:
        return Filters(vector=True)
    if isinstance(module, (nn.Linear, nn.Bilinear, _ConvNd)) and leaf in WEIGHTS:
        if isinstance(module, _ConvTransposeNd):
            return Filters(output=1, groups=module.groups)
        return Filters()
    if isinstance(module, nn.RNNBase) and leaf.startswith("weight"):
        return Filters()
    if type(module).__name__ == "Conv1D" and leaf in WEIGHTS:  # a linear layer (inputs, outputs) in transformers
        return Filters(output=1)
    if isinstance(module, NORMS) or "Norm" in type(module).__name__:
        return Filters(vector=True)
    return Filters(vector=sum(size > 1 for size in p.shape) < 2)
