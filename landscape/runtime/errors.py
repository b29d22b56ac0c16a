"""Mistakes that the user can correct: one line that says what was wrong, with the value, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what was asked or given. The command line prints it as one line and exits with status 2."""


def near_matches(name: str, known: Iterable[str], n: int = 3) -> str:
    """A hint for an error message: the names in `known` that are near to `name`, or else what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=n, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    return "known: " + a_few(known, 30)


def a_few(names: Iterable[str], n: int = 3) -> str:
    """The first `n` names, and how many more there are."""
    names = list(names)
    rest = f" and {len(names) - n} more" if len(names) > n else ""
    return ", ".join(names[:n]) + rest
