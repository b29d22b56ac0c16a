"""THE loss: the example-weighted mean NLL on frozen batches, and the stated L2 term."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.objective.clusters import fold_of, mean_and_sem, numbered, parted
from landscape.objective.folding import accelerate
from landscape.objective.networks import lacks_second_derivative, outputs, supply_second_derivative
from landscape.objective.parameters import fingerprint
from landscape.runtime.arithmetic import true_float32
from landscape.runtime.errors import UserError

ExampleLoss = Callable[[Tensor, Tensor], Tensor]


PENALTIES = ("l2", "norm-sum")


FOLDS = 20


LOOKED_AT = 8  # examples evaluated twice when an objective is made


SHARES = 1e-3  # what the rounding of half precision leaves of a sum of soft labels


CACHED = 64  # examples whose activations stay near a CPU's cores: a ResNet-20 takes a tenth less time than by 256


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Per-example cross-entropy, shape (n,); y holds classes (n,) or soft labels (n, classes)."""
    return F.cross_entropy(logits, y, reduction="none")


def _distributions(y: Tensor) -> Tensor:
    """Which rows of soft labels (n, classes) are shares of 1; (n,)."""
    return (y >= 0).all(-1) & ((y.sum(-1) - 1).abs() <= SHARES)


def _refuse_batch_statistics(model: nn.Module) -> None:
    for name, m in model.named_modules():
        if isinstance(m, _BatchNorm) and m.running_mean is None:
            raise UserError(
                f"{type(m).__name__} {name!r} keeps no running statistics, so each example's loss depends on the batch "
                "it is in; give it track_running_stats=True and run the training data through the network in train "
                "mode, or take GroupNorm or LayerNorm"
            )


@dataclass(frozen=True)
class Evaluation:
    """The objective at one point. `nll_sem` and `accuracy_sem` are standard errors of the mean over examples, those
    that share an image taken together.

    accuracy: NaN where the task is none of classes.
    nll_fold: the mean NLL over each of up to FOLDS disjoint folds of the examples, the same at every point: whatever is
    computed from several points has its standard error by leaving out one fold at a time.
    """

    nll: float
    nll_sem: float
    penalty: float
    loss: float
    accuracy: float
    accuracy_sem: float
    examples: int
    nll_fold: tuple[float, ...]

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


def _is_decayed(name: str, p: Tensor, skipped: Iterable[str]) -> bool:
    """timm's rule, `param_groups_weight_decay`, of a parameter that requires a gradient."""
    return p.ndim >= 2 and not name.endswith(".bias") and not any(fnmatchcase(name, pattern) for pattern in skipped)


class Objective:
    """L(theta) = (1/N) sum_i l(f_theta(x_i), y_i) + penalty(theta), N counted in examples, in eval mode.

    It takes a private copy of `model` as it stands, so that nothing done here changes the caller's, rewrites it for
    speed where that is exact (`landscape.objective.folding`), and holds the data on `device`.

    model: any module from x to logits (n, classes).
    data: an iterable of (x, y) batches that gives the same batches each time, such as `load_data` returns. If it has
        `clusters`, integers (N,) equal where examples are not independent, standard errors and folds take each cluster
        as one, and no two mini-batches share one.
    weight_decay: lambda of a penalty, which every loss, gradient and curvature then includes; 0 for none, whatever the
        network was trained with. penalty="l2" is (lambda/2) sum_p ||theta_p||^2 over the decayed parameters: by timm's
        rule those that require a gradient, have two or more dimensions, and are neither called bias nor named by the
        model's `no_weight_decay()`; or with decay="all" every one that requires a gradient, as torch's optimisers
        decay. penalty="norm-sum" is lambda sum_p ||theta_p|| over every parameter, frozen ones too, as the code of
        Park & Kim has it.
    loss: per-example loss, from (logits, y) to (n,); the default is cross-entropy.
    dtype: float32 or float64, of parameters and inputs alike.
    provenance: where the weights came from, as `load_checkpoint` returns it; carried into the results.

    Raises UserError for an empty data set, a label that the network has no output for, soft labels that do not sum to
    1, a BatchNorm without running statistics, whose loss would depend on the batches, a loss that draws random numbers,
    a model that cannot be copied, that fails on the first example, or that returns anything else than one tensor.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Iterable[tuple[Tensor, Tensor]],
        *,
        weight_decay: float = 0.0,
        penalty: str = "l2",
        decay: str = "matrices",
        loss: ExampleLoss = cross_entropy,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        if penalty not in PENALTIES:
            raise UserError(f"penalty={penalty!r} is not one of {', '.join(PENALTIES)}")
        if decay not in ("matrices", "all"):
            raise UserError(f"decay={decay!r} is not one of matrices, all")
        if not (math.isfinite(weight_decay) and weight_decay >= 0):
            raise UserError(f"weight_decay={weight_decay} must be a finite number, 0 or more")
        first = next(model.parameters(), None)
        if first is None:
            raise UserError("the model has no parameters, so its loss has no landscape")
        self.device = torch.device(device) if device is not None else first.device
        self.dtype = dtype
        self.loss = loss
        self.weight_decay = weight_decay
        self.penalty_form = penalty
        self.decay = decay
        self.provenance = dict(provenance or {})
        try:
            self.model = copy.deepcopy(model).to(device=self.device, dtype=dtype).eval()
        except RuntimeError as e:
            raise UserError(f"the model cannot be copied ({e}); give one whose tensors are all parameters") from e
        self.model.zero_grad(set_to_none=True)
        _refuse_batch_statistics(self.model)
        batches = [(x, y) for x, y in data if len(y)]
        if not batches:
            raise UserError("the data set is empty; the loss is a mean over examples and needs at least one")
        self.x = self._on_device(torch.cat([x for x, _ in batches]))
        self.y = self._on_device(torch.cat([y for _, y in batches]))
        with true_float32(), torch.enable_grad():  # as it is used later: TF32 would hide that a folded one is the same
            first_outputs = outputs(self.model, self.x[:1])
            self.x = accelerate(self.model, self.x)
        if lacks_second_derivative(first_outputs):
            supply_second_derivative(self.model)
        self.examples = len(self.y)
        sizes = [len(y) for _, y in batches]
        self.batches = list(zip(self.x.split(sizes), self.y.split(sizes), strict=True))
        self.data_config: dict[str, Any] = dict(getattr(data, "config", {}))
        self._given_clusters: Tensor | None = getattr(data, "clusters", None)
        self.clusters = self._numbered_clusters()
        self._fold = fold_of(self.clusters, FOLDS)
        self._soft_classes = self.y.is_floating_point() and self.y.ndim == 2 and bool(_distributions(self.y).all())
        self._check_labels(first_outputs.shape[-1])
        self._check_repeatable()
        self._thread, self._replica = threading.get_ident(), threading.local()
        skipped = set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()  # type: ignore[operator]
        self._decayed = [
            name
            for name, p in self.model.named_parameters()
            if penalty == "norm-sum" or (p.requires_grad and (decay == "all" or _is_decayed(name, p, skipped)))
        ]

    def in_this_thread(self) -> Objective:
        """The same objective on a model that no other thread runs: a network may keep state while it is called."""
        if threading.get_ident() == self._thread:
            return self
        if not hasattr(self._replica, "objective"):
            replica = copy.copy(self)
            replica.model = copy.deepcopy(self.model)
            self._replica.objective = replica
        return self._replica.objective

    def _numbered_clusters(self) -> np.ndarray:
        """The cluster of each example, (N,); each its own where none are given."""
        if self._given_clusters is None:
            return np.arange(self.examples)
        given = torch.as_tensor(self._given_clusters)
        if given.is_floating_point() or given.shape != (self.examples,):
            raise UserError(
                f"clusters of shape {tuple(given.shape)} and type {str(given.dtype).removeprefix('torch.')} for "
                f"{self.examples} examples; give one integer for each"
            )
        return numbered(given.cpu().numpy())

    def _on_device(self, t: Tensor) -> Tensor:
        return t.to(self.device, self.dtype if t.is_floating_point() else t.dtype)

    def _check_labels(self, classes: int) -> None:
        if self.loss is not cross_entropy:
            return
        y = self.y
        if y.is_floating_point():
            if y.shape[-1] != classes:
                raise UserError(f"soft labels over {y.shape[-1]} classes for a network of {classes} outputs")
            if y.ndim == 2 and not self._soft_classes:
                bad = int((~_distributions(y)).nonzero()[0])
                raise UserError(
                    f"the soft labels of example {bad} sum to {float(y[bad].sum()):g}, not to 1; for several "
                    "classes at once, or a regression, give a per-example loss of your own with loss="
                )
        elif int(y.min()) < 0 or int(y.max()) >= classes:
            bad = int(y.min()) if int(y.min()) < 0 else int(y.max())
            raise UserError(
                f"label {bad} is out of range for a network of {classes} outputs (0 to {classes - 1}); "
                "is this the data set that it was trained on?"
            )

    def _check_repeatable(self) -> None:
        x, y = self.x[:LOOKED_AT], self.y[:LOOKED_AT]
        with torch.inference_mode(), true_float32():
            once, again = (self.loss(self.model(x), y) for _ in range(2))
        near = torch.finfo(self.dtype).eps ** 0.5  # on a GPU, sums are rounded differently each time
        if not torch.allclose(once, again, rtol=near, atol=near, equal_nan=True):
            raise UserError(
                f"the loss of the same examples is {float(once.mean()):.4g} once and {float(again.mean()):.4g} again: "
                "the network or the loss draws random numbers in eval mode, as F.dropout(x, p) does; "
                "give it training=self.training"
            )

    def minibatches(self, size: int, count: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """The frozen examples in order, cut anew into mini-batches of exactly `size`; the first `count` of them.

        Raises UserError where there are fewer than one, or than `count`, or where two would share an image.
        """
        if size < 1:
            raise UserError(f"mini-batches of {size} asked; they need 1 example or more")
        available = self.examples // size
        if available == 0 or (count is not None and not 1 <= count <= available):
            asked = f"{count} mini-batches" if count is not None else "a mini-batch"
            raise UserError(
                f"{asked} of {size} asked, but {self.examples} frozen examples make {available}; "
                f"ask for 1 to {max(available, 1)} or freeze more samples"
            )
        count = available if count is None else count
        if apart := parted(self.clusters[: count * size], size):
            fitting = (s for s in range(size + 1, self.examples + 1) if not parted(self.clusters, s))
            raise UserError(
                f"mini-batches of {size} part examples {apart[0]} and {apart[1]}, which share an image and are not "
                f"independent; take mini-batches of {next(fitting)}"
            )
        cuts = [slice(i * size, (i + 1) * size) for i in range(count)]
        return [(self.x[cut], self.y[cut]) for cut in cuts]

    def nll_sum(self, x: Tensor, y: Tensor) -> Tensor:
        """sum_i l(f(x_i), y_i) on one batch, differentiable."""
        return self.loss(self.model(x), y).sum()

    def penalty(self) -> Tensor:
        """penalty(theta) where the private copy stands, a scalar in float64."""
        return self.penalty_of({name: p.detach().double() for name, p in self._penalised().items()})

    def penalty_of(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The penalty of these named parameters, differentiable; those it does not touch are passed over."""
        some = next(iter(parameters.values()), torch.zeros((), dtype=torch.float64, device=self.device))
        total = some.new_zeros(())
        for name in self._decayed if self.weight_decay else ():
            p = parameters[name]
            total = total + (torch.linalg.vector_norm(p) if self.penalty_form == "norm-sum" else 0.5 * p.square().sum())
        return self.weight_decay * total

    def penalty_product(self, v: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The Hessian of the penalty times v, in closed form; only the entries of v that it touches.

        l2: lambda v. norm-sum, per parameter p: lambda (v - p <p, v> / ||p||^2) / ||p||.
        """
        out: dict[str, Tensor] = {}
        if self.weight_decay == 0:
            return out
        for name, p in self._penalised().items():
            if name not in v:
                continue
            u = v[name]
            if self.penalty_form == "norm-sum":
                norm = torch.linalg.vector_norm(p.detach())
                if norm == 0:  # not differentiable at 0; the subgradient 0 moves nothing
                    continue
                unit = p.detach() / norm
                u = (u - unit * (unit * u).sum()) / norm
            out[name] = self.weight_decay * u
        return out

    def penalty_trace(self, among: Iterable[str]) -> float:
        """The trace of the penalty's Hessian over these parameters, in closed form.

        l2: lambda n. norm-sum, per parameter p of n_p entries: lambda (n_p - 1) / ||p||.
        """
        total = 0.0
        for name, p in self._penalised().items() if self.weight_decay else ():
            if name in among:
                norm = float(torch.linalg.vector_norm(p.detach().double()))
                curved = (p.numel() - 1) / norm if norm > 0 else 0.0
                total += curved if self.penalty_form == "norm-sum" else p.numel()
        return self.weight_decay * total

    def _penalised(self) -> dict[str, Tensor]:
        parameters = dict(self.model.named_parameters())
        return {name: parameters[name] for name in self._decayed}

    @property
    def fold(self) -> np.ndarray:
        """The fold of each example, integers (N,)."""
        return self._fold

    @property
    def folds(self) -> int:
        """In how many folds `evaluate` gives the NLL too."""
        return int(self._fold.max()) + 1

    def _hits(self, logits: Tensor, y: Tensor) -> Tensor | None:
        """Whether the largest output is the example's class, (n,); None where the labels are not of classes."""
        if logits.ndim != 2 or logits.shape[1] < 2:
            return None
        if y.is_floating_point():
            if not (self._soft_classes and y.shape == logits.shape):
                return None
            y = y.argmax(-1)
        return (logits.argmax(-1) == y) & logits.isfinite().all(-1) if y.ndim == 1 else None

    @torch.inference_mode()
    def evaluate(self, *, autocast: torch.dtype | None = None) -> Evaluation:
        """The objective where the private copy stands. Accuracy of a soft label counts its largest class.

        autocast: a type of lower precision for the network's products of matrices and convolutions, as torch.autocast
        chooses them. Inf and NaN are results and stay so.
        """
        losses, hits = [], []
        at_once = CACHED if self.device.type == "cpu" else self.examples
        parts = [part for x, y in self.batches for part in zip(x.split(at_once), y.split(at_once), strict=True)]
        for x, y in parts:
            with true_float32(), torch.autocast(self.device.type, autocast, enabled=autocast is not None):
                logits = self.model(x)
            logits = logits.to(self.dtype)
            losses.append(self.loss(logits, y).double())
            hits.append(self._hits(logits, y))
        known = [h.double() for h in hits if h is not None]
        found = torch.cat([*losses, *known, self.penalty()[None]]).cpu().numpy()  # one copy from the device
        loss, right, penalty = np.split(found, [sum(map(len, losses)), len(found) - 1])
        nll, sem = mean_and_sem(loss, self.clusters)
        accuracy = accuracy_sem = math.nan
        if len(known) == len(hits):
            accuracy, accuracy_sem = mean_and_sem(right, self.clusters)
        fold = tuple((np.bincount(self._fold, weights=loss) / np.bincount(self._fold)).tolist())
        return Evaluation(nll, sem, float(penalty[0]), nll + float(penalty[0]), accuracy, accuracy_sem, len(loss), fold)

    def config(self) -> dict[str, Any]:
        """What fixes the numbers: loss, penalty, data and weights, the last two by content."""
        given = self._given_clusters
        clusters = {} if given is None else {"clusters_sha256": fingerprint({"clusters": torch.tensor(self.clusters)})}
        return {
            "loss": getattr(self.loss, "__qualname__", type(self.loss).__qualname__),
            "weight_decay": self.weight_decay,
            "penalty": self.penalty_form,
            "decay": "all" if self.penalty_form == "norm-sum" else self.decay,
            "dtype": str(self.dtype).removeprefix("torch."),
            "examples": self.examples,
            "data": self.data_config,
            "data_sha256": fingerprint({"x": self.x, "y": self.y}),
            **clusters,
            "weights_sha256": fingerprint(self.model.state_dict()),
            "provenance": self.provenance,
        }
