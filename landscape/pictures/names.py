"""Names of files, checkpoints and layers in pictures: drawn as they are, never read as formulas or left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import xarray as xr

from landscape.runtime.visible import visible

WIDTH = 60  # characters after which a name continues on a new line


def plain(name: str) -> str:
    """A name for a title, a legend or a tick: matplotlib reads a pair of $ as a formula, and hides labels with _."""
    text = visible(name, lines=False)
    lines = [text[i : i + WIDTH] for i in range(0, len(text), WIDTH)] or [""]
    escaped = "\n".join(lines).replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def typeset(text: str) -> str:
    """A user's own title or label, which may have formulas between $; as it is typed where matplotlib reads none."""
    if "$" not in text:
        return text
    from matplotlib.mathtext import MathTextParser

    parser = MathTextParser("path")
    try:
        for line in text.split("\n"):
            parser.parse(line)
    except ValueError:
        return re.sub(r"\\?\$", r"\\$", text)
    return text


def drawable(group: xr.Dataset) -> xr.Dataset:
    """A group, for drawing, with plain names for its checkpoints and layers and in its settings."""
    names = {k: c for k, c in group.coords.items() if c.dtype.kind in "OUS" and c.ndim == 1 and c.dims == (k,)}
    renamed = group.assign_coords({k: (k, [plain(str(n)) for n in c.values], c.attrs) for k, c in names.items()})
    return renamed.assign_attrs(_escaped(group.attrs))


def _escaped(settings: Any) -> Any:
    if isinstance(settings, str):
        return visible(settings).replace("$", r"\$")
    if isinstance(settings, Mapping):
        return {key: _escaped(value) for key, value in settings.items()}
    return [_escaped(value) for value in settings] if isinstance(settings, (list, tuple)) else settings
