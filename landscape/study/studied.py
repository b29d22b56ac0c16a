"""What the groups of a results file were computed on, in words: data set, split, transform, normalisation, decay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import xarray as xr

from landscape.objective.penalised import formula
from landscape.store.changes import said
from landscape.store.comparable import MIXING

Config = Mapping[str, Any]


def studied(groups: Mapping[str, xr.Dataset]) -> list[str]:
    """A line for each set of examples with its loss, and the groups computed on it; none if no group says."""
    found: dict[str, list[str]] = {}
    for name, group in groups.items():
        config = group.attrs.get("config", {})
        for one in config["each"].values() if isinstance(config.get("each"), Mapping) else (config,):
            text = "; ".join(filter(None, (examples_in_words(one), loss_in_words(one))))
            if text and name not in found.setdefault(text, []):
                found[text].append(name)
    return [f"{', '.join(names)}: on {text}" for text, names in found.items() if names]


def examples_in_words(config: Config) -> str:
    """ "512 of 1,442 examples of digits, train split; train transform, mixup 0.8; mean 0.3055, std 0.37"."""
    objective = _mapping(config, "objective")
    data = _mapping(objective, "data")
    count = objective.get("examples", data.get("samples"))
    if not data:
        return f"{count:,} examples of one's own" if isinstance(count, int) else ""
    return "; ".join(filter(None, (_which(data, count), ", ".join(_how(data)), ", ".join(_normalised(data)))))


def loss_in_words(config: Config) -> str:
    """The penalty, or that there is none; and the decay of the training, if it is known and differs."""
    objective = _mapping(config, "objective")
    if "weight_decay" not in objective:
        return ""
    of_training = _mapping(_mapping(objective, "provenance"), "metadata").get("weight_decay")
    decay = f" (weight decay of the training: {said(of_training)})" if isinstance(of_training, (int, float)) else ""
    return (f"penalty {formula(config)}" if objective["weight_decay"] else "no penalty") + decay


def _which(data: Config, count: Any) -> str:
    with suppress(TypeError, ValueError):
        part = f" of {data['available']:,}" if data.get("available") not in (None, count) else ""
        return f"{count:,}{part} examples of {data.get('name')}, {data.get('split', 'train')} split" + _share(data)
    return f"{data.get('name')}, {data.get('split', 'train')} split"


def _share(data: Config) -> str:
    share = (data.get("fraction") or [1.0])[0]
    return f" (a part of {100 * share:.3g} %)" if share != 1 else ""


def _how(data: Config) -> Iterator[str]:
    if data.get("transform"):
        yield f"{data['transform']} transform"
        yield from (f"{key.replace('_', ' ')} {said(data[key])}" for key in MIXING if data.get(key))


def _normalised(data: Config) -> Iterator[str]:
    yield from (f"{key} {said(data[key])}" for key in ("mean", "std") if data.get(key) is not None)


def _mapping(of: Config, key: str) -> Config:
    found = of.get(key)
    return found if isinstance(found, Mapping) else {}
