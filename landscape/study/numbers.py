"""Every number of a results file, in the order of the catalogue: the columns of tables, the rows of comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import xarray as xr

from landscape.analyses.estimates import Estimate
from landscape.catalogue import CATALOGUE, settings_of


class Number(NamedTuple):
    """An estimate in its place: its group, what it describes within the group, and its heading.

    Also, whether what it describes is a part of the network or one of several checkpoints.
    """

    group: str
    label: str
    heading: str
    estimate: Estimate
    part: bool
    checkpoint: bool


def numbers(groups: Mapping[str, xr.Dataset]) -> Iterator[Number]:
    """The estimates of a results file; a heading names the form of the analysis if it is not the usual one."""
    order = list(CATALOGUE)
    known = {group: s for group, data in groups.items() if (s := settings_of(data, group)) is not None}
    for group, settings in sorted(known.items(), key=lambda item: order.index(item[1].name)):
        kept = group.removesuffix(settings.division) if settings.division else group
        form = kept.removeprefix(settings.name).strip("_").replace("_", " ")
        for label, estimates in settings.rows(groups[group]).items():
            for e in estimates:
                yield Number(
                    group,
                    label,
                    f"{form} {e.name}".strip(),
                    e,
                    bool(settings.division),
                    settings.several and bool(label),
                )
