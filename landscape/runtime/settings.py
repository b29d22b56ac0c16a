"""Settings: a frozen dataclass that checks itself where it is made, and is read back from what it was stored as."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self, get_type_hints

from landscape.runtime.errors import UserError, near_matches

MOST = 1_000_000  # of anything that is counted, and not there already
WIDE = 2**63 - 1
FAR = 1e12  # of any number
THERE = ("samples", "images", "at_most", "batch_size", "chunk_size", "seed")  # what these are of sets their bound
LONGEST = 4096, 255  # bytes of a path, and of a name in it


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The base of every choice of several numbers and words: `@dataclass(frozen=True, kw_only=True)`.

    A field's annotation is its rule, as pydantic reads it: `Annotated[int, Ge(1)]`, `Literal["LM", "LA"]`,
    `tuple[float, float] | None`. Beside it, numbers are within FAR, counts at most MOST (those of examples, and seeds,
    what 64 bits hold), and names no longer than a file system takes. What several fields must fulfil together goes into
    `check`. The "Parameters" of a subclass's docstring are at once its documentation and the help of the options made
    from it.

    Raises
    ------
    UserError
        For a value that its annotation does not allow: one line with the name, the value, and what is allowed.
    """

    formerly: ClassVar[Mapping[str, str]] = {}  # fields by the names that older files have them under

    def __post_init__(self) -> None:
        """Check every field, and keep it as its annotation has it: a list as a tuple, 1 as a float."""
        for name, adapter in _adapters(type(self)).items():  # type: ignore[arg-type]
            value = _validated(adapter, name, getattr(self, name))
            _refuse_absurd(name, value)
            object.__setattr__(self, name, value)
        self.check()

    def check(self) -> None:
        """Raise UserError where fields do not go together."""

    def asdict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """These settings from what `asdict` once gave, perhaps before some fields existed: they take their defaults.

        What is no field is passed over: beside its settings a stored configuration has other things.
        """
        known = {f.name for f in fields(cls) if f.init}
        named = {cls.formerly.get(name, name): value for name, value in stored.items()}
        return cls(**{name: value for name, value in named.items() if name in known})

    @classmethod
    def asked(cls, given: Mapping[str, Any]) -> Self:
        """These settings from keyword arguments. Raises UserError, with near matches, for one that is no field."""
        known = [f.name for f in fields(cls) if f.init]
        for name in given:
            if name not in known:
                raise UserError(f"{name!r} is no setting of {cls.__name__}; {near_matches(name, known)}")
        return cls(**given)


@cache
def _adapters(cls: Any) -> dict[str, Any]:
    from pydantic import TypeAdapter  # at the first settings made, not at every start

    hints = get_type_hints(cls, include_extras=True)
    return {f.name: TypeAdapter(hints[f.name]) for f in fields(cls)}


def _validated(adapter: Any, name: str, value: Any) -> Any:
    from pydantic import ValidationError

    try:
        return adapter.validate_python(value)
    except ValidationError as e:
        rules = list(dict.fromkeys(_rule(error) for error in e.errors(include_url=False)))
        own = [rule for rule in rules if not rule.startswith("must be a valid")]  # of the form that was meant
        rules = own or rules
        raise UserError(f"{name}={value!r} {' or '.join(rules)}") from e


def _rule(error: Any) -> str:
    """What a value must be, in the words of the toolkit's other messages."""
    limits = error.get("ctx", {})
    match error["type"]:
        case "literal_error":
            return f"is not one of {limits['expected'].replace(' or ', ', ')}".replace("'", "")
        case "greater_than_equal":
            return f"must be {limits['ge']:g} or more"
        case "greater_than":
            return f"must be above {limits['gt']:g}"
        case "less_than_equal":
            return f"must be at most {limits['le']:g}"
        case "less_than":
            return f"must be below {limits['lt']:g}"
        case "finite_number":
            return "must be a finite number"
    return str(error["msg"]).replace("Input should be", "must be")


def _refuse_absurd(name: str, value: Any) -> None:
    """Raise UserError for a number or a name that nothing can be meant by, whatever it is of."""
    if isinstance(value, (tuple, list)):
        for part in value:
            _refuse_absurd(name, part)
    elif isinstance(value, int) and not isinstance(value, bool):
        most = WIDE if any(part in name for part in THERE) else MOST
        if abs(value) > most:
            raise UserError(f"{name}={value} must be at most {most}")
    elif isinstance(value, float) and not abs(value) <= FAR:
        allowed = f"between {-FAR:g} and {FAR:g}" if math.isfinite(value) else "a finite number"
        raise UserError(f"{name}={value} must be {allowed}")
    elif isinstance(value, (str, Path)):
        _refuse_unnamable(name, value)


def _refuse_unnamable(name: str, value: str | Path) -> None:
    whole, each = LONGEST
    length = len(os.fsencode(value))
    parts = value.parts if isinstance(value, Path) else ()
    longest = max((len(os.fsencode(part)) for part in parts), default=0)
    if length > whole or longest > each or "\0" in str(value):
        said = f"{name}={str(value)[:20]!r}... has {length} bytes"
        raise UserError(f"{said}; a name has at most {each}, and a path {whole}, none of them 0")
