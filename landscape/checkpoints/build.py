"""From the name of a network to a function that makes it: one of ours, of timm's, or of the user's own code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from landscape.models import create_model, list_models, resolve
from landscape.runtime.errors import UserError, near_matches
from landscape.runtime.own import OwnFunction, is_own, own_function, split_settings

Build = Callable[..., nn.Module]


Shapes = dict[str, tuple[int, ...]]


def builder(model: str | Build, settings: Mapping[str, Any] | None = None) -> tuple[Build, str]:
    """A function of num_classes, image_size and in_channels that makes the network, and the network's name.

    Parameters
    ----------
    model
        A name of `list_models`, "timm:NAME", or "path/to/file.py:function", each with optional settings such as
        "vit_ti(local=3)"; or a function.
    settings
        Further settings, for a name of `list_models` or timm.

    Returns
    -------
    tuple of callable and str
        The function, whose arguments may also be None, and the name.

    Raises
    ------
    UserError
        For an unknown name, or a file or function that cannot be used.
    """
    if not isinstance(model, str):
        return _from_function(model), getattr(model, "__qualname__", type(model).__qualname__)
    if is_own(model):
        return _from_function(own_function(model, "model")), model
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
            except TypeError:  # a network for all image sizes does not take this argument
                pass
        try:
            return timm.create_model(name, **settings)
        except (TypeError, ValueError, AssertionError, RuntimeError, LookupError, ArithmeticError) as e:
            raise UserError(f"cannot make timm:{name}: {e}") from e

    return build


def _from_function(function: Build | OwnFunction) -> Build:
    own = function if isinstance(function, OwnFunction) else OwnFunction(function)

    def build(**arguments: Any) -> nn.Module:
        network = own(**arguments)
        if not isinstance(network, nn.Module):
            raise UserError(f"{own.name} gave a {type(network).__name__}, not a torch.nn.Module")
        return network

    build.taken, build.shapes = own.taken, {}  # type: ignore[attr-defined]
    return build


class _Uninitialised(TorchFunctionMode):
    """Skips operations that would fill tensors without memory with numbers.

    They take by far the most of the time in which a network without memory is made.
    """

    FILLS = frozenset(("uniform_", "normal_", "erfinv_", "clamp_", "mul_", "add_", "div_", "fill_", "zero_"))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in self.FILLS and args and isinstance(args[0], Tensor) and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def shapes_of(build: Build, arguments: Mapping[str, Any]) -> Shapes | None:
    """The shape of every entry of the network's state dict; the network is made without memory.

    None if it cannot be made from `arguments`.
    """
    known: dict[str, Shapes | None] = getattr(build, "shapes", {})  # a user's function is not called twice for nothing
    key = repr(sorted(build.taken(arguments).items())) if hasattr(build, "taken") else ""
    if key not in known:
        try:
            with torch.device("meta"), _Uninitialised():
                known[key] = {k: tuple(t.shape) for k, t in build(**arguments).state_dict().items()}
        except Exception:  # without real memory, or for a wrong size, a network's code may raise anything
            known[key] = None
    return known[key]
