"""The width by evaluations of its own: closed forms, and one number whatever the grid."""

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import raising
from torch import nn

import landscape as ls
from landscape.objective.clusters import LEAST_UNITS
from landscape.surfaces.measures import measure
from landscape.surfaces.rays import Point, search_width
from landscape.surfaces.remarks import describe_measures

SQUARE = [[-1.0, 1.0], [-1.0, 1.0]]
MAKING = 3  # calls of the network that making an Objective takes


def bowl(c, a, b, folds=(0.0, 0.0)):
    """c + a x^2 + b y^2, the curvature of each fold larger by a share of its own."""

    def evaluate(at):
        rise = a * at[0] ** 2 + (b * at[1] ** 2 if len(at) > 1 else 0.0)
        return Point(c + rise, np.array([c + rise * (1 + share) for share in folds]))

    return evaluate


@pytest.mark.parametrize("c", [1e-9, 1e-4, 0.1, 0.9])
@pytest.mark.parametrize("rays", [1, 8, 16])
def test_the_width_of_a_quadratic_in_closed_form(c, rays):
    evaluate = bowl(c, 2.0, 50.0)
    found = search_width(evaluate, SQUARE, evaluate((0, 0)), rays=rays)
    turn = np.radians(found["ray_angle"].values)
    assert len(turn) == rays
    truth = np.sqrt(c / (2 * np.cos(turn) ** 2 + 50 * np.sin(turn) ** 2))
    np.testing.assert_allclose(found["width_ray"], truth, rtol=1e-3)
    assert found["width_ray_reached"].all()
    assert (found["width_ray_evaluations"] <= (20 if c > 1e-4 else 30)).all()


def test_standard_errors_are_those_of_the_folds_crossings():
    """A fold whose curvature is larger by s has its crossing at r / sqrt(1 + s); to first order r (1 - s / 2)."""
    shares = np.random.default_rng(0).normal(0, 0.02, 20)
    shares -= shares.mean()
    evaluate = bowl(0.01, 2.0, 50.0, shares)
    found = search_width(evaluate, SQUARE, evaluate((0, 0)))
    r = found["width_ray"].values
    np.testing.assert_allclose(found["width_ray_fold"], r * (1 - shares[:, None] / 2), rtol=2e-3)
    exact = (r / np.sqrt(1 + shares[:, None])).std(axis=0, ddof=1) / np.sqrt(20)
    np.testing.assert_allclose(found["width_ray_sem"], exact, rtol=0.03)


def test_no_standard_error_of_few_folds():
    """The width from two folds of the examples was given +- 0 where they agreed."""
    for folds, known in ((2, False), (LEAST_UNITS - 1, False), (LEAST_UNITS, True)):
        evaluate = bowl(0.01, 2.0, 50.0, np.linspace(-0.1, 0.1, folds))
        found = search_width(evaluate, SQUARE, evaluate((0, 0)), rays=4)
        assert (np.isfinite(found["width_ray_sem"]) == known).all()
        x = np.linspace(-1, 1, 5)
        group = xr.Dataset({"nll": ("x", 1 + x**2), "loss": ("x", 1 + x**2), "done": ("x", np.ones(5, bool))}, {"x": x})
        width = measure(group.merge(found))["measure"].sel(quantity="width")
        assert float(width.sel(bound="estimate")) == pytest.approx(float(found["width_ray"].mean()))
        assert np.isfinite(float(width.sel(bound="sem"))) == known


def test_where_there_is_nothing_to_find():
    far = bowl(1.0, 0.1, 9.0)
    found = search_width(far, SQUARE, far((0, 0)), rays=4)
    assert found["width_ray_reached"].values.tolist() == [False, True, False, True]
    np.testing.assert_allclose(found["width_ray"], [1, 1 / 3, 1, 1 / 3], rtol=1e-3)
    assert np.isnan(found["width_ray_sem"].values[0])
    for nll in (0.0, -1.0, np.nan, np.inf):
        assert search_width(far, SQUARE, Point(nll, np.zeros(2))).sizes["ray"] == 0
    assert search_width(far, [[0.5, 1.0]], far((0, 0))).sizes["ray"] == 0
    one_side = search_width(bowl(1.0, 9.0, 0), [[0.0, 1.0]], Point(1.0, np.ones(2)))
    assert one_side["ray_angle"].values.tolist() == [0.0]
    wall = lambda at: Point(1.0 if abs(at[0]) < 0.3 else np.nan, np.ones(2))  # noqa: E731
    found = search_width(wall, [[-1.0, 1.0]], wall((0.0,)))
    np.testing.assert_allclose(found["width_ray"], 0.3, rtol=0.02)
    spike = lambda at: Point(1.0 if at[0] == 0 else 5.0, np.ones(2))  # noqa: E731
    assert search_width(spike, [[-1.0, 1.0]], spike((0.0,)))["width_ray"].values.tolist() == [0, 0]


@pytest.fixture(scope="module")
def sharp():
    """A small network trained until its loss is low: there the loss doubles within the first cell of a coarse grid."""
    torch.manual_seed(0)
    x = torch.randn(200, 6)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(800):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, [(x, y)]


def test_one_width_whatever_the_grid(sharp):
    model, data = sharp
    objective, plane = ls.Objective(model, data), ls.random_plane(model)
    widths, by_the_grid = {}, {}
    for points in (5, 21, 51):
        for rays, into in ((8, widths), (0, by_the_grid)):
            surface = ls.evaluate_surface(objective, plane, points=points, rays=rays, workers=1)
            into[points] = surface["measure"].sel(quantity="width").values
    truth = widths[51][0]
    assert 0 < widths[51][1] < truth / 3
    for points in (5, 21, 51):
        assert abs(widths[points][0] - truth) < 0.1 * widths[points][1]
        estimate, _, low, high = by_the_grid[points]
        assert low < truth < high
        assert np.isnan(estimate) or abs(estimate - truth) < 0.3 * truth
    assert np.isnan(by_the_grid[5][0])
    (line,) = (line for line in describe_measures(surface.assign_attrs({})) if line.startswith("width"))
    assert "+-" not in line or "evaluations" in line


def test_an_interrupted_search_goes_on(mlp, points):
    plane = ls.random_plane(mlp)
    settings = {"points": 3, "workers": 1, "save_every": 0.0}
    whole = ls.evaluate_surface(ls.Objective(mlp, points), plane, **settings)
    assert whole["width_ray_done"].all()
    kept = []
    broken = ls.Objective(raising(mlp, after=2 * 9 + 60), points)
    with pytest.raises(RuntimeError, match="broke"):
        ls.evaluate_surface(broken, plane, save=lambda d: kept.append(d.copy(deep=True)), **settings)
    assert 0 < int(kept[-1]["width_ray_done"].sum()) < 8
    left = int(whole["width_ray_evaluations"].values[~kept[-1]["width_ray_done"].values].sum())
    assert 0 < left < int(whole["width_ray_evaluations"].sum())
    rest = ls.Objective(raising(mlp, after=MAKING + 2 * left), points)
    assert ls.evaluate_surface(rest, plane, partial=kept[-1], **settings).identical(whole)
    nothing_more = ls.Objective(raising(mlp, after=MAKING), points)
    assert ls.evaluate_surface(nothing_more, plane, partial=whole, **settings).identical(whole)


def test_a_surface_stored_without_rays_gets_them(mlp, points, tmp_path):
    objective, plane = ls.Objective(mlp, points), ls.random_plane(mlp)
    without = ls.evaluate_surface(objective, plane, points=5, rays=0)
    assert "width_ray" not in without
    ls.save(tmp_path / "x.h5", surface=without)
    whole = ls.evaluate_surface(objective, plane, points=5)
    again = ls.evaluate_surface(objective, plane, points=5, partial=ls.load(tmp_path / "x.h5")["surface"])
    np.testing.assert_array_equal(again["width_ray"], whole["width_ray"])
    with pytest.raises(ls.UserError, match="rays=-1"):
        ls.evaluate_surface(objective, plane, points=5, rays=-1)
