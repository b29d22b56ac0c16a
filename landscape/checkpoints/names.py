"""Files that are checkpoints, by their names or by what is in them."""

from __future__ import annotations

import os
from pathlib import Path

from landscape.runtime.contents import kind_of

SUFFIXES = (".pt", ".pth", ".th", ".tar", ".bin", ".ckpt", ".t7", ".safetensors")


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether it is a folder, or has the name of a checkpoint, or the content of one under another name."""
    path = Path(path)
    named = path.is_dir() or path.suffix in SUFFIXES
    return named or kind_of(path) in ("a torch checkpoint", "safetensors")


def is_safetensors(path: Path) -> bool:
    """Whether it is to be read as safetensors: by its name, or by its content under a name that no checkpoint has."""
    return path.suffix == ".safetensors" or (path.suffix not in SUFFIXES and kind_of(path) == "safetensors")
