"""Results in words: a line for a group, a row of a table for a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from landscape.analyses.estimates import Estimate
from landscape.catalogue import settings_of
from landscape.objective.clusters import LEAST_UNITS
from landscape.store.changes import said
from landscape.study.numbers import Number, numbers
from landscape.study.reading import load
from landscape.study.studied import studied
from landscape.study.tables import aligned

MOST_ROWS = 8  # for which a line on a group has room
MOST_NUMBERS = 24  # of one group, where several files are compared


def provenance(group: xr.Dataset) -> dict[str, Any]:
    """Where the network of a group came from; empty if the group does not say."""
    found: dict[str, Any] = group.attrs.get("config", {}).get("objective", {}).get("provenance", {})
    return found


def describe(name: str, group: xr.Dataset) -> str:
    """One line on a group: its settings, how much of it is done, its numbers, and what a reader must know of them."""
    settings = settings_of(group, name)
    if settings is None:
        return f"{name}: " + ", ".join(f"{k} {tuple(v.shape)}" for k, v in group.data_vars.items())
    config = group.attrs.get("config", {})
    chosen = {
        k: v for k, v in config.items() if k != "analysis" and not isinstance(v, Mapping) and v not in (None, False)
    }
    parts = [", ".join(f"{k}={said(v)}" for k, v in chosen.items())]
    if "done" in group:
        done = group["done"].values
        parts.append(f"{done.sum()} of {done.size} done")
    rows = settings.rows(group)
    for label, estimates in rows.items() if len(rows) <= MOST_ROWS else ():
        told = ", ".join(f"{e.symbol or e.name} {e}" for e in estimates)
        parts.append(f"{label}: {told}" if label and told else told)
    parts.append(f"{len(rows)} rows, as a table has them" if len(rows) > MOST_ROWS else "")
    parts += settings.remarks(group)
    return f"{name}: " + "; ".join(p for p in parts if p)


def describe_file(path: Path) -> str:
    """What a checkpoint or a results file holds, and where it came from."""
    from landscape.checkpoints.names import is_checkpoint

    if is_checkpoint(path):
        from landscape.checkpoints.describe import describe_checkpoint

        return describe_checkpoint(path)
    groups = load(path)
    origins = [p for g in groups.values() if (p := provenance(g))]
    origin = origins[0] if origins else {}
    came = ", ".join(str(origin[name]) for name in ("model", "file") if name in origin)
    lines = [f"{path}: results of {came}" if came else f"{path}: results"]
    if "sha256" in origin:
        lines.append(f"checkpoint sha256 {origin['sha256']}")
    lines += studied(groups)
    lines += [describe(name, group) for name, group in groups.items() if not name.startswith("plane")]
    software: dict[str, str] = next((g.attrs["software"] for g in groups.values() if "software" in g.attrs), {})
    lines.append("made with " + ", ".join(f"{name} {version}" for name, version in software.items()))
    return "\n".join([*lines, table({path.stem: groups})])


def table(files: Mapping[str, Mapping[str, xr.Dataset]], *, shared: bool = False) -> str:
    """A table with a row for each results file or checkpoint of a series, and a column for each estimate of any.

    Brackets are intervals, and +- is one standard error; "-" stands where a file does not have the estimate. A star
    marks a number with a reservation, which lines below state; they also say where there are too few units for an
    error.

    shared: leave out what not all files have; a line says how many columns these would be.
    """
    rows = [row for name, groups in files.items() for row in _rows(name, groups)]
    columns = list(dict.fromkeys(heading for _, _, cells in sorted(rows, key=_place) for heading in cells))
    left = [c for c in columns if shared and not all(c in cells for _, _, cells in rows)]
    columns = [c for c in columns if c not in left]
    rows = [(name, size, {c: e for c, e in cells.items() if c in columns}) for name, size, cells in rows]
    lines = [
        ["network", "parameters", *columns],
        *([name, size, *(str(cells.get(c, "-")) for c in columns)] for name, size, cells in rows),
    ]
    more = [f"{len(left)} more columns are of some networks only"] if left else []
    return "\n".join([*aligned(lines), *_notes(rows), *more])


def every_group(files: Mapping[str, Mapping[str, xr.Dataset]]) -> str:
    """Each group of several results files: how much of it is done in each, and its numbers that have no column in
    `table`, with the files beside each other.
    """
    order = dict.fromkeys(name for groups in files.values() for name in groups if not name.startswith("plane"))
    held = {label: list(numbers(groups)) for label, groups in files.items()}
    blocks = []
    for name in order:
        cells = [[name, *files], ["done", *(progress_of(groups.get(name)) for groups in files.values())]]
        rows = _without_column(name, held)
        if len(rows) <= MOST_NUMBERS:
            cells += [[heading, *(str(found.get(label, "-")) for label in files)] for heading, found in rows.items()]
        lines = aligned(cells)
        more = f"{len(rows)} numbers; `export` gives them with `numbers`" if len(rows) > MOST_NUMBERS else ""
        blocks.append("\n".join(filter(None, [*lines, more])))
    return "\n\n".join(blocks)


def _without_column(group: str, held: Mapping[str, list[Number]]) -> dict[str, dict[str, Estimate]]:
    found: dict[str, dict[str, Estimate]] = {}
    for file, each in held.items():
        for number in each:
            if number.group == group and not number.estimate.column:
                heading = ": ".join(filter(None, (number.label, number.estimate.symbol or number.estimate.name)))
                found.setdefault(heading, {})[file] = number.estimate
    return found


def progress_of(group: xr.Dataset | None) -> str:
    """How much of a group is done: "yes" or "9 of 81"; "-" for none."""
    if group is None:
        return "-"
    done = group["done"].values if "done" in group else None
    return "yes" if done is None or done.all() else f"{done.sum()} of {done.size}"


def _notes(rows: Iterable[Row]) -> Iterator[str]:
    """Each reservation once, with the rows that it is about."""
    noted: dict[str, list[str]] = {}
    few = dict[str, None]()
    for name, _, cells in rows:
        for e in cells.values():
            if e.note and name not in noted.setdefault(e.note, []):
                noted[e.note].append(name)
            if 0 < e.n < LEAST_UNITS and e.counts:
                few[f"no interval and no standard error is given for fewer than {LEAST_UNITS} {e.counts}"] = None
    yield from (f"* {', '.join(names)}: {note}" for note, names in noted.items())
    yield from few


Row = tuple[str, str, dict[str, Estimate]]


def _place(row: Row) -> int:
    return -len(row[2])  # the fullest row gives the order of the columns


def _rows(name: str, groups: Mapping[str, xr.Dataset]) -> Iterable[Row]:
    parameters = next((p for g in groups.values() if (p := provenance(g).get("parameters"))), None)
    size = f"{parameters:,}" if parameters else "-"
    rows: dict[str, dict[str, Estimate]] = {"": {}}
    of_parts: set[str] = set()
    for number in numbers(groups):
        of_parts |= {number.label} if number.part else set()
        cells = rows.setdefault(number.label, {})
        if number.estimate.column:
            cells[number.heading] = number.estimate
    for label, cells in rows.items():
        if cells or (not label and len(rows) == 1):
            yield f"{name}: {label}" if label else name, "-" if label in of_parts else size, cells
