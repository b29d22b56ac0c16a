"""Sharpness of losses whose sharpness is known, and what a rescaling of a network's channels leaves of it."""

import numpy as np
import pytest
import torch
from helpers import dense_hessian, raising, small, unchanged
from scipy.optimize import brentq
from torch import nn

import landscape as ls
from landscape.analyses.sharpness import MEASURES, Sharpness
from landscape.analyses.survival import changes, survival
from landscape.curvature.scaled import ScaledLoss, critical_step, highest
from landscape.objective.rescaling import find_rescaling
from landscape.pictures import sharpness as picture

FAST = {"batch_size": 8, "radii": 3, "directions": 2, "steps": 4, "radius": 0.05}


@pytest.fixture
def quadratic():
    """1/2 mean |W x + b - y|^2: 8 parameters, its Hessian the same everywhere, its gradient not 0."""
    g = torch.Generator().manual_seed(2)
    x, y = torch.randn(40, 3, generator=g), torch.randn(40, 2, generator=g)
    torch.manual_seed(3)
    return ls.Objective(nn.Linear(3, 2), [(x, y)], loss=lambda f, y: 0.5 * (f - y).square().sum(1), dtype=torch.float64)


def at(objective, kind):
    """f, and of it the gradient and the Hessian at 0 in full."""
    f = ScaledLoss(objective, (objective.x, objective.y), kind)
    zero = torch.zeros_like(f.c)
    H = np.array([f.product(row).tolist() for row in torch.eye(len(f.c), dtype=torch.float64)])
    return f, f.with_gradient(zero)[1].numpy(), H


def largest_in_a_ball(g, H, radius):
    """max g u + u H u / 2 over ||u|| = radius, H positive semi-definite, by the secular equation
    ||(mu - H)^-1 g|| = radius, mu above the largest eigenvalue (Conn, Gould & Toint, Trust-Region Methods, ch. 7)."""
    values, V = np.linalg.eigh(H)
    b = V.T @ g
    mu = brentq(lambda m: np.linalg.norm(b / (m - values)) - radius, values[-1] + 1e-9, values[-1] + 1e6)
    u = b / (mu - values)
    return float(b @ u + 0.5 * (values * u**2).sum())


@pytest.mark.parametrize("kind", ["common", "elementwise"])
@pytest.mark.parametrize("radius", [0.01, 0.5, 10.0])
def test_worst_case_of_a_quadratic_is_its_closed_form(quadratic, kind, radius):
    f, g, H = at(quadratic, kind)
    found = highest(f, radius, [torch.as_tensor(g)], 60)
    assert found.rise == pytest.approx(largest_in_a_ball(g, H, radius), rel=1e-4)
    assert found.rise <= largest_in_a_ball(g, H, radius) * (1 + 1e-9)
    assert float(found.u.norm()) <= radius * (1 + 1e-9)
    assert found.angle < 0.05


def test_at_a_minimum_it_is_half_the_largest_eigenvalue_times_the_squared_radius(quadratic):
    """rho^2 / 2 lambda_max of C H C, as arXiv:2302.07011, sec. 3.2, has it of elementwise scales."""
    x, y = quadratic.x, quadratic.y
    solution = torch.linalg.lstsq(torch.cat([x, torch.ones(40, 1)], 1).double(), y).solution
    with torch.no_grad():
        quadratic.model.weight.copy_(solution[:3].T)
        quadratic.model.bias.copy_(solution[3])
    f, g, H = at(quadratic, "elementwise")
    assert np.abs(g).max() < 1e-8
    start = torch.as_tensor(np.random.default_rng(0).normal(size=len(g)))
    found = highest(f, 0.3, [start], 200)
    assert found.rise == pytest.approx(0.3**2 / 2 * np.linalg.eigvalsh(H)[-1], rel=1e-6)


@pytest.mark.parametrize("kind", ["common", "elementwise"])
def test_critical_sharpness_of_a_quadratic_is_its_curvature_along_the_gradient(quadratic, kind):
    f, g, H = at(quadratic, kind)
    assert 2 / critical_step(f) == pytest.approx(g @ H @ g / (g @ g), rel=0.01)


def test_no_critical_step_where_the_loss_only_falls_or_stands_still():
    x = torch.ones(4, 1)
    falling = ls.Objective(nn.Linear(1, 1), [(x, x)], loss=lambda f, y: -f[:, 0], dtype=torch.float64)
    flat = ls.Objective(nn.Linear(1, 1), [(x, x)], loss=lambda f, y: 0 * f[:, 0], dtype=torch.float64)
    assert critical_step(ScaledLoss(falling, (falling.x, falling.y), "common")) == np.inf
    assert np.isnan(critical_step(ScaledLoss(flat, (flat.x, flat.y), "common")))


def test_a_wall_within_the_radius_is_an_infinite_rise():
    x = torch.zeros(4, 1)
    wall = ls.Objective(nn.Linear(1, 1), [(x, x)], loss=lambda f, y: torch.where(f[:, 0] > 0.6, torch.inf, f[:, 0]),
                        dtype=torch.float64)  # fmt: skip
    with torch.no_grad():
        wall.model.bias.fill_(0.5)
    f = ScaledLoss(wall, (wall.x, wall.y), "elementwise")
    assert highest(f, 0.1, [torch.tensor([0.0, 1.0]).double()], 5).rise == pytest.approx(0.05)
    assert highest(f, 0.5, [torch.tensor([0.0, 1.0]).double()], 5).rise == np.inf


def test_the_measures_of_a_quadratic(quadratic):
    """Average: sigma^2 / 2 tr CHC; profiles along the worst direction; eigenvalue and trace of the dense matrix."""
    result = ls.network_sharpness(quadratic, batch_size=40, directions=400, spread=0.2, radius=0.4, radii=4)
    assert result.sizes["network"] == 1
    for scale, kind in (("elementwise", "elementwise"), ("common", "common")):
        _, g, H = at(quadratic, kind)
        one = result.isel(network=0, batch=0).sel(scale=scale)
        spread = np.sqrt(0.2**2 * g @ g + 0.2**4 / 2 * (H**2).sum())
        assert float(one["average"]) == pytest.approx(0.2**2 / 2 * np.trace(H), abs=4 * spread / np.sqrt(400))
        assert float(one["worst"]) == pytest.approx(largest_in_a_ball(g, H, 0.4), rel=1e-3)
        assert float(one["eigenvalue"]) == pytest.approx(np.linalg.eigvalsh(H)[-1], rel=1e-3)
        probes = np.sqrt(2 * ((H**2).sum() - (np.diag(H) ** 2).sum()) / 400)
        assert float(one["trace"]) == pytest.approx(np.trace(H), abs=4 * probes + 1e-9)
        assert bool(one["converged"])
        profile = one["profile"].sel(along="worst").values
        assert (np.diff(profile) > 0).all()
        rise = one["profile"].sel(along="hessian") - one["loss"]
        assert (rise <= [largest_in_a_ball(g, H, r) + 1e-12 for r in one["radius"].values]).all()
    estimates = {e.name: e for e in Sharpness(batch_size=40).estimates(result)}
    assert len(estimates) == 2 * len(MEASURES)
    assert all(np.isnan(e.low) and e.n == 1 for e in estimates.values()), "of one mini-batch nothing is known"


def test_it_is_of_the_loss_with_its_penalty_and_weights_of_0_do_not_move_elementwise(mlp, points):
    with torch.no_grad():
        mlp[0].weight[0] = 0.0
    objective = ls.Objective(mlp, points, weight_decay=0.3, dtype=torch.float64)
    f, _, H = at(objective, "elementwise")
    c = f.c.numpy()
    np.testing.assert_allclose(H, c[:, None] * dense_hessian(objective) * c, atol=1e-10)
    assert (c == 0).sum() == 6
    assert f.at_0 == pytest.approx(objective.evaluate().loss)


def test_the_callers_model_is_unchanged_whatever_happens(mlp, points):
    objective = ls.Objective(mlp, points, dtype=torch.float64)
    before = {k: v.clone() for k, v in objective.model.state_dict().items()}
    with unchanged(mlp):
        ls.network_sharpness(objective, **FAST)
        breaking = ls.Objective(mlp, points, dtype=torch.float64)
        breaking.model = raising(breaking.model, 40)
        kept = {k: v.clone() for k, v in breaking.model.state_dict().items()}
        with pytest.raises(RuntimeError, match="the network broke"):
            ls.network_sharpness(breaking, **FAST)
    for model, state in ((objective.model, before), (breaking.model, kept)):
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def images(net, size=8, n=16):
    g = torch.Generator().manual_seed(5)
    return ls.Objective(net, [(torch.randn(n, 1, size, size, generator=g), torch.arange(n) % 4)])


class Gelu(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 5), nn.GELU(), nn.Linear(5, 4))


class Flattened(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 6), nn.ReLU(), nn.Linear(6, 4))


@pytest.mark.parametrize(
    ("made", "pairs"),
    [
        (lambda: small("resnet8"), ["layer1.0.bn1 -> layer1.0.conv2", "layer3.0.bn1 -> layer3.0.conv2"]),
        (lambda: small("vit_xs"), ["blocks.0.norm1 -> blocks.0.attn.qkv", "norm -> head"]),
        (lambda: small("preresnet_18"), ["layer2.0.bn -> layer2.0.shortcut.0, layer2.0.conv1"]),
        (lambda: small("alternet_xs"), ["layer2.1.norm2 -> layer2.1.attn.attn.to_q, layer2.1.attn.attn.to_kv"]),
        (Flattened, ["0 -> 3", "3 -> 5"]),
    ],
    ids=["resnet8", "vit_xs", "preresnet_18", "alternet_xs", "flattened"],
)
def test_rescalings_are_found_and_leave_the_outputs_what_they_are(made, pairs):
    torch.manual_seed(0)
    objective = images(made())
    found = find_rescaling(objective)
    assert found is not None
    assert set(pairs) <= set(found.layers)
    before = objective.outputs(objective.x)
    weights = {k: v.clone() for k, v in objective.model.state_dict().items()}
    with found.applied(objective.model):
        assert torch.allclose(objective.outputs(objective.x), before, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(objective.model.state_dict()[next(iter(found.factors))],
                                  weights[next(iter(found.factors))])  # fmt: skip
    assert all(torch.equal(v, weights[k]) for k, v in objective.model.state_dict().items())


def test_no_rescaling_where_there_is_none():
    torch.manual_seed(0)
    objective = images(Gelu())
    assert find_rescaling(objective) is None
    result = ls.network_sharpness(objective, **FAST)
    assert result.sizes["network"] == 1
    (line,) = survival(result, {m: name for m, (name, _) in MEASURES.items()})
    assert line.startswith("no rescaling that leaves its outputs the same was found")
    assert survival(ls.network_sharpness(objective, rescaling=False, **FAST), {}) == []


def test_what_survives_a_rescaling():
    """Elementwise scales go with the weights, so that nothing changes; a common one does not (arXiv:1703.04933)."""
    torch.manual_seed(0)
    result = ls.network_sharpness(images(small("resnet8"), n=32), **FAST)
    assert result["network"].values.tolist() == ["as it is", "rescaled"]
    found = changes(result, MEASURES)
    for measure in MEASURES:
        assert found[measure, "elementwise"][1] < 0.01, measure
        assert found[measure, "common"][1] > 0.05, measure
    np.testing.assert_allclose(result["loss"][0], result["loss"][1], rtol=1e-5)
    (line,) = survival(result, {m: name for m, (name, _) in MEASURES.items()})
    assert "unchanged elementwise: all; changed in a common scale: " in line
    assert result["profile"].sel(scale="elementwise").std("network").max() < 1e-3


def test_pictures_show_the_profiles_and_what_survives(mlp, points):
    torch.manual_seed(0)
    result = ls.network_sharpness(images(small("resnet8"), n=80), **{**FAST, "steps": 2})
    (figure,) = picture.draw(result, "sharpness").values()
    elementwise, common, beside = figure.axes
    own = result["profile"].sel(network="as it is", scale="common", along="typical").mean("batch")
    np.testing.assert_allclose(common.lines[0].get_ydata(), own)
    np.testing.assert_allclose(common.lines[0].get_xdata(), result["radius"])
    assert "units of" in elementwise.get_xlabel()
    factors = [changes(result, MEASURES)[m, "elementwise"][0] for m in MEASURES]
    np.testing.assert_allclose(beside.lines[0].get_xdata(), factors)
    bare = ls.network_sharpness(ls.Objective(mlp, points), **FAST)
    (figure,) = picture.draw(bare, "sharpness").values()
    assert len(figure.axes) == 2
    (figure,) = picture.compare({"a": result, "b": bare}, "sharpness").values()
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["a", "b"]


def test_random_states_budget_and_seeds(mlp, points):
    objective = ls.Objective(mlp, points, dtype=torch.float64)
    one = ls.network_sharpness(objective, **FAST)
    again = ls.network_sharpness(objective, **FAST)
    other = ls.network_sharpness(objective, seed=1, **FAST)
    assert one.identical(again)
    assert not np.array_equal(one["average"], other["average"])
    part = ls.network_sharpness(objective, budget=0.0, **FAST)
    assert 0 < int(part["done"].sum()) < part["done"].size
    assert ls.network_sharpness(objective, partial=part, **FAST).identical(one)
    with pytest.raises(ls.UserError, match="radius=0"):
        Sharpness(radius=0)


def test_intervals_are_over_mini_batches_and_cover_their_truth():
    """The estimate over 16 mini-batches of the scaled trace covers that over all in about 95 of 100 draws."""
    rng = np.random.default_rng(0)
    from landscape.analyses.intervals import unit_mean

    draws = np.exp(rng.normal(0, 0.8, (400, 16)))
    truth = np.exp(0.32)
    inside = [at.low <= truth <= at.high for at in map(unit_mean, draws)]
    assert 0.92 <= np.mean(inside) <= 0.985
    signed = rng.normal(0.5, 1, (400, 16))
    assert 0.92 <= np.mean([at.low <= 0.5 <= at.high for at in map(unit_mean, signed)]) <= 0.98
    assert np.isnan(unit_mean([1.0] * 8 + [np.inf]).low)
