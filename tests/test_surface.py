import numpy as np
import pytest
import torch
from conftest import dense_hessian, raising, unchanged
from torch import nn

import landscape as ls
from landscape.directions import Plane
from landscape.parameters import unflatten


@pytest.fixture
def objective(mlp, points):
    return ls.Objective(mlp, points, weight_decay=0.2, dtype=torch.float64)


def test_centre_is_the_network_and_a_rectangle_is_indexed_right(mlp, objective):
    plane = ls.random_plane(mlp)
    with unchanged(mlp):
        surface = ls.evaluate_surface(objective, plane, points=(5, 3), span=0.5)
    assert surface["loss"].dims == ("y", "x")
    assert surface["loss"].shape == (3, 5)
    here = objective.evaluate()
    assert float(surface["loss"].sel(x=0, y=0)) == here.loss
    moved = objective.model
    with torch.no_grad():
        for name, p in moved.named_parameters():
            if name in plane.directions[0]:
                p += 0.25 * plane.directions[0][name].double() - 0.5 * plane.directions[1][name].double()
    assert float(surface["nll"].sel(x=0.25, y=-0.5)) == pytest.approx(objective.evaluate().nll, rel=1e-12)
    assert surface["done"].all()


def test_second_differences_are_the_curvature(mlp, objective):
    """Along v the second difference of the surface is v^T H v: curvature and surface are one objective."""
    H = dense_hessian(objective)
    values, vectors = np.linalg.eigh(H)
    like = dict(objective.model.named_parameters())
    for i in (0, -1):
        d = unflatten(torch.as_tensor(vectors[:, i].copy()), like)
        h = 1e-3
        surface = ls.evaluate_surface(objective, Plane((d, d)), points=(3, 1), span=h)
        f = surface["loss"].values[0]
        assert (f[0] - 2 * f[1] + f[2]) / h**2 == pytest.approx(values[i], abs=1e-6)


def test_quadratic_objective_is_exact():
    x = torch.randn(20, 3, dtype=torch.float64)
    model = nn.Linear(3, 2)
    objective = ls.Objective(
        model, [(x, torch.zeros(20, 2))], loss=lambda f, y: 0.5 * (f - y).square().sum(1), dtype=torch.float64
    )
    plane = ls.random_plane(model, seed=3)
    surface = ls.evaluate_surface(objective, plane, points=5, span=2.0)
    W, b = model.weight.double(), model.bias.double()
    for j, i in np.ndindex(5, 5):
        u, v = surface["x"].values[i], surface["y"].values[j]
        moved = W + u * plane.directions[0]["weight"].double() + v * plane.directions[1]["weight"].double()
        truth = 0.5 * (x @ moved.T + b).square().sum(1).mean().item()
        assert surface["loss"].values[j, i] == pytest.approx(truth, rel=1e-12)


def test_divergence_is_kept_and_done(mlp, objective):
    huge = {"0.weight": torch.full((7, 6), torch.inf)}
    surface = ls.evaluate_surface(objective, Plane((huge, {})), points=(3, 1), span=1.0)
    assert not np.isfinite(surface["loss"].values[0, [0, 2]]).any()
    assert surface["done"].all()


def test_interrupted_and_resumed_equals_uninterrupted(mlp, points, objective):
    plane = ls.random_plane(mlp)
    whole = ls.evaluate_surface(objective, plane, points=4)
    broken = ls.Objective(raising(mlp, after=12), points, weight_decay=0.2, dtype=torch.float64)
    kept = []
    with pytest.raises(RuntimeError, match="broke"):
        ls.evaluate_surface(broken, plane, points=4, save=lambda d: kept.append(d.copy(deep=True)))
    assert 0 < kept[-1]["done"].sum() < 16
    resumed = ls.evaluate_surface(objective, plane, points=4, partial=kept[-1])
    assert resumed.identical(whole)


def test_other_settings_are_refused_with_the_difference(mlp, objective):
    plane = ls.random_plane(mlp)
    partial = ls.evaluate_surface(objective, plane, points=3)
    with pytest.raises(ls.UserError, match=r"span: 1.0 there, 2.0 asked"):
        ls.evaluate_surface(objective, plane, points=3, span=2.0, partial=partial)


@pytest.mark.parametrize(
    ("bad", "word"), [({"points": 0}, "points=0"), ({"span": 0.0}, "span"), ({"span": np.nan}, "span")]
)
def test_bad_requests(mlp, objective, bad, word):
    with pytest.raises(ls.UserError, match=word):
        ls.evaluate_surface(objective, ls.random_plane(mlp), **bad)
