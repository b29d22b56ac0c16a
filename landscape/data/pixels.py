"""Images as they look, black 0 and white 1, and as a network takes them, normalised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from landscape.runtime.errors import UserError


class Perturbed(NamedTuple):
    """Images as a network takes them, the root mean square of each one's change in pixel units, and what share of its
    energy lies outside of the band that was meant.
    """

    images: Tensor
    rms: Tensor
    outside: Tensor | None = None


class Pixels(NamedTuple):
    """The normalisation of images (n, channels, height, width), (channels, 1, 1) each."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, config: Mapping[str, Any], device: torch.device) -> Pixels:
        """As the configuration of frozen data states it. Raises UserError where it does not."""
        ends = [config.get(key) for key in ("mean", "std")]
        if None in ends:
            raise UserError(
                "the data do not state mean and std of their normalisation, by which noise is added in pixel units; "
                "take data of load_data"
            )
        return cls(*(torch.tensor(end, dtype=torch.float64, device=device).view(-1, 1, 1) for end in ends))

    def shown(self, x: Tensor) -> Tensor:
        """In pixel units; what rounding has put beyond black and white is brought back."""
        return (x.double() * self.std + self.mean).clamp(0, 1)

    def rms(self, change: Tensor) -> Tensor:
        """Of each image, (n,)."""
        return change.square().mean((1, 2, 3)).sqrt()

    def changed(self, before: Tensor, after: Tensor, outside: Tensor | None = None) -> Perturbed:
        """What the network takes after images, in pixel units, have changed."""
        return Perturbed((after - self.mean) / self.std, self.rms(after - before), outside)
