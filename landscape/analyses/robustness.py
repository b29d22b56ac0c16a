"""What noise of each spatial frequency does to loss and accuracy, and what the common corruptions do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import xarray as xr
from annotated_types import Ge, Gt, Lt

from landscape.analyses import paired, thresholds
from landscape.analyses.base import Values
from landscape.analyses.estimates import Estimate
from landscape.runtime.errors import UserError
from landscape.store.units import Index

if TYPE_CHECKING:
    from torch import Tensor

    from landscape.data.pixels import Perturbed
    from landscape.objective.objective import Objective

PARK_KIM = tuple(round(0.1 * i, 1) for i in range(1, 10))  # in units of pi
LEVELS = (0.02, 0.04, 0.08, 0.16, 0.32)


Perturb = Callable[["Tensor", int], "Perturbed"]  # (images as the network takes them, the number of the first)


class Ready(NamedTuple):
    """The loss, and what each image gives without noise."""

    objective: Objective
    clean: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Robustness(paired.Paired):
    """The change of accuracy and NLL under noise of each spatial frequency, or under the common corruptions.

    Changes are measured on the test split and paired over its images. A frequency is radial, in units of pi radians per
    pixel.

    Example: landscape robustness vit.safetensors --data digits --out vit.h5

    Parameters
    ----------
    perturbation
        rings: noise in rings of equal width. octaves: critical-band masking (Subramanian et al., arXiv:2309.13190),
        which finds the noise in each octave at which the accuracy has fallen by `fall`; the lower it is, the more the
        network relies on that octave. corruptions: the 15 common corruptions (Hendrycks & Dietterich 2019) at five
        severities, which need the extra landscape[corruptions].
    definition
        How noise in rings is made. equal-energy: with one root mean square in every ring, in pixel units and after
        clipping. park-kim: as in fig. 2b of Park & Kim (2022), on normalised images without clipping; its energy grows
        ninefold from the lowest ring to the highest.
    rms
        The root mean square of the noise in rings, where black is 0 and white 1.
    levels
        The levels (root mean squares) of the noise in octaves.
    fall
        The fall of the accuracy that defines the threshold of an octave: 0.1 for ten percentage points.
    seed
        The seed of the noise. Each image has the same draw in every ring, at every level, and for every network.
    """

    name: ClassVar[str] = "robustness"
    unit: ClassVar[str] = "perturbation"

    perturbation: Literal["rings", "octaves", "corruptions"] = "rings"
    definition: Literal["equal-energy", "park-kim"] = "equal-energy"
    rms: Annotated[float, Gt(0), Lt(1)] = 0.05
    levels: tuple[Annotated[float, Gt(0), Lt(1)], ...] = LEVELS
    fall: Annotated[float, Gt(0), Lt(1)] = 0.1
    seed: Annotated[int, Ge(0)] = 0

    def check(self) -> None:
        """Only rings have another definition; levels must rise."""
        if self.definition != "equal-energy" and self.perturbation != "rings":
            raise UserError(f"definition={self.definition} is for rings; leave it out for {self.perturbation}")
        if list(self.levels) != sorted(set(self.levels)) or not self.levels:
            raise UserError(f"levels={','.join(map(str, self.levels))} must rise; give for example 0.02,0.04,0.08")

    @property
    def variant(self) -> str:
        """The perturbation or, of rings, the definition, so that each has a group of its own."""
        if self.perturbation != "rings":
            return self.perturbation
        return "" if self.definition == "equal-energy" else self.definition.replace("-", "_")

    def empty(self, objective: Objective) -> xr.Dataset:
        """The result over (frequency), (frequency, level) or (corruption, severity), in each case also by example."""
        axes = self._axes(_side(objective))
        dims = [name for name, (along, *_) in axes.items() if along == name]
        shape = [len(axes[dim][1]) for dim in dims]
        measures = {"rms": "root mean square of the change in pixel units, mean over images"}
        if self.perturbation != "corruptions" and self.definition == "equal-energy":
            measures["outside"] = "share of the change's energy outside of the band, by clipping, mean over images"
        return xr.Dataset(
            {
                **paired.empty(dims, shape, objective),
                **{name: (dims, np.full(shape, np.nan), {"long_name": text}) for name, text in measures.items()},
            },
            axes,
        )

    def ready(self, objective: Objective) -> Ready:
        """The losses and hits without noise."""
        return Ready(objective, objective.unit_by_unit())

    def compute(self, ready: Ready, unit: Index) -> Values:
        """One pass over the perturbed images."""
        objective = ready.objective
        perturb = self._perturb(objective, unit)
        seen, rms, outside = 0, [], []

        def outputs(x: Tensor) -> Any:
            nonlocal seen
            changed = perturb(x, seen)
            seen += len(x)
            rms.append(changed.rms.double().cpu().numpy())
            if changed.outside is not None:
                outside.append(changed.outside.cpu().numpy())
            return objective.outputs(changed.images.to(x))

        found = paired.values(ready.clean, objective.unit_by_unit(outputs))
        found["rms"] = float(np.concatenate(rms).mean())
        return found | ({"outside": float(np.concatenate(outside).mean())} if outside else {})

    def finish(self, result: xr.Dataset) -> xr.Dataset:
        """The result with the changes and their intervals; for octaves also with the thresholds."""
        found = paired.summarised(result)
        return thresholds.added_to(found, self.fall) if self.perturbation == "octaves" else found

    def estimates(self, result: xr.Dataset) -> list[Estimate]:
        """The changes of each ring; the threshold of each octave; the mean over corruptions and severities."""
        if "nll_change" not in result:
            return []
        if self.perturbation == "octaves":
            return thresholds.estimates(result, self.fall)
        if self.perturbation == "corruptions":
            return paired.mean_estimates(result, "under corruption")
        return [
            estimate
            for i, f in enumerate(result["frequency"].values)
            if result["done"].values[i]
            for estimate in paired.estimates(result, {"frequency": i}, f"at {f:.2g} pi")
        ]

    def remarks(self, result: xr.Dataset) -> list[str]:
        """The actual energy of the noise."""
        found = super().remarks(result)
        if self.perturbation == "rings" and self.definition == "equal-energy" and result["done"].any():
            short = result["frequency"].values[result["rms"].values < 0.99 * self.rms]
            if len(short):
                found.append(f"at {', '.join(f'{f:.2g}' for f in short)} pi the images have no room for rms {self.rms}")
            found.append(f"clipping puts up to {float(result['outside'].max()):.0%} of the energy outside of its ring")
        return found

    def _bands(self, size: int) -> list[Any]:
        from landscape.data import noise

        return noise.octaves(size) if self.perturbation == "octaves" else noise.rings(size)

    def _axes(self, size: int) -> dict[str, Any]:
        if self.perturbation == "corruptions":
            from landscape.data.corruptions import CORRUPTIONS, SEVERITIES, refuse_missing

            refuse_missing()
            return {"corruption": ("corruption", list(CORRUPTIONS)), "severity": ("severity", list(SEVERITIES))}
        if self.definition == "park-kim":
            return {"frequency": ("frequency", list(PARK_KIM), {"units": "pi rad a pixel"})}
        ends = [(band.low, band.high) for band in self._bands(size)]
        octaves = self.perturbation == "octaves"
        centre = [math.sqrt(low * high) if octaves else (low + high) / 2 for low, high in ends]
        return {
            "frequency": ("frequency", np.round(centre, 6), {"units": "pi rad a pixel"}),
            **{f"frequency_{end}": ("frequency", [pair[i] for pair in ends]) for i, end in enumerate(("low", "high"))},
            **({"level": ("level", list(self.levels), {"long_name": "rms of the noise"})} if octaves else {}),
        }

    def _perturb(self, objective: Objective, unit: Index) -> Perturb:
        from landscape.data import noise
        from landscape.data.pixels import Perturbed, Pixels

        pixels = Pixels.of(objective.data_config, objective.device)
        if self.perturbation == "corruptions":
            from landscape.data.corruptions import CORRUPTIONS, SEVERITIES, corrupted

            name, severity = list(CORRUPTIONS)[unit[0]], SEVERITIES[unit[1]]

            def corrupt(x: Tensor, first: int) -> Perturbed:
                before = pixels.shown(x)
                return pixels.changed(before, corrupted(before, name, severity, first, self.seed))

            return corrupt
        if self.definition == "park-kim":

            def signs(x: Tensor, first: int) -> Perturbed:
                added = noise.park_kim(noise.white(x, first, self.seed), PARK_KIM[unit[0]])
                return Perturbed(x + added, pixels.rms(added * pixels.std))

            return signs
        band = self._bands(_side(objective))[unit[0]]
        rms = self.levels[unit[1]] if self.perturbation == "octaves" else self.rms

        def in_band(x: Tensor, first: int) -> Perturbed:
            before = pixels.shown(x)
            after = noise.added(before, noise.in_band(noise.white(x, first, self.seed), band), rms)
            return pixels.changed(before, after, noise.share_outside(after - before, band))

        return in_band


def _side(objective: Objective) -> int:
    """The side of the images. Raises UserError if the data are not images, or not square."""
    x, _ = objective.data.stores[0]
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) != 4 or shape[2] != shape[3]:
        raise UserError(f"robustness needs square images, (n, channels, side, side); the data have inputs of {shape}")
    return shape[2]


def network_robustness(objective: Objective, **settings: Any) -> xr.Dataset:
    """The change of loss and accuracy under noise: `Robustness(**settings)` of `objective`.

    Parameters
    ----------
    objective
        The loss, on images whose normalisation its data state.
    settings
        Those of `Robustness` by name; and partial, save, save_every, budget and progress, as for `hessian_spectrum`;
        the unit is a perturbation.

    Returns
    -------
    xarray.Dataset
        With dims (frequency), (frequency, level) or (corruption, severity): nll, accuracy, rms, outside, mcnemar, done;
        (..., bound): nll_change, accuracy_change; (..., example): loss_change, hit_change; of octaves (frequency,
        bound): threshold.

    Raises
    ------
    UserError
        For inputs that are no images, or whose normalisation is not stated.
    """
    return Robustness.called(objective, settings)
