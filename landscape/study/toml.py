"""A study read from a TOML file: a mistake in it is answered in one line, with near matches."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from landscape.analyses.base import Analysis
from landscape.catalogue import CATALOGUE
from landscape.runtime.errors import UserError, near_matches
from landscape.runtime.settings import Settings
from landscape.study.claims import Claim, read_claims
from landscape.study.declared import Group, Moments, Study, Variant, refuse_unknown
from landscape.study.subject import SubjectSettings
from landscape.training.recipe import RECIPES, Recipe
from landscape.training.recipe import recipe as named_recipe

COME_WITH = Path(__file__).parent / "studies"  # each is a file NAME.toml
PAIRS = ("connectivity",)  # analyses of several trainings at once, which no cell has
S = TypeVar("S", bound=Settings)


def read_study(path: str | Path, **instead: Any) -> Study:
    """Read a study from a TOML file.

    Parameters
    ----------
    path
        The file; or the name of a study that comes with the toolkit: digits, cifar10-desk, park-kim.
    instead
        Settings of `Study` to replace.

    Raises
    ------
    UserError
        For a file that does not exist or is not TOML, and for whatever in it is unknown, missing or out of range: one
        line, with near matches.
    """
    file = source_of(path)
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise UserError(f"{path} cannot be read as TOML: {' '.join(str(e).split())}") from e
    try:
        return replace(of_table(table, file.parent), **instead)
    except UserError as e:
        raise UserError(f"{path}: {e}") from e


def source_of(path: str | Path) -> Path:
    """The file of a study, given by its path or, for one of the toolkit's, its name; UserError for an unknown name."""
    file = Path(path)
    if file.suffix:
        return file
    known = {p.stem: p for p in COME_WITH.glob("*.toml")}
    if str(path) not in known:
        raise UserError(f"no study named {path} comes with the toolkit; {near_matches(str(path), known)}; "
                        "or name a .toml file")  # fmt: skip
    return known[str(path)]


def of_table(table: Mapping[str, Any], folder: Path = Path()) -> Study:
    """The study in the tables of a TOML file; the files of claims that it names are relative to `folder`."""
    known = [f.name for f in fields(Study)] + ["claim"]
    for name in table:
        if name not in known:
            raise UserError(f"{name!r} is no setting of a study; {near_matches(name, known)}")
    for needed in ("title", "data", "networks", "analyses"):
        if needed not in table:
            raise UserError(f"the study has no {needed}")
    given = {k: v for k, v in table.items() if k not in ("claim", "claims")}
    given["networks"] = {name: _made(Variant, {"model": of} if isinstance(of, str) else of, f"networks.{name}")
                         for name, of in _tables(table, "networks")}  # fmt: skip
    given["recipes"] = {name: _recipe(name, of) for name, of in _tables(table, "recipes")} or {"plain": Recipe()}
    given["groups"] = {name: _made(Group, of, f"groups.{name}") for name, of in _tables(table, "groups")}
    subject = _made(SubjectSettings, table.get("subject", {}), "subject")
    given["subject"] = subject
    given["analyses"] = {name: _analysis(name, of, subject.seed) for name, of in _tables(table, "analyses")}
    if "moments" in table:
        given["moments"] = _made(Moments, table["moments"], "moments")
    groups = {name: None for name in (*given["networks"], *given["groups"])}
    given["claims"] = tuple(_claims(table, folder, groups))
    return Study.asked(given)


def _tables(table: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    found = table.get(name, {})
    if not isinstance(found, Mapping):
        raise UserError(f"{name} is a table, [{name}]")
    yield from found.items()


def _made(cls: type[S], given: Any, at: str) -> S:
    """The settings in a table; `at`, the place of the table, is named with any mistake in it."""
    if not isinstance(given, Mapping):
        raise UserError(f"{at} is a table of settings, not {given!r}")
    needed = [f.name for f in fields(cls) if f.default is f.default_factory and f.name not in given]
    try:
        if needed:
            raise UserError(f"there is no {needed[0]}")
        return cls.asked(given)
    except UserError as e:
        raise UserError(f"{at}: {e}") from e


def _recipe(name: str, given: Any) -> Recipe:
    """The recipe `base`, with settings of its own; by default `base` is the recipe of the same name, or else plain."""
    if not isinstance(given, Mapping):
        raise UserError(f"recipes.{name} is a table of settings, not {given!r}")
    for own, of in {"seed": "seeds", "fraction": "shares"}.items():
        if own in given:
            raise UserError(f"recipes.{name}: {own} is given by the `{of}` of the study")
    settings = {k: v for k, v in given.items() if k != "base"}
    try:
        return named_recipe(given.get("base", name if name in RECIPES else "plain"), **settings)
    except UserError as e:
        raise UserError(f"recipes.{name}: {e}") from e


def _analysis(name: str, given: Any, seed: int) -> Analysis:
    """An analysis of the catalogue; its seed is that of the subject unless it names another."""
    kind = given.get("analysis", name) if isinstance(given, Mapping) else name
    if kind not in CATALOGUE:
        raise UserError(f"analyses.{name}: there is no analysis {kind!r}; {near_matches(str(kind), CATALOGUE)}")
    if kind in PAIRS:
        raise UserError(f"analyses.{name}: {kind} is of several trainings at once, and a study looks at each alone")
    cls = CATALOGUE[kind].settings
    own = {"seed": seed} if any(f.name == "seed" for f in fields(cls)) else {}
    given = {k: v for k, v in given.items() if k != "analysis"} if isinstance(given, Mapping) else given
    return _made(cls, {**own, **given} if isinstance(given, Mapping) else given, f"analyses.{name}")


def _claims(table: Mapping[str, Any], folder: Path, groups: Mapping[str, Any]) -> Iterator[Claim]:
    """The claims of the study itself, and those of the files that it names, all or some, about groups of the study.

    The names of claims from any file but the first have the name of that file before them.
    """
    asked = table.get("claims", {})
    if isinstance(asked, str):
        asked = [asked]
    if not isinstance(asked, Mapping):
        asked = {name: "all" for name in asked}
    first = next(iter(asked), "")
    for name, which in asked.items():
        found = {claim.name: claim for claim in read_claims(folder / name if Path(name).suffix else name)}
        for wanted in () if which == "all" else which:
            if wanted not in found:
                raise UserError(f"claims.{name}: there is no claim {wanted!r}; {near_matches(str(wanted), found)}")
        for claim in found.values():
            if which != "all" and claim.name in which:
                refuse_unknown(f"claim {claim.name}: group", claim.groups, groups)
            if which == "all" or claim.name in which:
                yield claim if name == first else replace(claim, name=f"{Path(name).stem}: {claim.name}")
    own_claims = table.get("claim", [])
    if not isinstance(own_claims, list):
        raise UserError("claims of the study itself are tables headed [[claim]]")
    for own in own_claims:
        claim = _claim(own)
        refuse_unknown(f"claim {claim.name}: group", claim.groups, groups)
        yield claim


def _claim(given: Any) -> Claim:
    name = given.get("name", "?") if isinstance(given, Mapping) else "?"
    return _made(Claim, given, f"claim {name}")
