"""The path of a training: where its checkpoints lie, and the loss and the curvature there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import xarray as xr
from annotated_types import Ge

from landscape.analyses.base import Analysis, Examples, Subject, Values
from landscape.analyses.estimates import Estimate
from landscape.objective.clusters import jackknife_sem
from landscape.objective.penalised import in_curvature
from landscape.runtime.errors import UserError
from landscape.store.units import Index

if TYPE_CHECKING:
    from torch import Tensor

    from landscape.objective.objective import Objective

USUAL_EXAMPLES = 256
LABELS = {
    "nll": "negative log-likelihood",
    "nll_sem": "standard error of nll over examples",
    "accuracy": "accuracy",
    "eigenvalue": "largest Hessian eigenvalue",
    "eigenvalue_sem": "standard error of eigenvalue over examples",
    "residual": "||H u - eigenvalue u||",
    "towards_end": "curvature towards the end, v^T H v",
    "towards_end_sem": "standard error of towards_end over examples",
}
GEOMETRY = {
    "r": "||w_t - w_end|| / ||w_0 - w_end||",
    "theta": "angle between w_t - w_end and w_0 - w_end, in radians",
    "distance": "||w_t - w_end||",
    "step": "||w_t - w_{t-1}||",
}


@dataclass(frozen=True)
class Course:
    """The checkpoints of a training, and the loss, whose private copy of the network takes each of them in turn.

    Parameters
    ----------
    objective
        The loss.
    states
        The weights and buffers of each, by label, from the first to the last.
    """

    objective: Objective
    states: Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Trajectory(Analysis):
    """The path of a training in polar coordinates around its end, and the loss and the curvature along it.

    The checkpoints are the folder that `landscape train --trajectory` writes, or any checkpoints in order, of which the
    last is the end. r = ||w_t - w_end|| / ||w_0 - w_end||; theta is the angle between w_t - w_end and w_0 - w_end (Park
    & Kim 2022, fig. 1b).

    Example: landscape trajectory epochs/ --data digits --out course.h5

    Parameters
    ----------
    tol
        The largest eigenvalue has converged when its residual is at most tol * |eigenvalue|.
    max_products
        The most Hessian products for one eigenvalue; 0 for no curvature.
    seed
        The seed of the random starts.
    """

    name: ClassVar[str] = "trajectory"
    unit: ClassVar[str] = "checkpoint"
    several: ClassVar[bool] = True

    tol: Annotated[float, Ge(0)] = 1e-2
    max_products: Annotated[int, Ge(0)] = 100
    seed: Annotated[int, Ge(0)] = 0

    @property
    def examples(self) -> Examples:
        """256, unless the user says."""
        return Examples(usual=USUAL_EXAMPLES)

    def prepare_several(self, subjects: Mapping[str, Subject]) -> Course:
        """The loss, and the weights of every checkpoint.

        Raises
        ------
        UserError
            If there is no checkpoint, or if they are of different networks.
        """
        if not subjects:
            raise UserError("a trajectory needs at least one checkpoint")
        last = list(subjects.values())[-1]
        return self.of_states(
            last.objective(self.examples), {label: one.model.state_dict() for label, one in subjects.items()}
        )

    def of_states(self, objective: Objective, states: Mapping[str, Mapping[str, Tensor]]) -> Course:
        """What the analysis runs on."""
        own = {name: t.shape for name, t in objective.model.state_dict().items()}
        for label in states:
            if {name: t.shape for name, t in states[label].items()} != own:
                raise UserError(f"{label} is not a checkpoint of the same network as the last one; leave it out")
        return Course(objective, states)

    def context(self, objective: Course) -> Mapping[str, Any]:
        """The checkpoints, by their content, and the loss."""
        from landscape.objective.parameters import fingerprint

        each = {label: fingerprint(state) for label, state in objective.states.items()}
        return {"checkpoints": each, "objective": objective.objective.config()}

    def empty(self, objective: Course) -> xr.Dataset:
        """The result over (checkpoint), with the geometry, which needs no data."""
        from landscape.objective.parameters import trainable
        from landscape.planes.polar import polar

        labels = list(objective.states)
        found = polar(objective.states, trainable(objective.objective.model))
        variables: dict[str, Any] = {
            name: ("checkpoint", found[name], {"long_name": text}) for name, text in GEOMETRY.items()
        }
        variables |= {
            name: ("checkpoint", np.full(len(labels), np.nan), {"long_name": text}) for name, text in LABELS.items()
        }
        no = np.zeros(len(labels), bool)
        variables["converged"] = ("checkpoint", no, {"long_name": "residual within tolerance"})
        variables["done"] = ("checkpoint", no.copy(), {"long_name": "computed"})
        return xr.Dataset(variables, {"checkpoint": labels})

    def arithmetic(self) -> AbstractContextManager[None]:
        """True float32, and attention with a second derivative."""
        from landscape.runtime.arithmetic import exact_arithmetic

        return exact_arithmetic()

    def compute(self, ready: Course, unit: Index) -> Values:
        """The loss and the curvature at one checkpoint."""
        from landscape.objective.parameters import replaced

        here, label = ready.objective.in_this_thread(), list(ready.states)[unit[0]]
        with replaced(here.model, ready.states[label]):
            at = here.evaluate()
            found: dict[str, Any] = {"nll": at.nll, "nll_sem": at.nll_sem, "accuracy": at.accuracy}
            return found | (self._curvature(here, ready.states) if self.max_products else {})

    def _curvature(self, here: Objective, states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
        """The largest eigenvalue, and v^T H v along v, the unit vector from here to the end, each with its error."""
        import torch

        from landscape.curvature.jackknife import FoldedCurvature
        from landscape.linalg.eigenpairs import eigenpairs
        from landscape.linalg.search import Search
        from landscape.objective.parameters import flatten
        from landscape.runtime.random import gaussian

        H = FoldedCurvature(here)
        search = Search(k=1, which="LA", tol=self.tol, max_products=self.max_products)
        top = eigenpairs(H, gaussian(H.zeros(), self.seed), search, vectors=True)
        found: dict[str, Any] = {
            "eigenvalue": top.values[0], "residual": top.residuals[0], "converged": top.converged[0],
        }  # fmt: skip
        if top.vectors is not None and torch.isfinite(top.vectors).all():
            found["eigenvalue_sem"] = float(jackknife_sem(H.with_moments(top.vectors[0])[1].first_without))
        end = list(states.values())[-1]
        v = flatten({name: end[name].to(p) - p.detach() for name, p in H.parameters.items()})
        length = torch.linalg.vector_norm(v)
        if length > 0:
            moments = H.with_moments(v / length)[1]
            found["towards_end"] = moments.first
            found["towards_end_sem"] = float(jackknife_sem(moments.first_without))
        return found

    def estimates(self, result: xr.Dataset) -> list[Estimate]:
        """The length of the path over the distance that it covers, which is exact for these checkpoints."""
        whole, steps = float(result["distance"][0]), result["step"].values[1:]
        if not (len(steps) and whole > 0):
            return []
        return [
            Estimate(
                name="length of the path over its distance", value=float(steps.sum() / whole), n=len(steps) + 1,
                counts="checkpoints", how="exact, from checkpoint to checkpoint: more of them make it longer",
                column=False,
            )
        ]  # fmt: skip

    def rows(self, result: xr.Dataset) -> Mapping[str, list[Estimate]]:
        """The estimates of the path as a whole, and for each checkpoint its place, loss and curvature."""
        rows = {"": self.estimates(result)}
        for label in result["checkpoint"].values:
            one = result.sel(checkpoint=label)
            rows[str(label)] = [
                Estimate(name="r", value=float(one["r"]), how="exact"),
                Estimate(name="angle in degrees", symbol="theta", value=float(np.degrees(one["theta"])), how="exact"),
                *(_with_sem(one, name, words, symbol) for name, (words, symbol) in ERRING.items()),
            ]
        return rows

    def remarks(self, result: xr.Dataset) -> list[str]:
        """What did not converge, whether there is no path, and the penalty."""
        curved = result["done"].values & np.isfinite(result["eigenvalue"].values)
        bad = int((curved & ~result["converged"].values).sum())
        same = result["distance"][0] == 0 and result.sizes["checkpoint"] > 1
        return [
            f"{bad} of {curved.sum()} eigenvalues not converged" if bad else "",
            "the first and the last checkpoint have the same weights: there is no r and no theta" if same else "",
            in_curvature(result),
        ]  # fmt: skip


ERRING = {
    "nll": ("NLL", ""),
    "eigenvalue": ("largest eigenvalue", "lambda_1"),
    "towards_end": ("curvature towards the end", "v^T H v"),
}


def _with_sem(one: xr.Dataset, name: str, words: str, symbol: str) -> Estimate:
    unsure = name == "eigenvalue" and np.isfinite(one["eigenvalue"]) and not one["converged"]
    return Estimate(
        name=words, symbol=symbol, value=float(one[name]), sem=float(one[f"{name}_sem"]), counts="examples",
        how="standard error over examples" + ("" if name == "nll" else ", by jackknife, to first order"),
        note="not converged" if unsure else "",
    )  # fmt: skip


def training_trajectory(
    objective: Objective, states: Mapping[str, Mapping[str, Tensor]], **settings: Any
) -> xr.Dataset:
    """The path of a training, with loss and curvature along it: `Trajectory(**settings)` of these checkpoints.

    Parameters
    ----------
    objective
        The loss of any of the networks: its private copy takes the weights of each in turn.
    states
        State dicts by label; the first is that of the start, and the last that of the end.
    settings
        Those of `Trajectory` by name; and partial, save, save_every, budget and progress, as for `hessian_spectrum`;
        the unit is a checkpoint.

    Returns
    -------
    xarray.Dataset
        Along checkpoint: r, theta (radians), distance from the end, step from the one before; nll with nll_sem,
        accuracy; eigenvalue, the largest of the Hessian over these examples, with residual, converged and
        eigenvalue_sem; towards_end, v^T H v along the unit vector to the end, with towards_end_sem; done.

    Raises
    ------
    UserError
        For states of other networks.
    """
    return Trajectory.called(Trajectory.among(settings).of_states(objective, states), settings)
