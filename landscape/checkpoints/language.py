"""A Hugging Face folder with a language model: the network by transformers, the weights read as any others are.

Nothing in the folder is code, or makes transformers ask for anything: the network's class is one of ARCHITECTURES, its
configuration is made of plain values, and its weights are this package's reading of the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from landscape.checkpoints.huggingface import config_in
from landscape.runtime.errors import UserError, a_few
from landscape.runtime.own import own_words

if TYPE_CHECKING:
    from landscape.checkpoints.read import Checkpoint, State

NEXT, MASKED = "next-token", "next-token(shifted=False)"
ARCHITECTURES = {
    **dict.fromkeys(
        ("GPT2LMHeadModel", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
         "OPTForCausalLM", "PhiForCausalLM", "GemmaForCausalLM"), NEXT),
    **dict.fromkeys(("BertForMaskedLM", "RobertaForMaskedLM", "DistilBertForMaskedLM"), MASKED),
}  # fmt: skip
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
PLAIN = (bool, int, float, str, type(None))
# What a configuration says of how the network is made and run, rather than of what it is.
IGNORED = re.compile(
    r"_.*|auto_map|architectures|(torch_)?dtype|quantization_config|attn_implementation|transformers_.*"
)


def language_task(folder: Path) -> str | None:
    """The task of the language model that a folder's config.json names; None for anything else."""
    held = config_in(folder) if folder.is_dir() else {}
    return ARCHITECTURES.get(_architecture(held))


def load_language_model(folder: Path, checkpoint: Checkpoint) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a folder with its weights, in eval mode, and the settings of its config.json.

    Parameters
    ----------
    folder
        With config.json and the weights.
    checkpoint
        The weights, as they were read.

    Raises
    ------
    UserError
        If transformers is not installed, for a configuration that it does not take, and for weights that do not fit.
    """
    try:
        import transformers
    except ImportError as e:
        raise UserError(
            f'{folder} has a network of transformers; install it with python -m pip install "landscape[text]"'
        ) from e
    held = config_in(folder)
    name = _architecture(held)
    settings = {key: value for key, value in held.items() if not IGNORED.fullmatch(key) and _is_plain(value)}
    kind = getattr(transformers, name)
    layers = [settings[key] for key in LAYERS if isinstance(settings.get(key), int)]
    if any(count > len(checkpoint.state) for count in layers):
        raise UserError(f"{folder} states {max(layers)} layers, but has {len(checkpoint.state)} tensors")
    made = _Making(kind, settings, folder)
    state = _named_as(made.empty(), checkpoint, folder)
    network: Any = made.whole()
    network.load_state_dict(state, strict=False)  # what is missing is tied to what is not: `_named_as` looked
    network.tie_weights()
    return network.eval(), settings


class _Making:
    """Makes the network without memory, then with it."""

    def __init__(self, kind: Any, settings: Mapping[str, Any], folder: Path) -> None:
        self.kind, self.settings, self.folder = kind, settings, folder

    def empty(self) -> nn.Module:
        """The network without memory."""
        import torch

        with torch.device("meta"):
            return self.whole()

    def whole(self) -> nn.Module:
        """The network, in float32."""
        try:
            config = self.kind.config_class(**self.settings)
            network = self.kind._from_config(config, attn_implementation="sdpa", dtype="float32")
        except Exception as e:  # a configuration of any values may fail in any way
            raise UserError(
                f"{self.folder}: {self.kind.__name__} cannot be made of its config.json: {own_words(e)}"
            ) from e
        if not isinstance(network, nn.Module):
            raise UserError(f"{self.folder}: {self.kind.__name__} is no network of transformers")
        return network


def _architecture(held: Mapping[str, Any]) -> str:
    named = held.get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""


def _is_plain(value: Any, depth: int = 3) -> bool:
    if isinstance(value, (list, dict)):
        each = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_is_plain(v, depth - 1) for v in each)
    return isinstance(value, PLAIN)


def _named_as(network: Any, checkpoint: Checkpoint, folder: Path) -> State:
    """The weights under the network's names. Raises UserError unless they are all there, each of its shape."""
    wanted = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    base = network.base_model_prefix + "."
    spellings = [state for _, state in checkpoint.spellings]
    spellings += [{base + key: t for key, t in state.items()} for state in spellings]  # saved without its head
    state = min(spellings, key=lambda state: len(state.keys() ^ wanted))
    tied = _tied(network)
    unused = [re.compile(pattern) for pattern in (network._keys_to_ignore_on_load_unexpected or ())]
    masks = re.compile(r".*\.(attn|attention)\.(masked_)?bias|.*rotary_emb\.inv_freq|.*position_ids")  # older files'
    left = [k for k in state if k not in wanted and not masks.fullmatch(k) and not any(p.search(k) for p in unused)]
    missing = [k for k in wanted if k not in state and not (k in tied and tied[k] & state.keys())]
    if left or missing:
        said = f"lacks {a_few(missing)}" if missing else f"has {a_few(left)}, which it does not"
        raise UserError(f"{folder} does not fit {type(network).__name__}: it {said}")
    if other := [k for k in wanted if k in state and tuple(state[k].shape) != wanted[k]]:
        shapes = f"{tuple(state[other[0]].shape)}, not {wanted[other[0]]}"
        raise UserError(f"{folder} does not fit {type(network).__name__}: {other[0]} has the shape {shapes}")
    return {k: t for k, t in state.items() if k in wanted}


def _tied(network: nn.Module) -> dict[str, set[str]]:
    """For each parameter that is another's too, the names of all these."""
    names: dict[int, set[str]] = {}
    for name, p in (*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)):
        names.setdefault(id(p), set()).add(name)
    return {name: group for group in names.values() if len(group) > 1 for name in group}
