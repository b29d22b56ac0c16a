"""Two networks and the paths between them; the bend of the curved path is trained and stored step by step."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from landscape.runtime import processes
from landscape.runtime.progress import bar
from landscape.store.units import Work

if TYPE_CHECKING:
    from torch import Tensor

    from landscape.analyses.connectivity import Connectivity
    from landscape.objective.objective import Objective
    from landscape.planes.curves import Bend
    from landscape.planes.plane import Plane

LOG = logging.getLogger(__name__)
CHUNK = 20  # steps of the bend between two looks at the clock
PASSING = ("bend_first", "bend_second")  # needed by the training of a bend alone


@dataclass(frozen=True)
class Pair:
    """Two networks of one architecture, the first of them held by the private copy of the loss.

    Parameters
    ----------
    objective
        The loss.
    states
        The second network's weights, by path: as they are; permuted to match the first's; and those where the curve
        ends.
    labels
        The names of the two networks.
    control
        The curve's control point relative to the first network, once it is known.
    """

    objective: Objective
    states: Mapping[str, Mapping[str, Tensor]]
    labels: tuple[str, str]
    control: Mapping[str, Tensor] | None = None

    def line(self, path: str) -> Plane:
        """The straight line to the end of a path."""
        from landscape.planes.spanned import line_to

        return line_to(self.objective.model, self.states[path], self.labels)


def bent(pair: Pair, asked: Connectivity, result: xr.Dataset, work: Work) -> Mapping[str, Tensor] | None:
    """The control point, trained on from where `result` has it and kept there; None if the budget ends before that."""
    from landscape.objective.parameters import flatten, trainable, unflatten
    from landscape.planes.curves import trained_bend

    loss, ends, parameters = pair.objective, pair.line("curved"), trainable(pair.objective.model)
    like = next(iter(parameters.values()))
    delta = flatten({name: ends.directions[0][name].to(like) for name in parameters})
    bend, last = _begun(result, delta), time.monotonic()
    mine = np.flatnonzero(~asked.held(loss)[loss.fold])
    LOG.info("the curved path: %d steps of its bend, on %d examples; %d are done", asked.steps, len(mine), bend.steps)
    shown = bar(desc="connectivity: bend", unit="step", total=asked.steps, initial=bend.steps)
    try:
        while bend.steps < asked.steps:
            if processes.rank() == 0:
                bend = trained_bend(
                    loss, ends, bend, mine, min(bend.steps + CHUNK, asked.steps), steps=asked.steps, lr=asked.lr,
                    batch_size=asked.batch_size, seed=asked.seed, batch_statistics=asked.batchnorm == "recalibrated",
                )  # fmt: skip
            bend = processes.from_first(bend)
            _keep(bend, result)
            shown.update(bend.steps - shown.n)
            if work.spent and bend.steps < asked.steps:
                return None
            if work.save is not None and processes.rank() == 0 and time.monotonic() - last > work.pause:
                work.save(result)
                last = time.monotonic()
    except BaseException:
        if work.save is not None and processes.rank() == 0:
            work.save(result)
        raise
    finally:
        shown.close()
    return unflatten(bend.control, parameters)


def _begun(result: xr.Dataset, delta: Tensor) -> Bend:
    import torch

    from landscape.planes.curves import Bend

    if not result["bend_steps"] > 0:
        return Bend.straight(delta)
    control, first, second = (torch.as_tensor(result[name].values).to(delta) for name in ("bend", *PASSING))
    return Bend(control, first, second, int(result["bend_steps"]))


def _keep(bend: Bend, result: xr.Dataset) -> None:
    for name, t in zip(("bend", *PASSING), (bend.control, bend.first, bend.second), strict=True):
        result[name].values[:] = t.cpu().numpy()
    result["bend_steps"] = result["bend_steps"].copy(data=bend.steps)
