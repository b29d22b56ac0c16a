"""The command that makes a page of results files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from landscape.cli.compare import groups_of
from landscape.cli.options import default_of, options_of, settled
from landscape.runtime.errors import UserError
from landscape.runtime.settings import Settings
from landscape.runtime.visible import say

Quiet = Annotated[bool, Parameter(name=("--quiet", "-q"))]


@dataclass(frozen=True, kw_only=True)
class Reporting(Settings):
    """What a page has.

    Parameters
    ----------
    title
        The title of the page; by default the labels.
    quantity
        What the surfaces show: nll, loss (with its penalty), accuracy, or another quantity that they have.
    group
        Trainings of one network, as NAME=FILE,FILE,... or NAME=PATTERN; once for each network. They are compared as one
        sample, and each is on the page.
    losses
        Training NLLs at which series are compared; by default three in the range that all have.
    claims
        Also give verdicts on claims about the groups: a TOML file, or park-kim or sam, which come with the toolkit.
    """

    title: str = ""
    quantity: str = "nll"
    group: tuple[str, ...] = ()
    losses: tuple[float, ...] | None = None
    claims: str | None = None

    def check(self) -> None:
        """Claims are about groups."""
        if self.claims and not self.group:
            raise UserError(f"`claims` {self.claims} are about groups; name them with `group`")


def report(*files: str, out: Path, quiet: Quiet = False, page: Any) -> None:
    """Write a page about results files, for a browser: summary, comparison, numbers, figures and provenance.

    Several files are each compared with the first; several groups of trainings, each with the first group.

    Example: landscape report resnet.h5=ResNet vit.h5=ViT --out page.html

    Parameters
    ----------
    files
        Results files, each with a label if you like: FILE=LABEL.
    out
        The page (.html) to write; it is one file and needs no connection.
    quiet
        No report.
    page
        What the page has.
    """
    from landscape.study.claims import read_claims
    from landscape.study.report import write_report
    from landscape.study.side_by_side import Asked
    from landscape.study.trainings import read

    chosen = settled(Reporting, page)
    if not files and not chosen.group:
        raise UserError("report needs a results file")
    if out.suffix not in (".html", ".htm"):
        raise UserError(f"`out` {out} is no page: its name ends in .html")
    asked = Asked(
        networks=read(files, groups_of(chosen.group)),
        losses=chosen.losses,
        claims=read_claims(chosen.claims) if chosen.claims else (),
        by_itself=not (chosen.group or chosen.losses),
    )
    written = write_report(asked.files(), out, title=chosen.title, quantity=chosen.quantity, asked=asked)
    if not quiet:
        say(f"wrote {written}")


report.__annotations__ = {
    "files": str,
    "out": Path,
    "quiet": Quiet,
    "page": options_of(Reporting),
    "return": None,
}
report.__kwdefaults__ = {**(report.__kwdefaults__ or {}), "page": default_of(report, "page")}
