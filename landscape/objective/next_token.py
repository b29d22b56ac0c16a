"""A language model's task: it predicts each token from those before it, or the masked ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from landscape.objective.nests import Batch, Nest
from landscape.objective.networks import Network, one_tensor, what
from landscape.objective.task import Task, Uniform, class_drawn, refuse_other_classes
from landscape.objective.vocabulary import before, cross_entropy, drawn_from, head_of, in_parts, largest_is
from landscape.runtime.errors import UserError


@dataclass(frozen=True)
class NextToken(Task):
    """A language model: it predicts each token from those before it, or masked tokens. A unit is a token with a label.

    Batches are dicts like those from the tokenizers of transformers: input_ids, attention_mask, ..., labels. Without
    labels, the labels are the input_ids, except for padding. The network takes the entries of the dict by keyword and
    returns logits (n, tokens, vocabulary), directly or as the `logits` of its output.

    If the network says which layer makes its logits (`get_output_embeddings`, or an attribute `lm_head`), and they are
    what that layer gives, then logits are never held all at once: the outputs are the hidden states before that layer,
    with its weight. Loss, gradient and both products are computed from these, some tokens at a time.

    Parameters
    ----------
    shifted
        Whether the logits at a token are for the next token, as in GPT; False for masked models such as BERT.
    ignore_index
        The label of tokens that do not count.
    logits_at_once
        How many logits are held at once, where they can be computed in parts; it bounds the memory and changes results
        by rounding only. None for all of them.
    """

    canonical: ClassVar[bool] = True

    shifted: bool = True
    ignore_index: int = -100
    logits_at_once: int | None = 1 << 24

    def __post_init__(self) -> None:
        if self.logits_at_once is not None and self.logits_at_once < 1:
            raise UserError(f"logits_at_once={self.logits_at_once} must be 1 or more, or None")

    def pair(self, batch: Any) -> Batch:
        """The dict without its labels, and the labels, which are those of the next token if `shifted`."""
        if not isinstance(batch, Mapping) or "input_ids" not in batch:
            raise UserError(f"the data give {what(batch)}, not a dict with input_ids; give batches as a tokenizer does")
        x = {name: t for name, t in batch.items() if name != "labels"}
        if "labels" not in batch and not self.shifted:
            raise UserError("the batches have no labels; for a masked model, give labels for the masked tokens")
        y: Tensor = batch["labels"] if "labels" in batch else batch["input_ids"]
        mask: Tensor | None = batch.get("attention_mask")
        if "labels" not in batch and mask is not None:
            y = y.masked_fill(mask == 0, self.ignore_index)
        return x, y[:, 1:] if self.shifted else y

    def outputs(self, network: Network, x: Nest) -> Nest:
        """The logits of the tokens that have a label; or the hidden states and the layer that makes logits of them."""
        head = head_of(network) if self.logits_at_once is not None else None
        if head is not None:
            with before(head) as seen:
                found = _logits(network(**x))
            if len(seen) == 1 and found is seen[0]["hidden"]:
                return {**seen[0], "hidden": self._predicting(found)}
        return self._predicting(_logits(network(**x)))

    def _predicting(self, t: Tensor) -> Tensor:
        return t[:, :-1] if self.shifted else t

    def losses(self, outputs: Nest, y: Tensor) -> Tensor:
        """The cross-entropy of each token, (n, tokens)."""
        return self._losses(outputs, y)

    def _losses(self, outputs: Nest, y: Tensor, *, linear: bool = False) -> Tensor:
        y = y.masked_fill(~self.units(y), 0)
        if in_parts(outputs):
            return cross_entropy(outputs, y, self.logits_at_once or 1, linear=linear)
        return F.cross_entropy(outputs.movedim(-1, 1), y, reduction="none")

    def total_linearised(self, outputs: Nest, y: Tensor) -> Tensor:
        """The sum of the losses, with the logits taken to be linear in hidden states and weight."""
        return self._losses(outputs, y, linear=True).masked_fill(~self.units(y), 0).sum()

    def drawn(self, outputs: Nest, y: Tensor, uniform: Uniform) -> Tensor:
        """A token for each that counts."""
        u = uniform(y.shape)
        found = drawn_from(outputs, u, self.logits_at_once or 1) if in_parts(outputs) else class_drawn(outputs, u)
        return found.where(self.units(y), y)

    def units(self, y: Tensor) -> Tensor:
        """The tokens that count."""
        return y != self.ignore_index

    def hits(self, outputs: Nest, y: Tensor) -> Tensor:
        """Whether the largest logit is that of the token."""
        if in_parts(outputs):
            return largest_is(outputs, y, self.logits_at_once or 1)
        return (outputs.argmax(-1) == y) & outputs.isfinite().all(-1)

    def check(self, outputs: Nest, y: Nest) -> None:
        """Raise UserError for labels that do not fit the tokens or the vocabulary."""
        if in_parts(outputs):
            classes, tokens = len(outputs["weight"]), outputs["hidden"].shape[1:-1]
        else:
            classes, tokens = one_tensor(outputs).shape[-1], outputs.shape[1:-1]
        refuse_other_classes(classes, tuple(tokens), y, self.units(y), "tokens")

    def config(self) -> dict[str, Any]:
        """Its settings, but for how many logits are held at once."""
        return {"task": {k: v for k, v in super().config()["task"].items() if k != "logits_at_once"}}


def _logits(out: Any) -> Any:
    return out["logits"] if isinstance(out, Mapping) else getattr(out, "logits", out)
