"""The device to compute on."""

from __future__ import annotations

import torch

from landscape.runtime import processes
from landscape.runtime.errors import UserError


def chosen_device(device: str | None) -> str:
    """The device asked for; by default a GPU if there is one. Raises UserError for a device that is not present."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and processes.size() > 1:
        device = f"cuda:{processes.local_rank()}"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as e:
        known = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise UserError(f"device={device!r} is not present; there is {', '.join(known)}") from e
    return device
