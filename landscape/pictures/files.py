"""Pictures as files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from landscape.runtime.errors import UserError


def save_pictures(figures: Mapping[str, Figure], folder: str | os.PathLike[str], stem: str) -> list[Path]:
    """Write each figure as FOLDER/STEM-NAME.png, and say where. Raises UserError where that cannot be written."""
    folder = Path(folder)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            path = folder / f"{stem}-{name}.png"
            figure.savefig(path, metadata={"Software": None}, bbox_inches="tight", pad_inches=0.08)
            written.append(path)
    except OSError as e:
        raise UserError(f"cannot write pictures into {folder}: {e.strerror or e}; choose another place") from e
    return written
