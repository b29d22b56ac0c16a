"""Whether two networks are in one valley: the loss along straight and curved paths between them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import xarray as xr
from annotated_types import Ge, Gt
from pydantic import FiniteFloat

from landscape.analyses.base import Analysis, Examples, Subject, Values
from landscape.analyses.bending import PASSING, Pair, bent
from landscape.analyses.estimates import Estimate
from landscape.runtime.errors import UserError
from landscape.store.units import Index, Work
from landscape.surfaces.barrier import barrier

if TYPE_CHECKING:
    from torch import Tensor, nn

    from landscape.objective.objective import Objective

PATHS = {"straight": "straight", "aligned": "straight, after alignment", "curved": "curved"}
USUAL_EXAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Connectivity(Analysis):
    """The loss along straight and curved paths between two networks of one architecture, and its barrier.

    Example: landscape connectivity a.safetensors b.safetensors --data digits --out ab.h5

    Parameters
    ----------
    points
        The number of points at which each path is evaluated, including both ends.
    alignment
        weights: before the second straight path and the curved one, the second network's channels are permuted to match
        the first's weights (arXiv:2209.04836). none: they are not.
    steps
        Training steps for the bend of the curve; 0 for no curved path. Every second fold of the examples is used for
        this training, and all reported losses are on the others.
    lr
        The learning rate of the bend.
    batch_size
        Examples per training step.
    batchnorm
        recalibrated: BatchNorm's statistics are gathered anew at each point from the frozen data. stored: they are
        interpolated between those of the two networks.
    seed
        The seed of the order of the alignment and of the training steps.
    """

    name: ClassVar[str] = "connectivity"
    unit: ClassVar[str] = "point"
    several: ClassVar[bool] = True

    points: Annotated[int, Ge(3)] = 21
    alignment: Literal["weights", "none"] = "weights"
    steps: Annotated[int, Ge(0)] = 300
    lr: Annotated[FiniteFloat, Gt(0)] = 3e-3
    batch_size: Annotated[int, Ge(1)] = 64
    batchnorm: Literal["recalibrated", "stored"] = "recalibrated"
    seed: Annotated[int, Ge(0)] = 0

    @property
    def examples(self) -> Examples:
        """2,000 unless the user says."""
        return Examples(usual=USUAL_EXAMPLES)

    def prepare_several(self, subjects: Mapping[str, Subject]) -> Pair:
        """The loss of the first of two networks, and the weights of the second.

        Raises
        ------
        UserError
            For any number of checkpoints but two, for two of different architectures, or for networks that cannot be
            aligned.
        """
        if len(subjects) != 2:
            raise UserError(f"{len(subjects)} checkpoints given; a path needs 2")
        (first, one), (second, other) = subjects.items()
        return self.between(one.objective(self.examples), other.model, (first, second))

    def between(self, objective: Objective, other: nn.Module, labels: tuple[str, str] = ("first", "second")) -> Pair:
        """What the analysis runs on."""
        from landscape.planes.alignment import aligned_to
        from landscape.planes.spanned import line_to

        state = {name: t.detach().to(objective.device) for name, t in other.state_dict().items()}
        line_to(objective.model, state, labels)  # raises for another architecture
        states: dict[str, Mapping[str, Tensor]] = {"straight": state}
        if self.alignment == "weights":
            states["aligned"] = aligned_to(objective, state, self.seed)
        if self.steps:
            states["curved"] = states.get("aligned", state)
        return Pair(objective, states, labels)

    def context(self, objective: Pair) -> Mapping[str, Any]:
        """The second network by its content, and the loss."""
        from landscape.objective.parameters import fingerprint

        other = {"weights_sha256": fingerprint(objective.states["straight"]), "networks": list(objective.labels)}
        return {"other": other, "objective": objective.objective.config()}

    def empty(self, objective: Pair) -> xr.Dataset:
        """The result over (path, t), with the folds that are evaluated, and with the bend."""
        from landscape.objective.parameters import trainable

        paths, folds = list(objective.states), int(self.held(objective.objective).sum())
        shape = (len(paths), self.points)
        n = sum(p.numel() for p in trainable(objective.objective.model).values())
        text = "negative log-likelihood"
        variables: dict[str, Any] = {
            "nll": (("path", "t"), np.full(shape, np.nan), {"long_name": text}),
            "nll_fold": (("fold", "path", "t"), np.full((folds, *shape), np.nan), {"long_name": "nll of a fold"}),
            "nll_trained": (("path", "t"), np.full(shape, np.nan), {"long_name": f"{text} of the bend's examples"}),
            "accuracy": (("path", "t"), np.full(shape, np.nan), {"long_name": "accuracy over all examples"}),
            "done": (("path", "t"), np.zeros(shape, bool), {"long_name": "computed"}),
            "bend_steps": ((), 0, {"long_name": "steps that the bend was trained"}),
        }
        if self.steps:
            nothing = np.full(n, np.nan, np.float32)
            about = {"long_name": "control point of the curve, from the first network"}
            variables["bend"] = (("weight",), nothing, about)
            variables |= {name: (("weight",), nothing.copy()) for name in PASSING}
        coordinates = {"path": paths, "t": np.linspace(0, 1, self.points)}
        return xr.Dataset(variables, coordinates)

    def held(self, objective: Objective) -> np.ndarray:
        """The folds on which the losses are reported: those that the bend is not trained on."""
        if not self.steps:
            return np.ones(objective.folds, bool)
        if objective.folds < 2:
            raise UserError("a bend cannot be trained and evaluated on one example; freeze more samples")
        return np.arange(objective.folds) % 2 == 1

    def side_by_side(self, objective: Pair) -> int:
        """Threads."""
        from landscape.planes.slice import worker_count

        return worker_count(objective.objective)

    def arithmetic(self) -> AbstractContextManager[None]:
        """True float32."""
        from landscape.runtime.arithmetic import true_float32

        return true_float32()

    def fill(self, objective: Pair, result: xr.Dataset, work: Work) -> xr.Dataset:
        """Compute the straight paths; then train the bend, step by step, and compute the curve."""
        curved = np.broadcast_to((result["path"] == "curved").values[:, None], result["done"].shape)
        self.visit(objective, result, work, ~curved)
        if not self.steps or result["done"].values.all() or work.spent:
            return result
        result = result.copy(deep=True)
        control = bent(objective, self, result, work)
        if control is not None:
            self.visit(replace(objective, control=control), result, work, curved)
        return result

    def compute(self, ready: Pair, unit: Index) -> Values:
        """The losses at one point of one path."""
        from landscape.planes.curves import curved_plane, place
        from landscape.planes.slice import Slice

        path, t = list(ready.states)[unit[0]], float(np.linspace(0, 1, self.points)[unit[1]])
        plane, at = ready.line(path), (t,)
        if path == "curved":
            assert ready.control is not None
            plane, at = curved_plane(plane, ready.control), place(t)  # type: ignore[assignment]
        loss = ready.objective
        found = Slice(loss, plane, self.batchnorm).evaluate(at)
        held = self.held(loss)
        each, units = np.array(found.nll_fold), np.bincount(loss.fold, weights=loss.units_of_example)
        other = ~held if (~held).any() else held
        return {
            "nll": np.average(each[held], weights=units[held]),
            "nll_trained": np.average(each[other], weights=units[other]),
            "nll_fold": each[held],
            "accuracy": found.accuracy,
        }

    def finish(self, result: xr.Dataset) -> xr.Dataset:
        """The result with the barriers; what only the training of the bend needs is dropped once that is over."""
        result = result.drop_vars(["barrier", "barrier_bound"], errors="ignore")
        if result["done"].values.all():
            result = result.drop_vars(PASSING, errors="ignore")
        table = [barrier(result.sel(path=path)) for path in result["path"].values]
        about = {"long_name": "largest rise of the nll above the straight line between the ends' own"}
        bounds = ["estimate", "sem", "low", "high"]
        return result.assign(barrier=(("path", "barrier_bound"), np.array(table), about)).assign_coords(
            barrier_bound=bounds
        )

    def estimates(self, result: xr.Dataset) -> list[Estimate]:
        """The barrier of each path."""
        found = []
        for path in result["path"].values if "barrier" in result else ():
            value, _, low, high = result["barrier"].sel(path=path).values.tolist()
            note, ends = "", (low, high)
            if value == 0 and not result["nll"].sel(path=path).std() > 0:
                note = "no loss differs along this path: its ends are one network"
            elif high == 0:  # rather than an interval of no width
                note, ends = "between the ends below the straight line of their losses, beyond the error", (np.nan,) * 2
            found.append(
                Estimate(
                    name=f"barrier ({PATHS[str(path)]})", value=value, low=ends[0], high=ends[1],
                    n=result.sizes["fold"], counts="folds of the examples", note=note,
                    how="Student's t over folds of the examples, at all points together",
                )
            )  # fmt: skip
        return found

    def remarks(self, result: xr.Dataset) -> list[str]:
        """On which examples the losses are, and how much of the bend's training is done."""
        steps = int(result["bend_steps"])
        ends = [result["nll"].sel(path="straight").isel(t=i).item() for i in (0, -1)]
        return [
            f"NLL {ends[0]:.4g} and {ends[1]:.4g} at the ends",
            f"barriers at {result.sizes['t']} points of each path",
            "losses of the examples that the bend is not trained on" if self.steps else "",
            f"bend trained {steps} of {self.steps} steps" if steps < self.steps else "",
            f"BatchNorm {self.batchnorm}" if self.batchnorm == "stored" else "",
        ]


def mode_connectivity(objective: Objective, other: nn.Module, **settings: Any) -> xr.Dataset:
    """The loss along paths from the network of `objective` to another: `Connectivity(**settings)`.

    Parameters
    ----------
    objective
        The loss, and the first network.
    other
        The second network, of the same architecture.
    settings
        Those of `Connectivity` by name; and partial, save, save_every, budget and progress, as for `hessian_spectrum`;
        the unit is a point.

    Returns
    -------
    xarray.Dataset
        With dims (path, t), where path is "straight", "aligned" (to the second network with its channels permuted) and
        "curved" (to the same): nll and nll_fold (fold, path, t) on the examples that the bend is not trained on,
        nll_trained on the others, accuracy on all, done; bend (weight), the curve's control point relative to the first
        network; barrier (path, barrier_bound): estimate, sem, low and high at 95 %, as
        `landscape.surfaces.barrier.barrier` gives them.

    Raises
    ------
    UserError
        For a network of another architecture, or one that cannot be aligned.
    """
    return Connectivity.called(Connectivity.among(settings).between(objective, other), settings)
