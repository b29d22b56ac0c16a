"""Which units two results share (frozen examples, mini-batches or folds), as known from what is stored."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from landscape.analyses.estimates import Estimate
from landscape.store.comparable import MIXING

DRAWN = ("name", "split", "fraction", "seed", "transform", *MIXING)  # not the size and normalisation of the images


def units_of(config: Mapping[str, Any], estimate: Estimate) -> Hashable:
    """A name for the units of an estimate, equal for the same units; None if the estimate has none.

    Examples of named data are identified by how they were drawn, since a smaller set is the beginning of a larger one;
    those of other data by their content. Folds of the examples are the same if there are equally many examples.
    """
    if estimate.influence is None:
        return None
    objective = config.get("objective", {})
    data = objective.get("data", {})
    drawn: Hashable = objective.get("data_sha256")
    if data.get("name"):
        drawn = tuple(str(data.get(key)) for key in DRAWN)
    if drawn is None:
        return None
    batches = estimate.counts == "mini-batches"
    return drawn, estimate.counts, config.get("batch_size") if batches else objective.get("examples")
