import copy

import numpy as np
import pytest
import torch
from helpers import dense_hessian, raising, unchanged
from torch import nn

import landscape as ls
from landscape.analyses.pilot import samples_for
from landscape.objective.parameters import displaced, unflatten
from landscape.planes.plane import Plane
from landscape.planes.spanned import plane_through


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
    broken = ls.Objective(raising(mlp, after=14), points, weight_decay=0.2, dtype=torch.float64)
    kept = []
    with pytest.raises(RuntimeError, match="broke"):
        ls.evaluate_surface(broken, plane, points=4, save=lambda d: kept.append(d.copy(deep=True)))
    assert 0 < kept[-1]["done"].sum() < 16
    resumed = ls.evaluate_surface(objective, plane, points=4, partial=kept[-1])
    assert resumed.identical(whole)


def test_a_loss_of_exactly_0_and_one_of_nan_are_done_and_not_computed_again(mlp, points):
    values = iter([5.0, 5.0, 0.0, np.nan, 3.0, *[7.0] * 9])  # twice when it is made, to see that it repeats
    objective = ls.Objective(mlp, points[:1], loss=lambda f, y: torch.full((len(y),), next(values)))
    settings = {"points": (3, 1), "span": 0.5, "workers": 1}
    surface = ls.evaluate_surface(objective, ls.random_plane(mlp), **settings)
    np.testing.assert_array_equal(surface["nll"], [[np.nan, 0, 3]])  # the middle is computed first
    again = ls.evaluate_surface(objective, ls.random_plane(mlp), partial=surface, **settings)
    assert again.identical(surface)


def test_other_settings_are_refused_with_the_difference(mlp, objective):
    plane = ls.random_plane(mlp)
    partial = ls.evaluate_surface(objective, plane, points=3)
    with pytest.raises(ls.UserError, match="`span`: -1,1 there, -2,2 asked"):
        ls.evaluate_surface(objective, plane, points=3, span=2.0, partial=partial)


def test_a_range_of_its_own_for_each_axis(mlp, objective):
    plane = ls.random_plane(mlp)
    surface = ls.evaluate_surface(objective, plane, points=(4, 3), span=((0.0, 1.5), (-1.0, 0.0)))
    np.testing.assert_allclose(surface["x"], [0, 0.5, 1, 1.5])
    np.testing.assert_allclose(surface["y"], [-1, -0.5, 0])
    square = ls.evaluate_surface(objective, plane, points=(7, 5), span=((-1.5, 1.5), (-1.0, 1.0)))
    np.testing.assert_array_equal(surface["nll"], square["nll"].values[:3, 3:])
    assert float(surface["loss"].sel(x=0, y=0)) == objective.evaluate().loss


def test_along_one_direction(mlp, objective):
    plane = ls.random_plane(mlp)
    line = Plane(plane.directions[:1], plane.config)
    curve = ls.evaluate_surface(objective, line, points=5, span=(0.0, 1.0))
    assert curve["nll"].dims == ("x",)
    surface = ls.evaluate_surface(objective, plane, points=(5, 3), span=((0.0, 1.0), (-1.0, 1.0)))
    np.testing.assert_array_equal(curve["nll"], surface["nll"].sel(y=0))
    assert curve["nll_fold"].dims == ("fold", "x")


def test_the_folds_are_the_same_examples_everywhere(mlp, points, objective):
    surface = ls.evaluate_surface(objective, ls.random_plane(mlp), points=3, span=0.5)
    x, y = (torch.cat([batch[i] for batch in points]) for i in (0, 1))
    assert surface.sizes["fold"] == 20
    for f in (0, 13):
        part = ls.Objective(mlp, [(x[f::20], y[f::20])], dtype=torch.float64)
        alone = ls.evaluate_surface(part, ls.random_plane(mlp), points=3, span=0.5)
        np.testing.assert_allclose(surface["nll_fold"][f], alone["nll"], rtol=1e-12)


def test_the_gradient_is_that_of_the_written_out_loss(mlp, points, objective):
    surface = ls.evaluate_surface(objective, ls.random_plane(mlp), points=1, gradient_norm=True)
    model = objective.model
    x, y = (torch.cat([batch[i] for batch in points]) for i in (0, 1))
    loss = nn.functional.cross_entropy(model(x.double()), y)
    loss = loss + 0.1 * sum((p**2).sum() for p in model.parameters() if p.ndim >= 2)
    truth = torch.autograd.grad(loss, list(model.parameters()))
    norm = torch.stack([g.square().sum() for g in truth]).sum().sqrt()
    assert surface["gradient_norm"].item() == pytest.approx(float(norm), rel=1e-10)


def test_the_map_of_eigenvalues_is_that_of_the_dense_hessian(mlp, objective):
    plane = ls.random_plane(mlp)
    surface = ls.evaluate_surface(objective, plane, points=(2, 1), span=0.5, eigenvalues=True, tol=1e-6)
    for i, a in enumerate((-0.5, 0.5)):
        with displaced(objective.model, plane.directions, (a, 0.0)):
            truth = np.linalg.eigvalsh(dense_hessian(objective))
        for name, value in (("high", truth[-1]), ("low", truth[0])):
            assert float(surface[f"eigenvalue_{name}"][0, i]) == pytest.approx(value, rel=1e-6, abs=1e-8)
    for mark in ("converged_high", "converged_low", "complete"):
        assert surface[mark].dtype == bool
        assert surface[mark].all()
    short = ls.evaluate_surface(objective, plane, points=(2, 1), span=0.5, eigenvalues=True, tol=1e-6, max_products=6)
    for name in ("high", "low"):
        within = short[f"residual_{name}"] <= 1e-6 * abs(short[f"eigenvalue_{name}"])
        np.testing.assert_array_equal(short[f"converged_{name}"], within)
    assert not short["complete"].any()


def test_an_interpolated_point_of_the_map_of_eigenvalues_has_not_been_searched(mlp, objective):
    plane = ls.random_plane(mlp, dims=1)
    surface = ls.evaluate_surface(objective, plane, points=65, span=0.05, adaptive=1.0, eigenvalues=True)
    assert surface["interpolated"].any()
    np.testing.assert_array_equal(surface["converged_high"], ~surface["interpolated"])


def test_recalibrated_statistics_are_those_of_the_data_where_the_network_stands():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    model(torch.randn(32, 1, 6, 6))
    x, y = torch.randn(30, 1, 6, 6) * 2 + 1, torch.randint(0, 3, (30,))
    plane = ls.random_plane(model)
    objective = ls.Objective(model, [(x[:20], y[:20]), (x[20:], y[20:])])
    with unchanged(model), unchanged(objective.model):
        surface = ls.evaluate_surface(objective, plane, points=(2, 1), batchnorm="recalibrated")
    moved = copy.deepcopy(model).double()
    with torch.no_grad():
        for name, d in plane.directions[0].items():
            moved.get_parameter(name).add_(d.double())
    features = moved[0](x.double())
    parts = [features[:20], features[20:]]
    # as torch has it: the mean over the batches' means, and over their unbiased variances, here by examples
    moved[1].running_mean.copy_(sum(len(p) * p.mean((0, 2, 3)) for p in parts).detach() / 30)
    moved[1].running_var.copy_(sum(len(p) * p.var((0, 2, 3)) for p in parts).detach() / 30)
    truth = nn.functional.cross_entropy(moved.eval()(x.double()), y).item()
    assert float(surface["nll"][0, 1]) == pytest.approx(truth, rel=1e-5)
    stored = ls.evaluate_surface(objective, plane, points=(2, 1))
    assert abs(float(stored["nll"][0, 1]) - truth) > 1e-3


def test_bfloat16_measures_its_own_error(mlp, points):
    objective = ls.Objective(mlp, points)
    plane = ls.random_plane(mlp)
    exact = ls.evaluate_surface(objective, plane, points=5)
    rough = ls.evaluate_surface(objective, plane, points=5, dtype="bfloat16")
    error = (rough["nll"] - exact["nll"]).values
    assert 0 < np.abs(error).max() < 0.05
    for (a, b), nll, e in zip(rough["checked_at"].values, rough["checked_nll"], rough["checked_error"], strict=True):
        assert float(exact["nll"].sel(x=a, y=b)) == float(nll)
        assert float((rough["nll"] - exact["nll"]).sel(x=a, y=b)) == float(e)


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({"points": 0}, "points=0"),
        ({"points": (3, 3, 3)}, "as many numbers as axes"),
        ({"span": 0.0}, "span"),
        ({"span": np.nan}, "span"),
        ({"span": (1.0, -1.0)}, "low below high"),
        ({"adaptive": 0.0}, "adaptive=0.0"),
        ({"batchnorm": "frozen"}, "stored, recalibrated"),
        ({"dtype": "float16"}, "float32, bfloat16"),
    ],
)
def test_bad_requests(mlp, objective, bad, word):
    with pytest.raises(ls.UserError, match=word):
        ls.evaluate_surface(objective, ls.random_plane(mlp), **bad)


@pytest.fixture
def normalised():
    """A network with BatchNorm whose stored statistics are not those of its data, on 120 of these."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    model(torch.randn(32, 1, 6, 6))
    x, y = torch.randn(120, 1, 6, 6) * 20 + 10, torch.randint(0, 3, (120,))
    return ls.Objective(model, [(x[:80], y[:80]), (x[80:], y[80:])])


def test_bfloat16_is_checked_on_the_same_statistics(normalised):
    """Against the stored statistics instead of the recalibrated ones, the error would seem to be that of the NLL."""
    settings = {"points": (3, 1), "span": 0.5, "batchnorm": "recalibrated", "checks": 3}
    plane = ls.random_plane(normalised.model)
    exact = ls.evaluate_surface(normalised, plane, **settings)
    rough = ls.evaluate_surface(normalised, plane, dtype="bfloat16", **settings)
    np.testing.assert_allclose(rough["checked_nll"], exact["nll"][0], rtol=1e-6)
    np.testing.assert_allclose(rough["checked_error"], (rough["nll"] - exact["nll"])[0], atol=1e-6)
    assert np.abs(rough["checked_error"]).max() < 0.05


@pytest.mark.parametrize("batchnorm", ["stored", "recalibrated"])
def test_the_examples_needed_are_those_of_the_surface_itself(normalised, batchnorm):
    """At the same points: buffers of a plane towards a checkpoint move, and statistics are recalibrated, as there."""
    other = copy.deepcopy(normalised.model)
    with torch.no_grad():
        other[1].running_var *= 0.1
        other[4].weight *= 3
    plane = plane_through(normalised.model, {"other": other.state_dict()})
    near = ls.evaluate_surface(normalised, plane, points=3, span=(-0.25, 0.25), batchnorm=batchnorm)
    needed = 1.2 * normalised.examples * (float(near["nll_sem"].max()) / 0.1) ** 2
    assert abs(samples_for(normalised, plane, 0.1, (-1.0, 1.0), batchnorm=batchnorm) - needed) <= 1


def test_a_pilot_of_few_examples_is_refused(mlp, points):
    few = ls.Objective(mlp, [(points[0][0][:5], points[0][1][:5])])
    with pytest.raises(ls.UserError, match=r"a pilot of 5 examples .* take 16 or more"):
        samples_for(few, ls.random_plane(mlp), 0.1)
