"""Frozen texts of a data set by name, in tokens of a folder's tokenizer, packed to one length."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape.data.own import OwnData
from landscape.data.sources import SPLITS, MissingSplit
from landscape.runtime.errors import UserError, a_few
from landscape.runtime.interrupts import stop_if_interrupted
from landscape.runtime.own import own_words
from landscape.runtime.random import unit_seed

TEXT = "text"  # the column
BETWEEN = ("<|endoftext|>", "</s>", "[SEP]", "<|end_of_text|>", "<eos>")  # of which one ends a text
MASKS = ("[MASK]", "<mask>")
MASKED = 0.15  # the share of tokens that a masked model predicts (Devlin et al. 2019)
AT_ONCE = 64  # texts given to the tokenizer
IGNORED = -100


def text_data(
    name: str, tokenizer: Path, *, split: str = "train", samples: int | None = None, at_most: int | None = None,
    tokens: int = 128, masked: bool = False, batch_size: int = 256, seed: int = 0,
) -> OwnData:  # fmt: skip
    """Sequences of `tokens` tokens: texts in an order by `seed`, each ended by a token, one after another, cut.

    Parameters
    ----------
    name
        hfds/NAME-or-folder, a data set with a column "text".
    tokenizer
        A folder with tokenizer.json, which is read as data.
    split
        train or test, or a split's own name.
    samples, at_most
        How many sequences; None for as many as the texts fill, up to `at_most`. What is left of the last is dropped.
    tokens
        The length of each.
    masked
        For a masked model: 15 % of the tokens, by `seed`, are replaced by the mask and are the labels.
    batch_size
        Sequences per batch.
    seed
        Of the order of the texts and of the masks.

    Raises
    ------
    MissingSplit
        If the data set has no such split.
    UserError
        For a data set or a tokenizer that cannot be read, and for texts that fill fewer than `samples` sequences.
    """
    encoder = _tokenizer(tokenizer)
    texts = _texts(name, split)
    wanted = samples or at_most
    rows = list(itertools.islice(_packed(texts, encoder, tokens, seed), wanted))
    if not rows or len(rows) < (samples or 0):
        asked = f"samples={samples}: " if samples else ""
        raise UserError(f"{asked}the texts of {name} fill {len(rows)} sequences of {tokens} `tokens`; take fewer")
    ids = torch.from_numpy(np.stack(rows))
    batch = _masked(ids, encoder, seed) if masked else {"input_ids": ids}
    each = [{key: t[i : i + batch_size] for key, t in batch.items()} for i in range(0, len(ids), batch_size)]
    config = {"name": name, "split": split, "samples": len(ids), "transform": "own", "tokens": tokens, "seed": seed}
    return OwnData(each, config)


def _tokenizer(folder: Path) -> Any:
    file = folder / "tokenizer.json"
    try:
        from tokenizers import Tokenizer
    except ImportError as e:
        raise UserError('texts need tokenizers; install them with python -m pip install "landscape[text]"') from e
    if not file.is_file():
        raise UserError(f"{folder} has no tokenizer.json; give batches of your own with `data`, as file.py:function")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as e:  # it is another's file, and the reader is not Python
        raise UserError(f"{file} cannot be read: {own_words(e)}") from e


def _texts(name: str, split: str) -> Any:
    """The texts of a split, by number."""
    import datasets  # type: ignore[import-untyped]

    folder = name.removeprefix("hfds/")
    held: Any = None
    for candidate in SPLITS.get(split, (split,)):
        try:
            held = datasets.load_dataset(folder, split=candidate)
            break
        except ValueError as e:
            if "split" not in str(e).lower():
                raise UserError(f"cannot read {name}: {own_words(e)}") from e
        except Exception as e:  # a data set's files or a hub may raise anything
            raise UserError(f"cannot read {name}: {own_words(e)}") from e
    if held is None:
        raise MissingSplit(f"{name} has no split {split!r}")
    if TEXT not in held.column_names:
        raise UserError(f"{name} has no column {TEXT!r}, but {a_few(held.column_names)}; give your own batches instead")
    return held


def _packed(texts: Any, encoder: Any, tokens: int, seed: int) -> Iterator[np.ndarray]:
    """Sequences (tokens,) until the texts end."""
    ends = [i for word in BETWEEN if (i := encoder.token_to_id(word)) is not None][:1]
    order = np.random.default_rng(unit_seed(seed)).permutation(len(texts))
    held: list[int] = []
    for start in range(0, len(order), AT_ONCE):
        stop_if_interrupted()
        some = [texts[int(i)][TEXT] or "" for i in order[start : start + AT_ONCE]]
        for encoded in encoder.encode_batch(some, add_special_tokens=False):
            held += [*encoded.ids, *ends] if encoded.ids else []
        while len(held) >= tokens:
            yield np.array(held[:tokens], np.int64)
            del held[:tokens]


def _masked(ids: torch.Tensor, encoder: Any, seed: int) -> dict[str, torch.Tensor]:
    mask = next((i for word in MASKS if (i := encoder.token_to_id(word)) is not None), None)
    if mask is None:
        raise UserError(f"the tokenizer has no mask ({' or '.join(MASKS)}), which a masked model needs")
    hidden = torch.from_numpy(np.random.default_rng([unit_seed(seed), 1]).random(tuple(ids.shape)) < MASKED)
    return {"input_ids": ids.masked_fill(hidden, mask), "labels": ids.masked_fill(~hidden, IGNORED)}
