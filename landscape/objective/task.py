"""How a batch becomes losses: the call of the network, the units of the mean, and whether each is right.

Everything that depends on the task is here; the objective, its curvature and the analyses only use these methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from landscape.objective.nests import Batch, Nest, length
from landscape.objective.networks import Network, one_tensor, what
from landscape.runtime.errors import UserError

ExampleLoss = Callable[[Tensor, Tensor], Tensor]
Uniform = Callable[[torch.Size], Tensor]  # random numbers between 0 and 1 in a shape (n, ...), an example a row


SHARES = 1e-3  # how far half precision may move a sum of soft labels from 1


@dataclass(frozen=True)
class Task(ABC):
    """What a network is trained to do: a map from batches to the losses whose mean is studied.

    A batch is a pair (x, y) of inputs and labels, each a tensor or a nest of tensors (dicts, lists, tuples), with one
    row per example in each tensor. An example has one or more units of the loss, such as its pixels or tokens; the mean
    is over units, and the units of one example are never treated as independent. A subclass is a frozen dataclass: its
    fields are its settings, which `__post_init__` checks and which are stored with every result.

    `losses` must be twice differentiable in the outputs, and each loss may depend on its own example only.

    If the losses are negative log-likelihoods of a distribution of the labels, which `drawn` draws from, there is a
    Fisher matrix. For a task that is `canonical` the second derivatives of the losses in the outputs do not depend on
    the labels; its Fisher matrix is the Gauss-Newton matrix.
    """

    canonical: ClassVar[bool] = False

    def pair(self, batch: Any) -> Batch:
        """The inputs and labels (x, y) of a batch as the data give it. Raises UserError if it is not a pair."""
        if isinstance(batch, (tuple, list)) and len(batch) == 2:
            return batch[0], batch[1]
        raise UserError(
            f"the data give a batch as {type(batch).__name__}, not as a pair (x, y); give pairs, or a task whose "
            "`pair` makes a pair of it"
        )

    def outputs(self, network: Network, x: Nest) -> Nest:
        """The outputs of the network: a nest of floating-point tensors. In the Gauss-Newton matrix, only `losses` has
        second derivatives, which are with respect to these.
        """
        return network(x)

    @abstractmethod
    def losses(self, outputs: Nest, y: Nest) -> Tensor:
        """The loss of each unit, (n,); or (n, ...) where an example has several units."""

    def units(self, y: Nest) -> Tensor | None:
        """Which of the losses count as units: truth values in the shape of `losses`, or None if each example is one
        unit. The other losses may be any finite number.
        """
        return None

    def hits(self, outputs: Nest, y: Nest) -> Tensor | None:
        """Whether each unit is right, in the shape of `losses`: 1 or 0, or NaN if its label does not say. The mean is
        the accuracy. None if the task has no right and wrong.
        """
        return None

    def check(self, outputs: Nest, y: Nest) -> None:
        """Raise UserError for labels y (n, ...) that do not fit the outputs of one example, (1, ...)."""
        return

    def config(self) -> dict[str, Any]:
        """What determines the losses, as it is stored with the results."""
        return {"task": {"name": type(self).__qualname__, **asdict(self)}}

    def total(self, outputs: Nest, y: Nest) -> Tensor:
        """The sum of the losses of the units: a scalar, differentiable."""
        losses, counted = self.losses(outputs, y), self.units(y)
        return (losses if counted is None else losses.masked_fill(~counted, 0)).sum()

    def total_linearised(self, outputs: Nest, y: Nest) -> Tensor:
        """`total` as the Gauss-Newton matrix has it, which differs where `losses` goes on computing the network: then
        that part is taken to be linear in the second derivative.
        """
        return self.total(outputs, y)

    def total_expected(self, outputs: Nest, y: Nest) -> Tensor:
        """A scalar whose second derivative in the outputs is the mean of that of `total` over labels from the
        network's own distribution. Raises UserError for a task that has no distribution.
        """
        if not self.canonical:
            raise self._no_distribution()
        return self.total_linearised(outputs, y)

    def drawn(self, outputs: Nest, y: Nest, uniform: Uniform) -> Nest:
        """Labels from the network's own distribution, made of uniform random numbers; units that do not count keep
        their label y. Raises UserError for a task that has no distribution.
        """
        raise self._no_distribution()

    def scores(self, outputs: Nest, y: Nest) -> Tensor:
        """Numbers r, (n, ...), for which the mean over drawn labels of sum grad r grad r^T is the Fisher matrix of
        `total`: the losses, where each is the negative log-likelihood of one label.
        """
        losses, counted = self.losses(outputs, y), self.units(y)
        return losses if counted is None else losses.masked_fill(~counted, 0)

    def _no_distribution(self) -> UserError:
        return UserError(
            f"{type(self).__name__} does not say what distribution its labels have, so there is no Fisher matrix; ask "
            "for the Gauss-Newton matrix (ggn), or give a task with `drawn` and `total_expected`"
        )

    def count(self, y: Nest) -> int | Tensor:
        """How many units the labels have."""
        counted = self.units(y)
        return length(y) if counted is None else counted.sum()


@dataclass(frozen=True)
class Classification(Task):
    """One of several classes: the cross-entropy of logits (n, classes) with classes (n,), or soft labels (n, classes).

    An example is right if its largest logit is that of its class, or of the largest share of its soft label, and all
    logits are finite.
    """

    canonical: ClassVar[bool] = True

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Per-example cross-entropy, (n,)."""
        return F.cross_entropy(outputs, y, reduction="none")

    def drawn(self, outputs: Tensor, y: Tensor, uniform: Uniform) -> Tensor:
        """A class for each example, (n,)."""
        return class_drawn(outputs, uniform(outputs.shape[:1]))

    def hits(self, outputs: Tensor, y: Tensor) -> Tensor | None:
        """Whether the largest output is that of the example's class, (n,); NaN for labels that are no shares of 1."""
        return _largest_is_right(outputs, y)

    def check(self, outputs: Nest, y: Tensor) -> None:
        """Raise UserError for a label for which the network has no output, and for soft labels that do not sum to 1."""
        classes = one_tensor(outputs).shape[-1]
        if y.is_floating_point():
            if y.shape[-1] != classes:
                raise UserError(f"the soft labels have {y.shape[-1]} classes, but the network has {classes} outputs")
            if y.ndim == 2 and not (shares := _are_shares(y)).all():
                bad = int((~shares).nonzero()[0])
                raise UserError(
                    f"the soft labels of example {bad} sum to {float(y[bad].sum()):g}, not to 1; for several "
                    "classes at once, or a regression, give another `task`, or a per-example `loss` of your own"
                )
        elif y.ndim != 1:
            raise UserError(
                f"labels of shape {tuple(y.shape)} are neither one class per example, (n,), nor soft labels; "
                "flatten them, or give another `task`"
            )
        elif int(y.min()) < 0 or int(y.max()) >= classes:
            bad = int(y.min()) if int(y.min()) < 0 else int(y.max())
            raise UserError(
                f"label {bad} is out of range for a network with {classes} outputs (0 to {classes - 1}); "
                "is this the data set that it was trained on?"
            )

    def config(self) -> dict[str, Any]:
        """The name of its loss."""
        return {"loss": "cross_entropy"}


@dataclass(frozen=True)
class CustomLoss(Task):
    """Any per-example loss, from the network's one tensor of outputs (n, ...) and labels y to (n,).

    If the labels are classes, the largest output is right or wrong as in `Classification`.
    """

    loss: ExampleLoss

    def losses(self, outputs: Tensor, y: Nest) -> Tensor:
        """The loss of each example, (n,)."""
        return self.loss(outputs, y)

    def hits(self, outputs: Tensor, y: Nest) -> Tensor | None:
        """As in `Classification`; None if the labels are not classes."""
        return _largest_is_right(outputs, y) if isinstance(y, Tensor) else None

    def check(self, outputs: Nest, y: Nest) -> None:
        """Raise UserError if the network returns anything but one tensor."""
        one_tensor(outputs)

    def config(self) -> dict[str, Any]:
        """The name of the loss."""
        return {"loss": getattr(self.loss, "__qualname__", type(self.loss).__qualname__)}


def task_of(task: Task | None, loss: ExampleLoss | None) -> Task:
    """The given task, or the task of the given loss; by default classification."""
    if task is not None and loss is not None:
        raise UserError("`task` and `loss` both say what the loss is; give one of them")
    if task is not None and not isinstance(task, Task):
        raise UserError(f"task={task!r} is not a landscape.Task; give an instance, such as Classification()")
    return CustomLoss(loss) if loss is not None else task or Classification()


def class_drawn(logits: Tensor, u: Tensor) -> Tensor:
    """The class (...) of logits (..., classes) at which the distribution function exceeds u (...), from 0 to 1."""
    above = logits.softmax(-1).cumsum(-1) <= u.to(logits)[..., None]
    return above.sum(-1).clamp(max=logits.shape[-1] - 1)


def refuse_other_classes(classes: int, each: tuple[int, ...], y: Any, counted: Tensor, units: str) -> None:
    """Raise UserError unless labels y (n, ...) fit logits for the units of an example, in the shape `each`."""
    if not isinstance(y, Tensor) or y.is_floating_point() or each != tuple(y.shape[1:]):
        raise UserError(f"labels are {what(y)}, logits for {each} {units}; give a class for each of the {units}")
    found = y[counted]
    if len(found) and not 0 <= int(found.min()) <= int(found.max()) < classes:
        bad = int(found.min()) if int(found.min()) < 0 else int(found.max())
        raise UserError(f"label {bad} is out of range for {classes} classes (0 to {classes - 1})")


def _are_shares(y: Tensor) -> Tensor:
    """Which rows of soft labels (n, classes) are shares that sum to 1; (n,)."""
    return (y >= 0).all(-1) & ((y.sum(-1) - 1).abs() <= SHARES)


def _largest_is_right(logits: Tensor, y: Tensor) -> Tensor | None:
    if logits.ndim != 2 or logits.shape[1] < 2:
        return None
    found = logits.argmax(-1)
    finite = logits.isfinite().all(-1)
    if y.is_floating_point():
        if y.shape != logits.shape:
            return None
        right = (found == y.argmax(-1)) & finite
        return torch.where(_are_shares(y), right.to(y.dtype), torch.nan)
    return (found == y) & finite if y.ndim == 1 else None
