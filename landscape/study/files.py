"""Several files of one kind, each with a name of its own, in their natural order."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from landscape.checkpoints.names import SUFFIXES
from landscape.runtime.errors import UserError


def by_name(paths: Sequence[Path]) -> dict[str, Path]:
    """Files by their names without the ending or, if these do not tell them apart, by their paths.

    Raises UserError for a file that is given twice.
    """
    for path in paths:
        if sum(os.path.realpath(path) == os.path.realpath(other) for other in paths) > 1:
            raise UserError(f"{path} is given twice; give each file once")
    ways = [[path.stem or str(path), str(path).removesuffix(path.suffix), str(path)] for path in paths]
    alike = [Counter(way) for way in zip(*ways, strict=True)]
    return {
        next(name for name, names in zip(way, alike, strict=True) if names[name] == 1): path
        for way, path in zip(ways, paths, strict=True)
    }


def labelled(files: Sequence[str | Path]) -> dict[str, Path]:
    """Files by the labels given to them as FILE=LABEL, or else by their names.

    Raises UserError for a label that two files have.
    """
    given = [_label_of(str(file)) for file in files]
    own = iter(by_name([path for path, label in given if label is None]))
    labels = [next(own) if label is None else label for _, label in given]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"two files are called {label}; give each a label of its own as FILE=LABEL")
    return {label: path for label, (path, _) in zip(labels, given, strict=True)}


def _label_of(file: str) -> tuple[Path, str | None]:
    path, equals, label = file.rpartition("=")
    return (Path(path), label.strip()) if equals and label.strip() and not Path(file).exists() else (Path(file), None)


def in_natural_order(paths: Iterable[Path]) -> list[Path]:
    """The paths ordered by the numbers in their names."""
    return sorted(paths, key=lambda path: _natural(path.stem))


def in_order(paths: Sequence[Path]) -> list[Path]:
    """The checkpoints of a series, ordered by the numbers in their names; as given, if a name has none.

    A folder stands for the checkpoints in it, unless it is a checkpoint itself, of Hugging Face. Raises UserError for a
    folder without any.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir() and not (path / "config.json").exists():
            inside = checkpoints_in(path)
            if not inside:
                raise UserError(f"{path} is not a folder of checkpoints ({', '.join(SUFFIXES)})")
            found += inside
        else:
            found.append(path)
    numbered = all(re.search(r"\d", path.stem) for path in found)
    return in_natural_order(found) if numbered else found


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints in a folder, ordered by the numbers in their names; none if it is not a folder."""
    found = [path for path in folder.iterdir() if path.suffix in SUFFIXES] if folder.is_dir() else []
    return in_natural_order(found)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
