import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from helpers import unchanged
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

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
        ([(torch.zeros(2, 6), torch.zeros(2, 3))], "the soft labels have 3 classes, but the network has 2"),
    ],
)
def test_bad_data(mlp, data, message):
    with unchanged(mlp), pytest.raises(ls.UserError, match=message):
        ls.Objective(mlp, data)


@pytest.mark.parametrize("bad", [{"penalty": "l3"}, {"decay": "some"}, {"weight_decay": -1.0}])
def test_bad_settings(mlp, points, bad):
    with pytest.raises(ls.UserError, match=next(iter(bad))):
        ls.Objective(mlp, points, **bad)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_regression_has_no_accuracy(points, outputs):
    data = [(x, torch.randn(len(x), outputs)) for x, _ in points]
    found = ls.Objective(nn.Linear(6, outputs), data, loss=lambda f, y: (f - y).square().mean(1)).evaluate()
    assert math.isfinite(found.nll)
    assert math.isnan(found.accuracy)
    assert math.isnan(found.accuracy_sem)


def test_several_classes_at_once_are_no_soft_labels(points):
    """Multi-hot labels: cross-entropy would weigh each example by how many classes it has, and call the first right."""
    y = torch.zeros(50, 4)
    y[:, :2] = 1
    data = [(torch.cat([x for x, _ in points]), y)]
    model = nn.Linear(6, 4)
    with pytest.raises(ls.UserError, match=r"soft labels of example 0 sum to 2, not to 1; .* `loss`"):
        ls.Objective(model, data)

    def binary(f, y):
        return nn.functional.binary_cross_entropy_with_logits(f, y, reduction="none").mean(1)

    found = ls.Objective(model, data, loss=binary).evaluate()
    assert found.nll == pytest.approx(binary(model(data[0][0]), y).mean().item(), rel=1e-6)
    assert math.isnan(found.accuracy)


@pytest.mark.parametrize(
    ("norm", "shape"), [(nn.BatchNorm1d, (4,)), (nn.BatchNorm2d, (4, 3, 3)), (nn.BatchNorm3d, (4, 2, 3, 3))]
)
def test_batchnorm_without_running_statistics_is_refused(norm, shape):
    """In eval mode too it takes those of the batch: cut into other batches, the loss would be another."""
    torch.manual_seed(0)
    x, y = torch.randn(20, *shape), torch.randint(0, 2, (20,))

    def network(**settings):
        return nn.Sequential(norm(4, **settings), nn.Flatten(), nn.Linear(math.prod(shape), 2))

    without = network(track_running_stats=False).eval()
    assert (without(x)[:5] - without(x[:5])).abs().max() > 1e-2
    with pytest.raises(ls.UserError, match=rf"{norm.__name__} '0' keeps no running statistics, .* GroupNorm"):
        ls.Objective(without, [(x, y)])
    kept = network()
    kept(x)
    by_5 = ls.Objective(kept, list(zip(x.split(5), y.split(5), strict=True)), dtype=torch.float64).evaluate()
    assert by_5.nll == pytest.approx(ls.Objective(kept, [(x, y)], dtype=torch.float64).evaluate().nll, rel=1e-12)


@dataclass
class Clustered:
    """Data that say which of their examples belong together."""

    x: Tensor
    y: Tensor
    clusters: Tensor

    def __iter__(self):
        return iter([(self.x, self.y)])


def as_given(f, y):
    """Each example's loss is its label, and it is right where that is above 0."""
    return y[:, 0]


def test_the_error_of_clustered_examples_is_the_spread_over_draws():
    """Clusters of 1 to 9 examples that share a term of their own; draws of whole clusters."""
    rng = np.random.default_rng(0)
    means, stated, as_if_independent = [], [], []
    for _ in range(400):
        sizes = rng.integers(1, 10, 60)
        clusters = np.repeat(rng.permutation(60), sizes)
        order = rng.permutation(len(clusters))  # members need not be neighbours
        loss = (rng.normal(size=60)[clusters] + 0.5 * rng.normal(size=len(clusters)))[order]
        data = Clustered(torch.zeros(len(loss), 1), torch.tensor(loss)[:, None], torch.tensor(clusters[order]))
        found = ls.Objective(nn.Linear(1, 1), data, loss=as_given, dtype=torch.float64).evaluate()
        means.append(found.nll)
        stated.append(found.nll_sem)
        as_if_independent.append(loss.std(ddof=1) / len(loss) ** 0.5)
    spread = np.std(means)
    assert np.mean(stated) == pytest.approx(spread, rel=0.08)
    assert np.mean(as_if_independent) < 0.55 * spread


def test_no_fold_and_no_mini_batch_parts_a_cluster():
    clusters = torch.tensor([0, 0, 1, 1, 1, 1, 2, 2] * 10) + 3 * torch.arange(10).repeat_interleave(8)
    loss = torch.arange(80.0)[:, None]
    objective = ls.Objective(nn.Linear(1, 1), Clustered(torch.zeros(80, 1), loss, clusters), loss=as_given)
    found = objective.evaluate()
    assert objective.folds == len(found.nll_fold) == 20
    of_fold = {round(f, 6) for f in found.nll_fold}
    of_clusters = [float(loss[clusters == c].mean()) for c in range(30)]
    assert {round(m, 6) for m in of_clusters[1::3]} <= of_fold  # the ten clusters of four have folds of their own
    assert np.mean(found.nll_fold) == pytest.approx(39.5)
    assert len(objective.minibatches(8)) == 10
    with pytest.raises(ls.UserError, match=r"mini-batches of 4 separate examples 3 and 4, .* take mini-batches of 8"):
        objective.minibatches(4)
    with pytest.raises(ls.UserError, match=r"clusters of shape \(3,\) and type int64 for 80 examples"):
        ls.Objective(nn.Linear(1, 1), Clustered(torch.zeros(80, 1), loss, clusters[:3]), loss=as_given)


def test_frozen_parameters_are_not_penalised(mlp, points):
    """By timm's rule, which skips them, and as torch's optimisers, which see no gradient; norm-sum is over all."""
    mlp[0].requires_grad_(False)
    norms = {name: p.norm().item() for name, p in mlp.named_parameters()}
    last = 0.5 * norms["3.weight"] ** 2
    for options, penalty in (
        ({}, last),
        ({"decay": "all"}, last + 0.5 * norms["3.bias"] ** 2),
        ({"penalty": "norm-sum"}, sum(norms.values())),
    ):
        objective = ls.Objective(mlp, points, weight_decay=0.1, dtype=torch.float64, **options)
        assert objective.evaluate().penalty == pytest.approx(0.1 * penalty, rel=1e-6)


def test_the_penalised_are_those_that_timm_decays(points):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.fixed, self.head = nn.LayerNorm((2, 3)), nn.Linear(6, 2), nn.Linear(2, 2)
            self.token = nn.Parameter(torch.randn(1, 6))
            self.fixed.requires_grad_(False)
            nn.init.normal_(self.norm.bias)

        def no_weight_decay(self):
            return {"tok*"}

        def forward(self, x):
            return self.head(self.fixed(self.norm(x.view(-1, 2, 3)).flatten(1) + self.token))

    network = Network()
    decayed = param_groups_weight_decay(network, 0.1, no_weight_decay_list=network.no_weight_decay())[1]["params"]
    truth = 0.05 * sum(p.square().sum().item() for p in decayed)
    assert ls.Objective(network, points, weight_decay=0.1).evaluate().penalty == pytest.approx(truth, rel=1e-6)


class Copies(TorchFunctionMode):
    """Counts what would copy from a GPU, and wait for it."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        waits = ("cpu", "item", "tolist", "__float__", "__int__", "__bool__")
        self.count += getattr(func, "__name__", "") in waits
        return func(*args, **(kwargs or {}))


def test_a_point_waits_for_the_device_once(mlp, points):
    objective = ls.Objective(mlp, points, weight_decay=0.1)
    with Copies() as copies:
        objective.evaluate()
    assert copies.count == 1


class AlwaysDropping(nn.Module):
    """Functional dropout as people forget it: eval mode does not turn it off."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return nn.functional.dropout(self.network(x), 0.3)


@pytest.mark.parametrize("where", ["network", "loss"])
def test_a_loss_that_draws_random_numbers_is_refused(mlp, points, where):
    def noisy(logits, y):
        return nn.functional.cross_entropy(nn.functional.dropout(logits), y, reduction="none")

    with pytest.raises(ls.UserError, match=r"once and .* again: .*random numbers in eval mode.*training=self.training"):
        if where == "network":
            ls.Objective(AlwaysDropping(mlp), points)
        else:
            ls.Objective(mlp, points, loss=noisy)
