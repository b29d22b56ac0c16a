"""A file or folder read as weights, together with what it says of itself.

Only weights and plain values are read: no code in a file ever runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from landscape.checkpoints import huggingface
from landscape.checkpoints.names import SUFFIXES, is_checkpoint, is_safetensors
from landscape.runtime.errors import UserError, a_few
from landscape.runtime.files import replacing

CONTAINERS = ("state_dict", "model", "model_state_dict", "model_ema", "net", "state_dict_ema")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
METADATA_KEY = "landscape"


# Settings that trainers pickle beside the weights. They are read as empty objects; nothing of these modules is called.
SETTINGS = re.compile(
    r"(argparse|pathlib|omegaconf|yacs|easydict|ml_collections|(pytorch_)?lightning\w*|numpy|datetime|"
    r"functools|types|torch\.optim)\."
)
OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch's pickles began, before it wrote zip files
STAND_INS = 64  # the most kinds of such objects in one file; each takes another pass


# The bytes that a file's parts may unpack to: torch and safetensors do not compress, so that more than the size of the
# file is a bomb, or damage.
UNPACKED = 64 << 20


# The entries that the toolkit reads from a file beside the weights, with their types. An entry of another type is from
# another project and means something else. From a torch file mean and std are not taken.
MEANT: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("num_classes", "image_size", "in_channels", "seed"), int),
    **dict.fromkeys(("weight_decay", "mixup", "cutmix", "smoothing", "fraction"), (int, float)),
    **dict.fromkeys(("data", "auto_augment"), str),
    **dict.fromkeys(("mean", "std"), ()),
}


State = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: its weights, and where they came from.

    Parameters
    ----------
    spellings
        Pairs of a prefix and the weights whose keys start with it, without the prefix: from "" with all weights to the
        longest prefix.
    sha256
        The digest of the file, or of the files of a folder one after another.
    container
        The key in the file under which the weights are; None if they are the whole file.
    metadata
        What the file says of the network and its training.
    beside
        The keys of other state dicts in the file, such as a moving average, which are not read.
    """

    spellings: tuple[tuple[str, State], ...]
    sha256: str
    container: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        return self.spellings[-1][0]

    @property
    def state(self) -> State:
        """The weights, without the longest prefix."""
        return self.spellings[-1][1]

    def left_out(self, prefix: str) -> list[str]:
        """The keys that do not start with the prefix, and are therefore not read."""
        return [key for key in self.spellings[0][1] if not key.startswith(prefix)]


class Inert(dict[str, Any]):
    """Stands in for an object that is not weights: it accepts whatever it is given, and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        """Keep nothing."""


def save_checkpoint(path: str | os.PathLike[str], model: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Save weights and metadata as safetensors, written whole or not at all.

    Parameters
    ----------
    path
        The file; its name ends in .safetensors.
    model
        The network whose weights are kept.
    metadata
        What a reader of the weights must know, of types that JSON has: model, num_classes, mean, std, ...

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    path = Path(path)
    state = {name: t.detach().cpu().contiguous().clone() for name, t in model.state_dict().items()}
    try:
        with replacing(path) as part:
            save_file(state, part, metadata={METADATA_KEY: json.dumps(dict(metadata), sort_keys=True)})
    except (OSError, SafetensorError) as e:
        raise UserError(f"cannot write {path}: {e}; choose another place") from e


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The weights in a file or a Hugging Face folder, whatever network they are of.

    Parameters
    ----------
    path
        The file or folder.

    Returns
    -------
    Checkpoint
        The weights, and what the file says of them.

    Raises
    ------
    UserError
        For a missing file, or one that is not a checkpoint, is damaged, or asks to run code.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no such checkpoint: {path}")
    files = huggingface.weights_in(path) if path.is_dir() else [path]
    digest = hashlib.sha256()
    held: Any = {}
    metadata: dict[str, Any] = {}
    for file in files:
        if not is_checkpoint(file):
            raise UserError(f"{file} does not have the name of a checkpoint; known endings: {', '.join(SUFFIXES)}")
        with open(file, "rb") as f:
            hashlib.file_digest(f, lambda: digest)
        if is_safetensors(file):
            part, metadata = _read_safetensors(file)
        else:
            part = _read_torch(file)
        if len(files) == 1:
            held = part
        elif _is_state(part):
            held = {**held, **part}
        else:
            raise UserError(f"{file} holds no state dict, and the weights of {path} are incomplete without it")
    state, container = _state_dict(held, path)
    if container is not None:
        plain = (int, float, str)
        metadata = {
            k: v
            for k, v in held.items()
            if isinstance(k, str)
            and k not in CONTAINERS
            and isinstance(v, plain)
            and isinstance(v, MEANT.get(k, plain))
        }
    # beside any other file, a config.json describes something else
    if not metadata and (path.is_dir() or path.name in huggingface.WEIGHTS):
        metadata = huggingface.stated_by(files[0].parent)
    beside = [str(k) for k, v in held.items() if container is not None and k != container and _is_state(v)]
    return Checkpoint(_spellings(state), digest.hexdigest(), container, metadata, tuple(beside))


def _spellings(state: State) -> tuple[tuple[str, State], ...]:
    """The weights with and without prefixes, as `Checkpoint` has them.

    A prefix is removed if at least half of the keys have it. The keys without it are left out of that reading:
    beside a network a trainer may store the weights of its loss.
    """
    found = [("", state)]
    while prefix := next((p for p in PREFIXES if 2 * sum(k.startswith(p) for k in state) >= len(state)), None):
        state = {k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)}
        found.append((found[-1][0] + prefix, state))
    return tuple(found)


def _read_torch(path: Path) -> Any:
    damaged = f"{path} is no torch checkpoint, or is damaged or cut short"
    _refuse_bomb(path)
    if path.suffix not in SUFFIXES and not zipfile.is_zipfile(path) and not path.read_bytes()[:15] == OLD_TORCH:
        raise UserError(f"{path} is a pickle, but not a checkpoint of torch; save model.state_dict() with torch.save")
    stand_ins: list[Any] = []
    try:
        while True:
            try:
                with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
                    warnings.simplefilter("ignore")  # torch warns of old pickles; they are read or refused below
                    return torch.load(path, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError as e:
                asked = re.search(r"GLOBAL (\S+)", str(e))
                known = [name for _, name in stand_ins]
                if asked is None or asked[1] in known or not SETTINGS.match(asked[1]):
                    raise
                if len(known) == STAND_INS:
                    raise UserError(
                        f"{path} has objects of more than {STAND_INS} kinds beside its weights; "
                        "save model.state_dict() alone"
                    ) from e
                stand_ins.append((type(asked[1].rpartition(".")[2], (Inert,), {}), asked[1]))
    except UserError:
        raise
    except pickle.UnpicklingError as e:
        text = str(e)
        if "GLOBAL" not in text and "Unsupported" not in text:
            raise UserError(damaged) from e
        asked = re.search(r"GLOBAL (\S+)", text)
        wish = f"asks to run code ({asked[1]})" if asked else "asks for more than tensors"
        raise UserError(
            f"{path} {wish}, which weights never need, and was not loaded; save model.state_dict() alone"
        ) from e
    except Exception as e:  # torch may raise anything on a damaged file: a struct error, an assertion, an index, ...
        raise UserError(damaged) from e


def _refuse_bomb(path: Path) -> None:
    """Raise UserError for a file whose parts are compressed and unpack to far more than the file's size."""
    total = 0
    with suppress(zipfile.BadZipFile, OSError, ValueError, NotImplementedError):  # torch then says what the file is
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                total = sum(part.file_size for part in archive.infolist())
    if total > max(UNPACKED, 2 * path.stat().st_size):
        raise UserError(f"{path} unpacks to {total:,} bytes, far more than it has; do not trust it")


def _read_safetensors(path: Path) -> tuple[State, dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as f:
            state = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118  (not a dict)
            text = (f.metadata() or {}).get(METADATA_KEY, "{}")
        metadata = json.loads(text)
    except (SafetensorError, OSError, ValueError, RecursionError) as e:
        raise UserError(f"{path} is not a safetensors file, or is damaged: {e}") from e
    return state, metadata if isinstance(metadata, dict) else {}


def _state_dict(held: Any, path: Path) -> tuple[State, str | None]:
    if _is_state(held):
        return dict(held), None
    if isinstance(held, Mapping):
        found = [key for key in held if _is_state(held[key])]
        known = [key for key in CONTAINERS if key in found] or (found if len(found) == 1 else [])
        if known:
            return dict(held[known[0]]), str(known[0])
        has = a_few((f"{key} ({_kind(value)})" for key, value in held.items()), 6)
        several = f"several state dicts and none under {', '.join(CONTAINERS)}" if found else "no state dict"
        raise UserError(f"{path} holds {several}; it has {has or 'nothing'}; save model.state_dict() alone")
    raise UserError(f"{path} holds a {type(held).__name__}, not a state dict; save model.state_dict()")


def _kind(held: Any) -> str:
    if isinstance(held, Mapping) and not _is_state(held):
        other = next((k for k, v in held.items() if not (isinstance(k, str) and isinstance(v, Tensor))), None)
        return "empty" if other is None else f"with {other}, a {type(held[other]).__name__}"
    return "a state dict" if isinstance(held, Mapping) else f"a {type(held).__name__}"


def _is_state(held: Any) -> bool:
    if not isinstance(held, Mapping) or len(held) == 0:
        return False
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in held.items())
