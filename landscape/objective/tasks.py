"""Tasks other than classification, one class each: regression, several labels at once, pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from landscape.objective.nests import Nest
from landscape.objective.networks import Network, one_tensor, what
from landscape.objective.next_token import NextToken
from landscape.objective.task import Classification, Task, Uniform, class_drawn, refuse_other_classes
from landscape.runtime.errors import UserError, near_matches
from landscape.runtime.own import is_own, own_function, split_settings


@dataclass(frozen=True)
class Regression(Task):
    """Numbers y (n, ...), predicted by outputs of their shape: l_i is the mean of (f - y)^2 over an example's numbers.

    The Gauss-Newton matrix is (2 / (n d)) sum_i J_i^T J_i for d numbers per example. Squared errors are the negative
    log-likelihood, but for a constant, of a normal distribution with the variance 1/2.
    """

    canonical: ClassVar[bool] = True

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The squared error of each example, (n,)."""
        return self._each(outputs, y).mean(1)

    def _each(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(outputs, y, reduction="none").flatten(1)

    def drawn(self, outputs: Tensor, y: Tensor, uniform: Uniform) -> Tensor:
        """Numbers in the shape of y."""
        return outputs + _normal(uniform(y.shape), outputs) * math.sqrt(0.5)

    def scores(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The squared errors (n, d), each over sqrt(d)."""
        return _of_a_mean(self._each(outputs, y))

    def check(self, outputs: Nest, y: Nest) -> None:
        """Raise UserError for labels of another shape, or that are not floating-point numbers."""
        _same_shape(one_tensor(outputs), y)


@dataclass(frozen=True)
class GaussianRegression(Task):
    """Numbers y (n, ...) with a normal distribution, of which the network returns the mean and the log variance.

    The NLL of a number is (log(2 pi) + s + (y - m)^2 exp(-s)) / 2 with the mean m and s = log variance (Nix & Weigend
    1994); l_i is the mean over the example's numbers.

    Parameters
    ----------
    least_log_variance
        A lower bound put on s, without which the NLL of an example that is predicted exactly has no lower bound.
    """

    least_log_variance: float = -20.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.least_log_variance):
            raise UserError(f"least_log_variance={self.least_log_variance} must be a finite number")

    def losses(self, outputs: Nest, y: Tensor) -> Tensor:
        """The NLL of each example, (n,)."""
        return self._each(outputs, y).mean(1)

    def _each(self, outputs: Nest, y: Tensor) -> Tensor:
        mean, s = outputs
        return self._of((y - mean).square(), s.clamp(min=self.least_log_variance))

    def _of(self, squared: Tensor, s: Tensor) -> Tensor:
        return (math.log(2 * math.pi) + s + squared * (-s).exp()).flatten(1) / 2

    def total_expected(self, outputs: Nest, y: Tensor) -> Tensor:
        """The NLL expected of labels that have the network's distribution here: its slope in the outputs is 0, its
        second derivative diag(exp(-s), 1/2) for each number.
        """
        mean, s = outputs
        s = s.clamp(min=self.least_log_variance)
        squared = s.detach().exp() + (mean - mean.detach()).square()
        return self._of(squared, s).mean(1).sum()

    def drawn(self, outputs: Nest, y: Tensor, uniform: Uniform) -> Tensor:
        """Numbers in the shape of y."""
        mean, s = outputs
        return mean + _normal(uniform(y.shape), mean) * (s.clamp(min=self.least_log_variance) / 2).exp()

    def scores(self, outputs: Nest, y: Tensor) -> Tensor:
        """The NLLs (n, d), each over sqrt(d)."""
        return _of_a_mean(self._each(outputs, y))

    def check(self, outputs: Nest, y: Nest) -> None:
        """Raise UserError if the network does not return a pair, or for labels of another shape."""
        if not (isinstance(outputs, (tuple, list)) and len(outputs) == 2):
            raise UserError(f"the network returns {what(outputs)}, not a pair (mean, log variance); let it return both")
        for output in outputs:
            _same_shape(output, y)


@dataclass(frozen=True)
class MultiLabel(Task):
    """Any number of classes at once: logits and labels (n, classes), each label a number from 0 to 1.

    l_i is the mean of the binary cross-entropy over the classes; an example is right if all its classes are.
    """

    canonical: ClassVar[bool] = True

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The binary cross-entropy of each example, (n,)."""
        return self._each(outputs, y).mean(1)

    def _each(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs, y, reduction="none").flatten(1)

    def drawn(self, outputs: Tensor, y: Tensor, uniform: Uniform) -> Tensor:
        """A label of 0 or 1 for each class, (n, classes)."""
        return (uniform(y.shape).to(outputs) < outputs.sigmoid()).to(outputs)

    def scores(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The binary cross-entropies (n, d), each over sqrt(d)."""
        return _of_a_mean(self._each(outputs, y))

    def hits(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Whether exactly those logits are above 0 whose labels are above 1/2; (n,)."""
        return ((outputs > 0) == (y > 0.5)).flatten(1).all(1) & outputs.isfinite().flatten(1).all(1)

    def check(self, outputs: Nest, y: Nest) -> None:
        """Raise UserError for labels of another shape, or outside 0 to 1."""
        _same_shape(one_tensor(outputs), y)
        if float(y.min()) < 0 or float(y.max()) > 1:
            raise UserError(
                f"labels go from {float(y.min()):g} to {float(y.max()):g}; give labels from 0 to 1 for each class"
            )


@dataclass(frozen=True)
class Segmentation(Task):
    """The class of each pixel: logits (n, classes, ...) and labels (n, ...), such as (n, h, w). A unit is a pixel.

    If the network returns a dict, as torchvision's do, the logits are its entry "out".

    Parameters
    ----------
    ignore_index
        The label of pixels that do not count.
    """

    canonical: ClassVar[bool] = True

    ignore_index: int = 255

    def outputs(self, network: Network, x: Nest) -> Nest:
        """The logits."""
        out = network(x)
        return out["out"] if isinstance(out, Mapping) and "out" in out else out

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The cross-entropy of each pixel, (n, ...)."""
        return F.cross_entropy(outputs, y.masked_fill(~self.units(y), 0), reduction="none")

    def units(self, y: Tensor) -> Tensor:
        """The pixels that count."""
        return y != self.ignore_index

    def drawn(self, outputs: Tensor, y: Tensor, uniform: Uniform) -> Tensor:
        """A class for each pixel that counts."""
        return class_drawn(outputs.movedim(1, -1), uniform(y.shape)).where(self.units(y), y)

    def hits(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Whether the largest logit is that of the pixel's class."""
        return (outputs.argmax(1) == y) & outputs.isfinite().all(1)

    def check(self, outputs: Nest, y: Nest) -> None:
        """Raise UserError for labels that do not fit the pixels or the classes."""
        logits = one_tensor(outputs)
        refuse_other_classes(logits.shape[1], tuple(logits.shape[2:]), y, self.units(y), "pixels")


def _of_a_mean(terms: Tensor) -> Tensor:
    return terms / math.sqrt(terms.shape[1])


def _normal(u: Tensor, like: Tensor) -> Tensor:
    """Standard normal numbers from uniform ones."""
    return torch.special.ndtri(u.double()).to(like)


def _same_shape(output: Any, y: Any) -> None:
    """Raise UserError unless outputs, of one example, and labels, of all, have one shape per example."""
    if not isinstance(output, Tensor) or not isinstance(y, Tensor):
        raise UserError(f"the outputs are {what(output)} and the labels {what(y)}; give tensors of one shape")
    if not y.is_floating_point() or output.shape[1:] != y.shape[1:]:
        found = f"shape {tuple(y.shape[1:])} per example and type {str(y.dtype).removeprefix('torch.')}"
        raise UserError(
            f"the labels have {found}, the outputs shape {tuple(output.shape[1:])}; give floating-point labels of "
            "that shape"
        )


TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "regression": Regression,
    "gaussian-regression": GaussianRegression,
    "multi-label": MultiLabel,
    "segmentation": Segmentation,
    "next-token": NextToken,
}


def task_named(name: str) -> Task:
    """The task of this name, with settings of its own as in "segmentation(ignore_index=0)"; or of the user's own code,
    `path/to/file.py:function`, a function without arguments or a subclass of `Task`.

    Raises
    ------
    UserError
        For an unknown name or setting, or code that gives no task.
    """
    if is_own(name):
        found = own_function(name, "task")()
        if not isinstance(found, Task):
            raise UserError(f"{name} gives a {type(found).__name__}, no landscape.Task")
        return found
    known, settings = split_settings(name, "task")
    if known not in TASKS:
        raise UserError(f"unknown task {known!r}; {near_matches(known, TASKS)} (or path/to/file.py:function)")
    try:
        return TASKS[known](**settings)
    except TypeError as e:
        takes = [f.name for f in fields(TASKS[known])]
        unknown = next(iter(set(settings) - set(takes)), "")
        raise UserError(f"the task {known} takes no {unknown}; {near_matches(unknown, takes)}") from e
