import math

import pytest
import torch
from conftest import unchanged
from torch import nn

import landscape as ls


def test_matches_the_written_out_loss(mlp, points):
    x, y = (torch.cat(t) for t in zip(*points, strict=True))
    with unchanged(mlp):
        found = ls.Objective(mlp, points, weight_decay=0.1, dtype=torch.float64).evaluate()
    model = mlp.double().eval()
    losses = nn.functional.cross_entropy(model(x.double()), y, reduction="none")
    assert found.nll == pytest.approx(losses.mean().item(), rel=1e-12)
    assert found.nll_sem == pytest.approx(losses.std().item() / math.sqrt(50), rel=1e-12)
    assert found.accuracy == (model(x.double()).argmax(1) == y).double().mean()
    penalty = 0.05 * (model[0].weight.square().sum() + model[3].weight.square().sum()).item()
    assert found.penalty == pytest.approx(penalty, rel=1e-12)
    assert found.loss == found.nll + found.penalty
    assert found.examples == 50


def test_any_split_gives_the_same_number(mlp, points):
    x, y = (torch.cat(t) for t in zip(*points, strict=True))
    values = [
        ls.Objective(mlp, list(zip(x.split(n), y.split(n), strict=True)), dtype=torch.float64).evaluate().nll
        for n in (1, 7, 16, 50)
    ]
    assert values == pytest.approx([values[0]] * 4, rel=1e-13)


def test_norm_sum_is_the_reference_studys(mlp, points):
    found = ls.Objective(mlp, points, weight_decay=0.05, penalty="norm-sum").evaluate()
    assert found.penalty == pytest.approx(0.05 * sum(p.norm().item() for p in mlp.parameters()), rel=1e-6)


def test_soft_labels(mlp, points):
    x, y = points[0]
    hard = ls.Objective(mlp, points[:1], dtype=torch.float64).evaluate()
    soft = ls.Objective(mlp, [(x, nn.functional.one_hot(y, 2).float())], dtype=torch.float64).evaluate()
    assert soft.nll == pytest.approx(hard.nll, rel=1e-12)
    assert soft.accuracy == hard.accuracy


def test_divergence_stays_a_result(mlp, points):
    with torch.no_grad():
        mlp[3].weight.fill_(torch.inf)
    found = ls.Objective(mlp, points).evaluate()
    assert not math.isfinite(found.nll)
    assert not math.isfinite(found.loss)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "empty"),
        ([(torch.zeros(0, 6), torch.zeros(0, dtype=torch.long))], "empty"),
        ([(torch.zeros(2, 6), torch.tensor([0, 5]))], r"label 5 is out of range .* 2 outputs"),
        ([(torch.zeros(2, 6), torch.tensor([0, -1]))], "label -1 is out of range"),
        ([(torch.zeros(2, 6), torch.zeros(2, 3))], "3 classes for a network of 2"),
    ],
)
def test_bad_data(mlp, data, message):
    with unchanged(mlp), pytest.raises(ls.UserError, match=message):
        ls.Objective(mlp, data)


@pytest.mark.parametrize("bad", [{"penalty": "l3"}, {"decay": "some"}, {"weight_decay": -1.0}])
def test_bad_settings(mlp, points, bad):
    with pytest.raises(ls.UserError, match=next(iter(bad))):
        ls.Objective(mlp, points, **bad)
