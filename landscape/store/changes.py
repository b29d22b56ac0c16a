"""The settings of a stored result beside those asked for now, and their differences in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from landscape.runtime.errors import UserError, a_few

CONTENTS = {  # digests of contents, whose values tell a reader nothing
    "weights_sha256": "the weights",
    "data_sha256": "the examples",
    "clusters_sha256": "which examples belong together",
    "sha256": "the directions",
}
WORDS = {  # entries that are not settings, or whose settings have another name
    "examples": "the number of examples",
    "available": "the examples of the data set",
    "parameters": "the parameters",
    "mixing": "the way of mixing",
    "dims": "the number of directions",
    "name": "`data`",
    "precision": "`dtype`",
}
FOLLOW = {"data_sha256": "data", "examples": "data"}  # where a difference in the first comes from
Place = tuple[str, ...]


class OtherSettings(UserError):
    """A stored result cannot be continued as asked: it was made with other settings."""

    def __init__(self, analysis: str, found: Sequence[str]) -> None:
        super().__init__(
            f"the stored {analysis} was made with other settings ({a_few(found, 6)}); ask for the same to continue it, "
            "replace it with `overwrite`, or write to another file"
        )


def changes(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """A phrase for each setting in which two configurations differ, such as "`points`: 3 there, 5 asked"."""
    found = dict(_differing(stored, asked))
    kept = {place: values for place, values in found.items() if not _follows(place, found)}
    return list(dict.fromkeys(changed(place[-1], *values) for place, values in kept.items()))


def _follows(place: Place, found: Iterable[Place]) -> bool:
    """Whether a difference is only the consequence of another one in `found`."""
    *above, last = place
    if last == "sha256":
        return any(other[:-1] == place[:-1] and other != place for other in found)
    return last in FOLLOW and any(other[: len(place)] == (*above, FOLLOW[last]) for other in found)


def changed(setting: str, there: Any, asked: Any) -> str:
    """The phrase for one setting."""
    if setting in CONTENTS:
        return f"{CONTENTS[setting]} are others"
    return f"{WORDS.get(setting, f'`{setting}`')}: {said(there)} there, {said(asked)} asked"


def said(value: Any) -> str:
    """A value as an option takes it: numbers with commas; a value that is the same for all axes is given once."""
    if isinstance(value, (list, tuple)):
        parts = [said(part) for part in value]
        alike = len(set(parts)) == 1 and len(parts) > 1
        return parts[0] if alike else (" and " if any("," in part for part in parts) else ",").join(parts)
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {said(v)}" for k, v in value.items())
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _differing(old: Any, new: Any, at: Place = ()) -> Iterator[tuple[Place, tuple[Any, Any]]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new} - {"provenance"}):
            yield from _differing(old.get(key), new.get(key), (*at, key))
    elif old != new:
        yield at, (old, new)
