"""Polar coordinates of paths whose shape is known."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from landscape.planes.polar import polar


def states(points):
    """Weights (T, n) as state dicts of two tensors, a buffer beside them."""
    return {
        f"epoch{i}": {"a": torch.tensor(p[:1]), "b": torch.tensor(p[1:]).reshape(-1, 1), "seen": torch.tensor(i)}
        for i, p in enumerate(np.asarray(points, np.float64))
    }


@given(st.lists(st.tuples(st.floats(0.01, 2), st.floats(0, 3.1)), min_size=1, max_size=6), st.floats(0.1, 5))
def test_points_placed_at_r_and_theta_are_found_there(placed, size):
    """In the plane of two axes of a space of five dimensions, the end anywhere."""
    placed = [(1.0, 0.0), *placed]
    rng = np.random.default_rng(0)
    e, end = np.linalg.qr(rng.normal(size=(5, 2)))[0].T, rng.normal(size=5)
    path = [end + size * r * (math.cos(theta) * e[0] + math.sin(theta) * e[1]) for r, theta in placed] + [end]
    found = polar(states(path), ["a", "b"])
    assert found["r"].tolist() == pytest.approx([*(r for r, _ in placed), 0])
    assert found["theta"][:-1].tolist() == pytest.approx([theta for _, theta in placed], abs=1e-6)
    assert np.isnan(found["theta"][-1])
    assert found["distance"][0] == pytest.approx(size)
    steps = [np.linalg.norm(b - a) for a, b in itertools.pairwise(path)]
    assert found["step"][1:].tolist() == pytest.approx(steps, abs=1e-12)
    assert np.isnan(found["step"][0])


def test_a_straight_training_has_no_angle_and_a_small_one_is_not_lost():
    path = [[1.0, 0], [0.5, 0], [0.25, 1e-9], [0, 0]]
    assert polar(states(path), ["a", "b"])["theta"][:3].tolist() == pytest.approx([0, 0, 4e-9], rel=1e-6, abs=1e-15)


def test_where_the_end_is_the_start_there_is_no_path():
    found = polar(states([[1.0, 2], [1, 2]]), ["a", "b"])
    assert np.isnan(found["r"]).all()
    assert found["distance"].tolist() == [0, 0]
    back = polar(states([[1.0, 2], [4, 6], [1, 2]]), ["a", "b"])
    assert np.isnan(back["r"]).all()
    assert back["distance"].tolist() == [0, 5, 0]
    assert np.isnan(polar(states([[1.0, 2]]), ["a", "b"])["r"]).all()
