"""One page about several results files, which opens from disk: summary, table, figures to turn, and provenance."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from landscape import __version__
from landscape.analyses.estimates import Estimate
from landscape.catalogue import CATALOGUE, entry_of, settings_of, summary
from landscape.pictures.canvas import notes_of
from landscape.pictures.look import Look
from landscape.runtime.errors import UserError
from landscape.runtime.files import writing
from landscape.store.comparable import caution, differences, distinctions
from landscape.study import again, sentences
from landscape.study.drawing import compare, draw
from landscape.study.interactive import FIGURES, Figure, figures_of
from landscape.study.side_by_side import Asked, side_by_side
from landscape.study.studied import studied
from landscape.study.tables import typed
from landscape.study.words import provenance

Files = Mapping[str, Mapping[str, xr.Dataset]]
PICTURE_DPI = 120


@dataclass(frozen=True)
class Row:
    """One quantity of the table: what it is, its value in each network, and how it was computed."""

    name: str
    cells: list[str]
    how: str


@dataclass
class Section:
    """All that the page shows of one group."""

    id: str
    title: str
    about: str
    caution: str
    rows: list[list[tuple[int, Figure]]] = field(default_factory=list)  # figures of one kind, by number
    pictures: list[tuple[str, str]] = field(default_factory=list)  # (data URI, what is seen)
    remarks: list[tuple[str, list[str]]] = field(default_factory=list)


@dataclass(frozen=True)
class Origin:
    """Where the groups of one results file came from."""

    label: str
    facts: list[tuple[str, str]]
    groups: list[tuple[str, str, str]]  # (name, the command that makes it again, its whole configuration)


def report(
    files: Files, *, title: str = "", quantity: str = "nll", preface: Any = None, interactive: bool = True,
    asked: Asked | None = None,
) -> str:  # fmt: skip
    """One HTML page about results files, complete in itself: it loads nothing from the internet.

    Parameters
    ----------
    files
        Groups by name, by the label of each file.
    title
        The title of the page; by default the labels.
    quantity
        What surfaces show: nll, loss (with its penalty), accuracy, or another quantity that they have.
    preface
        What stands before the results of a study, which compares its own networks:
        `landscape.study.study_page.Preface`.
    interactive
        Whether there are interactive figures, or pictures, which make the page a tenth of the size.
    asked
        Which networks are compared, and how; by default each file is a network, and the others are compared with the
        first.

    Raises
    ------
    UserError
        If no file has a group that is known, or if a package for pages is not installed.
    """
    known = {label: {n: g for n, g in groups.items() if entry_of(g, n)} for label, groups in files.items()}
    if not any(known.values()):
        raise UserError("there is nothing to report: none of the files has a group of an analysis")
    environment = _environment()
    compared = side_by_side(asked or Asked.of(known if preface is None else {}))
    compared = compared if interactive else replace(compared, figures=[])
    figures = list(compared.figures)
    sections = [_section(name, groups, figures if interactive else None, quantity)
                for name, groups in _by_group(known).items()]  # fmt: skip
    page = environment.get_template("page.html")
    return page.render(
        title=title or ", ".join(files),
        study=preface,
        labels=list(files),
        summaries=[_summary(label, _in_order(groups)) for label, groups in known.items()],
        folded=asked is not None and any(len(network.trainings) > 1 for network in asked.networks),
        compared=compared,
        table=list(_table(known)),
        others=list(_table(known, first=False)),
        sections=[section for section in sections if section.rows or section.pictures or section.remarks],
        origins=[_origin(label, groups) for label, groups in known.items()],
        figures=[asdict(figure) for figure in figures],
        version=__version__,
        plotly=_script() if figures else "",
        style=_part("page.css"),
        script=_part("page.js"),
    )


def write_report(files: Files, out: str | os.PathLike[str], **page: Any) -> Path:
    """Write `report` to a file, whole or not at all. Raises UserError if it cannot be written."""
    text = report(files, **page)
    path = Path(out)
    with writing(path) as new:
        new.write_text(text, encoding="utf-8")
    return path


def _part(name: str) -> str:
    return (resources("landscape.study") / "page" / name).read_text(encoding="utf-8")


def _environment() -> Any:
    try:
        import jinja2
    except ImportError as e:
        raise UserError("a report needs jinja2 and plotly: python -m pip install jinja2 plotly") from e
    loader = jinja2.FunctionLoader(_part)
    found = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True,
                               undefined=jinja2.StrictUndefined)  # fmt: skip
    found.policies["json.dumps_function"] = _json
    return found


def _json(value: Any, **options: Any) -> str:
    return json.dumps(value, **{**options, "allow_nan": False}, separators=(",", ":"))


def _script() -> str:
    """The source of plotly.js, from its Python package."""
    try:
        found = (resources("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    except (ImportError, OSError) as e:
        raise UserError("a report needs plotly: python -m pip install plotly") from e
    return found.replace("</script", r"<\/script")


def _in_order(groups: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Groups in the order of the catalogue."""
    order = list(CATALOGUE)

    def place(name: str) -> int:
        settings = settings_of(groups[name], name)
        return order.index(settings.name) if settings is not None and settings.name in order else len(order)

    return {name: groups[name] for name in sorted(groups, key=place)}


def _by_group(files: Files) -> dict[str, dict[str, xr.Dataset]]:
    """The groups by name and by file, in the order of the catalogue."""
    first: dict[str, xr.Dataset] = {}
    for groups in files.values():
        first = {**groups, **first}
    return {
        name: {label: groups[name] for label, groups in files.items() if name in groups} for name in _in_order(first)
    }


def _summary(label: str, groups: Mapping[str, xr.Dataset]) -> tuple[str, list[str], list[str]]:
    """A file with a sentence for each number that comes first, and for each other number."""
    return label, sentences.summary(groups), sentences.summary(groups, first=False)


def _section(name: str, groups: dict[str, xr.Dataset], figures: list[Figure] | None, quantity: str) -> Section:
    """The section of a group. figures: the list to which its figures are added; None for pictures in their place."""
    first = next(iter(groups.values()))
    entry, settings = entry_of(first, name), settings_of(first, name)
    assert entry is not None
    assert settings is not None
    found = differences(groups, quantity=quantity) if len(groups) > 1 else []
    section = Section(
        id=f"group-{'' if figures is None else f'{len(figures)}-'}{''.join(c if c.isalnum() else '-' for c in name)}",
        title=name.replace("_", " ").capitalize(),
        about=summary(entry.analysis) + ".",
        caution=caution(found),
    )
    if figures is not None:
        found_here = figures_of(settings.name, groups, name, quantity)
        for _, row in itertools.groupby(enumerate(found_here, len(figures)), key=lambda item: item[1].kind):
            section.rows.append(list(row))
        figures += found_here
    if figures is None or (entry.picture and settings.name not in FIGURES):
        section.pictures = list(_pictures(name, groups, quantity))
    for label, group in groups.items():
        own = settings_of(group, name)
        apart = ", ".join(distinctions(found, label))
        remarks = [*([apart] if apart else []), *(own.remarks(group) if own is not None else [])]
        if remarks := [typed(remark) for remark in remarks if remark]:
            section.remarks.append((label, remarks))
    return section


def _pictures(name: str, groups: dict[str, xr.Dataset], quantity: str) -> Iterator[tuple[str, str]]:
    """The analysis's own pictures with what is seen in them: of all files together if it has such, else one by one."""
    look = Look(quantity=quantity, dpi=PICTURE_DPI)
    together = compare({label: {name: group} for label, group in groups.items()}, look=look) if len(groups) > 1 else {}
    drawn = [(", ".join(groups), together)] if together else [
        (label, draw({name: group}, label, look=look)) for label, group in groups.items()
    ]  # fmt: skip
    for labels, figures in drawn:
        for key, figure in figures.items():
            seen = " ".join([f"{key.replace('_', ' ')} of {labels}.", *notes_of(figure).split("\n")])
            yield _image(figure), seen


def _image(figure: Any) -> str:
    """A matplotlib figure as a data URI."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=PICTURE_DPI, bbox_inches="tight", metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(image.getvalue()).decode()}"


def _table(files: Files, *, first: bool = True) -> Iterator[tuple[str, list[Row]]]:
    """The estimates that come first, or all others, by group, with a cell for each file."""
    for name, groups in _by_group(files).items():
        held: dict[tuple[str, str], dict[str, Estimate]] = {}
        for label, group in groups.items():
            settings = settings_of(group, name)
            for of, estimates in settings.rows(group).items() if settings is not None else ():
                for estimate in (e for e in estimates if sentences.comes_first(of, e) == first):
                    held.setdefault((of, estimate.name), {})[label] = estimate
        rows = [
            Row(f"{of}: {what}" if of else what, [_cell(by.get(label)) for label in files], _how(by.values()))
            for (of, what), by in held.items()
        ]
        if rows:
            yield name.replace("_", " "), rows


def _cell(estimate: Estimate | None) -> str:
    return "\N{EN DASH}" if estimate is None else typed(str(estimate))


def _how(estimates: Any) -> str:
    said = (f"{e.how} ({e.n:,} {e.counts})" if e.n and e.how else e.how for e in estimates)
    return "; ".join(dict.fromkeys(filter(None, said)))


def _origin(label: str, groups: Mapping[str, xr.Dataset]) -> Origin:
    origin: dict[str, Any] = next((p for group in groups.values() if (p := provenance(group))), {})
    software: dict[str, str] = next((g.attrs["software"] for g in groups.values() if "software" in g.attrs), {})
    facts = {
        "network": origin.get("model"),
        "checkpoint": origin.get("file"),
        "sha256 of the checkpoint": origin.get("sha256"),
        "parameters": f"{origin['parameters']:,}" if isinstance(origin.get("parameters"), int) else None,
        "data": ". ".join(studied(groups)) or None,
        "software": ", ".join(f"{name} {version}" for name, version in software.items()) or None,
    }
    made = [(name, again.command(name, group, "again.h5"), _settings_in_full(group)) for name, group in groups.items()]
    return Origin(label, [(key, str(value)) for key, value in facts.items() if value], made)


def _settings_in_full(group: xr.Dataset) -> str:
    return json.dumps(group.attrs.get("config", {}), indent=1, default=_plain)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)
