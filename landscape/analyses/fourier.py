"""Which frequencies of its feature maps a network keeps, and which each block lets through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import xarray as xr

from landscape.analyses.blockwise import Blockwise, Means, empty_blocks, of_type, over_folds, types, verdict
from landscape.analyses.estimates import Estimate
from landscape.analyses.transfer import PATHS, gain, relative, tilt, transfer
from landscape.runtime.errors import UserError
from landscape.store.units import Index

if TYPE_CHECKING:
    from landscape.features.capture import Capture
    from landscape.objective.objective import Objective

SEEN = ("matrix", "projected", "skip")
TEXTS = {
    "power": "power of the stream by frequency, |F|^2 / positions",
    "power_branch": "power of the branch alone",
    "zero": "squared mean over positions of the stream",
    "zero_branch": "squared mean over positions of the branch",
    "log_amplitude": "ln(|F| + 1e-6) of the stream, mean over all directions",
    "log_zero": "ln(|F| + 1e-6) of the stream at frequency zero",
    "log_diagonal": "ln(|F| + 1e-6) of the stream along the diagonal",
    "attention_before": "power before: constant part and the rest",
    "attention_after": "power after",
}


@dataclass(frozen=True, kw_only=True)
class Fourier(Blockwise):
    """Feature maps by frequency, and the transfer of each block: low-pass, high-pass or neither.

    F is the Fourier transform over the N = height * width positions of a channel. Power is |F|^2 / N, averaged over
    channels, images and all directions: for white noise it is the variance, at every frequency and for maps of every
    size. Frequency zero, the squared mean over positions, is separate. The transfer of a block that keeps the size of
    the map is its output power over its input power at each frequency, with the skip connection and for the branch
    alone. The tilt is the mean of ln transfer above pi / 2 less the mean below; the interval of the mean tilt of a type
    of block lies below 0 for a low-pass filter and above 0 for a high-pass filter. For attention, the power passed at
    frequency zero and elsewhere (Wang et al. 2022, arXiv:2203.05962) is given for the attention matrices alone, from
    input to output with the value and output projections, and with the skip connection.

    park-kim is the number of Park & Kim (2022, figures 2a and 8): the mean of ln(|F| + 1e-6) along the diagonal less
    its value at zero. F is not normalised there, so that the number rises by ln 2 at each halving of the map, whatever
    the block filters. The same number over all directions is given too.

    Example: landscape fourier vit.safetensors --data digits --out vit.h5

    Parameters
    ----------
    definition
        radial: power and transfer over all directions. park-kim: the relative log amplitude of Park & Kim.
    """

    name: ClassVar[str] = "fourier"
    definition: Literal["radial", "park-kim"] = "radial"

    @property
    def variant(self) -> str:
        """The definition, so that the study's numbers have a group beside the others."""
        return "" if self.definition == "radial" else "park_kim"

    def empty(self, objective: Objective) -> xr.Dataset:
        """The result over (fold, block, ...), padded with NaN for maps with fewer frequencies than the largest."""
        from landscape.features.frequencies import rings

        capture = self.ready(objective)
        each = [rings(p.height, p.width) for p in capture.places]
        variables = {
            name: (
                ("fold", "block", *dims),
                np.full((objective.folds, *values.shape), np.nan),
                {"long_name": TEXTS[name]},
            )
            for name, (dims, values) in _nothing(capture).items()
        }
        ring = max(len(r.frequency) for r in each)
        if not ring:
            raise UserError("no block has a feature map of more than one position, and so none has frequencies; "
                            "give larger images with `image_size`, or name other `modules`")  # fmt: skip
        result = empty_blocks(capture, **variables)
        frequency, coefficients = np.full((len(each), ring), np.nan), np.zeros((len(each), ring), int)
        for i, r in enumerate(each):
            frequency[i, : len(r.frequency)], coefficients[i, : len(r.frequency)] = r.frequency, r.coefficients
        return result.assign_coords(
            frequency=(("block", "ring"), frequency, {"long_name": "frequency", "units": "pi"}),
            coefficients=(("block", "ring"), coefficients, {"long_name": "coefficients of the ring"}),
            seen=list(SEEN), part=["zero", "elsewhere"],
        )  # fmt: skip

    def compute(self, capture: Capture, unit: Index) -> dict[str, Any]:
        """The means over the images of a fold."""
        from landscape.features.attention import watched
        from landscape.features.capture import Features
        from landscape.features.frequencies import spectra
        from landscape.features.moments import Moments

        moments: dict[tuple[str, int], Moments] = {}

        def seen(features: Features, values: dict[str, np.ndarray]) -> None:
            for name, each in values.items():
                moments.setdefault((name, features.number), Moments()).add(each)

        known_blocks = {i: b for i in range(len(capture.places)) if (b := capture.block(i)) is not None}
        for x, images in self.batches(capture, unit):
            with watched(known_blocks) as attention:
                for features in capture(x):
                    values = spectra(features.stream.positions)
                    if features.branch is not None:
                        branch = spectra(features.branch.positions)
                        values |= {"power_branch": branch["power"], "zero_branch": branch["zero"]}
                    if features.number in attention:
                        values |= _let_through(attention[features.number].take(images), features)
                    seen(features, values)
        found = {name: values for name, (_, values) in _nothing(capture).items()}
        for (name, block), moment in moments.items():
            known: Any = (block, *(slice(n) for n in moment.mean.shape))
            found[name][known] = moment.mean
        return found

    def tabled(self, result: xr.Dataset) -> tuple[str, ...]:
        """One row for each ring of frequencies of each block."""
        return ("block", "ring")

    def finish(self, result: xr.Dataset) -> xr.Dataset:
        """The result with transfer, tilt, gain and relative log amplitude of each block, with intervals over images."""
        bounds = {"path": list(PATHS), "bound": ["estimate", "low", "high"]}
        about = "95 % intervals over images"
        return result.assign(
            {
                "transfer": (("path", "block", "ring", "bound"), over_folds(transfer(result)),
                             {"long_name": f"power after over power before each block, {about}"}),
                "tilt": (("path", "block", "bound"), over_folds(tilt(result)),
                         {"long_name": f"mean ln transfer above pi / 2, less that below, {about}"}),
                "gain": (("block", "seen", "part", "bound"), over_folds(gain(result)),
                         {"long_name": f"power that attention passes, at zero and elsewhere, {about}"}),
                "relative_log_amplitude": (("direction", "block", "bound"), over_folds(relative(result)),
                                           {"long_name": f"ln amplitude of the highest frequency over zero, {about}"}),
            }
        ).assign_coords(bounds | {"direction": ["diagonal", "all"]})  # fmt: skip

    def estimates(self, result: xr.Dataset) -> list[Estimate]:
        """For each type of block, its mean tilt and what its attention passes; or the steps of the study's number."""
        if not result["done"].any():
            return []
        if self.definition == "park-kim":
            return _present(_of_study(result))
        found: list[Estimate | None] = []
        for path, words in zip(PATHS, ("with skip", "branch alone"), strict=True):
            tilts = tilt(result)
            here = Means(tilts.whole[PATHS.index(path)], tilts.without[:, PATHS.index(path)])
            found += [of_type(result, here, which, f"tilt of {which}, {words}") for which in types(result)]
        through = gain(result)
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = Means(*(np.log(g[..., 1]) - np.log(g[..., 0]) for g in through))
        for i, words in enumerate(("matrices alone", "with value and output", "with skip")):
            here = Means(apart.whole[:, i], apart.without[:, :, i])
            name = f"ln gain of attention elsewhere over zero, {words}"
            found.append(of_type(result, here, "attention", name, column=False))
        return _present(found)

    def remarks(self, result: xr.Dataset) -> list[str]:
        """A verdict for each type of block, and how many images there are."""
        said = super().remarks(result)
        if self.definition == "park-kim":
            return [*said, "subsampling alone raises these numbers by ln 2 = 0.69 a halving"]
        verdicts = [
            f"{e.name.removeprefix('tilt of ')}: {verdict(e, 'low-pass', 'high-pass')}"
            for e in self.estimates(result)
            if e.name.startswith("tilt of ")
        ]
        return [*verdicts, *said]


def _nothing(capture: Capture) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """What a fold gives for each block, not computed yet: the dimensions besides block, and an array of NaN."""
    from landscape.features.frequencies import diagonal_steps, rings

    places = capture.places
    ring = max(len(rings(p.height, p.width).frequency) for p in places)
    step = max(diagonal_steps(p.height, p.width) for p in places)
    sizes: dict[str, dict[str, int]] = {
        "power": {"ring": ring}, "power_branch": {"ring": ring}, "zero": {}, "zero_branch": {},
        "log_amplitude": {"ring": ring}, "log_zero": {}, "log_diagonal": {"step": step},
        "attention_before": {"seen": 3, "part": 2}, "attention_after": {"seen": 3, "part": 2},
    }  # fmt: skip
    return {name: (tuple(dims), np.full((len(places), *dims.values()), np.nan)) for name, dims in sizes.items()}


def _let_through(seen: dict[str, np.ndarray], features: Any) -> dict[str, np.ndarray]:
    """Power before and after (images, seen, part) the matrices, the attention with projections, and the whole block."""
    from landscape.features.attention import parts_of

    n = len(seen["matrix"])
    before, after = np.full((n, len(SEEN), 2), np.nan), np.full((n, len(SEEN), 2), np.nan)
    before[:, 0], after[:, 0] = 1, seen["matrix"]
    before[:, 1], after[:, 1] = seen["before"], seen["after"]
    if features.before is not None:
        before[:, 2] = parts_of(features.before.positions).cpu().numpy()
        after[:, 2] = parts_of(features.stream.positions).cpu().numpy()
    return {"attention_before": before, "attention_after": after}


def _of_study(result: xr.Dataset) -> list[Estimate | None]:
    """The relative log amplitude of the last block, and its mean step over the blocks of each type."""
    level = Means(*(part[..., 0, :] for part in relative(result)))
    value, low, high = over_folds(level)[-1].tolist()
    folds = len(level.without)
    last = Estimate(name="relative log amplitude at the end", value=value, low=low, high=high, n=folds,
                    counts="folds of the images", how=f"jackknife over {folds} folds of the images")  # fmt: skip
    step = Means(*(np.diff(part, axis=-1, prepend=np.nan) for part in level))
    same = result["same_size"].values.astype(bool)
    return [
        last,
        *(of_type(result, step, which, f"step of ln amplitude over {which}", among=same) for which in types(result)),
    ]


def _present(found: Sequence[Estimate | None]) -> list[Estimate]:
    return [e for e in found if e is not None]
