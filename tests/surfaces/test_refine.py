from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from helpers import invoke
from hypothesis import given, settings
from hypothesis import strategies as st

import landscape as ls
from landscape.study.words import describe
from landscape.surfaces.refine import refine


def surface_of(f, shape, sem=0.0):
    """An empty surface, and the function that computes its points and counts them."""
    dims = ("y", "x")[-len(shape) :]
    axes = [np.linspace(-1, 1, n) for n in shape]
    truth = f(*np.meshgrid(*axes, indexing="ij"))
    empty = {name: (dims, np.full(shape, np.nan)) for name in ("nll", "accuracy")}
    result = xr.Dataset(
        {
            **empty,
            "nll_sem": (dims, np.full(shape, sem)),
            "nll_fold": (("fold", *dims), np.full((2, *shape), np.nan)),
            "done": (dims, np.zeros(shape, bool)),
            "interpolated": (dims, np.zeros(shape, bool)),
            "nll_error": (dims, np.zeros(shape)),
        }
    )
    computed = []

    def compute(only):
        new = only & ~result["done"].values
        result["nll"].values[new] = truth[new]
        result["accuracy"].values[new] = 1 / (1 + truth[new])
        result["nll_fold"].values[:, new] = np.stack([truth[new], 2 * truth[new]])
        result["done"].values[new] = True
        computed.extend(map(tuple, np.argwhere(new).tolist()))

    return result, compute, truth, computed


def test_a_quadratic_is_filled_in_exactly_from_few_points():
    result, compute, truth, computed = surface_of(lambda y, x: (3 + x + 0.5 * y) ** 2, (33, 33))
    refine(result, compute, 1e-6)
    assert len(computed) < 33 * 33 / 3
    np.testing.assert_allclose(result["nll"], truth, rtol=1e-6)
    assert result["done"].all()
    assert int(result["interpolated"].sum()) == 33 * 33 - len(computed)
    np.testing.assert_array_equal(result["nll_error"].values[~result["interpolated"].values], 0)


def test_a_narrow_ravine_is_computed_and_the_plain_is_not():
    result, compute, truth, _ = surface_of(lambda y, x: 1 + np.exp(-200 * (x - y) ** 2), (65, 65))
    refine(result, compute, 0.01)
    near = np.abs(np.subtract.outer(np.arange(65), np.arange(65))) <= 4
    share = lambda mask: (~result["interpolated"].values)[mask].mean()  # noqa: E731
    assert share(near) > 0.9
    assert share(~near) < 0.5
    error = np.abs(result["nll"].values - truth)
    assert error.max() < 0.05


@settings(max_examples=40)
@given(a=st.floats(0.3, 6), b=st.floats(-3, 3), c=st.floats(0.5, 8), phase=st.floats(0, 6), size=st.integers(17, 41))
def test_the_reported_error_covers_the_true_one(a, b, c, phase, size):
    f = lambda y, x: a * x**2 + b * x * y + c * y**2 + 0.3 * np.sin(4 * x + phase) * np.cos(3 * y) + 8  # noqa: E731
    result, compute, truth, _ = surface_of(f, (size, size - 4))
    refine(result, compute, 0.02)
    filled = result["interpolated"].values
    error = np.abs(result["nll"].values - truth)[filled]
    assert (error <= result["nll_error"].values[filled]).mean() >= 0.93 if filled.any() else True
    np.testing.assert_allclose(result["nll_fold"].values[1], 2 * result["nll"], rtol=1e-6)
    assert ((result["accuracy"] >= 0) & (result["accuracy"] <= 1)).all()


def test_diverged_regions_are_computed_not_smoothed_over():
    def f(y, x):
        with np.errstate(divide="ignore"):
            return np.where(x > 0.5, np.inf, 1 + x**2 + y**2)

    result, compute, truth, _ = surface_of(f, (33, 33))
    refine(result, compute, 0.05)
    wrong = np.isfinite(result["nll"].values) != np.isfinite(truth)
    assert not wrong.any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3), (4, 4), (40,), (1, 40)])
def test_any_shape(shape):
    result, compute, truth, _ = surface_of(lambda *c: 2 + sum(v**2 for v in c), shape)
    refine(result, compute, 0.01)
    assert result["done"].all()
    np.testing.assert_allclose(result["nll"], truth, atol=0.05)


def test_interrupted_it_chooses_what_it_would_have():
    f = lambda y, x: 1 + 5 * (x - 0.3) ** 2 + np.tanh(9 * y)  # noqa: E731
    whole, compute, _, computed = surface_of(f, (33, 33))
    refine(whole, compute, 0.02)
    again, compute, _, later = surface_of(f, (33, 33))
    before = np.zeros((33, 33), bool)
    for index in computed[: len(computed) // 2]:
        before[index] = True
    compute(before)
    refine(again, compute, 0.02)
    assert again.identical(whole)
    assert sorted(later) == sorted(computed)


def test_on_a_real_network_at_most_a_third_of_the_points():
    """The 51 x 51 surface of the public ResNet-20 on 256 examples of CIFAR-10: filter-normalised, seed 0, span 1."""
    stored = np.load(Path(__file__).parents[1] / "files" / "resnet20-surface.npz", allow_pickle=False)
    result, compute, truth, computed = surface_of(lambda y, x: stored["nll"].astype(float), (51, 51))
    result["nll_sem"].values[:] = stored["nll_sem"]
    refine(result, compute, 0.1)
    assert len(computed) <= 51 * 51 / 3
    error, filled = np.abs(result["nll"].values - truth), result["interpolated"].values
    assert error[truth < 5].max() < 0.02 * 5
    assert (error <= result["nll_error"].values)[filled].mean() >= 0.95


def test_what_is_not_held_is_said():
    """A rough plain under a large standard error is left out however small the tolerance, and every word says so."""
    f = lambda y, x: 5 + 0.3 * np.sin(40 * x) * np.cos(40 * y)  # noqa: E731
    (rough, fill, truth, few), (exact, compute, _, many) = (surface_of(f, (33, 33), sem) for sem in (0.5, 0.0))
    refine(rough, fill, 0.01)
    refine(exact, compute, 0.01)
    assert len(few) < len(many) / 3
    assert 0.01 < np.abs(rough["nll"].values - truth).max() < 0.5 * 2 * 1.5
    group = rough.assign_attrs(config={"analysis": "surface", "adaptive": 0.01})
    assert "interpolated to the larger of 0.01 and nll_sem" in describe("surface", group)
    for command in ("surface", "analyze"):
        text = " ".join(invoke(command, "--help").stdout.replace("│", " ").split())
        assert "wrong by more than this NLL, or by more than its standard error over examples if that is larger" in text


def test_what_is_computed_is_what_the_full_grid_has(mlp, points):
    objective = ls.Objective(mlp, points, weight_decay=0.1)
    plane = ls.random_plane(mlp, seed=1)
    full, fewer = (ls.evaluate_surface(objective, plane, points=(33, 17), adaptive=tol) for tol in (None, 0.02))
    computed = ~fewer["interpolated"].values
    assert 0.1 < computed.mean() < 0.9
    np.testing.assert_array_equal(fewer["nll"].values[computed], full["nll"].values[computed])
    np.testing.assert_array_equal(fewer["penalty"], full["penalty"])
    np.testing.assert_allclose(fewer["loss"], fewer["nll"] + fewer["penalty"])
    error = np.abs(fewer["nll"] - full["nll"]).values
    assert (error <= fewer["nll_error"].values)[~computed].mean() >= 0.95
    np.testing.assert_allclose(fewer["nll_fold"].mean("fold"), fewer["nll"], atol=0.05)
