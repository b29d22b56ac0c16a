"""A Hugging Face folder: which files hold the weights, and what config.json says of the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm

from landscape.models.vit import SIZES
from landscape.runtime.errors import UserError, a_few

LONGEST = 16 << 20  # the most bytes of a JSON file; an index of the largest networks names every tensor
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def weights_in(folder: Path) -> list[Path]:
    """The file with the weights, or the files that an index names. Raises UserError if one of them is missing."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        if (folder / f"{name}.index.json").is_file():
            return _shards(folder / f"{name}.index.json")
    held = a_few(sorted(p.name for p in folder.iterdir()), 5) or "nothing"
    raise UserError(
        f"{folder} is a folder without {' or '.join(WEIGHTS)} (it has {held}); give the checkpoint file in it"
    )


def _shards(index: Path) -> list[Path]:
    where = _json(index).get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(name, str) for name in where.values()):
        raise UserError(f"{index} does not say which files have the weights; save them as one {WEIGHTS[0]}")
    names = sorted(set(where.values()))
    elsewhere = [name for name in names if Path(name).name != name]
    if elsewhere:
        raise UserError(f"{index} names files that are not in its folder ({a_few(elsewhere)})")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise UserError(f"{index.parent} lacks {a_few(missing)} of the {len(names)} files with its weights")
    return [index.parent / name for name in names]


def stated_by(folder: Path) -> dict[str, Any]:
    """model, settings, num_classes, image_size, in_channels, mean and std, as far as the folder's files give them.

    They are read for a timm model (`architecture`, `pretrained_cfg`) and for a ViT or any other image model of
    transformers (`model_type`). Without a readable config.json the result is empty.
    """
    config = config_in(folder)
    try:
        if "architecture" in config:
            return _timm(config)
        if "model_type" in config:
            return {**_transformers(config), **_preprocessing(_json(folder / "preprocessor_config.json"))}
    except (AttributeError, TypeError, ValueError, LookupError, ArithmeticError):  # written by neither of the two
        pass
    return {}


def config_in(folder: Path) -> dict[str, Any]:
    """What its config.json holds; empty without a readable one."""
    return _json(folder / "config.json")


def _json(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text()) if path.stat().st_size <= LONGEST else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}


def _timm(config: dict[str, Any]) -> dict[str, Any]:
    published = config.get("pretrained_cfg", {})
    found = {k: published[k] for k in ("mean", "std") if k in published}
    if "input_size" in published:
        found["in_channels"], found["image_size"] = published["input_size"][:2]
    if "num_classes" in config:
        found["num_classes"] = config["num_classes"]
    if timm.is_model(config["architecture"]):
        found["model"] = f"timm:{config['architecture']}"
        own = ("num_classes", "in_chans", "img_size")  # set above
        found["settings"] = {k: v for k, v in config.get("model_args", {}).items() if k not in own}
    return found


def _transformers(config: dict[str, Any]) -> dict[str, Any]:
    found = {"num_classes": len(config["id2label"])} if "id2label" in config else {}
    if config["model_type"] != "vit":  # other networks are recognised by their keys
        return found
    width, depth = config.get("hidden_size", 768), config.get("num_hidden_layers", 12)
    sizes = [name for name, size in SIZES.items() if (size["embed_dim"], size["depth"]) == (width, depth)]
    settings = {
        "embed_dim": width,
        "depth": depth,
        "num_heads": config.get("num_attention_heads", 12),
        "mlp_ratio": config.get("intermediate_size", 3072) / width,
        "patch_size": config.get("patch_size", 16),
        "qkv_bias": config.get("qkv_bias", True),
        "norm_eps": config.get("layer_norm_eps", 1e-12),
    }
    size = {"image_size": config.get("image_size", 224), "in_channels": config.get("num_channels", 3)}
    return {**found, **size, "model": sizes[0] if sizes else "vit_b", "settings": settings}


def _preprocessing(config: dict[str, Any]) -> dict[str, Any]:
    names = {"image_mean": "mean", "image_std": "std"}
    return {ours: config[theirs] for theirs, ours in names.items() if theirs in config}
