"""Which files are checkpoints, by their names or their contents."""

from __future__ import annotations

import os
from pathlib import Path

from landscape.runtime.contents import kind_of

SUFFIXES = (".pt", ".pth", ".th", ".tar", ".bin", ".ckpt", ".t7", ".safetensors")


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether it is a folder, has the ending of a checkpoint, or has the content of one under another name."""
    path = Path(path)
    named = path.is_dir() or path.suffix in SUFFIXES
    return named or kind_of(path) in ("a torch checkpoint", "safetensors")


def is_safetensors(path: Path) -> bool:
    """Whether to read it as safetensors: by its ending, or by its content if it has no ending of a checkpoint."""
    return path.suffix == ".safetensors" or (path.suffix not in SUFFIXES and kind_of(path) == "safetensors")
