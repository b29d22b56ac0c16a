"""How many examples a standard error needs, found by a pilot."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

import numpy as np

from landscape.objective.clusters import LEAST_UNITS
from landscape.runtime.errors import UserError
from landscape.runtime.progress import bar
from landscape.surfaces.grid import ranges_of

if TYPE_CHECKING:
    from landscape.objective.objective import Objective
    from landscape.planes.plane import Extent, Plane

LOG = logging.getLogger(__name__)


def samples_for(objective: Objective, plane: Plane, se: float, span: Extent = 1.0, *, batchnorm: str = "stored") -> int:
    """The number of examples that give a standard error of the NLL of at most `se` in the central region.

    It comes from the spread over the examples of `objective`, a pilot, at the centre and a quarter of the way to each
    end and corner of the range; a fifth is added, since a pilot gives a spread to within some per cent only.

    Raises
    ------
    UserError
        If `se` is not positive, losses at these points are not finite, or the examples are too few to give a spread.
    """
    from landscape.planes.slice import Slice

    if not (np.isfinite(se) and se > 0):
        raise UserError(f"a standard error of {se} cannot be met; give a finite number above 0")
    if len(set(objective.clusters)) < LEAST_UNITS:
        raise UserError(
            f"a pilot of {objective.examples} examples is too small to tell the spread; take {2 * LEAST_UNITS} or more"
        )
    needed = 0.0
    places = list(itertools.product(*((low / 4, 0.0, high / 4) for low, high in ranges_of(span, plane.dims))))
    LOG.info("a pilot of %d examples at %d points", objective.examples, len(places))
    for at in bar(places, desc="pilot", unit="point"):
        sem = Slice(objective, plane, batchnorm).evaluate(at).nll_sem
        needed = max(needed, 1.2 * objective.examples * (sem / se) ** 2)
        if not np.isfinite(needed):
            raise UserError(f"the NLL at {at} is not finite, so no number of examples meets {se}; take a smaller span")
    return max(2, int(np.ceil(needed)))
