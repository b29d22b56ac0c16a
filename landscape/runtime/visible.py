"""Text of unknown origin, such as names of files and names within them, made safe to print."""

from __future__ import annotations

import sys
import unicodedata

ACTING = ("Cc", "Cf", "Cs", "Zl", "Zp")  # categories of Unicode that are escaped
JOINS = "\u200c\u200d"  # which join letters, or the parts of an emoji, and are shown


def visible(text: str, *, lines: bool = True) -> str:
    r"""The text with escapes for characters that act on a terminal or cannot be printed: `\x1b`, `\u202e`, `\udcff`.

    These are control characters, marks that change the direction of writing, and bytes that are not text.

    Parameters
    ----------
    text
        Any text.
    lines
        Whether line breaks stay. In a name they should be escaped too.
    """
    return "".join(c if _is_shown(c, lines) else c.encode("unicode_escape").decode("ascii") for c in text)


def _is_shown(c: str, lines: bool) -> bool:
    if c == "\n":
        return lines
    return (c.isascii() and c.isprintable()) or c in JOINS or unicodedata.category(c) not in ACTING


def say(text: str, *, error: bool = False) -> None:
    """Print one or more lines, with escapes for whatever would act on the terminal."""
    print(visible(text), file=sys.stderr if error else sys.stdout)
