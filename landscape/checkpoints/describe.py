"""A checkpoint in words: what it holds, and which networks it fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from landscape.checkpoints.build import builder
from landscape.checkpoints.read import Checkpoint, read_checkpoint
from landscape.checkpoints.recognise import ARGUMENTS, Fit, best_reading, closest, fitting
from landscape.checkpoints.stated import stated, stated_network
from landscape.runtime.errors import UserError, a_few

LONGEST = 1000  # the most characters shown of one entry of a file's metadata


def describe_checkpoint(path: Path) -> str:
    """What a checkpoint holds, and which networks it fits: a line each, and one for each entry of its metadata."""
    checkpoint = read_checkpoint(path)
    tensors = list(checkpoint.state.values())
    held = f"{len(tensors)} tensors, {sum(t.numel() for t in tensors):,} numbers"
    where = f" under {checkpoint.container!r}" if checkpoint.container else ""
    where += f" (not read: {a_few(map(repr, checkpoint.beside))})" if checkpoint.beside else ""
    prefix = f", prefix {checkpoint.prefix!r} removed" if checkpoint.prefix else ""
    left_out = checkpoint.left_out(checkpoint.prefix)
    prefix += f", without {a_few(left_out)}" if left_out else ""
    lines = [f"{path}: {held}{where}{prefix}", f"sha256 {checkpoint.sha256}", _describe_fits(checkpoint)]
    lines += [f"{k}: {_short(v)}{_hint(k, v)}" for k, v in sorted(checkpoint.metadata.items())]
    return "\n".join(lines)


def _hint(key: str, value: Any) -> str:
    if key != "weight_decay" or not value:
        return ""
    return f" (of the optimiser; no analysis adds it to the loss unless asked for a weight decay of {value})"


def _describe_fits(checkpoint: Checkpoint) -> str:
    fits = fitting(checkpoint.state)
    try:
        named = stated_network(checkpoint.metadata, "the file", len(checkpoint.state))
        asked = {k: stated(checkpoint.metadata, k, "the file") for k in ARGUMENTS}
    except UserError as e:
        return f"{_describe_closest(checkpoint, fits)}; {e}"
    if named is not None:
        build, name = builder(*named)
        fit = best_reading(build, name, checkpoint.spellings, asked)
        if fit is not None and not fit.differing:
            fits = [fit, *(other for other in fits if other.model != name)]
    return _describe_closest(checkpoint, fits)


def _describe_closest(checkpoint: Checkpoint, fits: list[Fit]) -> str:
    if fits:
        return "fits the networks: " + ", ".join(map(str, fits))
    near = closest(checkpoint.state)
    if near is None:
        return "fits the networks: none of this toolkit's, nor nearly"
    return f"fits the networks: none of this toolkit's; nearly {near}, but for {near.differences()}"


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 6:
        return f"{value[0]} ... {value[-1]} ({len(value)} entries)"
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text):,} characters)"
