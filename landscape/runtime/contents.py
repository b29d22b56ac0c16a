"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Literal

Kind = Literal["HDF5", "a torch checkpoint", "safetensors", "a zip", "a picture", "a PDF", "text", "empty", "unknown"]
HEAD = 512
BEGIN: dict[bytes, Kind] = {
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"\x89PNG\r\n\x1a\n": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"%PDF-": "a PDF",
    **{b"\x80" + bytes([protocol]): "a torch checkpoint" for protocol in range(2, 6)},  # a pickle: before torch 1.6
}


def kind_of(path: str | os.PathLike[str]) -> Kind:
    """What a file holds; "unknown" for what is none of these, or cannot be read."""
    with suppress(OSError):
        with open(path, "rb") as file:
            head = file.read(HEAD)
        return _kind(Path(path), head)
    return "unknown"


def _kind(path: Path, head: bytes) -> Kind:
    if not head:
        return "empty"
    for begin, kind in BEGIN.items():
        if head.startswith(begin):
            return kind
    if head.startswith(b"PK\x03\x04"):
        with suppress(zipfile.BadZipFile, OSError, ValueError, NotImplementedError), zipfile.ZipFile(path) as archive:
            pickled = any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())
            return "a torch checkpoint" if pickled else "a zip"
        return "a zip"
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= path.stat().st_size - 8:
        return "safetensors"
    with suppress(UnicodeDecodeError):
        head[: HEAD - 4].decode()  # a character may be cut at the end
        return "text" if b"\0" not in head else "unknown"
    return "unknown"
