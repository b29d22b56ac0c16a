"""The command that compares results files."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from landscape.cli.options import default_of, options_of, settled
from landscape.runtime.errors import UserError
from landscape.runtime.settings import Settings
from landscape.study.tables import ENDINGS


@dataclass(frozen=True, kw_only=True)
class Comparing(Settings):
    """How results files are compared.

    Parameters
    ----------
    group
        Trainings of one network, as NAME=FILE,FILE,... or NAME=PATTERN; give it once for each network.
    losses
        Training NLLs at which series are compared; by default three within the range that all of them cover.
    against
        Give instead the rank correlation of every measure, over the files, with the test error or the generalisation
        gap.
    claims
        Give instead verdicts on claims about the groups: a TOML file, or park-kim or sam, which are included.
    out
        Also write the table, to a .csv or .tex file (LaTeX with booktabs), or a picture of the effects, to .png, .pdf
        or .svg; give it once for each file.
    quiet
        Print no table.
    """

    group: tuple[str, ...] = ()
    losses: tuple[float, ...] | None = None
    against: Literal["test-error", "gap"] | None = None
    claims: str | None = None
    out: tuple[Path, ...] = ()
    quiet: bool = False

    def check(self) -> None:
        """Raise UserError for options that exclude each other, or for a file that cannot be written."""
        if self.against and (self.group or self.losses):
            raise UserError("`against` ranks single files; leave out `group` and `losses`")
        if self.claims and (self.against or self.losses):
            raise UserError("`claims` state the losses at which they are judged; leave out `losses` and `against`")
        for path in self.out:
            if path.suffix not in ENDINGS:
                raise UserError(f"{path} cannot be written; give a name that ends in {', '.join(ENDINGS)}")


def compare(*files: Path, how: Any) -> None:
    """How far networks differ: every number of their results files, with the interval of the difference or ratio.

    The others are compared with the first. Files that share mini-batches or images are compared in pairs.

    Example: landscape compare --group plain='plain-*.h5' --group sam='sam-*.h5' --out sam.csv
    """
    from landscape.study.claims import read_claims
    from landscape.study.compare import compare as compare_files
    from landscape.study.ranks import rank_correlations
    from landscape.study.tables import Tabular, save_table
    from landscape.study.verdicts import verdicts

    asked = settled(Comparing, how)
    found: Tabular
    if asked.against is not None:
        found = rank_correlations(*files, against=asked.against)
    elif asked.claims is not None:
        if files:
            raise UserError(f"claims are about groups; name the group of {files[0]} with `group`")
        found = verdicts(read_claims(asked.claims), groups_of(asked.group))
    else:
        found = compare_files(*files, groups=groups_of(asked.group), losses=asked.losses)
    if not asked.quiet:
        print(found)
    for path in asked.out:
        save_table(found, path)
        print(f"wrote {path}")


FILES = Parameter(help="FILE or FILE=LABEL: results files, a network each; a folder of them is one training.")
compare.__annotations__ = {
    "files": Annotated[Path, FILES],
    "how": options_of(Comparing),
    "return": None,
}
compare.__kwdefaults__ = {"how": default_of(compare, "how")}


def groups_of(asked: Sequence[str]) -> dict[str, list[str]]:
    """The groups of NAME=FILE,FILE,..., where a FILE may be a shell pattern."""
    found: dict[str, list[str]] = {}
    for text in asked:
        name, equals, listed = text.partition("=")
        if not (name and equals and listed):
            raise UserError(f"`group` {text} is not NAME=FILE,FILE,... such as sam=sam-0.h5,sam-1.h5")
        if name in found:
            raise UserError(f"`group` {name} is given twice; name all its files at once, with commas")
        found[name] = []
        for part in listed.split(","):
            matching = sorted(glob.glob(part)) if glob.has_magic(part) else [part]
            if not matching:
                raise UserError(f"`group` {name}: no file matches {part}")
            found[name] += matching
    return found
