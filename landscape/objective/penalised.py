"""What the penalty of an objective adds to a stored number or picture, in words: its formula and its share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr


def formula(config: Mapping[str, Any]) -> str:
    """The penalty of the objective that a group's configuration names, with its lambda; empty if it has none."""
    objective = config.get("objective", {})
    decay = objective.get("weight_decay")
    if not decay:
        return ""
    return f"{decay:g} sum ||p||" if objective.get("penalty") == "norm-sum" else f"{decay:g}/2 sum ||p||^2"


def in_curvature(group: xr.Dataset) -> str:
    """What the penalty adds to the eigenvalues of a group, in words; empty without a penalty, or where it cancels.

    The penalty (lambda/2) sum ||p||^2 adds lambda times the share of the squared eigenvector that lies in decayed
    parameters.
    """
    config = group.attrs.get("config", {})
    if config.get("kind") == "residual":
        return ""
    each = config.get("each", {"": config}).values()
    found = dict.fromkeys(text for one in each if (text := formula(one)))
    decays = [one.get("objective", {}).get("weight_decay") or 0.0 for one in each]
    if not found:
        return ""
    quadratic = all(one.get("objective", {}).get("penalty") != "norm-sum" for one in each)
    share = f", up to {max(decays):g} of each eigenvalue" if quadratic else ""
    return f"with the penalty {' or '.join(found)}{share}"


def in_trace(group: xr.Dataset) -> str:
    """The same for a group that has a trace, with the penalty's share of the trace where that is stored."""
    text = in_curvature(group)
    if text and "penalty_trace" in group:
        text += f", {float(group['penalty_trace']):.4g} of the trace"
    return text


def in_heights(surface: xr.Dataset, below: float = np.inf) -> str:
    """How much of the variation of the loss over a surface is the penalty's, in words; empty without a penalty."""
    share = share_of_variance(surface, below)
    return f"penalty: {share:.0%} of the variance of the heights" if np.isfinite(share) else ""


def share_of_variance(surface: xr.Dataset, below: float = np.inf) -> float:
    """cov(penalty, loss) / var(loss) over the points with a finite loss of at most `below`.

    This share and that of the NLL add up to 1; it is negative if penalty and loss vary in opposite directions. NaN
    without a penalty, or if the loss is the same everywhere.
    """
    if not {"penalty", "loss"} <= set(surface.data_vars) or not (surface["penalty"].fillna(0) != 0).any():
        return np.nan
    loss = surface["loss"].values
    penalty = surface["penalty"].transpose(*surface["loss"].dims).values
    used = np.isfinite(loss) & np.isfinite(penalty) & (loss <= below)
    if not used.any() or np.ptp(loss[used]) == 0:
        return np.nan
    covariance = np.cov(penalty[used], loss[used])
    return float(covariance[0, 1] / covariance[1, 1])


def loss_label(surface: xr.Dataset) -> str:
    """A label for the `loss` of a surface: its stored name, with the formula of the penalty if that is known."""
    objective = surface.attrs.get("config", {}).get("objective", {})
    if objective.get("weight_decay") == 0:
        return "nll (no penalty)"
    text = formula(surface.attrs.get("config", {}))
    return f"nll + {text}" if text else str(surface["loss"].attrs.get("long_name", "loss"))
