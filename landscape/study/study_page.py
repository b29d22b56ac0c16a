"""The files of what a study has found: the table, the verdicts, and the page with a report of the results."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from landscape.runtime.errors import UserError
from landscape.study import again
from landscape.study.cells import Places
from landscape.study.judged import Judged
from landscape.study.outcome import Found, columns, trainings_in_words
from landscape.study.report import write_report
from landscape.study.tables import save_table
from landscape.study.toml import source_of


@dataclass(frozen=True, kw_only=True)
class Preface:
    """What stands before the results of a study.

    Attributes
    ----------
    verdicts
        The verdicts, one for each row.
    trainings
        For each network, its code, its recipes and its shares.
    seeds
        The seeds of the trainings.
    remarks
        On what there is no verdict, what is not finished, and why.
    shown
        Which of the trainings have columns and figures; "" for all.
    command
        The command that makes the study again.
    declared
        The text of the study's file.
    """

    verdicts: list[Judged] = field(default_factory=list)
    trainings: list[tuple[str, str, str]]
    seeds: str
    remarks: list[str]
    shown: str
    command: str
    declared: str


def write(found: Found, places: Places, name: str) -> list[Path]:
    """Write the table, the verdicts and the page; none of them for a study without a finished cell.

    name: the name of the study, for the command that makes it again.
    """
    if not found.files:
        return []
    written = [places.folder / "table.csv"]
    save_table(found, written[0])
    if found.judged is not None:
        for ending in ("csv", "tex"):
            written.append(places.folder / f"verdicts.{ending}")
            save_table(found.judged, written[-1])
    written.append(write_page(found, places.folder / "page.html", name))
    return written


def write_page(found: Found, path: Path, name: str) -> Path:
    """Write the page of what a study has found. name: the name of the study, or its file."""
    study, shown = found.study, columns(found.files)
    few = f"{len(shown)} of {len(found.files)} trainings, the first of each network, recipe and share, have figures; "
    preface = Preface(
        verdicts=[Judged.of(v) for v in found.judged.verdicts] if found.judged is not None else [],
        trainings=trainings_in_words(study),
        seeds=", ".join(map(str, study.seeds)),
        remarks=[*found.remarks, *(found.judged.remarks if found.judged is not None else [])],
        shown=few + "table.csv has the numbers of all" if len(shown) < len(found.files) else "",
        command=again.of_study(name),
        declared=_text(name),
    )
    return write_report(shown, path, title=study.title, preface=preface, interactive=study.interactive)


def _text(name: str) -> str:
    try:
        return source_of(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, UserError):  # it was read before, but may be gone now
        return ""
