"""Density, trace and Frobenius norm against Hessians in full, and against each other."""

import numpy as np
import pytest
import torch
from helpers import dense_hessian, unchanged
from torch import nn

import landscape as ls
from landscape.data.frozen import FrozenData
from landscape.pictures.canvas import with_sources
from landscape.runtime.random import rademacher


@pytest.fixture
def objective(mlp, points):
    return ls.Objective(mlp, points, weight_decay=0.2, dtype=torch.float64)


def test_density_moments_are_the_hessians(mlp, objective):
    with unchanged(mlp):
        density = ls.spectral_density(objective, probes=3, steps=20, seed=4)
    assert density["node"].dims == density["weight"].dims == ("probe", "node")
    np.testing.assert_allclose(density["weight"].sum("node"), 1, rtol=1e-12)
    H = dense_hessian(objective)
    n = len(H)
    for i in range(3):
        node, weight = density["node"].values[i], density["weight"].values[i]
        # the probe's own moments, to which those of the whole spectrum are the mean over probes
        v = rademacher(torch.zeros(n, dtype=torch.float64), 4, i).numpy()
        for p in range(1, 5):
            truth = v @ np.linalg.matrix_power(H, p) @ v / n
            assert np.nansum(weight * node**p) == pytest.approx(truth, rel=1e-8)


def test_trace_within_its_error(objective):
    density = ls.spectral_density(objective, probes=100, steps=10)
    H = dense_hessian(objective)
    assert abs(float(density["trace"]) - np.trace(H)) < 4 * float(density["trace_sem_probes"])
    assert abs(float(density["frobenius_squared"]) - (H**2).sum()) < 4 * float(density["frobenius_squared_sem_probes"])
    assert float(density["trace_sem_probes"]) < 0.2 * np.trace(H)


def test_density_of_mini_batches_visits_each(objective):
    density = ls.spectral_density(objective, probes=6, steps=60, batch_size=16, batches=3)
    assert density["batch"].values.tolist() == [0, 1, 2, 0, 1, 2]
    for i in range(6):
        H = dense_hessian(objective, *objective.minibatches(16)[i % 3])
        v = rademacher(torch.zeros(len(H), dtype=torch.float64), 0, i).numpy()
        assert float(density["mean_eigenvalue"][i]) == pytest.approx(v @ H @ v / len(H), rel=1e-9)
    with pytest.raises(ls.UserError, match="probes=2 cannot visit 3"):
        ls.spectral_density(objective, probes=2, batch_size=16, batches=3)


def diagonal(eigenvalues):
    """An objective whose Hessian is diag(eigenvalues): half a weighted square of the parameters."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = nn.Parameter(torch.ones(len(eigenvalues)))

        def forward(self, x):
            return 0.5 * x @ self.theta.square()

    x = torch.as_tensor(eigenvalues, dtype=torch.float64)[None]
    return ls.Objective(Net(), [(x, torch.zeros(1))], loss=lambda f, y: f, dtype=torch.float64)


@pytest.mark.parametrize("estimator", ["hutchinson", "hutch++"])
def test_trace_and_frobenius_cover_the_truth(objective, estimator):
    """Of the draws, about 95 % lie within two standard errors."""
    H = dense_hessian(objective)
    truth = {"trace": np.trace(H), "frobenius_squared": (H**2).sum()}
    z = {name: [] for name in truth}
    for seed in range(40):
        found = ls.hessian_trace(objective, products=36, estimator=estimator, seed=seed)
        for name in truth:
            z[name].append(float((found[name] - truth[name]) / found[f"{name}_sem_probes"]))
    for name in truth:
        assert np.mean(np.abs(z[name]) < 2) >= 0.8, (name, z[name])
        assert abs(np.mean(z[name])) < 0.6


def test_hutch_plus_plus_is_better_with_outliers():
    outliers = np.concatenate([[300, 200, 100, 50, -80], np.linspace(-1, 1, 200)])
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(205, 205)))[0]
    A = torch.as_tensor(q @ np.diag(outliers) @ q.T)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = nn.Parameter(torch.ones(205))

        def forward(self, x):
            return 0.5 * (self.theta @ x[0] @ self.theta)[None]

    objective = ls.Objective(Net(), [(A[None], torch.zeros(1))], loss=lambda f, y: f, dtype=torch.float64)
    errors = {}
    for estimator in ("hutchinson", "hutch++"):
        found = [ls.hessian_trace(objective, products=30, estimator=estimator, seed=s) for s in range(8)]
        errors[estimator] = np.sqrt(np.mean([(float(f["trace"]) - outliers.sum()) ** 2 for f in found]))
        assert np.median([float(f["trace_sem_probes"]) for f in found]) == pytest.approx(errors[estimator], rel=1)
    assert errors["hutch++"] < errors["hutchinson"] / 5


def test_hutch_plus_plus_is_exact_once_the_sketch_spans_all():
    found = ls.hessian_trace(diagonal([5.0, -2.0, 1.0]), products=24)
    assert float(found["trace"]) == pytest.approx(4, rel=1e-12)
    assert float(found["frobenius_squared"]) == pytest.approx(30, rel=1e-12)
    assert float(found["trace_sem_probes"]) == pytest.approx(0, abs=1e-9)
    assert np.isnan(found["trace_sem"])  # of one example nothing tells what others would have given


def test_density_and_trace_agree(mlp, objective):
    density = ls.spectral_density(objective, probes=60, steps=12)
    with unchanged(mlp):
        found = ls.hessian_trace(objective, products=60)
    for name in ("trace", "frobenius_squared"):
        error = np.hypot(float(density[f"{name}_sem_probes"]), float(found[f"{name}_sem_probes"]))
        assert abs(float(density[name]) - float(found[name])) < 4 * error


def test_bad_requests(objective):
    with pytest.raises(ls.UserError, match="probes=0"):
        ls.spectral_density(objective, probes=0)
    with pytest.raises(ls.UserError, match="hutchinson, hutch"):
        ls.hessian_trace(objective, estimator="diagonal")
    with pytest.raises(ls.UserError, match="leaves 1 probes"):
        ls.hessian_trace(objective, products=1)


def drawn(seed, n, shared=0.0):
    """n examples of a population; with `shared`, pairs of neighbours that have as much of their inputs in common."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=g, dtype=torch.float64) * torch.rand(n, 1, generator=g, dtype=torch.float64) * 3
    x[1::2] = shared * x[::2] + (1 - shared) * x[1::2]
    y = (x.sum(1) + torch.randn(n, generator=g, dtype=torch.float64) > 0).long()
    return FrozenData(x, y, n, 2, {}, torch.arange(n) // 2 if shared else None)


@pytest.mark.parametrize(("estimator", "products"), [("hutchinson", 10), ("hutch++", 24)])
def test_the_error_is_the_spread_over_samples(mlp, estimator, products):
    """Disjoint samples of one population, in pairs that share their inputs: most of the error is the examples'."""
    found = [
        ls.hessian_trace(
            ls.Objective(mlp, drawn(seed, 60, shared=1.0), dtype=torch.float64),
            products=products, estimator=estimator, seed=seed,
        )
        for seed in range(100, 170)
    ]  # fmt: skip
    for name in ("trace", "frobenius_squared"):
        spread = np.std([float(f[name]) for f in found], ddof=1)
        stated, of_probes = (
            np.sqrt(np.mean([float(f[f"{name}_sem{source}"]) ** 2 for f in found])) for source in ("", "_probes")
        )
        assert 0.8 < stated / spread < 1.25, name
        assert of_probes < 0.85 * spread
        of_examples = [np.nan_to_num(f[f"{name}_sem_examples"]) for f in found]  # NaN where the probes hide it
        assert all(
            np.hypot(f[f"{name}_sem_probes"], e) == f[f"{name}_sem"] for f, e in zip(found, of_examples, strict=True)
        )


def diagonals(n, d=30):
    """An objective whose example i has the Hessian diag(x_i): a probe's trace is exact."""
    x = torch.as_tensor(np.random.default_rng(0).normal(2, 1, (n, d)))
    x *= torch.linspace(0.2, 2, n, dtype=x.dtype)[torch.randperm(n, generator=torch.Generator().manual_seed(0)), None]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = nn.Parameter(torch.ones(d))

        def forward(self, x):
            return 0.5 * x @ self.theta.square()

    objective = ls.Objective(Net(), [(x, torch.zeros(n))], loss=lambda f, y: f, dtype=torch.float64)
    return objective, x.numpy()


@pytest.mark.parametrize("analysis", ["density", "hutchinson", "hutch++"])
def test_where_probes_are_exact_the_error_is_that_of_the_examples(analysis):
    objective, x = diagonals(10, 6)  # of which Hutch++ finds all with 24 products
    if analysis == "density":
        found = ls.spectral_density(objective, probes=8, steps=3)
    else:
        found = ls.hessian_trace(objective, products=8 if analysis == "hutchinson" else 24, estimator=analysis)
    assert float(found["trace"]) == pytest.approx(x.mean(0).sum())
    assert float(found["trace_sem_probes"]) == pytest.approx(0, abs=1e-9)
    # delete-one jackknife of a mean is the usual standard error
    assert float(found["trace_sem_examples"]) == pytest.approx(x.sum(1).std(ddof=1) / 10**0.5)
    without = [(np.delete(x, i, axis=0).mean(0) ** 2).sum() for i in range(10)]
    assert float(found["frobenius_squared_sem_examples"]) == pytest.approx(np.sqrt(9 * np.var(without)))


def test_the_error_over_mini_batches_is_that_of_their_means():
    """Three probes of a mini-batch are no three mini-batches."""
    objective, x = diagonals(40)
    density = ls.spectral_density(objective, probes=30, steps=2, batch_size=4, batches=10)
    means = x.reshape(10, 4, -1).mean(1)
    for name, truth in (("trace", means.sum(1)), ("frobenius_squared", (means**2).sum(1))):
        assert float(density[name]) == pytest.approx(truth.mean())
        assert float(density[f"{name}_sem"]) == pytest.approx(truth.std(ddof=1) / 10**0.5)
        assert float(density[f"{name}_sem_probes"]) == pytest.approx(0, abs=1e-9)
        assert float(density[f"{name}_sem_examples"]) == pytest.approx(float(density[f"{name}_sem"]))
    one = ls.spectral_density(objective, probes=8, steps=2, batch_size=4, batches=1)
    assert float(one["trace_sem_probes"]) == pytest.approx(0, abs=1e-9)
    assert np.isnan(one["trace_sem"])
    assert np.isnan(one["trace_sem_examples"])
    assert with_sources(one, "trace") == f"{means[0].sum():.4g} +- {float(one['trace_sem_probes']):.2g} over probes"


def test_what_examples_add_is_not_0_where_probes_hide_it(mlp):
    """From 2 probes 8 of 20 samples gave a trace of +- 0 over examples, from 8 probes 2 of 20."""
    found = [
        ls.spectral_density(ls.Objective(mlp, drawn(seed, 60)), probes=probes, steps=3)
        for seed in range(6)
        for probes in (2, 8)
    ]
    hidden = []
    for name in ("trace", "frobenius_squared"):
        assert not any(float(f[f"{name}_sem_examples"]) == 0 for f in found)
        assert not any("+- 0 " in with_sources(f, name) or "(0 " in with_sources(f, name) for f in found)
        hidden += [(f[f"{name}_sem"], f[f"{name}_sem_probes"]) for f in found if np.isnan(f[f"{name}_sem_examples"])]
    assert hidden
    assert all(np.isnan(total) or total == of_probes for total, of_probes in hidden)
    stored = found[0].assign(trace_sem=np.nan, trace_sem_probes=np.nan, trace_sem_examples=0.0)
    assert with_sources(stored, "trace") == f"{float(stored['trace']):.4g}"


def test_a_hessian_that_is_not_finite_has_no_trace(mlp, points):
    with torch.no_grad():
        mlp[3].weight.fill_(torch.inf)
    density = ls.spectral_density(ls.Objective(mlp, points), probes=2, steps=3)
    assert np.isnan(density["trace"])
    assert np.isnan(density["frobenius_squared"])
