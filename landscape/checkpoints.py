"""A checkpoint file -> a model and its provenance. Files are read as weights only: no code in them ever runs."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import os
import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from landscape.errors import UserError, a_few, near_matches
from landscape.models import create_model, list_models

SUFFIXES = (".pt", ".pth", ".th", ".tar", ".safetensors")
CONTAINERS = ("state_dict", "model", "model_state_dict", "model_ema", "net")
PREFIXES = ("module.", "_orig_mod.", "model.")
IMAGE_SIZES = (32, 8, 16, 28, 64, 96, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512)
METADATA_KEY = "landscape"

Build = Callable[..., nn.Module]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: its weights, prefixes removed, and where they came from."""

    state: State
    sha256: str
    container: str | None = None
    prefix: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


def load_checkpoint(
    path: str | os.PathLike[str],
    model: str | Build | None = None,
    *,
    num_classes: int | None = None,
    image_size: int | None = None,
    in_channels: int | None = None,
    device: torch.device | str = "cpu",
) -> tuple[nn.Module, dict[str, Any]]:
    """The network with the checkpoint's weights, in eval mode, and its provenance.

    path: .pt, .pth, .th, .tar (torch, read with weights_only=True) or .safetensors; a bare state dict or one under
        state_dict, model, model_state_dict, model_ema or net; prefixes module., _orig_mod. and model. are removed.
    model: a name of landscape.models, "timm:NAME", "path/to/file.py:function" (your own code, which runs), or a
        callable; the function is called with those of num_classes, image_size and in_channels that it takes. None
        where the checkpoint's own metadata names it.
    num_classes, image_size, in_channels: inferred from the shapes of the weights where they are None and can be.

    provenance: file, sha256, container, prefix, model, num_classes, image_size (None where any serves), in_channels,
    parameters, and the checkpoint's own metadata, such as mean, std and weight_decay.

    Raises UserError for a missing file, one that is no checkpoint or asks to run code, an unknown model, and for keys
    that are missing, left over or of another shape.
    """
    checkpoint = read_checkpoint(path)
    metadata = checkpoint.metadata
    model = model if model is not None else metadata.get("model")
    if model is None:
        raise UserError(f"{path} does not name its network; say which with --model ({_fit_hint(checkpoint.state)})")
    build, name = builder(model, metadata.get("settings", {}) if model == metadata.get("model") else {})
    given = {"num_classes": num_classes, "image_size": image_size, "in_channels": in_channels}
    asked = {k: v if v is not None else metadata.get(k) for k, v in given.items()}
    arguments = infer_arguments(build, checkpoint.state, asked)
    network = build(**arguments)
    state = _with_counters(checkpoint.state, network.state_dict())
    differences = _differences(network.state_dict(), state)
    if differences:
        raise UserError(f"{path} does not fit {name}: {differences}; {_cause(state, network)}")
    network.load_state_dict(state)
    provenance = {
        "file": os.fspath(path),
        "sha256": checkpoint.sha256,
        "container": checkpoint.container,
        "prefix": checkpoint.prefix,
        "model": name,
        "num_classes": arguments.get("num_classes"),
        "image_size": arguments.get("image_size"),
        "in_channels": arguments.get("in_channels"),
        "parameters": sum(p.numel() for p in network.parameters()),
        "metadata": {**_input_of(network), **metadata},
    }
    return network.to(device).eval(), provenance


def save_checkpoint(path: str | os.PathLike[str], model: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Weights as safetensors, atomically, with `metadata` (JSON) beside them: model, num_classes, mean, std, ...

    Raises UserError where the place cannot be written.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    state = {name: t.detach().cpu().contiguous().clone() for name, t in model.state_dict().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, part, metadata={METADATA_KEY: json.dumps(dict(metadata), sort_keys=True)})
        os.replace(part, path)
    except (OSError, SafetensorError) as e:
        raise UserError(f"cannot write {path}: {e}; choose another place with --out") from e


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The weights in a file, with no model in mind. Raises UserError as `load_checkpoint` does."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the checkpoint file in it")
    if not path.exists():
        raise UserError(f"no such checkpoint: {path}")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} is no checkpoint by its name; known endings: {', '.join(SUFFIXES)}")
    with open(path, "rb") as f:
        sha256 = hashlib.file_digest(f, "sha256").hexdigest()
    if path.suffix == ".safetensors":
        held, metadata = _read_safetensors(path)
    else:
        held = _read_torch(path)
        metadata = {}
    state, container = _state_dict(held, path)
    if container is not None:
        metadata = {k: v for k, v in held.items() if isinstance(v, (int, float, str)) and k not in CONTAINERS}
    prefix = ""
    while stripped := next((p for p in PREFIXES if all(k.startswith(p) for k in state)), None):
        state = {k.removeprefix(stripped): t for k, t in state.items()}
        prefix += stripped
    return Checkpoint(state, sha256, container, prefix, metadata)


def _read_torch(path: Path) -> Any:
    damaged = f"{path} is no torch checkpoint, or is damaged or cut short"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's doubts about old pickles end below, as an error or not
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        text = str(e)
        if "GLOBAL" not in text and "Unsupported" not in text:
            raise UserError(damaged) from e
        asked = re.search(r"GLOBAL (\S+)", text)
        wish = f"asks to run code ({asked[1]})" if asked else "asks for more than tensors"
        raise UserError(
            f"{path} {wish}, which weights never need, and was not loaded; save model.state_dict() alone"
        ) from e
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, zipfile.BadZipFile) as e:
        raise UserError(damaged) from e


def _read_safetensors(path: Path) -> tuple[State, dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as f:
            state = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118  (not a dict)
            text = (f.metadata() or {}).get(METADATA_KEY, "{}")
        metadata = json.loads(text)
    except (SafetensorError, OSError, ValueError) as e:
        raise UserError(f"{path} is no safetensors file, or is damaged: {e}") from e
    return state, metadata if isinstance(metadata, dict) else {}


def _state_dict(held: Any, path: Path) -> tuple[State, str | None]:
    if _is_state(held):
        return dict(held), None
    if isinstance(held, Mapping):
        for key in CONTAINERS:
            if _is_state(held.get(key)):
                return dict(held[key]), key
        keys = a_few(map(str, held), 6)
        raise UserError(f"{path} holds no state dict; it has {keys or 'nothing'}, none of {', '.join(CONTAINERS)}")
    raise UserError(f"{path} holds a {type(held).__name__}, not a state dict; save model.state_dict()")


def _is_state(held: Any) -> bool:
    return isinstance(held, Mapping) and len(held) > 0 and all(isinstance(v, Tensor) for v in held.values())


def builder(model: str | Build, settings: Mapping[str, Any] | None = None) -> tuple[Build, str]:
    """A function of num_classes, image_size and in_channels that makes the network, and its name."""
    if not isinstance(model, str):
        return _from_function(model), getattr(model, "__qualname__", type(model).__qualname__)
    if model.startswith("timm:"):
        return _from_timm(model.removeprefix("timm:")), model
    if ".py:" in model:
        return _from_file(model), model
    if model not in list_models():
        raise UserError(
            f"unknown model {model!r}; {near_matches(model, list_models())} (or timm:NAME, or path/to/file.py:function)"
        )

    def build(**arguments: Any) -> nn.Module:
        return create_model(model, **_given(arguments), **(settings or {}))

    return build, model


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in arguments.items() if v is not None}


def _from_timm(name: str) -> Build:
    if not timm.is_model(name):
        raise UserError(f"unknown timm model {name!r}; {near_matches(name, timm.list_models())}")

    def build(**arguments: Any) -> nn.Module:
        given = _given(arguments)
        settings = {k: given[v] for k, v in (("num_classes", "num_classes"), ("in_chans", "in_channels")) if v in given}
        size = given.get("image_size")
        if size is not None:
            try:
                return timm.create_model(name, img_size=size, **settings)
            except TypeError:  # a network for every image size takes none
                pass
        return timm.create_model(name, **settings)

    return build


def _from_file(model: str) -> Build:
    file, _, function = model.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"no such file: {file} (of --model {model})")
    module_name = f"landscape_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        raise UserError(f"{file} cannot be imported: {type(e).__name__}: {e}") from e
    finally:
        sys.path.pop(0)
    if not callable(getattr(module, function, None)):
        known = [k for k, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module_name]
        raise UserError(f"{file} has no function {function!r}; {near_matches(function, known)}")
    return _from_function(getattr(module, function))


def _from_function(function: Build) -> Build:
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    takes = {p.name for p in parameters}

    def build(**arguments: Any) -> nn.Module:
        network = function(**{k: v for k, v in _given(arguments).items() if takes_all or k in takes})
        if not isinstance(network, nn.Module):
            raise UserError(f"{function.__qualname__} gave a {type(network).__name__}, not a torch.nn.Module")
        return network

    return build


def infer_arguments(build: Build, state: State, asked: Mapping[str, int | None]) -> dict[str, int | None]:
    """num_classes, image_size and in_channels, each as asked or else read off the shapes of `state`.

    A weight whose shape follows an argument shows that argument: the network is made twice, without memory, with
    two values of it, and where the shapes differ the checkpoint tells which value it had. What no weight shows stays
    None.
    """
    arguments = dict(asked)
    for name, (a, b) in {"num_classes": (10, 11), "in_channels": (3, 1)}.items():
        if arguments[name] is None:
            arguments[name] = _read_off(build, state, arguments, name, a, b)
    if arguments["image_size"] is None:
        arguments["image_size"] = _image_size(build, state, arguments)
    return arguments


def _shapes(build: Build, arguments: Mapping[str, Any]) -> dict[str, torch.Size] | None:
    try:
        with torch.device("meta"):
            return {k: t.shape for k, t in build(**arguments).state_dict().items()}
    except UserError:
        return None
    except Exception:  # whatever a network's own code raises without real memory or for a size that it does not take
        return None


def _read_off(build: Build, state: State, arguments: Mapping[str, Any], name: str, a: int, b: int) -> int | None:
    one, two = (_shapes(build, {**arguments, name: value}) for value in (a, b))
    if one is None or two is None:
        return None
    for key, shape in one.items():
        if key in state and key in two and len(shape) == len(two[key]) == state[key].ndim:
            for axis, (m, n) in enumerate(zip(shape, two[key], strict=True)):
                if (m, n) == (a, b):
                    return int(state[key].shape[axis])
    return None


def _image_size(build: Build, state: State, arguments: Mapping[str, Any]) -> int | None:
    found = []
    for size in IMAGE_SIZES:
        shapes = _shapes(build, {**arguments, "image_size": size})
        if shapes is None:
            continue
        shared = [key for key in shapes if key in state]
        if shared and all(shapes[key] == state[key].shape for key in shared):
            found.append(size)
        if len(found) > 1 and found[0] == IMAGE_SIZES[0]:
            return None  # the weights do not depend on it
    return found[0] if found else None


def _input_of(network: nn.Module) -> dict[str, Any]:
    """Normalisation that a timm network was published with."""
    published = getattr(network, "pretrained_cfg", None) or {}
    if not timm.is_model(published.get("architecture", "")):  # our ViTs are built on timm's, and publish nothing
        return {}
    return {k: list(published[k]) for k in ("mean", "std") if k in published}


def _with_counters(state: State, wanted: Mapping[str, Tensor]) -> State:
    # BatchNorm's counters of batches, which older checkpoints do not have and evaluation does not use.
    return {**{k: t for k, t in wanted.items() if k.endswith("num_batches_tracked")}, **state}


def _differences(wanted: Mapping[str, Tensor], held: State) -> str:
    missing = [k for k in wanted if k not in held]
    left_over = [k for k in held if k not in wanted]
    reshaped = [
        f"{k} is {tuple(held[k].shape)} in the file and {tuple(wanted[k].shape)} in the network"
        for k in wanted
        if k in held and held[k].shape != wanted[k].shape
    ]
    parts = (("missing", missing), ("left over", left_over), ("of another shape", reshaped))
    return "; ".join(f"{len(names)} {label} ({a_few(names)})" for label, names in parts if names)


def _cause(state: State, network: nn.Module) -> str:
    wanted = network.state_dict()
    shared = [k for k in wanted if k in state]
    if shared and len(shared) == len(wanted) == len(state):
        return "the same network with another size; check its width, classes, image size and input channels"
    if all(k.endswith((".weight", ".bias", "weight", "bias")) for k in state) and set(state) < set(wanted):
        return "was it saved without its buffers? save model.state_dict()"
    return _fit_hint(state)


def _fit_hint(state: State) -> str:
    fits = fitting_models(state)
    return f"the weights fit {a_few(fits)}" if fits else "another architecture: no network of this toolkit fits them"


def fitting_models(state: State) -> list[str]:
    """The names of landscape.models whose keys and shapes are those of `state`."""
    return list(_fitting(state))


def _fitting(state: State) -> Iterator[str]:
    for name in list_models():
        build, _ = builder(name)
        usual = _shapes(build, {})
        if usual is None or _weights(usual).keys() != _weights({k: t.shape for k, t in state.items()}).keys():
            continue
        arguments = infer_arguments(build, state, {"num_classes": None, "image_size": None, "in_channels": None})
        shapes = _shapes(build, arguments)
        if shapes is not None and _weights(shapes) == _weights({k: t.shape for k, t in state.items()}):
            yield name


def _weights(shapes: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    return {k: shape for k, shape in shapes.items() if not k.endswith("num_batches_tracked")}
