"""Images in pixel units, in which black is 0 and white 1, and normalised, as a network takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from landscape.runtime.errors import UserError


class Perturbed(NamedTuple):
    """Changed images, normalised; the root mean square of each image's change, in pixel units; and the share of its
    energy outside of the intended band.
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
        """The normalisation stated in the configuration of frozen data. Raises UserError if it states none."""
        ends = [config.get(key) for key in ("mean", "std")]
        if None in ends:
            raise UserError(
                "the data do not state the mean and std of their normalisation, which noise in pixel units needs; "
                "take data from load_data"
            )
        return cls(*(torch.tensor(end, dtype=torch.float64, device=device).view(-1, 1, 1) for end in ends))

    def shown(self, x: Tensor) -> Tensor:
        """The images in pixel units, clipped to black and white against rounding."""
        return (x.double() * self.std + self.mean).clamp(0, 1)

    def rms(self, change: Tensor) -> Tensor:
        """The root mean square of each image's change, (n,), in pixel units."""
        return change.square().mean((1, 2, 3)).sqrt()

    def changed(self, before: Tensor, after: Tensor, outside: Tensor | None = None) -> Perturbed:
        """The changed images as the network takes them; before and after are in pixel units."""
        return Perturbed((after - self.mean) / self.std, self.rms(after - before), outside)
