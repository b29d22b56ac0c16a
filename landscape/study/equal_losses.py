"""Trainings at equal losses: their numbers between the checkpoints that enclose a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from landscape.analyses.contrasts import Quantity, combined
from landscape.analyses.intervals import Interval
from landscape.runtime.errors import UserError
from landscape.study.comparison import Compared
from landscape.study.effects import Scale, contrasted, quantity, scale_of
from landscape.study.trainings import LOSS, Checkpoint, Network, Training

USUAL = (1 / 6, 1 / 2, 5 / 6)  # fractions of the common range, on a logarithmic scale


def common_losses(
    trainings: Sequence[Training], losses: Sequence[float] | None = None
) -> tuple[dict[str, list[float]], list[str]]:
    """The training NLLs, by each group that is a series in all: those asked for, or three in the range common to all.

    Also, in words, the series that have no such range. Raises UserError for a loss that a training does not reach, or
    if losses are asked for and there is no series.
    """
    found, remarks = {}, []
    for group in trainings[0].end:
        series = [training.checkpoints(group) for training in trainings if group in training.end]
        if len(series) < len(trainings) or not all(len(one) > 1 for one in series):
            continue
        reached = [[c[LOSS].estimate.value for c in one] for one in series]
        low, high = max(map(min, reached)), min(map(max, reached))
        for loss in losses or ():
            if not low <= loss <= high:
                raise UserError(
                    f"a training NLL of {loss:g} is not between those that all trainings have, {low:.3g} to {high:.3g}"
                )
        if losses is None and low >= high:
            remarks.append(f"{group}: the losses of the trainings have no range in common")
            continue
        usual = [low * (high / low) ** part for part in USUAL] if losses is None else []
        shorter = [float(f"{loss:.2g}") for loss in usual]
        found[group] = [s if low <= s <= high else u for s, u in zip(shorter, usual, strict=True)] or list(losses or ())
    if losses is not None and not found:
        raise UserError("`losses` are for series over checkpoints, which not all files have; make them with series")
    return found, remarks


def at_equal_losses(first: Network, second: Network, group: str, losses: Sequence[float]) -> list[Compared]:
    """The numbers of a group of two networks at the same training NLLs.

    Between the two checkpoints that enclose the loss where the training first crosses it, a number (or its logarithm,
    for a ratio) is taken as linear in the logarithm of the loss. Its interval contains the errors of both checkpoints'
    numbers and losses, with their correlations, but not the error of the interpolation.
    """
    sides = [[t.checkpoints(group) for t in network.trainings.values()] for network in (first, second)]
    every = [checkpoint for side in sides for one in side for checkpoint in one]
    found = []
    for heading in [name for name in every[0] if name != LOSS and all(name in checkpoint for checkpoint in every)]:
        scale = scale_of([checkpoint[heading].estimate for checkpoint in every])
        like = (sides[0][0][0][heading].estimate, sides[1][0][0][heading].estimate)
        for loss in losses:
            quantities = [[_interpolated(one, heading, loss, scale) for one in side] for side in sides]
            found.append(contrasted((first.name, second.name), group, heading, quantities, like, scale, loss))
    return found


def _interpolated(training: Sequence[Checkpoint], heading: str, loss: float, scale: Scale) -> Quantity:
    losses, at = np.log([c[LOSS].estimate.value for c in training]), float(np.log(loss))
    i = next(i for i in range(len(losses) - 1) if (losses[i] - at) * (losses[i + 1] - at) <= 0)
    pair = training[i : i + 2]
    values = [quantity(c[heading], scale, alone=True) for c in pair]
    moved = [quantity(c[LOSS], "ratio", alone=True) for c in pair]
    width = losses[i + 1] - losses[i]
    part = (at - losses[i]) / width if width else 0.0
    slope = (values[1].interval.estimate - values[0].interval.estimate) / width if width else 0.0
    added = combined([*values, *moved], [1 - part, part, -slope * (1 - part), -slope * part])
    return replace(added, interval=Interval(*(end + slope * at for end in added.interval)))
