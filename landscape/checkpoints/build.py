"""The name of a network -> a function that makes it: ours, timm's, or one of the user's own code."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from landscape.models import create_model, list_models, resolve
from landscape.runtime.errors import UserError, a_few, near_matches

Build = Callable[..., nn.Module]


Shapes = dict[str, tuple[int, ...]]


def builder(model: str | Build, settings: Mapping[str, Any] | None = None) -> tuple[Build, str]:
    """A function of num_classes, image_size and in_channels that makes the network, and its name.

    Parameters
    ----------
    model
        A name of `list_models`, "timm:NAME", or "path/to/file.py:function", each with settings of its own as in
        "vit_ti(local=3)"; or a function.
    settings
        More of them, for a name.

    Raises
    ------
    UserError
        For anything else.
    """
    if not isinstance(model, str):
        return _from_function(model), getattr(model, "__qualname__", type(model).__qualname__)
    if ".py:" in model:
        return _from_file(model), model
    spelled, own = split_settings(model)
    settings = {**own, **(settings or {})}
    if spelled.startswith("timm:"):
        return _from_timm(spelled.removeprefix("timm:"), settings), model
    name = resolve(spelled)
    if name is None:
        known = near_matches(spelled, list_models())
        raise UserError(f"unknown model {spelled!r}; {known} (or timm:NAME, or path/to/file.py:function)")

    def build(**arguments: Any) -> nn.Module:
        try:
            return create_model(name, **{**settings, **_given(arguments)})
        except ValueError as e:
            raise UserError(str(e)) from e

    return build, name + model[len(spelled) :]


def split_settings(model: str) -> tuple[str, dict[str, Any]]:
    """ "vit_ti(local=3)" -> "vit_ti", {"local": 3}: Python literals by keyword. Raises UserError for anything else."""
    file, code, rest = model.rpartition(".py:")
    name, parenthesis, _ = rest.partition("(")
    name = file + code + name
    if not parenthesis:
        return model, {}
    try:
        call = ast.parse(f"f({model[len(name) + 1 :]}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("settings go by keyword")
        return name, {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise UserError(f"{model!r} is no network with settings; write it as in 'vit_ti(local=3, depth=6)'") from e


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in arguments.items() if v is not None}


def _from_timm(name: str, own: Mapping[str, Any]) -> Build:
    if not timm.is_model(name):
        raise UserError(f"unknown timm model {name!r}; {near_matches(name, timm.list_models())}")

    def build(**arguments: Any) -> nn.Module:
        given = _given(arguments)
        named = (("num_classes", "num_classes"), ("in_chans", "in_channels"))
        settings = {**own, **{k: given[v] for k, v in named if v in given}}
        size = given.get("image_size")
        if size is not None and "img_size" not in settings:
            try:
                return timm.create_model(name, img_size=size, **settings)
            except TypeError:  # a network for every image size takes none
                pass
        try:
            return timm.create_model(name, **settings)
        except (TypeError, ValueError, AssertionError, RuntimeError, LookupError, ArithmeticError) as e:
            raise UserError(f"cannot make timm:{name}: {e}") from e

    return build


def _from_file(model: str) -> Build:
    spelled, own = split_settings(model)
    file, _, function = spelled.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"no such file: {file} (of model {model})")
    module_name = f"landscape_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # for good: what is beside the file may be imported later, when the network runs
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as e:
        raise UserError(f"{file} cannot be imported: {_own_words(e)}") from e
    finally:
        sys.path.remove(folder)
    if not callable(getattr(module, function, None)):
        known = [k for k, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module_name]
        raise UserError(f"{file} has no function {function!r}; {near_matches(function, known)}")
    return _from_function(getattr(module, function), own)


def _own_words(e: BaseException) -> str:
    """What other people's code raised, in its own words."""
    kind = "sys.exit" if isinstance(e, SystemExit) else type(e).__name__
    return f"{kind}: {e}" if str(e) else kind


def _from_function(function: Build, own: Mapping[str, Any] | None = None) -> Build:
    own = own or {}
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    takes = {p.name for p in parameters}

    name = getattr(function, "__qualname__", type(function).__qualname__)
    if unknown := [k for k in own if not takes_all and k not in takes]:
        raise UserError(f"{name} takes no {a_few(unknown)}; {near_matches(unknown[0], takes)}")

    def taken(arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {**{k: v for k, v in _given(arguments).items() if takes_all or k in takes}, **own}

    def build(**arguments: Any) -> nn.Module:
        try:
            network = function(**taken(arguments))
        except UserError:
            raise
        except (Exception, SystemExit) as e:
            raise UserError(f"{name} fails: {_own_words(e)}") from e
        if not isinstance(network, nn.Module):
            raise UserError(f"{name} gave a {type(network).__name__}, not a torch.nn.Module")
        return network

    build.taken, build.shapes = taken, {}  # type: ignore[attr-defined]
    return build


class _Uninitialised(TorchFunctionMode):
    """Leaves out what would fill tensors without memory with numbers: by far the most of the time to make them."""

    FILLS = frozenset(("uniform_", "normal_", "erfinv_", "clamp_", "mul_", "add_", "div_", "fill_", "zero_"))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in self.FILLS and args and isinstance(args[0], Tensor) and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def shapes_of(build: Build, arguments: Mapping[str, Any]) -> Shapes | None:
    """The shape of every entry of the network's state dict, made without memory; None where it refuses `arguments`."""
    known: dict[str, Shapes | None] = getattr(build, "shapes", {})  # other people's functions are not called in vain
    key = repr(sorted(build.taken(arguments).items())) if hasattr(build, "taken") else ""
    if key not in known:
        try:
            with torch.device("meta"), _Uninitialised():
                known[key] = {k: tuple(t.shape) for k, t in build(**arguments).state_dict().items()}
        except Exception:  # whatever a network's code raises without real memory or for a size that it does not take
            known[key] = None
    return known[key]
