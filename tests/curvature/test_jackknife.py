"""Products and gradients by folds of the examples, against objectives on what is left of them."""

import numpy as np
import pytest
import torch
from helpers import LittleMemory, unchanged
from torch import nn

import landscape as ls
from landscape.analyses.surface import evaluate_surface
from landscape.curvature.jackknife import FoldedCurvature, gradient_norm
from landscape.curvature.operators import Curvature
from landscape.data.frozen import FrozenData
from landscape.objective.clusters import fold_of, jackknife_sem, numbered
from landscape.runtime.random import gaussian

CLUSTERS = torch.arange(50) * 17 % 23  # of two and three, their members apart: folds of unequal size


@pytest.fixture
def data(points):
    x, y = (torch.cat([batch[i] for batch in points]) for i in (0, 1))
    return FrozenData(x, y, 50, 2, {}, CLUSTERS)


def left(model, data, fold, f, **settings):
    kept = torch.as_tensor(fold != f)
    return ls.Objective(model, [(data.x[kept], data.y[kept])], dtype=torch.float64, **settings)


@pytest.mark.parametrize("kind", ["hessian", "ggn", "residual"])
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_products_without_a_fold_are_those_of_the_rest(mlp, data, kind, chunk_size):
    objective = ls.Objective(mlp, data, weight_decay=0.3, dtype=torch.float64)
    H = FoldedCurvature(objective, kind=kind, chunk_size=chunk_size)
    v = gaussian(H.zeros(), 0)
    fold = fold_of(numbered(CLUSTERS), 10)
    with unchanged(mlp), unchanged(objective.model):
        for _ in range(2):  # from graphs made anew, and kept
            Hv, moments = H.with_moments(v)
    torch.testing.assert_close(Hv, Curvature(objective, kind=kind)(v), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(H(v), Hv, rtol=1e-12, atol=1e-14)
    assert H.folds == len(moments.first_without) == 10
    assert H.products == 3
    for f in range(10):
        rest = Curvature(left(mlp, data, fold, f, weight_decay=0.3), kind=kind)(v)
        assert moments.first_without[f] == pytest.approx(float(v @ rest), rel=1e-10)
        assert moments.second_without[f] == pytest.approx(float(rest @ rest), rel=1e-10)


@pytest.mark.parametrize("most", [1, 3])
def test_where_the_memory_runs_out_folds_stay_folds(mlp, data, most):
    whole, in_pieces = (
        FoldedCurvature(ls.Objective(model, data, dtype=torch.float64)) for model in (mlp, LittleMemory(mlp, most))
    )
    v = gaussian(whole.zeros(), 0)
    (a, expected), (b, found) = whole.with_moments(v), in_pieces.with_moments(v)
    torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found.second_without, expected.second_without, rtol=1e-10)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_the_gradients_error_is_the_jackknife_of_its_norm(mlp, data, weight_decay):
    objective = ls.Objective(mlp, data, weight_decay=weight_decay, dtype=torch.float64)
    norm, sem = gradient_norm(objective)
    fold = fold_of(numbered(CLUSTERS), 10)
    rest = [gradient_norm(left(mlp, data, fold, f, weight_decay=weight_decay))[0] for f in range(10)]
    assert sem == pytest.approx(float(jackknife_sem(rest)), rel=1e-10)
    surface = evaluate_surface(objective, ls.random_plane(mlp), points=1, gradient_norm=True)
    assert surface["gradient_norm"].item() == norm
    assert surface["gradient_norm_sem"].item() == sem


def test_the_gradients_error_is_the_spread_over_samples():
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    norms, stated = [], []
    for seed in range(150):
        g = torch.Generator().manual_seed(seed)
        x, y = torch.randn(80, 5, generator=g), torch.randint(0, 3, (80,), generator=g)
        norm, sem = gradient_norm(ls.Objective(model, [(x + 0.5, y)]))
        norms.append(norm)
        stated.append(sem)
    assert np.sqrt(np.mean(np.square(stated))) == pytest.approx(np.std(norms), rel=0.15)


def test_of_few_examples_no_error_is_known(mlp, points):
    x, y = points[0]
    few = ls.Objective(mlp, [(x[:7], y[:7])])
    assert np.isnan(gradient_norm(few)[1])
    assert np.isnan(few.evaluate().nll_sem)
    assert np.isfinite(ls.Objective(mlp, [(x[:8], y[:8])]).evaluate().nll_sem)
    _, moments = FoldedCurvature(ls.Objective(mlp, [(x[:1], y[:1])])).with_moments(torch.ones(65))
    assert np.isnan(moments.first_without).all()
