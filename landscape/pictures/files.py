"""Pictures as files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from landscape.pictures.canvas import notes_of
from landscape.pictures.look import LOOK, Look, styled
from landscape.runtime.errors import UserError
from landscape.runtime.files import replacing

UNDATED: dict[str, dict[str, Any]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
DESCRIPTION = {"png": "Description", "pdf": "Subject", "svg": "Description"}


def save_pictures(
    figures: Mapping[str, Figure], folder: str | os.PathLike[str], stem: str, *, look: Look = LOOK
) -> list[Path]:
    """Write each figure as FOLDER/STEM-NAME.png, or .pdf or .svg, and return the paths.

    Raises UserError if a file cannot be written.
    """
    places = {Path(folder) / f"{stem}-{name}.{look.format}": figure for name, figure in figures.items()}
    for path, figure in places.items():
        save_picture(figure, path, look=look)
    return list(places)


def save_picture(figure: Figure, path: Path, *, look: Look = LOOK) -> None:
    """Write a figure with exactly the width asked for, or else cut to what is on it; notes become its description."""
    exact: dict[str, Any] = {} if look.width is not None else {"bbox_inches": "tight", "pad_inches": 0.08}
    described = {**UNDATED[look.format], DESCRIPTION[look.format]: notes_of(figure) or None}
    try:
        with styled(look), replacing(path, f".{look.format}") as part, warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")  # such as an emoji, which is drawn as a box
            figure.savefig(part, format=look.format, metadata=described, **exact)
    except OSError as e:
        raise UserError(f"cannot write pictures into {path.parent}: {e.strerror or e}; choose another place") from e
