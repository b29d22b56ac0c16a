"""The loss: the mean NLL over the units of frozen batches, plus the stated penalty."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from landscape.objective.batches import Batches, batches_of
from landscape.objective.clusters import fold_of, mean_and_sem, numbered, parted
from landscape.objective.fit import check_fit, check_repeatable, refuse_batch_statistics
from landscape.objective.folding import accelerate
from landscape.objective.nests import Batch, Nest, length, mapped, rows, split
from landscape.objective.networks import (
    called,
    lacks_second_derivative,
    refuse_lazy,
    supply_second_derivative,
    unwrapped,
)
from landscape.objective.parameters import fingerprint
from landscape.objective.penalty import Penalty
from landscape.objective.provenance import of_ones_own
from landscape.objective.task import ExampleLoss, Task, task_of
from landscape.runtime.arithmetic import true_float32
from landscape.runtime.caller import undisturbed
from landscape.runtime.errors import UserError
from landscape.runtime.threads import stop_if_asked

FOLDS = 20
NO_UNIT = "no unit of {} counts, and a mean needs at least one; give labels that the task does not ignore"
CACHED = 64  # examples whose activations fit a CPU's caches: a ResNet-20 takes a tenth less time than with 256


Method = TypeVar("Method", bound=Callable[..., Any])


def _without_graphs(method: Method) -> Method:
    @wraps(method)
    def run(self: Objective, *arguments: Any, **keywords: Any) -> Any:
        scripted = any(isinstance(m, torch.jit.ScriptModule) for m in self.model.modules())  # it caches graphs
        with torch.no_grad() if scripted else torch.inference_mode():
            return method(self, *arguments, **keywords)

    return cast(Method, run)


@dataclass(frozen=True)
class Evaluation:
    """The objective at one point.

    The standard errors treat the units of one example, and of examples that share an image, as one cluster.

    Attributes
    ----------
    nll, nll_sem
        The mean NLL over units, and its standard error.
    penalty
        The penalty.
    loss
        The NLL with the penalty.
    accuracy, accuracy_sem
        The share of units that are right, and its standard error; NaN if the task has no right and wrong.
    examples, units
        The numbers of examples and of units.
    nll_fold
        The mean NLL over each of up to FOLDS disjoint folds of the examples. The folds are the same at every point, so
        that leaving out one at a time gives the standard error of whatever is computed from several points.
    """

    nll: float
    nll_sem: float
    penalty: float
    loss: float
    accuracy: float
    accuracy_sem: float
    examples: int
    units: int
    nll_fold: tuple[float, ...]

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


class Objective:
    """L(theta) = (1/N) sum_i l_i(theta) + penalty(theta), over the N units of the task, in eval mode.

    In a classification, the default task, a unit is an example: l_i = l(f_theta(x_i), y_i).

    The objective takes a private copy of `model` as it is, so that nothing done here changes the caller's model. It
    rewrites the copy for speed where that is exact (`landscape.objective.folding`) and holds the data on `device`.

    Parameters
    ----------
    model
        Any module from x to logits (n, classes), or to what the task takes. DataParallel and torch.compile are taken
        off.
    data
        An iterable of batches that gives the same batches each time, such as `load_data` returns. A batch is a pair
        (x, y), or anything from which the task makes such a pair. x and y are tensors or nests of tensors (dicts,
        lists, tuples), with one row per example in each tensor. Batches may differ in their other sizes, as texts
        padded batch by batch do. If the data have an attribute `clusters`, it holds an integer for each example, equal
        for examples that are not independent: standard errors and folds then treat each cluster as one, and no cluster
        may be in two mini-batches.
    weight_decay
        lambda of the penalty, which every loss, gradient and curvature includes. By default there is none, whatever the
        network was trained with.
    penalty
        l2: (lambda/2) sum_p ||theta_p||^2 over the decayed parameters. norm-sum: lambda sum_p ||theta_p|| over every
        parameter, including frozen ones, as in the code of Park & Kim.
    decay
        Which parameters an l2 penalty includes. matrices: as in timm, those that require a gradient, have two or more
        dimensions, and are neither called bias nor named by the model's `no_weight_decay()`. all: every parameter that
        requires a gradient, as in torch's optimisers.
    task
        How a batch becomes losses; None for `Classification`.
    loss
        A per-example loss, from (logits, y) to (n,), in place of a task.
    device
        The device of the private copy and the data; None for that of the model.
    dtype
        float32 or float64, for parameters and floating-point inputs alike.
    provenance
        Where the weights came from, as `load_checkpoint` returns it or as you like to say it; it is stored with the
        results.

    Attributes
    ----------
    penalty
        A `landscape.objective.penalty.Penalty`: its value, its Hessian's products and trace.
    examples, units
        The numbers of examples and of units.
    units_of_example
        How many units each example has, (examples,).

    Raises
    ------
    UserError
        For data that are empty or not nests of tensors; for labels that do not fit the task (in a classification: a
        class for which the network has no output, or soft labels that do not sum to 1); for a BatchNorm without running
        statistics, with which the loss would depend on the batches; for a loss that draws random numbers; for a model
        that cannot be copied, that fails on the first example, or that returns what the task cannot use (in a
        classification: anything but one tensor).

    Examples
    --------
    The Hessian of least squares is the mean of x x^T:

    >>> import torch
    >>> import landscape as ls
    >>> x, y = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.zeros(2, 1)
    >>> network = torch.nn.Linear(2, 1, bias=False)
    >>> objective = ls.Objective(network, [(x, y)], loss=lambda out, y: (out - y).square().sum(1) / 2)
    >>> objective
    Objective(Linear of 2 parameters, 2 examples, CustomLoss, no penalty, cpu, float32)
    >>> ls.hessian_top(objective, k=2)["eigenvalue"].values.round(4)
    array([2. , 0.5])
    """

    @undisturbed()
    def __init__(
        self,
        model: nn.Module,
        data: Iterable[Any],
        *,
        weight_decay: float = 0.0,
        penalty: str = "l2",
        decay: str = "matrices",
        task: Task | None = None,
        loss: ExampleLoss | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        term = Penalty(weight_decay, penalty, decay)
        model = unwrapped(model)
        first = next(model.parameters(), None)
        if first is None:
            raise UserError("the model has no parameters, so its loss has no landscape")
        self.device = torch.device(device) if device is not None else first.device
        self.dtype = dtype
        self.task = task_of(task, loss)
        self.provenance = of_ones_own(provenance)
        refuse_lazy(model)
        try:
            self.model = copy.deepcopy(model).to(device=self.device, dtype=dtype).eval()
        except RuntimeError as e:
            raise UserError(f"the model cannot be copied ({e}); give one whose tensors are all parameters") from e
        self.model.zero_grad(set_to_none=True)
        refuse_batch_statistics(self.model)
        self._data, first_outputs = self._frozen(data)
        self.examples = self._data.examples
        self.batches = list(self._data)
        self.data_config: dict[str, Any] = dict(getattr(data, "config", {}))
        self._given_clusters: Tensor | None = getattr(data, "clusters", None)
        self.clusters = self._numbered_clusters()
        check_fit(self.task, self.outputs, self._data.stores, first_outputs)
        self._check_repeatable()
        self._count_units()
        self._thread, self._replica = threading.get_ident(), threading.local()
        self.penalty = term.over(self.model)

    def __repr__(self) -> str:
        """The network, examples, task and penalty, in one line."""
        parameters = sum(p.numel() for p in self.model.parameters())
        units = f", {self.units:,} units" if self.units != self.examples else ""
        return (
            f"Objective({type(self.model).__name__} of {parameters:,} parameters, {self.examples:,} examples{units}, "
            f"{type(self.task).__name__}, {self.penalty}, {self.device}, {str(self.dtype).removeprefix('torch.')})"
        )

    @property
    def data(self) -> Batches:
        """The frozen examples, on the device."""
        return self._data

    @property
    def batch_size(self) -> int:
        """The number of examples in the first of the frozen batches."""
        return self._data.sizes[0][0]

    def in_this_thread(self) -> Objective:
        """The same objective with a model of this thread alone, since a network may keep state during a call."""
        if threading.get_ident() == self._thread:
            return self
        if not hasattr(self._replica, "objective"):
            replica = copy.copy(self)
            replica.model = copy.deepcopy(self.model)
            self._replica.objective = replica
        return self._replica.objective

    def _numbered_clusters(self) -> np.ndarray:
        """The cluster of each example, (N,); without clusters each example is its own."""
        if self._given_clusters is None:
            return np.arange(self.examples)
        given = torch.as_tensor(self._given_clusters)
        if given.is_floating_point() or given.shape != (self.examples,):
            raise UserError(
                f"clusters of shape {tuple(given.shape)} and type {str(given.dtype).removeprefix('torch.')} for "
                f"{self.examples} examples; give one integer for each"
            )
        return numbered(given.cpu().numpy())

    def _frozen(self, data: Iterable[Any]) -> tuple[Batches, Nest]:
        """The data on the device, and the outputs for the first example; network and data are laid out for speed."""
        given = Batches.of(self.task.pair(batch) for batch in batches_of(data))
        if not given.examples:
            raise UserError("the data set is empty; the loss is a mean over examples and needs at least one")
        stores = [mapped(self._on_device, store) for store in given.stores]
        inputs = [x for x, _ in stores]
        with true_float32(), torch.enable_grad():  # as later: TF32 would make a folded network differ
            first_outputs = called(self.outputs, rows(inputs[0], slice(1)))
            inputs = accelerate(self.model, inputs, lambda each: [self.outputs(x) for x in each])
        if lacks_second_derivative(first_outputs):
            supply_second_derivative(self.model)
        return Batches([(x, y) for x, (_, y) in zip(inputs, stores, strict=True)], given.sizes), first_outputs

    def _on_device(self, t: Tensor) -> Tensor:
        return t.to(self.device, self.dtype if t.is_floating_point() else t.dtype)

    @property
    def x(self) -> Nest:
        """All inputs, (N, ...). Raises UserError if the batches cannot be joined."""
        return self._only_store()[0]

    @property
    def y(self) -> Nest:
        """All labels, (N, ...). Raises UserError if the batches cannot be joined."""
        return self._only_store()[1]

    def _only_store(self) -> Batch:
        if len(self._data.stores) > 1:
            raise UserError(
                f"the {len(self.batches)} batches differ in shape and cannot be joined; take them from "
                "objective.batches, or pad all of them alike"
            )
        return self._data.stores[0]

    def outputs(self, x: Nest) -> Nest:
        """The outputs of the private copy for a batch's inputs, as the task computes them."""
        return self.task.outputs(self.model, x)

    @_without_graphs
    def _check_repeatable(self) -> None:
        check_repeatable(self.task, self.outputs, self._data.stores[0], self.dtype)

    def _count_units(self) -> None:
        """Count the units: which losses count, (losses,), and the cluster and fold of each unit, (units,)."""
        counted, of_example = [], []
        for _, y in self._data.stores:
            which = self.task.units(y)
            each = np.ones((length(y), 1), bool) if which is None else which.flatten(1).cpu().numpy()
            counted.append(each.ravel())
            of_example.append(each.sum(1))
        self._counted, self.units_of_example = np.concatenate(counted), np.concatenate(of_example)
        self.units = int(self.units_of_example.sum())
        if not self.units:
            raise UserError(NO_UNIT.format(f"the {self.examples} examples"))
        self._fold = fold_of(self.clusters, FOLDS, self.units_of_example)
        self._unit_cluster = numbered(np.repeat(self.clusters, self.units_of_example))
        self._unit_fold = np.repeat(self._fold, self.units_of_example)

    def units_in(self, y: Nest) -> int:
        """How many units the labels of a batch have. Raises UserError for none, since a mean needs one."""
        count = int(self.task.count(y))
        if not count:
            raise UserError(NO_UNIT.format("a mini-batch"))
        return count

    def minibatches(self, size: int, count: int | None = None) -> list[Batch]:
        """The frozen examples in order, cut anew into mini-batches of exactly `size`; the first `count` of them.

        Raises UserError if there are none, or fewer than `count`; if two would share an image; if one would hold
        examples of batches that differ in shape; or if one has no unit.
        """
        if size < 1:
            raise UserError(f"mini-batches of {size} examples were asked for; they need 1 or more")
        available = self.examples // size
        if available == 0 or (count is not None and not 1 <= count <= available):
            asked = f"{count} mini-batches" if count is not None else "a mini-batch"
            raise UserError(
                f"{asked} of {size} asked for, but {self.examples} frozen examples make {available}; "
                f"ask for 1 to {max(available, 1)} or freeze more samples"
            )
        count = available if count is None else count
        if apart := parted(self.clusters[: count * size], size):
            raise UserError(
                f"mini-batches of {size} separate examples {apart[0]} and {apart[1]}, which share an image and are not "
                f"independent; {self._fitting(size)}"
            )
        if (between := self._data.straddling(size, count)) is not None:
            raise UserError(
                f"mini-batch {between} of {size} examples would hold examples of two batches that differ in shape; "
                f"{self._fitting(size)}"
            )
        without = np.flatnonzero(self.units_of_example[: count * size].reshape(count, size).sum(1) == 0)
        if without.size:
            raise UserError(NO_UNIT.format(f"mini-batch {without[0]} of {size} examples"))
        return [self._data.cut(i * size, (i + 1) * size) for i in range(count)]

    def _fitting(self, size: int) -> str:
        """Which mini-batches to use where `size` does not work: the next larger size, or else the next smaller."""
        for s in (*range(size + 1, self.examples + 1), *range(size - 1, 0, -1)):
            if self._data.divisible % s == 0 and not parted(self.clusters, s):
                return f"take mini-batches of {s}"
        return "freeze batches that consist of whole mini-batches, all padded alike"

    def nll_sum(self, x: Nest, y: Nest) -> Tensor:
        """The sum of l_i over the units of one batch, differentiable."""
        return self.task.total(self.outputs(x), y)

    def penalty_value(self) -> Tensor:
        """penalty(theta) at the weights of the private copy, a scalar in float64."""
        return self.penalty.value({name: p.detach().double() for name, p in self.model.named_parameters()})

    @property
    def fold(self) -> np.ndarray:
        """The fold of each example, integers (N,)."""
        return self._fold

    @property
    def folds(self) -> int:
        """The number of folds for which `evaluate` returns the NLL too."""
        return int(self._fold.max()) + 1

    def parts(self) -> Iterator[Batch]:
        """The frozen examples in order, in parts of the size that makes a forward pass fastest."""
        at_once = CACHED if self.device.type == "cpu" else self.examples
        for part in (part for batch in self.batches for part in split(batch, at_once)):
            stop_if_asked()
            yield part

    def _losses_and_hits(
        self, outputs: Callable[[Nest], Nest] | None, autocast: torch.dtype | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The losses and hits of each part, in float64 on the device; no hits if a part has none."""
        losses, hits = [], []
        for x, y in self.parts():
            with true_float32(), torch.autocast(self.device.type, autocast, enabled=autocast is not None):
                out = self.outputs(x) if outputs is None else outputs(x)
            out = mapped(lambda t: t.to(self.dtype), out)
            losses.append(self.task.losses(out, y).double().flatten())
            hit = self.task.hits(out, y)
            hits.append(None if hit is None else hit.double().flatten())
        known = [h for h in hits if h is not None]
        return losses, known if len(known) == len(hits) else []

    @undisturbed()
    @_without_graphs
    def evaluate(
        self, *, autocast: torch.dtype | None = None, outputs: Callable[[Nest], Nest] | None = None
    ) -> Evaluation:
        """The objective at the weights of the private copy, with NLL and accuracy as means over units.

        Parameters
        ----------
        autocast
            A dtype of lower precision for the matrix products and convolutions that torch.autocast selects. Inf and NaN
            are results and are kept.
        outputs
            A function from inputs to outputs to use in place of the network; called with the examples in order.
        """
        losses, hits = self._losses_and_hits(outputs, autocast)
        found = torch.cat([*losses, *hits, self.penalty_value()[None]]).cpu().numpy()  # one copy from the device
        loss, right, (penalty,) = np.split(found, [len(self._counted), len(found) - 1])
        loss = loss[self._counted]
        nll, sem = mean_and_sem(loss, self._unit_cluster)
        accuracy = accuracy_sem = math.nan
        if hits:
            accuracy, accuracy_sem = mean_and_sem(right[self._counted], self._unit_cluster)
        fold = tuple((np.bincount(self._unit_fold, weights=loss) / np.bincount(self._unit_fold)).tolist())
        loss_with = nll + float(penalty)
        counts = self.examples, self.units
        return Evaluation(nll, sem, float(penalty), loss_with, accuracy, accuracy_sem, *counts, fold)

    @_without_graphs
    def unit_by_unit(self, outputs: Callable[[Nest], Nest] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The loss of each unit, and whether it is right: two arrays (units,), the second of 1, 0, or NaN if unknown.

        Parameters
        ----------
        outputs
            A function from inputs to outputs to use in place of the network; called with the examples in order.
        """
        losses, hits = self._losses_and_hits(outputs, None)
        loss = torch.cat(losses).cpu().numpy()[self._counted]
        return loss, torch.cat(hits).cpu().numpy()[self._counted] if hits else np.full(len(loss), np.nan)

    @property
    def unit_cluster(self) -> np.ndarray:
        """The cluster of each unit, integers (units,); units of one cluster are not independent."""
        return self._unit_cluster

    def config(self, *, penalised: bool = True) -> dict[str, Any]:
        """What determines the results: loss, penalty, data and weights, the last two by their content.

        penalised: False for results that no penalty enters.
        """
        given = self._given_clusters
        clusters = {} if given is None else {"clusters_sha256": fingerprint({"clusters": torch.tensor(self.clusters)})}
        return {
            **self.task.config(),
            **(self.penalty.config() if penalised else {}),
            "dtype": str(self.dtype).removeprefix("torch."),
            "examples": self.examples,
            "data": self.data_config,
            "data_sha256": self._data.fingerprint(),
            **clusters,
            "weights_sha256": fingerprint(self.model.state_dict()),
            "provenance": self.provenance,
        }
