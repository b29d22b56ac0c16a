"""The differences between the weights in a file and those that a network needs, in terms of the network."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isqrt

from landscape.runtime.errors import a_few

Shape = tuple[int, ...]


Shapes = Mapping[str, Shape]


# What the shape of a parameter tells: (pattern of its name, its number of dimensions, what it tells, the value).
_TELLS: tuple[tuple[str, int, str, Callable[[Shape], object]], ...] = (
    (r"^(head|head\.fc|head_dist|fc|linear|classifier|classifier\.0\.dense)\.weight$", 2, "classes", lambda s: s[0]),
    (r"\.pos_embedding$", 2, "window", lambda s: (s[0] + 1) // 2),
    (r"\.relative_position_bias_table$", 2, "window", lambda s: (isqrt(s[0]) + 1) // 2),
    (r"\.relative_position_bias_table$", 2, "heads", lambda s: s[1]),
    (r"\.to_q\.weight$", 4, "attention width", lambda s: s[0]),
    (r"\.(height|width)_rel$", 2, "side of the attended map", lambda s: (s[0] + 1) // 2),
    (r"^pos_embed$", 3, "tokens", lambda s: s[1]),
    (r"^pos_embed$", 4, "patches a side", lambda s: s[2]),
    (r"^patch_embed\.(proj|conv)\.weight$", 4, "patch size", lambda s: s[2]),
    (r"^(patch_embed\.(proj|conv)|layer0\.(layer0\.)?0|conv1)\.weight$", 4, "input channels", lambda s: s[1]),
    (r"^(patch_embed\.(proj|conv)|layer0\.(layer0\.)?0|conv1)\.weight$", 4, "width", lambda s: s[0]),
    (r"^(layer0\.(layer0\.)?0|conv1)\.weight$", 4, "kernel of the stem", lambda s: s[2]),
)


# What the presence of a parameter tells: (pattern of its name, what the network has).
_SHOWS = (
    (r"\.attn\.qkv\.bias$", "a query-key-value bias"),
    (r"^cls_token$", "a class token"),
    (r"^dist_token$", "a distillation token"),
    (r"\.ls1\.gamma$", "layer scale"),
    (r"^fc_norm\.", "average pooling before the last norm"),
    (r"\.attn\.pos_embedding$", "windowed attention"),
    (r"\.shortcut\.", "projected shortcuts"),
    (r"(^|\.)bn1\.running_mean$", "BatchNorm statistics"),
)


def in_words(wanted: Shapes, held: Shapes) -> list[str]:
    """The differences that have a meaning by the names of parameters (classes, window, ...), as "window 7, not 4"."""
    words: dict[str, None] = {}  # a dict, to keep the order and each phrase once
    for kind, a in _depths(held).items():
        b = _depths(wanted).get(kind)
        if b is not None and a != b:
            words[f"{a} blocks in {kind}, not {b}"] = None
    for pattern, ndim, label, value in _TELLS:
        for key in (k for k in wanted if k in held and held[k] != wanted[k] and re.search(pattern, k)):
            if len(held[key]) == len(wanted[key]) == ndim and value(held[key]) != value(wanted[key]):
                words[f"{label} {value(held[key])}, not {value(wanted[key])}"] = None
    for pattern, label in _SHOWS:
        has, wants = (any(re.search(pattern, k) for k in shapes) for shapes in (held, wanted))
        if has != wants:
            words[f"{'with' if has else 'without'} {label}"] = None
    return list(words)


def in_full(wanted: Shapes, held: Shapes) -> str:
    """The keys that are missing, left over or of another shape, the first few by name; "" if there are none."""
    missing = [k for k in wanted if k not in held]
    left_over = [k for k in held if k not in wanted]
    reshaped = [
        f"{k} is {tuple(held[k])} in the file and {tuple(wanted[k])} in the network"
        for k in wanted
        if k in held and tuple(held[k]) != tuple(wanted[k])
    ]
    parts = (("missing", missing), ("left over", left_over), ("of another shape", reshaped))
    return "; ".join(f"{len(names)} {label} ({a_few(names)})" for label, names in parts if names)


def count(wanted: Shapes, held: Shapes) -> int:
    """How many keys are missing, left over or of another shape."""
    return sum(wanted.get(k) != held.get(k) for k in wanted.keys() | held.keys())


def _depths(shapes: Shapes) -> dict[str, int]:
    """The number of numbered modules in each stage, such as blocks in layer1 or in transformers.0.blocks."""
    numbers: dict[str, set[int]] = {}
    for key in shapes:
        parts = key.split(".")
        for i, part in enumerate(parts[1:-1], 1):
            if part.isdigit():
                numbers.setdefault(".".join(parts[:i]), set()).add(int(part))
    return {where: len(found) for where, found in numbers.items() if _is_stage(where)}


def _is_stage(where: str) -> bool:
    return re.fullmatch(r"blocks|layer[1-9]|layers|transformers|(layers|transformers)\.\d+\.blocks", where) is not None
