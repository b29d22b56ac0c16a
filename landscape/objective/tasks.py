"""Tasks other than classification, one class each: regression, several labels at once, pixels, tokens of a text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from landscape.objective.nests import Batch, Nest
from landscape.objective.networks import Network, one_tensor, what
from landscape.objective.task import Classification, Task
from landscape.runtime.errors import UserError, near_matches
from landscape.runtime.own import is_own, own_function, split_settings


@dataclass(frozen=True)
class Regression(Task):
    """Numbers y (n, ...), predicted by outputs of their shape: l_i is the mean of (f - y)^2 over an example's numbers.

    The Gauss-Newton matrix is (2 / (n d)) sum_i J_i^T J_i for d numbers per example.
    """

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The squared error of each example, (n,)."""
        return F.mse_loss(outputs, y, reduction="none").flatten(1).mean(1)

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
        mean, s = outputs
        s = s.clamp(min=self.least_log_variance)
        each = math.log(2 * math.pi) + s + (y - mean).square() * (-s).exp()
        return each.flatten(1).mean(1) / 2

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

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The binary cross-entropy of each example, (n,)."""
        return F.binary_cross_entropy_with_logits(outputs, y, reduction="none").flatten(1).mean(1)

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

    def hits(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Whether the largest logit is that of the pixel's class."""
        return (outputs.argmax(1) == y) & outputs.isfinite().all(1)

    def check(self, outputs: Nest, y: Nest) -> None:
        """Raise UserError for labels that do not fit the pixels or the classes."""
        _classes_of(one_tensor(outputs), y, self.units(y), "pixels")


@dataclass(frozen=True)
class NextToken(Task):
    """A language model: it predicts each token from those before it, or masked tokens. A unit is a token with a label.

    Batches are dicts like those from the tokenizers of transformers: input_ids, attention_mask, ..., labels. Without
    labels, the labels are the input_ids, except for padding. The network takes the entries of the dict by keyword and
    returns logits (n, tokens, vocabulary), directly or as the `logits` of its output.

    Parameters
    ----------
    shifted
        Whether the logits at a token are for the next token, as in GPT; False for masked models such as BERT.
    ignore_index
        The label of tokens that do not count.
    """

    shifted: bool = True
    ignore_index: int = -100

    def pair(self, batch: Any) -> Batch:
        """The dict without its labels, and the labels, which are those of the next token if `shifted`."""
        if not isinstance(batch, Mapping) or "input_ids" not in batch:
            raise UserError(f"the data give {what(batch)}, not a dict with input_ids; give batches as a tokenizer does")
        x = {name: t for name, t in batch.items() if name != "labels"}
        if "labels" not in batch and not self.shifted:
            raise UserError("the batches have no labels; for a masked model, give labels for the masked tokens")
        y: Tensor = batch["labels"] if "labels" in batch else batch["input_ids"]
        mask: Tensor | None = batch.get("attention_mask")
        if "labels" not in batch and mask is not None:
            y = y.masked_fill(mask == 0, self.ignore_index)
        return x, y[:, 1:] if self.shifted else y

    def outputs(self, network: Network, x: Nest) -> Nest:
        """The logits of the tokens that have a label."""
        out = network(**x)
        logits: Any = out["logits"] if isinstance(out, Mapping) else getattr(out, "logits", out)
        return logits[:, :-1] if self.shifted else logits

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The cross-entropy of each token, (n, tokens)."""
        return F.cross_entropy(outputs.movedim(-1, 1), y.masked_fill(~self.units(y), 0), reduction="none")

    def units(self, y: Tensor) -> Tensor:
        """The tokens that count."""
        return y != self.ignore_index

    def hits(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Whether the largest logit is that of the token."""
        return (outputs.argmax(-1) == y) & outputs.isfinite().all(-1)

    def check(self, outputs: Nest, y: Nest) -> None:
        """Raise UserError for labels that do not fit the tokens or the vocabulary."""
        _classes_of(one_tensor(outputs).movedim(-1, 1), y, self.units(y), "tokens")


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


def _classes_of(logits: Tensor, y: Any, counted: Tensor, units: str) -> None:
    """Raise UserError unless the labels (n, ...) of all examples fit the logits (1, classes, ...) of one."""
    if not isinstance(y, Tensor) or y.is_floating_point() or logits.shape[2:] != y.shape[1:]:
        raise UserError(
            f"labels are {what(y)}, logits for {tuple(logits.shape[2:])} {units}; give a class for each of the {units}"
        )
    found = y[counted]
    if len(found) and not 0 <= int(found.min()) <= int(found.max()) < logits.shape[1]:
        bad = int(found.min()) if int(found.min()) < 0 else int(found.max())
        raise UserError(f"label {bad} is out of range for {logits.shape[1]} classes (0 to {logits.shape[1] - 1})")


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
