"""A checkpoint loaded as a network, with its provenance."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from landscape.checkpoints.build import Build, builder
from landscape.checkpoints.language import language_task, load_language_model
from landscape.checkpoints.read import Checkpoint, read_checkpoint
from landscape.checkpoints.recognise import Fit, best_reading, fitting, hint, shapes_in
from landscape.checkpoints.stated import stated, stated_network
from landscape.runtime.caller import undisturbed
from landscape.runtime.errors import UserError, a_few

LOG = logging.getLogger(__name__)

__all__ = ["builder", "load_checkpoint", "read_checkpoint"]


@undisturbed()
def load_checkpoint(
    path: str | os.PathLike[str],
    model: str | Build | None = None,
    *,
    num_classes: int | None = None,
    image_size: int | None = None,
    in_channels: int | None = None,
    device: torch.device | str = "cpu",
) -> tuple[nn.Module, dict[str, Any]]:
    """Load the network with the checkpoint's weights, in eval mode, and its provenance.

    Parameters
    ----------
    path
        .pt, .pth, .th, .tar, .bin, .ckpt, .t7 (torch, read with weights_only=True), .safetensors, or a Hugging Face
        folder; one with a language model needs transformers (`landscape.checkpoints.language`). It holds a bare state
        dict, or one under state_dict, model, model_state_dict, model_ema, net or state_dict_ema, or a single one under
        any other name. Prefixes such as module., _orig_mod., model. and net. are removed, unless the network has them
        too. Keys without a prefix that most keys share, such as the weights of a loss, are left out. Other projects'
        names for the parameters of our networks are translated (`landscape.checkpoints.dialects`).
    model
        A name of landscape.models, "timm:NAME", "path/to/file.py:function" (your own code, which runs), or a callable;
        the function is called with those of num_classes, image_size and in_channels that it takes. None if the metadata
        of the checkpoint names it (from landscape.models or timm, with settings that `landscape.checkpoints.stated`
        allows), or if its keys and shapes fit exactly one of our networks.
    num_classes, image_size, in_channels
        If None, they are inferred from the shapes of the weights where possible.
    device
        The device of the network.

    Returns
    -------
    model : nn.Module
        The network, in eval mode.
    provenance : dict
        file, sha256, container, prefix, left_out, dialect, model, num_classes, image_size (None if any will do),
        in_channels, parameters, and the checkpoint's own metadata, such as mean, std and weight_decay.

    Raises
    ------
    UserError
        For a missing file, a file that is not a checkpoint or asks to run code, an unknown model, needed metadata that
        name code or are out of range, and keys that are missing, left over or of another shape.
    """
    checkpoint = read_checkpoint(path)
    metadata = checkpoint.metadata
    if model is None and (task := language_task(Path(path))) is not None:
        return _language_model(Path(path), checkpoint, task, device)
    settings: dict[str, Any] = {}
    if model is None or (model == metadata.get("model") and ".py:" not in str(model)):
        named, settings = stated_network(metadata, path, len(checkpoint.state)) or (None, {})
        model = model if model is not None else named
    if model is None:
        model = _recognised(checkpoint, path).model
    build, name = builder(model, settings)
    given = {"num_classes": num_classes, "image_size": image_size, "in_channels": in_channels}
    asked = {k: v if v is not None else stated(metadata, k, path) for k, v in given.items()}
    fit = best_reading(build, name, checkpoint.spellings, asked)
    if fit is not None and fit.differing:  # before memory is allocated for a network of any size
        raise _misfit(fit, checkpoint, path)
    arguments = fit.arguments if fit else asked
    network = build(**arguments)
    wanted = network.state_dict()
    if fit is None:  # its names are known only now
        prefix, state = min(reversed(checkpoint.spellings), key=lambda spelling: len(spelling[1].keys() ^ wanted))
        fit = Fit(name, None, state, arguments, {}, prefix)
    fit = replace(fit, wanted=shapes_in(wanted))
    if fit.differing:
        raise _misfit(fit, checkpoint, path)
    state = {k: fit.state.get(k, t) for k, t in wanted.items()}  # only BatchNorm's counters may be missing or left over
    try:
        network.load_state_dict(state)
    except RuntimeError as e:
        odd = [k for k, t in state.items() if t.is_meta or t.is_quantized or t.layout != torch.strided]
        raise UserError(f"{path} has no plain numbers in {a_few(odd)}, but quantized, sparse or meta tensors") from e
    provenance = {
        "file": os.fspath(path),
        "sha256": checkpoint.sha256,
        "container": checkpoint.container,
        "prefix": fit.prefix,
        "left_out": checkpoint.left_out(fit.prefix),
        "dialect": fit.dialect,
        "model": name,
        "num_classes": arguments.get("num_classes"),
        "image_size": arguments.get("image_size"),
        "in_channels": arguments.get("in_channels"),
        "parameters": sum(p.numel() for p in network.parameters()),
        "metadata": {**_input_of(network, arguments.get("in_channels")), **metadata},
    }
    LOG.debug("read %s: %s, %d parameters", path, name, provenance["parameters"])
    return network.to(device).eval(), provenance


def _language_model(
    folder: Path, checkpoint: Checkpoint, task: str, device: torch.device | str
) -> tuple[nn.Module, dict[str, Any]]:
    network, settings = load_language_model(folder, checkpoint)
    name = f"transformers:{type(network).__name__}"
    provenance: dict[str, Any] = {
        "file": os.fspath(folder),
        "sha256": checkpoint.sha256,
        "container": checkpoint.container,
        "prefix": checkpoint.prefix,
        "left_out": [],
        "dialect": None,
        "model": name,
        "num_classes": None,
        "image_size": None,
        "in_channels": None,
        "parameters": sum(p.numel() for p in network.parameters()),
        "metadata": {"model": name, "task": task, "settings": settings},
    }
    return network.to(device), provenance


def _misfit(fit: Fit, checkpoint: Checkpoint, path: object) -> UserError:
    elsewhere = hint(checkpoint.state, but=fit.model)
    return UserError(f"{path} does not fit {fit.model}: {fit.differences()}{elsewhere and '; ' + elsewhere}")


def _recognised(checkpoint: Checkpoint, path: object) -> Fit:
    """The one network of ours that the weights fit. Raises UserError if there is none, or more than one."""
    fits = fitting(checkpoint.state)
    if len(fits) != 1:
        raise UserError(
            f"{path} does not name its network; give it with `model`, as a name, timm:NAME or file.py:function "
            f"({hint(checkpoint.state)})"
        )
    return fits[0]


def _input_of(network: nn.Module, in_channels: int | None) -> dict[str, Any]:
    """The normalisation with which a timm network was published, unless this one takes images of other channels."""
    published = getattr(network, "pretrained_cfg", None) or {}
    if not timm.is_model(published.get("architecture", "")):  # our ViTs are built on timm's, but were not published
        return {}
    return {k: list(v) for k in ("mean", "std") if len(v := published.get(k, ())) == (in_channels or len(v)) > 0}
