"""The per-mini-batch spectrum of one checkpoint after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from landscape.analyses.spectrum import hessian_spectrum
from landscape.analyses.summaries import ADDED, summarize
from landscape.objective.objective import Objective
from landscape.runtime.errors import UserError, a_few


def hessian_series(objectives: Mapping[str, Objective], **settings: Any) -> xr.Dataset:
    """`hessian_spectrum` of one network after another, such as the checkpoints of one training.

    objectives: by label, in order. settings: those of `hessian_spectrum`; partial and save are of the whole series.

    Returns its variables along a leading dim checkpoint.
    Raises UserError for an empty series, or a partial result of other checkpoints.
    """
    if not objectives:
        raise UserError("a series needs at least one checkpoint")
    partial, save = settings.pop("partial", None), settings.pop("save", None)
    labels = list(objectives)
    others = [] if partial is None else [str(c) for c in partial["checkpoint"].values if c not in objectives]
    if others:
        raise UserError(
            f"the stored series has {a_few(others)}, not asked for now; ask for all, or write to another file"
        )

    def stored(label: str) -> xr.Dataset:
        assert partial is not None
        one = partial.sel(checkpoint=label, drop=True)
        one.attrs = {"config": partial.attrs["config"]["each"][label]}
        return one

    finished: list[xr.Dataset] = []
    for label, objective in objectives.items():
        before = stored(label) if partial is not None and label in partial["checkpoint"] else None

        def save_all(one: xr.Dataset, label: str = label) -> None:
            if save is not None:
                later = (
                    [] if partial is None else [k for k in labels[len(finished) + 1 :] if k in partial["checkpoint"]]
                )
                save(_joined([*finished, one, *map(stored, later)], [*labels[: len(finished)], label, *later]))

        finished.append(hessian_spectrum(objective, partial=before, save=save_all, **settings))
    return _joined(finished, labels)


def _joined(spectra: Sequence[xr.Dataset], labels: Sequence[str]) -> xr.Dataset:
    finished = all("summary" in one for one in spectra)  # the last of an unfinished series has none yet
    spectra = [one.drop_vars(ADDED, errors="ignore") for one in spectra]
    joined = xr.concat(spectra, "checkpoint", join="outer", combine_attrs="drop").assign_coords(checkpoint=list(labels))
    if finished:
        joined = joined.assign(summarize(joined))
    first = spectra[0].attrs["config"]
    joined.attrs["config"] = {
        **first,
        "analysis": "series",
        "each": {label: one.attrs["config"] for label, one in zip(labels, spectra, strict=True)},
    }
    return joined
