"""The per-mini-batch spectrum of one checkpoint after another, such as those of one training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import xarray as xr

from landscape.analyses.eigenvalues import by_part
from landscape.analyses.estimates import Estimate
from landscape.analyses.spectrum import Spectrum
from landscape.analyses.summaries import ADDED, summarize
from landscape.runtime.errors import UserError, a_few
from landscape.store.changes import OtherSettings
from landscape.store.units import Work

if TYPE_CHECKING:
    from landscape.objective.objective import Objective


@dataclass(frozen=True, kw_only=True)
class Series(Spectrum):
    """The per-mini-batch spectrum over a series of checkpoints, such as those of one training.

    Example: landscape series epoch1.safetensors epoch9.safetensors --data digits --out series.h5 --batches 16
    """

    name: ClassVar[str] = "series"
    several: ClassVar[bool] = True

    def run(self, objective: Any, *, stored: xr.Dataset | None = None, work: Work | None = None) -> xr.Dataset:
        """The spectra of objectives by label, along a leading dim checkpoint.

        Raises
        ------
        UserError
            For an empty series, or a stored one of other checkpoints.
        """
        objectives: Mapping[str, Objective] = objective
        if not objectives:
            raise UserError("a series needs at least one checkpoint")
        known = [] if stored is None else [str(c) for c in stored["checkpoint"].values]
        if others := [label for label in known if label not in objectives]:
            raise OtherSettings("series", [f"{a_few(others)}, not asked for now"])
        work = work or Work()
        one = Spectrum(**{f.name: getattr(self, f.name) for f in fields(Spectrum)})
        parts = {label: _taken(stored, label) for label in known}
        for label, loss in objectives.items():

            def save(unfinished: xr.Dataset, label: str = label) -> None:
                if work.save is not None:
                    work.save(_joined({**parts, label: unfinished}, list(objectives)))

            parts[label] = one.run(loss, stored=parts.get(label), work=work.saving(save))
            if work.spent:
                break
        return _joined(parts, list(objectives))

    def rows(self, result: xr.Dataset) -> Mapping[str, list[Estimate]]:
        """The estimates of the spectrum of each checkpoint."""
        if "checkpoint" not in result.coords:
            return {}
        return {
            f"{label}: {part}" if part else str(label): estimates
            for label in result["checkpoint"].values
            for part, estimates in by_part(result.sel(checkpoint=label), self.estimates).items()
        }


def _taken(series: xr.Dataset | None, label: str) -> xr.Dataset:
    """The spectrum of one checkpoint out of a series."""
    assert series is not None
    one = series.sel(checkpoint=label, drop=True)
    one.attrs = {"config": series.attrs["config"]["each"][label]}
    return one


def _joined(spectra: Mapping[str, xr.Dataset], order: Sequence[str]) -> xr.Dataset:
    """The spectra of some checkpoints along a leading dim, in this order."""
    labels = [label for label in order if label in spectra]
    each = [spectra[label] for label in labels]
    finished = all("summary" in one for one in each)  # the last checkpoint of an unfinished series has none yet
    bare = [one.drop_vars(ADDED, errors="ignore") for one in each]
    joined = xr.concat(bare, "checkpoint", join="outer", combine_attrs="drop").assign_coords(checkpoint=labels)
    if finished:
        joined = joined.assign(summarize(joined))
    joined.attrs["config"] = {
        **each[0].attrs["config"],
        "analysis": "series",
        "each": {label: one.attrs["config"] for label, one in zip(labels, each, strict=True)},
    }
    return joined


def hessian_series(objectives: Mapping[str, Objective], **settings: Any) -> xr.Dataset:
    """`hessian_spectrum` of one network after another, such as the checkpoints of one training.

    Parameters
    ----------
    objectives
        By label, in order.
    settings
        Those of `hessian_spectrum`; partial, save and budget are of the whole series.

    Returns
    -------
    xarray.Dataset
        Its variables along a leading dim checkpoint.

    Raises
    ------
    UserError
        For an empty series, or a partial result of other checkpoints.
    """
    return Series.called(objectives, settings)
