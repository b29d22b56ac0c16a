"""Text of unknown origin, such as names of files and of what is in them, made safe to be shown."""

from __future__ import annotations

import sys
import unicodedata

ACTING = ("Cc", "Cf", "Cs", "Zl", "Zp")  # categories of Unicode
JOINS = "\u200c\u200d"  # of letters, and of the parts of one emoji


def visible(text: str, *, lines: bool = True) -> str:
    r"""The text with what acts on a terminal, or cannot be printed, as its escape: `\x1b`, `\u202e`, `\udcff`.

    Those are control characters, marks that turn the direction of what follows, and bytes that are no text.

    Parameters
    ----------
    text
        Anything.
    lines
        Whether line breaks stay: of a name they are an escape too.
    """
    return "".join(c if _is_shown(c, lines) else c.encode("unicode_escape").decode("ascii") for c in text)


def _is_shown(c: str, lines: bool) -> bool:
    if c == "\n":
        return lines
    return (c.isascii() and c.isprintable()) or c in JOINS or unicodedata.category(c) not in ACTING


def say(text: str, *, error: bool = False) -> None:
    """A line, or several, to the terminal, with nothing in it that would act on that."""
    print(visible(text), file=sys.stderr if error else sys.stdout)
