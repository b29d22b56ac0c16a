"""A claim: a number of some networks lies on one side of that of others, or of a value; and what a reference found."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Gt
from pydantic import FiniteFloat

from landscape.runtime.errors import UserError, near_matches
from landscape.runtime.settings import Settings

COME_WITH = Path(__file__).parent  # each is a file NAME.toml


@dataclass(frozen=True, kw_only=True)
class Claim(Settings):
    """A statement that a number of a group of networks lies on one side of another group's, or of a value.

    Parameters
    ----------
    name
        A short name that no other claim has.
    statement
        The claim in a sentence.
    estimate
        The number that it is about, as in the headings of tables: APE, NEP, test accuracy.
    second
        The group whose number is said to lie on one side.
    side
        The side: below or above.
    first
        The group that it is compared with; instead of a group, `than` may give a value.
    than
        The value that it is compared with.
    first_estimate
        The number of `first`, if it is another one than `estimate`; then `first` may be `second` itself.
    at
        end, the networks as they are; or losses, at equal training NLLs, in the middle of the range that all have.
    loss
        The training NLL at which they are compared.
    reference
        What the study that made the claim reports, in words and numbers.
    """

    name: str
    statement: str
    estimate: str
    second: str
    side: Literal["below", "above"]
    first: str = ""
    than: FiniteFloat | None = None
    first_estimate: str = ""
    at: Literal["end", "losses"] = "end"
    loss: Annotated[float, Gt(0)] | None = None
    reference: str = ""

    def check(self) -> None:
        """A number is not compared with itself; a value takes the place of a group, and only at the end; a loss needs a
        comparison at losses.
        """
        if bool(self.first) == (self.than is not None):
            raise UserError(f"claim {self.name}: a group is compared with `first` or with a number, `than`: give one")
        if self.first == self.second and self.first_estimate in ("", self.estimate):
            raise UserError(f"claim {self.name}: {self.first} is compared with itself; name two groups")
        if self.at == "losses" and (self.than is not None or self.first_estimate):
            raise UserError(f"claim {self.name}: at losses the same number of two groups is compared")
        if self.loss is not None and self.at != "losses":
            raise UserError(f"claim {self.name}: `loss` {self.loss:g} needs `at` losses")

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that it is about."""
        return tuple(dict.fromkeys(filter(None, (self.first, self.second))))

    def __str__(self) -> str:
        """What is compared: "APE of vit below resnet", "tilt of mlp, with skip of vit above 0"."""
        other = f"{self.first_estimate} of {self.first}" if self.first_estimate else self.first
        return f"{self.estimate} of {self.second} {self.side} {f'{self.than:g}' if self.than is not None else other}"


def read_claims(path: str | Path) -> list[Claim]:
    """The claims of a file.

    Parameters
    ----------
    path
        A TOML file with a table [[claim]] for each claim; or the name of an included one: park-kim, sam.

    Raises
    ------
    UserError
        For a file that is missing or not TOML, or a claim with unknown or missing settings.
    """
    file = Path(path)
    if not file.suffix:
        file = COME_WITH / f"{path}.toml"
        if not file.exists():
            known = [p.stem for p in COME_WITH.glob("*.toml")]
            raise UserError(
                f"no claims named {path} come with the toolkit; {near_matches(str(path), known)}; or name a .toml file"
            )
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8")).get("claim", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise UserError(f"{path} cannot be read as TOML: {' '.join(str(e).split())}") from e
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise UserError(f"{path} has no claims; each is a table headed [[claim]]")
    return _distinct([_claim(table, path) for table in tables], path)


def _claim(table: dict[str, object], path: str | Path) -> Claim:
    needed = ("name", "statement", "estimate", "second", "side")
    if missing := [key for key in needed if key not in table]:
        raise UserError(f"{path}: claim {table.get('name', '?')} has no {missing[0]}; it needs {', '.join(needed)}")
    return Claim.asked(table)


def _distinct(claims: Sequence[Claim], path: str | Path) -> list[Claim]:
    names = [claim.name for claim in claims]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path} has two claims named {name}; give each a name of its own")
    return list(claims)
