"""What is asked for against what a results file has: what cannot be continued is refused before any data is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import xarray as xr

from landscape.analyses.base import Analysis, Subject
from landscape.store.changes import OtherSettings, changed


def refuse_changed(analysis: Analysis, group: xr.Dataset | None, subject: Subject | None = None) -> None:
    """Raise OtherSettings if it is already known that a stored group was made with other settings.

    What is known only from drawn data and a network is compared once these are there (`landscape.store.units`).

    Parameters
    ----------
    analysis
        The settings asked for; one that is None is settled later.
    group
        The stored group; None if there is none.
    subject
        The network and its data; None for several networks.
    """
    stored: Mapping[str, Any] = {} if group is None else group.attrs.get("config", {})
    if stored.get("analysis") != analysis.name:
        return
    found = [changed(*difference) for difference in _of_settings(analysis, stored)]
    objective = stored.get("objective")
    if subject is not None and isinstance(objective, Mapping):
        found += [changed(*difference) for difference in _of_subject(subject, analysis, objective)]
    if found:
        raise OtherSettings(analysis.name, list(dict.fromkeys(found)))


Difference = tuple[str, Any, Any]


def _of_settings(analysis: Analysis, stored: Mapping[str, Any]) -> Iterator[Difference]:
    """The settings that are a single number or word, which can be compared now; the others are compared later."""
    names = {analysis.formerly.get(name, name): name for name in stored}
    for f in fields(analysis):
        asked, there = getattr(analysis, f.name), stored.get(names.get(f.name, ""))
        if f.name in analysis.unstored or asked is None or there is None:
            continue
        if isinstance(there, list) and isinstance(asked, int) and not any(isinstance(part, list) for part in there):
            there = there[0] if len(set(there)) == 1 else there  # the same along each axis
        if isinstance(asked, (bool, int, float, str)) and isinstance(there, (bool, int, float, str)) and asked != there:
            yield f.name, there, asked


def _of_subject(subject: Subject, analysis: Analysis, objective: Mapping[str, Any]) -> Iterator[Difference]:
    data = objective.get("data") or {}
    known = subject.known_of(analysis.examples, data.get("available"))
    for name, asked in known.pop("data").items():
        if data.get(name) is not None and data[name] != asked:
            yield name, data[name], asked
    for name, asked in known.items() if analysis.examples.split == "train" else ():
        if objective.get(name) is not None and objective[name] != asked:
            yield name, objective[name], asked
