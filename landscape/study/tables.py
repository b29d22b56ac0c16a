"""Cells of words as a table, aligned for a terminal or written for LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from landscape.runtime.errors import UserError
from landscape.runtime.files import writing

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = (".csv", ".tex", ".png", ".pdf", ".svg")
Cells = Sequence[Sequence[str]]  # rows, the heading first
SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
           "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}  # fmt: skip


_NUMBER = re.compile(r"(?<![\w.-])(-?)(\d+(?:\.\d+)?)(?:e([+-]\d+))?(?![\w.])")


class Tabular(Protocol):
    """What can be written as a table."""

    def to_dataframe(self) -> pd.DataFrame:
        """A data frame with a row for each line."""
        ...

    def to_latex(self) -> str:
        """A LaTeX table with the rules of booktabs."""
        ...


def aligned(cells: Cells) -> list[str]:
    """One line for each row, with columns two spaces apart."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]


def booktabs(cells: Cells, *blocks: Cells) -> str:
    r"""A LaTeX table with the rules of booktabs, whose document needs ``\usepackage{booktabs}``.

    blocks: more rows, each block under a rule of its own.
    """
    (heading, *rows), *others = [[" & ".join(map(_escaped, row)) + r" \\" for row in b] for b in (cells, *blocks)]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(cells[0]) - 1)}}}"
    body = [line for block in filter(None, (rows, *others)) for line in (r"\midrule", *block)]
    return "\n".join([begin, r"\toprule", heading, *body, r"\bottomrule", r"\end{tabular}"])


def typed(text: str) -> str:
    """Text for a page, with the plus-minus sign that a terminal may lack."""
    return text.replace("+-", "±")


def as_html(cells: Cells, *remarks: str) -> str:
    """A table for a notebook, with the remarks below; its cells are taken as text, not as HTML."""
    heading, *rows = [[typed(escape(cell)) for cell in row] for row in cells]
    head = "".join(f"<th>{cell}</th>" for cell in heading)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    below = "".join(f"<div>{escape(remark)}</div>" for remark in remarks if remark)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def save_table(table: Tabular, path: str | Path) -> None:
    """Write a table (.csv or .tex, by the ending), or its picture (.png, .pdf or .svg) if it has one.

    Raises UserError for another ending, or if there is no picture.
    """
    path = Path(path)
    match path.suffix:
        case ".csv":
            _write(path, table.to_dataframe().to_csv(index=False))
        case ".tex":
            _write(path, table.to_latex() + "\n")
        case ".png" | ".pdf" | ".svg":
            from landscape.pictures.files import save_picture
            from landscape.pictures.look import LOOK, format_of

            figure = table.plot() if hasattr(table, "plot") else None
            if figure is None:
                raise UserError(f"there is no picture for {path}: of this there is a table, in .csv or .tex")
            save_picture(figure, path, look=replace(LOOK, format=format_of(path)))
        case _:
            raise UserError(f"{path} cannot be written; give a name that ends in {', '.join(ENDINGS)}")


def _write(path: Path, text: str) -> None:
    with writing(path) as part:
        part.write_text(text, encoding="utf-8")


def _escaped(text: str) -> str:
    escaped = "".join(SPECIAL.get(character, character) for character in text).replace("+-", r"$\pm$")
    escaped = _NUMBER.sub(_as_formula, escaped)
    return escaped.replace("x ", r"$\times$ ", 1) if escaped.startswith("x ") else escaped


def _as_formula(number: re.Match[str]) -> str:
    """A negative number with a minus, not a hyphen, and a power of ten as such."""
    sign, digits, exponent = number.groups()
    power = rf" \times 10^{{{int(exponent)}}}" if exponent else ""
    return f"${sign}{digits}{power}$" if sign or power else digits
