"""Barriers between the halves of double wells that are known, curved paths around them, and permuted copies."""

import copy

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import invoke, raising, refused, small, unchanged
from scipy.optimize import minimize_scalar
from torch import nn

import landscape as ls
from landscape.analyses.connectivity import Connectivity
from landscape.planes.permutations import permutations_of
from landscape.surfaces.barrier import barrier


class Weights(nn.Module):
    """Its weights, whatever the input."""

    def __init__(self, *w):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))

    def forward(self, x):
        return self.w.expand(len(x), -1)


def losses(loss, *w, n=80):
    """An objective whose loss of an example y is loss(weights, y)."""
    g = torch.Generator().manual_seed(0)
    y = torch.randn(n, generator=g, dtype=torch.float64)
    return ls.Objective(Weights(*w), [(torch.zeros(n, 1), y)], loss=loss, dtype=torch.float64)


def well(f, y):
    """(1 - w^2)^2 (1 + y/5) + w/10: two wells at about -1 and 1, between them a barrier."""
    return (1 - f[:, 0] ** 2) ** 2 * (1 + 0.2 * y) + 0.1 * f[:, 0]


def ring(f, y):
    """(|w|^2 - 1)^2 (1 + y/5): a circle of minima around a hill of height 1."""
    return (f.square().sum(1) - 1) ** 2 * (1 + 0.2 * y)


def test_the_barrier_between_the_halves_of_a_double_well_is_its_closed_form():
    objective = losses(well, -1.0)
    result = ls.mode_connectivity(objective, Weights(1.0), alignment="none", steps=0, points=21)
    height = 1 + 0.2 * float(objective.y.mean())
    assert result["path"].values.tolist() == ["straight"]
    t = result["t"].values
    expected = (1 - (2 * t - 1) ** 2) ** 2 * height + 0.1 * (2 * t - 1)
    np.testing.assert_allclose(result["nll"][0], expected, rtol=1e-12)
    value, sem, low, high = result["barrier"][0].values
    assert value == pytest.approx(height, rel=1e-12)
    folds = result["nll_fold"].sel(t=0.5)[:, 0].values
    assert sem == pytest.approx(folds.std(ddof=1) / np.sqrt(len(folds)), rel=0.02)
    assert low < value < high


def test_a_curve_goes_around_a_hill_and_its_barrier_is_that_of_the_best_curve():
    """Of quadratic Bezier curves from (-1, 0) to (1, 0) of a circle of minima, the control point is (0, h)."""
    objective = losses(ring, -1.0, 0.05)
    result = ls.mode_connectivity(objective, Weights(1.0, 0.05), alignment="none", steps=300, points=41, lr=0.03)
    t = np.linspace(0, 1, 2001)

    def along(h):
        x, y = 2 * t - 1, 0.05 * ((1 - t) ** 2 + t**2) + 2 * t * (1 - t) * h
        return (x**2 + y**2 - 1) ** 2

    best = minimize_scalar(lambda h: along(h).mean(), bounds=(0, 4), method="bounded")
    assert result["barrier"].sel(path="straight", barrier_bound="estimate") > 0.9
    curve = result["nll"].sel(path="curved").values
    assert curve.mean() == pytest.approx(along(best.x).mean(), abs=0.01)
    control = -1.0 + float(result["bend"][0]), 0.05 + float(result["bend"][1])
    assert control == pytest.approx((0, best.x), abs=0.15)
    assert float(result["barrier"].sel(path="curved", barrier_bound="estimate")) < 0.2
    np.testing.assert_allclose(curve[[0, -1]], result["nll"].sel(path="straight").values[[0, -1]], rtol=1e-9)


@pytest.fixture(scope="module")
def pair():
    """Two networks, the second a permuted copy of the first, and the loss."""
    torch.manual_seed(0)
    net = small("resnet8").eval()
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, t in net.state_dict().items():
            if t.ndim == 1:
                t.copy_(torch.rand(t.shape, generator=g) + (0.5 if name.endswith("var") else 0.0))
    groups = permutations_of(net)
    other = copy.deepcopy(net)
    other.load_state_dict(groups.applied(net.state_dict(), groups.random(1)))
    x = torch.randn(64, 1, 8, 8, generator=g)
    return net, other, ls.Objective(net, [(x, net(x).argmax(1))])


FEW = {"points": 5, "steps": 3, "batch_size": 8}


@pytest.mark.parametrize("batchnorm", ["recalibrated", "stored"])
def test_a_network_and_its_permuted_copy_have_a_barrier_of_0_after_alignment(trained, batchnorm):
    net, _ = ls.load_checkpoint(trained)
    objective = ls.Objective(net, ls.load_data("digits", samples=96, seed=0))
    groups = permutations_of(net)
    other = copy.deepcopy(net)
    other.load_state_dict(groups.applied(net.state_dict(), groups.random(1)))
    with unchanged(net), unchanged(other):
        result = ls.mode_connectivity(objective, other, batchnorm=batchnorm, **FEW)
    assert result["path"].values.tolist() == ["straight", "aligned", "curved"]
    table = result["barrier"].sel(barrier_bound="estimate")
    assert float(table.sel(path="straight")) > 0.3
    assert float(table.sel(path="aligned")) == 0
    assert float(result["nll"].sel(path="aligned").std()) == 0
    estimates = {e.name: e for e in Connectivity(**FEW).estimates(result)}
    assert "its ends are one network" in estimates["barrier (straight, after alignment)"].note
    assert not estimates["barrier (straight)"].note


@pytest.mark.parametrize("batchnorm", ["recalibrated", "stored"])
def test_interrupted_while_the_bend_is_trained_it_goes_on_to_the_same(pair, batchnorm, monkeypatch):
    net, _, objective = pair
    torch.manual_seed(2)
    other = small("resnet8").eval()
    settings = {"points": 5, "steps": 9, "batch_size": 8, "batchnorm": batchnorm}
    monkeypatch.setattr("landscape.analyses.bending.CHUNK", 4)
    whole = ls.mode_connectivity(objective, other, **settings)
    held = []

    def stop(unfinished):
        again = bool(held) and int(held[-1]["bend_steps"]) == 8
        held.append(unfinished.copy(deep=True))
        if unfinished["bend_steps"] == 8 and not again:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ls.mode_connectivity(objective, other, save=stop, save_every=0.0, **settings)
    assert int(held[-1]["bend_steps"]) == 8
    assert not held[-1]["done"].sel(path="curved").any()
    assert ls.mode_connectivity(objective, other, partial=held[-1], **settings).identical(whole)
    again = ls.mode_connectivity(objective, other, **{**settings, "seed": 1})
    assert not np.array_equal(again["bend"], whole["bend"])
    with pytest.raises(ls.UserError, match="made with other settings"):
        ls.mode_connectivity(objective, net, partial=held[-1], **settings)


def test_the_bend_is_trained_and_judged_on_different_examples(pair):
    """A loss that is NaN on the trained half alone leaves the barrier finite, and one on the other half does not."""
    _, _, objective = pair
    torch.manual_seed(2)
    result = ls.mode_connectivity(objective, small("resnet8").eval(), **FEW)
    assert result.sizes["fold"] == 10
    weights = np.bincount(objective.fold)
    mean = np.average(result["nll_fold"].sel(path="straight").isel(t=0), weights=weights[1::2])
    assert float(result["nll"].sel(path="straight").isel(t=0)) == pytest.approx(mean)
    both = (result["nll"] * weights[1::2].sum() + result["nll_trained"] * weights[::2].sum()) / weights.sum()
    whole = ls.mode_connectivity(objective, small("resnet8").eval(), **{**FEW, "steps": 0})
    np.testing.assert_allclose(both.sel(path="straight")[0], whole["nll"].sel(path="straight")[0], rtol=1e-6)


def test_the_private_copy_is_put_back_whatever_happens(pair):
    net, other, _ = pair
    x = torch.randn(32, 1, 8, 8)
    objective = ls.Objective(net, [(x, torch.arange(32) % 4)])
    objective.model = raising(objective.model, 30)
    before = {k: t.clone() for k, t in objective.model.state_dict().items()}
    with pytest.raises(RuntimeError, match="the network broke"):
        ls.mode_connectivity(objective, other, points=3, steps=200)
    after = objective.model.state_dict()
    assert all(torch.equal(t, before[k]) for k, t in after.items())
    assert not any(m.training for m in objective.model.modules())


def a_path(z, folds=None, done=True):
    t = np.linspace(0, 1, len(z))
    made = {"nll": ("t", np.asarray(z, float)), "done": ("t", np.full(len(z), done))}
    made["nll_fold"] = (("fold", "t"), np.asarray(z if folds is None else folds, float).reshape(-1, len(z)))
    return xr.Dataset(made, {"t": t})


def test_a_valley_has_an_upper_end_above_0_and_a_wall_an_infinite_barrier():
    t = np.linspace(0, 1, 11)
    noise = np.random.default_rng(0).normal(0, 0.05, (12, 1)) * np.sin(np.pi * t)
    valley = 1 + 0.1 * (t - 0.5) ** 2
    value, sem, low, high = barrier(a_path(valley, valley + noise - noise.mean(axis=0)))
    assert (value, low) == (0, 0)
    assert np.isnan(sem)
    assert high >= 0
    deep = 1 - t * (1 - t)
    assert barrier(a_path(deep, deep + 0.01 * (noise - noise.mean(axis=0))))[2:] == (0, 0)
    wall = np.where(t == 0.5, np.nan, 1.0)
    assert barrier(a_path(wall))[0] == np.inf
    assert all(np.isnan(barrier(a_path(valley, done=False))))
    assert np.isnan(barrier(a_path(valley, [valley] * 3))[2])


@pytest.mark.parametrize("height", [0.0, 0.02, 1.0])
def test_intervals_of_barriers_cover(height):
    """A hump, with errors that folds have in common along the path and a part at each point of its own."""
    rng, t = np.random.default_rng(1), np.linspace(0, 1, 11)
    truth = height * 4 * t * (1 - t)
    inside = []
    for _ in range(300):
        folds = truth + rng.normal(0, 0.05, (10, 1)) * np.sin(np.pi * t) + rng.normal(0, 0.02, (10, 11))
        _, _, low, high = barrier(a_path(folds.mean(axis=0), folds))
        inside.append(low <= height <= high)
    assert np.mean(inside) >= 0.92


def test_the_command(trained, tmp_path):
    other = tmp_path / "other.safetensors"
    made = ("train", "--model", "resnet8", "--data", "digits", "--epochs", 1, "--seed", 7, "--out", other, "--quiet")
    assert invoke(*made).returncode == 0
    out = tmp_path / "c.h5"
    few = ("--samples", 64, "--points", 3, "--steps", 2)
    result = invoke("connectivity", trained, other, "--out", out, *few)
    assert result.returncode == 0, result.stderr
    assert "barrier (straight, after alignment)" in result.stdout
    assert (tmp_path / "c-connectivity.png").stat().st_size > 5000
    assert ls.load(out)["connectivity"].attrs["config"]["other"]["networks"] == [trained.stem, "other"]
    refused(invoke("connectivity", trained, "--out", tmp_path / "d.h5"), "1 checkpoints given; a path needs 2")
    refused(invoke("connectivity", trained, other, "--out", out, *few, "--lr", 0.1), "made with other settings", "lr")
