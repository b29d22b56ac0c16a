"""Files that are checkpoints by their names."""

from __future__ import annotations

import os
from pathlib import Path

SUFFIXES = (".pt", ".pth", ".th", ".tar", ".bin", ".ckpt", ".t7", ".safetensors")


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether the name is that of a checkpoint: a folder, or one of the known endings."""
    return Path(path).is_dir() or Path(path).suffix in SUFFIXES
