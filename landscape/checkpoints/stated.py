"""What a checkpoint states of itself, used only if it is plain and in range, since a stranger may have written it.

Nothing that a file says makes code run, sends a request or opens another file: a network that it names is one of
`landscape.models` or of timm, and its settings are of the kinds below.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import timm

from landscape.models import resolve
from landscape.runtime.errors import UserError
from landscape.runtime.own import split_settings


@dataclass(frozen=True)
class Rule:
    """What a value may be: a test, and the same in words."""

    holds: Callable[[Any], bool]
    words: str


def _number(low: float, high: float = math.inf, *, whole: bool = False, above: bool = False) -> Callable[[Any], bool]:
    def holds(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            return False
        return (low < value if above else low <= value) and value <= high and (whole or math.isfinite(value))

    return holds


def _each(holds: Callable[[Any], bool], most: int = 64) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (list, tuple)) and 0 < len(value) <= most and all(map(holds, value))


def _whole(low: int, high: int) -> Rule:
    return Rule(_number(low, high, whole=True), f"a whole number from {low} to {high}")


def _one_or_each(low: int, high: int) -> Rule:
    one = _number(low, high, whole=True)
    return Rule(lambda value: one(value) or _each(one)(value), f"whole numbers from {low} to {high}")


def _one_of(*names: str) -> Rule:
    return Rule(lambda value: isinstance(value, str) and value in names, "one of " + ", ".join(map(repr, names)))


def _share(value: Any) -> bool:
    return _number(0.0, 1.0)(value) and value < 1


_RATE = Rule(_share, "a number from 0 to below 1")
_POSITIVE = Rule(_number(0.0), "a finite number, 0 or more")
_FLAG = Rule(lambda value: isinstance(value, bool), "true or false")
_SIZE = _one_or_each(1, 16384)
_FACTOR = Rule(lambda value: _number(0.0, 64.0, above=True)(value) or _each(_number(0.0, 64.0, above=True))(value),
               "numbers above 0, of 64 at most")  # fmt: skip


RULES: dict[str, Rule] = {
    "num_classes": _whole(1, 1_000_000),
    "image_size": _whole(1, 8192),
    "in_channels": _whole(1, 4096),
    "seed": _whole(0, 2**63 - 1),
    "fraction": Rule(_number(0.0, 1.0, above=True), "a number above 0, of 1 at most"),
    "mixup": _POSITIVE,
    "cutmix": _POSITIVE,
    "smoothing": _RATE,
    "mean": Rule(_each(_number(-math.inf), 4096), "finite numbers, one per channel"),
    "std": Rule(_each(_number(0.0, above=True), 4096), "finite numbers above 0, one per channel"),
    "auto_augment": Rule(
        lambda value: isinstance(value, str) and re.fullmatch(r"[\w.-]{0,200}", value) is not None, "in timm's notation"
    ),
    "data": Rule(lambda value: isinstance(value, str) and len(value) <= 4096, "the name of a data set"),
}
OPTIONS = {name: f"--{name.replace('_', '-')}" for name in RULES if name not in ("seed", "fraction", "in_channels")}
SETTINGS: dict[str, Rule] = {
    **dict.fromkeys(("num_classes", "img_size", "in_chans", "local", "window", "window_size"), _SIZE),
    **dict.fromkeys(("depth", "depths", "blocks", "layers", "expansion", "stride"), _one_or_each(1, 1000)),
    **dict.fromkeys(("embed_dim", "num_heads", "heads", "head_width", "patch_size", "widths", "base_dims"), _SIZE),
    **dict.fromkeys(("groups", "base_width", "stem_width", "cardinality", "output_stride"), _whole(1, 4096)),
    **dict.fromkeys(("attention", "reg_tokens"), _one_or_each(0, 1000)),
    **dict.fromkeys(("mlp_ratio", "width_mult", "depth_mult"), _FACTOR),
    **dict.fromkeys(("norm_eps", "init_values"), Rule(_number(0.0, 1.0, above=True), "a number above 0, of 1 at most")),
    **dict.fromkeys(
        ("drop_path_rate", "drop_rate", "attn_drop_rate", "proj_drop_rate", "pos_drop_rate", "patch_drop_rate"), _RATE
    ),
    **dict.fromkeys(("qkv_bias", "qk_norm", "class_token", "no_embed_class", "pre_norm", "final_norm", "fc_norm",
                     "dynamic_img_size"), _FLAG),
    "stages": Rule(_each(lambda s: isinstance(s, str) and re.fullmatch("[ac]{1,100}", s) is not None), "letters c, a"),
    "global_pool": _one_of("", "avg", "token", "map", "max", "avgmax", "catavgmax", "fast"),
    "shortcut": _one_of("A", "B", "none"),
    "stem": _one_of("cifar", "imagenet"),
    "stem_type": _one_of("", "deep", "deep_tiered"),
    "act_layer": _one_of("relu", "gelu", "gelu_tanh", "quick_gelu", "silu", "swish", "hard_swish", "mish"),
}  # fmt: skip
LAYERS = ("depth", "depths", "blocks", "layers", "stages")  # what these count has at least one tensor each


def stated(metadata: Mapping[str, Any], name: str, path: str | os.PathLike[str]) -> Any:
    """What the metadata of the checkpoint at `path` has under `name`; None if it has nothing.

    Raises UserError for a value that is not of the type and in the range of the option with that name.
    """
    value = metadata.get(name)
    if value is None or RULES[name].holds(value):
        return value
    mend = f"give {OPTIONS[name]}" if name in OPTIONS else "save it again with another"
    raise UserError(f"{path} states {name}={_short(value)}, which must be {RULES[name].words}; {mend}")


def stated_network(
    metadata: Mapping[str, Any], path: str | os.PathLike[str], tensors: int
) -> tuple[str, dict[str, Any]] | None:
    """The network that the metadata names, and further settings for it; None if it names none.

    tensors: how many tensors the file has. A network of more layers is refused, before it is made.

    Raises UserError for a network that is not of `landscape.models` or timm, and for settings that SETTINGS does not
    have.
    """
    model = metadata.get("model")
    if model is None:
        return None
    if not isinstance(model, str) or len(model) > 1000:
        raise UserError(f"{path} states model={_short(model)}, which is no name; give the network with `model`")
    if ".py:" in model:
        raise UserError(f"{path} names code as its network, {_short(model)}; if you trust it, give that with `model`")
    spelled, own = split_settings(model)
    known = timm.is_model(spelled.removeprefix("timm:")) if spelled.startswith("timm:") else resolve(spelled)
    if not known:
        raise UserError(f"{path} names a network that is not known, {_short(model)}; give the network with `model`")
    more = metadata.get("settings") or {}
    own, more = _without_pretrained(own), _without_pretrained(more if isinstance(more, Mapping) else {"settings": more})
    for key, value in (*own.items(), *more.items()):
        if key not in SETTINGS:
            raise UserError(
                f"{path} states {_short(key)}={_short(value)} of its network, which no file may; "
                "give the network and its settings with `model`, as in 'vit_ti(depth=6)'"
            )
        holds = value is None or SETTINGS[key].holds(value)
        if not holds or (key in LAYERS and _layers(value) > max(tensors, 1)):
            must = f"have {tensors} tensors, as the file" if holds else f"be {SETTINGS[key].words}"
            raise UserError(
                f"{path} states {key}={_short(value)} of its network, which must {must}; "
                "give the network and its settings with `model`, as in 'vit_ti(depth=6)'"
            )
    return spelled + (f"({', '.join(f'{k}={v!r}' for k, v in own.items())})" if own else ""), more


def _layers(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return sum(map(_layers, value))
    return len(value) if isinstance(value, str) else int(value or 0)


def _without_pretrained(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in settings.items() if k != "pretrained" or not isinstance(v, bool)}  # the file has them


def _short(value: Any) -> str:
    text = str(value) if isinstance(value, (list, tuple, int, float)) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
