"""Options of a command made from settings classes: names, types, defaults and help from fields and docstring."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from datetime import timedelta
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cyclopts import Parameter
from docstring_parser import DocstringStyle, parse

from landscape.runtime.errors import UserError
from landscape.runtime.settings import Settings

SPELLED = {"k": ("--top", "-k"), "quiet": ("--quiet", "-q")}  # options that are not simply the field's name
RESULTS = (".h5", ".hdf5", ".nc")  # how the name of a results file ends
S = TypeVar("S", bound=Settings)


def options_of(cls: type[Any], *, without: Sequence[str] = (), optional: bool = False) -> Any:
    """The fields of a settings class as options: an annotation for a parameter of a command.

    without: fields that are not options of the command. optional: each option is None unless it is given.
    """
    hints, help_ = get_type_hints(cls), explained(cls)  # the settings check ranges, with their own messages
    made = make_dataclass(
        cls.__name__,
        [
            (
                f.name,
                Annotated[
                    hints[f.name] | None if optional else hints[f.name],
                    _spelled(f.name, hints[f.name], help_.get(f.name)),
                ],
                field(default=None if optional else f.default),
            )
            for f in fields(cls)
            if f.name not in without
        ],
        kw_only=True,
        frozen=True,
    )
    made.__module__ = cls.__module__
    return Annotated[made, Parameter(name="*")]


def explained(cls: type[Any]) -> dict[str, str]:
    """The help of each field: its entry under Parameters in the docstring of the class or of a base class."""
    found = {}
    for base in reversed(cls.__mro__):
        for entry in parse(base.__doc__ or "", DocstringStyle.NUMPYDOC).params:
            for name in entry.arg_name.split(", "):
                found[name] = " ".join((entry.description or "").split())
    return found


def settled(cls: type[S], options: Any, **beside: Any) -> S:
    """The settings from the options of `options_of(cls)`, and from what else they need.

    Raises UserError for a value out of its range.
    """
    asked = {f.name: getattr(options, f.name) for f in fields(cls) if hasattr(options, f.name)}
    return cls(**asked, **beside)


def option(setting: str) -> str:
    """The option of a setting on the command line."""
    return SPELLED.get(setting, ("--" + setting.replace("_", "-"),))[0]


def default_of(command: Any, parameter: str) -> Any:
    """The options of a parameter of a command if none are given."""
    return get_args(command.__annotations__[parameter])[0]()


def _spelled(name: str, hint: Any, help_: str | None) -> Parameter:
    names = SPELLED.get(name)
    if _of_numbers(hint):
        return Parameter(
            name=names, help=help_, converter=_numbers(hint), n_tokens=1, allow_leading_hyphen=True, metavar="NUMBERS"
        )
    return Parameter(name=names, help=help_)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _of_numbers(hint: Any) -> bool:
    """Whether a value may be several numbers, separated by commas: 0.485,0.456,0.406."""
    return any(
        get_origin(part) is tuple and any(a in (int, float) or _of_numbers(a) for a in _alternatives(get_args(part)[0]))
        for part in _alternatives(hint)
    )


def _numbers(hint: Any) -> Callable[[Any, Sequence[Any]], Any]:
    """A converter for numbers separated by commas; a single one stays a number if the hint allows that."""
    alone = any(part in (int, float) for part in _alternatives(hint))

    def convert(_: Any, tokens: Sequence[Any]) -> Any:
        text = tokens[-1].value
        try:
            found = [float(part) for part in text.split(",")]
            if not all(map(math.isfinite, found)):
                raise ValueError(text)
        except ValueError as e:
            option = tokens[-1].keyword or "--" + text
            raise UserError(f"{option} {text} is not a list of numbers with commas, such as 0.485,0.456,0.406") from e
        plain = [int(x) if x.is_integer() and abs(x) < 2**53 else x for x in found]
        return plain[0] if alone and len(plain) == 1 else tuple(plain)

    return convert


def with_commas(_: Any, tokens: Sequence[Any]) -> tuple[str, ...]:
    """A converter for words separated by commas."""
    return tuple(filter(None, (part.strip() for part in tokens[-1].value.split(","))))


def refuse_no_results_file(out: Path) -> None:
    """Raise UserError for a name under which no results file can be written."""
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; give the name of a results file, such as {out}/net.h5")
    if out.suffix not in RESULTS:
        raise UserError(f"--out {out} is not the name of a results file, which ends in {', '.join(RESULTS)}")


@dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """Where the results go, and how long to compute.

    Parameters
    ----------
    out
        The results file (HDF5); results that it already has are kept and continued.
    budget
        The time after which no further unit is started, such as 90s, 10m or 2h; what is done by then is a valid result.
    overwrite
        Replace the file's result of this analysis if it was made with other settings or is damaged.
    quiet
        Show no progress bars and print no report.
    """

    out: Path
    budget: timedelta | None = None
    overwrite: bool = False
    quiet: bool = False

    def check(self) -> None:
        """Raise UserError if the file cannot be written."""
        refuse_no_results_file(self.out)

    @property
    def seconds(self) -> float | None:
        """The budget in seconds; None for none."""
        return None if self.budget is None else self.budget.total_seconds()
