"""Sharpness: how far the loss rises around the weights, in typical, worst and Hessian directions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

import numpy as np
import xarray as xr
from annotated_types import Ge, Gt
from pydantic import FiniteFloat

from landscape.analyses.base import Analysis, Examples, Values
from landscape.analyses.estimates import Estimate, in_place
from landscape.analyses.intervals import unit_mean
from landscape.analyses.survival import survival
from landscape.objective.penalised import in_curvature
from landscape.store.units import Index

if TYPE_CHECKING:
    from landscape.objective.objective import Objective
    from landscape.objective.rescaling import Rescaling

NETWORKS = ("as it is", "rescaled")
SCALES = ("elementwise", "common")
ALONG = ("typical", "worst", "hessian")
MEASURES = {
    "average": ("average-direction sharpness", "S_avg"),
    "worst": ("worst-case sharpness", "S_max"),
    "critical": ("critical sharpness", "lambda_c"),
    "eigenvalue": ("scaled largest eigenvalue", "lambda_1(CHC)"),
    "trace": ("scaled trace", "tr CHC"),
}
LABELS = {
    "average": "mean rise of the loss under random moves of the weights",
    "worst": "largest rise of the loss found within the radius",
    "angle": "angle between the worst move and the gradient there",
    "critical": "2 / critical step along the gradient",
    "eigenvalue": "largest eigenvalue of C H C",
    "residual": "||C H C u - eigenvalue u||",
    "trace": "trace of C H C, by random probes",
}
USUAL_BATCHES = 16
SETTLED = 0.3  # radians between the worst move and the gradient there, up to which the ascent counts as converged


class Ready(NamedTuple):
    """The loss, and the rescaling of its network if one was asked for and found."""

    objective: Objective
    rescaling: Rescaling | None


@dataclass(frozen=True, kw_only=True)
class Sharpness(Analysis):
    """Average-direction, worst-case and critical sharpness, and which of them survive a rescaling of the network.

    It is measured for each mini-batch, with moves delta = C u of the weights in units of their own size: C = diag |w|
    (elementwise, the adaptive sharpness of arXiv:2302.07011), and C = ||w|| / sqrt(n) for all weights (common).

    Example: landscape sharpness vit.safetensors --data digits --out vit.h5

    Parameters
    ----------
    radius
        rho of the worst case, which is max L(w + C u) - L(w) over ||u|| <= rho, by projected gradient ascent.
    spread
        sigma of the average, which is the mean of L(w + C u) - L(w) over u with independent normal entries of this
        standard deviation: each weight moves by about this share of its size.
    directions
        Random directions for each mini-batch, drawn anew for each: for the average, the typical profile, and the probes
        of the trace.
    steps
        Steps of the ascent from each of its three starts: the gradient, and the top eigenvector in both directions.
    radii
        The number of radii ||u|| at which the loss is evaluated along typical, worst and Hessian directions
        (arXiv:2505.17646), from a tenth of `radius` to sqrt(n), which is the distance of the network from 0.
    batch_size
        Examples per mini-batch.
    batches
        Mini-batches; by default all full ones, but at most 16.
    tol
        The eigenvalue has converged when its residual is at most tol * |eigenvalue|.
    max_products
        The most Hessian products for one eigenvalue.
    rescaling
        Whether to measure the same for the network with channels rescaled so that its outputs stay the same.
    seed
        The seed of the draws.
    """

    name: ClassVar[str] = "sharpness"
    unit: ClassVar[str] = "mini-batch"

    radius: Annotated[FiniteFloat, Gt(0)] = 0.5
    spread: Annotated[FiniteFloat, Gt(0)] = 0.1
    directions: Annotated[int, Ge(1)] = 4
    steps: Annotated[int, Ge(1)] = 20
    radii: Annotated[int, Ge(2)] = 12
    batch_size: Annotated[int, Ge(1)] = 64
    batches: Annotated[int, Ge(1)] | None = None
    tol: Annotated[float, Ge(0)] = 1e-2
    max_products: Annotated[int, Ge(1)] = 50
    rescaling: bool = True
    seed: Annotated[int, Ge(0)] = 0

    @property
    def examples(self) -> Examples:
        """As many as there are mini-batches."""
        return Examples(at_most=self.batch_size * (self.batches or USUAL_BATCHES))

    def prepare(self, subject: Any, held: Mapping[str, xr.Dataset]) -> Ready:
        """The loss, and a rescaling of the network."""
        return self.of_loss(subject.objective(self.examples))

    def of_loss(self, objective: Objective) -> Ready:
        """What the analysis runs on."""
        from landscape.objective.rescaling import find_rescaling

        return Ready(objective, find_rescaling(objective, self.seed) if self.rescaling else None)

    def context(self, objective: Ready) -> Mapping[str, Any]:
        """The number of mini-batches, what was rescaled, and the loss."""
        loss, found = objective
        about = {"layers": list(found.layers), "change": found.change} if found else {"layers": [], "change": None}
        return {
            "batches": len(self._minibatches(loss)),
            "rescaled": about if self.rescaling else {},
            "objective": loss.config(),
        }

    def empty(self, objective: Ready) -> xr.Dataset:
        """The result over (network, batch, scale), profiles also over (along, radius); "rescaled" is a network if there
        is a rescaling.
        """
        from landscape.objective.parameters import trainable

        loss, rescaling = objective
        n = sum(p.numel() for p in trainable(loss.model).values())
        networks = NETWORKS[: 1 if rescaling is None else 2]
        units = (len(networks), len(self._minibatches(loss)))
        each = ("network", "batch", "scale")
        variables: dict[str, Any] = {
            name: (each, np.full((*units, len(SCALES)), np.nan), {"long_name": text}) for name, text in LABELS.items()
        }
        variables |= {
            "converged": (each, np.zeros((*units, len(SCALES)), bool), {"long_name": "residual within tolerance"}),
            "profile": (
                (*each, "along", "radius"),
                np.full((*units, len(SCALES), len(ALONG), self.radii), np.nan),
                {"long_name": "loss at a distance of radius"},
            ),
            "loss": (each[:2], np.full(units, np.nan), {"long_name": "loss of the mini-batch"}),
            "done": (each[:2], np.zeros(units, bool), {"long_name": "computed"}),
            "weights": n,
        }
        return xr.Dataset(
            variables,
            {"network": list(networks), "batch": range(units[1]), "scale": list(SCALES), "along": list(ALONG),
             "radius": self.distances(n)},
        )  # fmt: skip

    def distances(self, n: int) -> np.ndarray:
        """The radii of the profiles of a network of n weights."""
        return np.geomspace(self.radius / 10, max(math.sqrt(n), self.radius), self.radii)

    def side_by_side(self, objective: Ready) -> int:
        """Threads."""
        from landscape.curvature.capacity import worker_count

        return worker_count(objective.objective, self._minibatches(objective.objective), "hessian")

    def order(self, result: xr.Dataset) -> np.ndarray | None:
        """The order in which the rescaled network comes last."""
        return np.broadcast_to(np.arange(result.sizes["network"])[:, None], result["done"].shape)

    def arithmetic(self) -> AbstractContextManager[None]:
        """True float32, and attention with a second derivative."""
        from landscape.runtime.arithmetic import exact_arithmetic

        return exact_arithmetic()

    def compute(self, ready: Ready, unit: Index) -> Values:
        """Every measure of one mini-batch, in both scales."""
        from landscape.analyses.rises import measured
        from landscape.curvature.scaled import ScaledLoss

        here = ready.objective.in_this_thread()
        network, batch = unit
        rescaled = ready.rescaling if network else None
        with nullcontext() if rescaled is None else rescaled.applied(here.model):
            losses = [ScaledLoss(here, self._minibatches(here)[batch], scale) for scale in SCALES]
            found = [measured(f, self, batch) for f in losses]
            return {"loss": losses[0].at_0, **{name: np.array([one[name] for one in found]) for name in found[0]}}

    def _minibatches(self, objective: Objective) -> list[Any]:
        return objective.minibatches(self.batch_size, self.batches)

    def tabled(self, result: xr.Dataset) -> tuple[str, ...]:
        """One row for each mini-batch in each scale, of each network."""
        return ("network", "batch", "scale")

    def estimates(self, result: xr.Dataset) -> list[Estimate]:
        """The mean of each measure over mini-batches, elementwise and in a common scale."""
        done = result["done"].sel(network=NETWORKS[0]).values
        found = []
        for scale in SCALES:
            here = result.sel(network=NETWORKS[0], scale=scale).isel(batch=np.flatnonzero(done))
            for measure, (name, symbol) in MEASURES.items():
                at = unit_mean(here[measure].values)
                common = "" if scale == "elementwise" else " (common scale)"
                found.append(
                    Estimate(
                        name=name + common, symbol=symbol + common, value=at.estimate, low=at.low, high=at.high,
                        n=int(done.sum()), counts="mini-batches", how="mean over mini-batches",
                        note=_note(here, measure), column=not common, compared="ratio",
                        influence=in_place(done, here[measure].values - here[measure].values.mean()),
                    )
                )  # fmt: skip
        return found

    def remarks(self, result: xr.Dataset) -> list[str]:
        """What the scales are, what did not converge, the penalty, and which measures survive a rescaling."""
        return [
            f"worst case within ||u|| <= {self.radius:g}, average over u of standard deviation {self.spread:g}, "
            "weights moved by |w| u, or in a common scale by ||w||/sqrt(n) u",
            in_curvature(result).partition(",")[0],
            *survival(result, {measure: name for measure, (name, _) in MEASURES.items()}),
        ]


def _note(here: xr.Dataset, measure: str) -> str:
    """The reservation that a measure has in one scale, for some of its mini-batches."""
    if measure == "eigenvalue":
        bad, why = ~here["converged"].values, "eigenvalues not converged"
    elif measure == "worst":
        settled = (here["angle"].values <= SETTLED) | ~np.isfinite(here["worst"].values)
        bad, why = ~settled, "ascents not at a maximum: their rises are lower bounds"
    elif measure == "critical":
        bad, why = np.isnan(here["critical"].values), "mini-batches without a critical step"
    else:
        return ""
    return f"{bad.sum()} of {bad.size} {why}" if bad.any() else ""


def network_sharpness(objective: Objective, **settings: Any) -> xr.Dataset:
    """Sharpness of a network around its weights: `Sharpness(**settings)` of `objective`.

    Parameters
    ----------
    objective
        The loss; with a penalty, which every measure then includes.
    settings
        Those of `Sharpness` by name; and partial, save, save_every, budget and progress, as for `hessian_spectrum`; the
        unit is a mini-batch.

    Returns
    -------
    xarray.Dataset
        With dims (network, batch, scale), network "as it is" and, where outputs stay the same under one, "rescaled";
        scale "elementwise" and "common": average, E_z L(w + sigma C z) - L(w); worst, the largest L(w + C u) - L(w)
        found over ||u|| <= rho, a lower bound of the maximum, with angle, in radians, between u and the gradient there,
        0 at a maximum; critical, 2 / eta of the step eta along the gradient in u at which the loss is back to L(w);
        eigenvalue (the largest of C H C) with residual and converged; trace, of C H C. profile, the loss (along,
        radius). loss and done (network, batch).

    Raises
    ------
    UserError
        As `Objective.minibatches` does.
    """
    return Sharpness.called(Sharpness.among(settings).of_loss(objective), settings)
