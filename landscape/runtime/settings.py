"""Settings: a frozen dataclass that checks itself when it is made, and can be read back from its stored form."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self, get_type_hints

from landscape.runtime.errors import UserError, near_matches

MOST = 1_000_000  # the highest count of anything to be made
WIDE = 2**63 - 1
FAR = 1e12  # the largest magnitude of any number
NEAR = 1e-100  # the smallest but 0: less vanishes in the arithmetic that it goes into
THERE = ("samples", "images", "at_most", "batch_size", "chunk_size", "seed")  # counts that the data bound, and seeds
LONGEST = 4096, 255  # the most bytes of a path, and of a name in it


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The base class of all settings, each a `@dataclass(frozen=True, kw_only=True)`.

    A field's annotation is its rule, as pydantic reads it: `Annotated[int, Ge(1)]`, `Literal["LM", "LA"]`,
    `tuple[float, float] | None`. Besides, numbers must be 0 or of a magnitude from NEAR to FAR, counts at most MOST
    (numbers of examples and seeds at most what 64 bits hold), and names no longer than a file system takes. Conditions
    on several fields belong in `check`. The section "Parameters" of a subclass's docstring is also the help text of
    its options.

    Raises
    ------
    UserError
        For a value that its annotation does not allow: one line with the name, the value, and what is allowed.
    """

    formerly: ClassVar[Mapping[str, str]] = {}  # the names of fields in older files

    def __post_init__(self) -> None:
        """Check every field, and convert it to the type of its annotation: a list to a tuple, 1 to a float."""
        for name, adapter in _adapters(type(self)).items():  # type: ignore[arg-type]
            value = _validated(adapter, name, getattr(self, name))
            _refuse_absurd(name, value)
            object.__setattr__(self, name, value)
        self.check()

    def check(self) -> None:
        """Raise UserError if fields contradict each other."""

    def asdict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """These settings from what `asdict` gave when they were stored; fields that did not exist then get defaults.

        Entries that are not fields are ignored, since a stored configuration holds other things too.
        """
        known = {f.name for f in fields(cls) if f.init}
        named = {cls.formerly.get(name, name): value for name, value in stored.items()}
        return cls(**{name: value for name, value in named.items() if name in known})

    @classmethod
    def asked(cls, given: Mapping[str, Any]) -> Self:
        """These settings from keyword arguments. Raises UserError, with near matches, for one that is not a field."""
        known = [f.name for f in fields(cls) if f.init]
        for name in given:
            if name not in known:
                raise UserError(f"{name!r} is not a setting of {cls.__name__}; {near_matches(name, known)}")
        return cls(**given)


@cache
def _adapters(cls: Any) -> dict[str, Any]:
    from pydantic import TypeAdapter  # here, so that only making settings imports it

    hints = get_type_hints(cls, include_extras=True)
    return {f.name: TypeAdapter(hints[f.name]) for f in fields(cls)}


def _validated(adapter: Any, name: str, value: Any) -> Any:
    from pydantic import ValidationError

    try:
        return adapter.validate_python(value)
    except ValidationError as e:
        rules = list(dict.fromkeys(_rule(error) for error in e.errors(include_url=False)))
        own = [rule for rule in rules if not rule.startswith("must be a valid")]  # those of the form that was meant
        rules = own or rules
        raise UserError(f"{name}={value!r} {' or '.join(rules)}") from e


def _rule(error: Any) -> str:
    """What a value must be, worded as in the other messages."""
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
    """Raise UserError for a number or a name that cannot be meant for any setting."""
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
    elif isinstance(value, float) and 0 < abs(value) < NEAR:
        raise UserError(f"{name}={value} must be 0, or {NEAR:g} or more in size")
    elif isinstance(value, (str, Path)):
        _refuse_unnamable(name, value)


def _refuse_unnamable(name: str, value: str | Path) -> None:
    whole, each = LONGEST
    length = len(os.fsencode(value))
    parts = value.parts if isinstance(value, Path) else ()
    longest = max((len(os.fsencode(part)) for part in parts), default=0)
    if length > whole or longest > each or "\0" in str(value):
        said = f"{name}={str(value)[:20]!r}... has {length} bytes"
        raise UserError(f"{said}; a name may have at most {each}, a path {whole}, and no null byte")
