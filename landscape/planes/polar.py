"""Where the checkpoints of a training lie as seen from its end: their distances and angles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor

State = Mapping[str, Tensor]


def polar(states: Mapping[str, State], among: Iterable[str]) -> dict[str, np.ndarray]:
    """Distance and angle of each state as seen from the last one, w_end (Park & Kim 2022, fig. 1b).

    Parameters
    ----------
    states
        The states w_0, ..., w_end in order, by label. If the mapping reads them when they are asked for, four are in
        memory at a time.
    among
        The names of the parameters that count.

    Returns
    -------
    dict of str to ndarray
        Arrays (T,), one entry for each state: r = ||w_t - w_end|| / ||w_0 - w_end||; theta, the angle between w_t -
        w_end and w_0 - w_end in radians, NaN where r is 0; distance = ||w_t - w_end||; and step = ||w_t - w_{t-1}||,
        NaN for the first. If w_0 = w_end, r and theta are NaN everywhere.
    """
    labels, names = list(states), list(among)
    end, start = states[labels[-1]], states[labels[0]]
    whole = _inner(start, start, end, names) ** 0.5
    distance, angle, step = (np.full(len(labels), np.nan) for _ in range(3))
    before: State | None = None
    for i, label in enumerate(labels):
        here = states[label]
        distance[i] = _inner(here, here, end, names) ** 0.5
        if distance[i] * whole > 0:
            cosine = _inner(here, start, end, names) / (distance[i] * whole)
            # a cosine loses small angles to rounding; the length of the difference of the unit vectors does not
            apart = distance[i] / whole
            chord = sum(_chord(here[n], start[n], end[n], apart) for n in names) ** 0.5 / distance[i]
            angle[i] = 2 * math.asin(min(1.0, chord / 2)) if cosine > 0.5 else math.acos(max(-1.0, cosine))
        if before is not None:
            step[i] = _inner(here, here, before, names) ** 0.5
        before = here
    return {"r": distance / (whole or np.nan), "theta": angle, "distance": distance, "step": step}


def _inner(a: State, b: State, origin: State, names: Iterable[str]) -> float:
    """<a - origin, b - origin>."""
    return sum(float(((_64(a[n]) - _64(origin[n])) * (_64(b[n]) - _64(origin[n]))).sum()) for n in names)


def _chord(here: Tensor, start: Tensor, end: Tensor, apart: float) -> float:
    """||(w_t - w_end) - r_t (w_0 - w_end)||^2."""
    return float((_64(here) - _64(end) - apart * (_64(start) - _64(end))).square().sum())


def _64(t: Tensor) -> Tensor:
    return t.detach().double().cpu()
