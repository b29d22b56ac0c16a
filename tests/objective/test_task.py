"""Tasks of one class each, against written-out losses: regression with a variance, pixels in dicts."""

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from helpers import dense, in_full, unchanged
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

import landscape as ls
from landscape.curvature.lockstep import MiniBatchCurvatures
from landscape.curvature.operators import Curvature
from landscape.objective.folding import FoldedConv2d
from landscape.objective.nests import stacked
from landscape.objective.parameters import fingerprint

KINDS = ["hessian", "ggn", "residual"]
EXACT = {"rtol": 0, "atol": 1e-10}


@dataclass(frozen=True)
class Gaussian(ls.Task):
    """Regression with a variance of its own for each example: the network returns (mean, log variance, features)."""

    least: float = 1e-3

    def __post_init__(self):
        if not self.least > 0:
            raise ls.UserError(f"least={self.least} must be above 0")

    def losses(self, outputs, y):
        mean, log_variance, _ = outputs
        return 0.5 * (log_variance + (y - mean).square() / (log_variance.exp() + self.least)).sum(1)


@dataclass(frozen=True)
class Pixels(ls.Task):
    """The class of each pixel, of logits (n, classes, h, w) and labels (n, h, w); 255 is no class, and has a loss."""

    void: ClassVar[int] = 255

    def outputs(self, network, x):
        return network(x["image"])

    def losses(self, outputs, y):
        return F.cross_entropy(outputs, y * self.units(y), reduction="none")

    def units(self, y):
        return y != self.void


class MeanAndVariance(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.mean, self.variance = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        h = torch.tanh(self.hidden(x))
        return self.mean(h), self.variance(h), h


def test_classification_is_cross_entropy_to_the_bit(mlp, points):
    """NLL, gradient, and products of H and G in float32, beside the same derivatives of the written-out loss."""
    x, y = (torch.cat(t) for t in zip(*points, strict=True))
    objective = ls.Objective(mlp, [(x, y)])
    model = copy.deepcopy(mlp).eval()
    model.zero_grad()
    parameters = list(model.parameters())
    losses = F.cross_entropy(model(x), y, reduction="none")
    found = objective.evaluate()
    assert found.nll == losses.detach().double().numpy().mean()
    assert found.accuracy == (model(x).argmax(1) == y).double().mean()
    assert found.units == found.examples == 50
    loss = losses.sum() * (1 / 50)
    gradient = torch.autograd.grad(loss, parameters, create_graph=True)
    v = torch.randn(65, generator=torch.Generator().manual_seed(0))
    parts = [part.view(p.shape) for part, p in zip(v.split([p.numel() for p in parameters]), parameters, strict=True)]
    product = torch.autograd.grad(gradient, parameters, parts)
    H = Curvature(objective)
    assert torch.equal(H.gradient(), torch.cat([g.reshape(-1) for g in gradient]))
    assert torch.equal(H(v), torch.cat([p.reshape(-1) for p in product]))
    x0, y0 = objective.minibatches(16)[1]
    assert torch.equal(objective.nll_sum(x0, y0), losses[16:32].sum())
    config = objective.config()
    assert config["loss"] == "cross_entropy"
    assert config["data_sha256"] == fingerprint({"x": x, "y": y})
    assert ls.Objective(mlp, [(x, y)], task=ls.Classification()).config() == config


def test_regression_with_a_variance():
    """Outputs that are a tuple: two parts are curved in the Gauss-Newton matrix, the third the loss does not use."""
    torch.manual_seed(0)
    x, y = torch.randn(30, 3), torch.randn(30, 2)
    model, task = MeanAndVariance(), Gaussian(least=0.1)
    with unchanged(model):
        objective = ls.Objective(model, [(x[:20], y[:20]), (x[20:], y[20:])], task=task, dtype=torch.float64)
        found = objective.evaluate()
    mean, log_variance, _ = model.double()(x.double())
    losses = 0.5 * (log_variance + (y - mean).square() / (log_variance.exp() + 0.1)).sum(1)
    assert found.nll == pytest.approx(losses.mean().item(), rel=1e-12)
    assert found.nll_sem == pytest.approx(losses.std().item() / math.sqrt(30), rel=1e-12)
    assert math.isnan(found.accuracy)
    assert objective.config()["task"] == {"name": "Gaussian", "least": 0.1}
    truth = dense(
        objective,
        lambda theta: functional_call(objective.model, theta, (objective.x,)),
        lambda f: task.losses(f, objective.y).mean(),
    )
    for kind in KINDS:
        torch.testing.assert_close(in_full(Curvature(objective, kind=kind)), truth[kind], **EXACT)
        torch.testing.assert_close(in_full(Curvature(objective, kind=kind, chunk_size=7)), truth[kind], **EXACT)
    assert truth["residual"].abs().max() > 1e-2
    together = MiniBatchCurvatures(objective, *stacked(objective.minibatches(10)), kind="ggn")
    V = torch.randn(3, size(objective), dtype=torch.float64)
    one_by_one = [Curvature(objective, *b, kind="ggn")(v) for b, v in zip(objective.minibatches(10), V, strict=True)]
    torch.testing.assert_close(together(V, range(3)), torch.stack(one_by_one), **EXACT)
    assert together.vectorised
    with pytest.raises(ls.UserError, match="least=-1"):
        Gaussian(-1)


def size(objective):
    return sum(p.numel() for p in objective.model.parameters())


def test_pixels_through_a_folded_network_of_images_in_dicts():
    """Images of two sizes; what is no class has a loss that must not count, nor be differentiated."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 3, 1))
    images = [torch.randn(n, 2, s, s) for n, s in ((4, 6), (2, 6), (6, 4))]
    model(images[0])
    model.eval()
    labels = [torch.randint(0, 3, (len(x), *x.shape[2:])) for x in images]
    for label in labels:
        label[:, 0, :2] = 255
    data = [({"image": x}, y) for x, y in zip(images, labels, strict=True)]
    with unchanged(model):
        objective = ls.Objective(model, data, task=Pixels())
        surface = ls.evaluate_surface(objective, ls.random_plane(model, seed=0), points=3, batchnorm="recalibrated")
    assert isinstance(objective.model[0], FoldedConv2d)
    assert all(x["image"].is_contiguous(memory_format=torch.channels_last) for x, _ in objective.batches)
    assert [len(y) for _, y in objective.batches] == [4, 2, 6]
    assert objective.units == 6 * 34 + 6 * 14

    def nll(network):
        pairs = zip(images, labels, strict=True)
        losses = [F.cross_entropy(network(x), y, ignore_index=255, reduction="sum") for x, y in pairs]
        return sum(losses) / objective.units

    assert objective.evaluate().nll == pytest.approx(nll(model).item(), rel=1e-5)
    sums = sum(objective.nll_sum(*batch) for batch in objective.batches)
    assert sums.item() / objective.units == pytest.approx(nll(model).item(), rel=1e-5)
    v = torch.randn(size(objective))
    gradient = torch.autograd.grad(nll(model), list(model.parameters()), create_graph=True)
    flat = torch.cat([g.reshape(-1) for g in gradient])
    product = torch.autograd.grad(flat @ v, list(model.parameters()), materialize_grads=True)
    expected = torch.cat([p.reshape(-1) for p in product])
    torch.testing.assert_close(Curvature(objective)(v), expected, rtol=1e-3, atol=1e-4)
    statistics = copy.deepcopy(model)
    statistics[1].reset_running_stats()
    statistics[1].momentum = None
    statistics[1].train()
    seen = 0
    for x in images:  # averaged by images
        seen += len(x)
        statistics[1].momentum = len(x) / seen
        statistics(x)
    assert float(surface["nll"].sel(x=0, y=0)) == pytest.approx(nll(statistics.eval()).item(), rel=1e-5)


def per_class(f, y):
    return F.binary_cross_entropy_with_logits(f, y, reduction="none")


@dataclass(frozen=True)
class Labels(Gaussian):
    """Outputs that are no floating-point numbers alone."""

    def outputs(self, network, x):
        f = network(x)
        return f, f.argmax(1)


X, Y = torch.zeros(4, 6), torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        ([{"x": X, "y": Y}], {}, r"a batch as dict, not as a pair \(x, y\); .* `pair`"),
        ([(X, Y[:3])], {}, r"tensors of batch 0 do not all have one row per example: x \(4, 6\), y \(3,\)"),
        ([(X, torch.tensor(1))], {}, r"one row per example: x \(4, 6\), y \(\)"),
        ([({"a": X, "n": 3}, Y)], {}, r"x\['n'\] of batch 0 is int, not a tensor"),
        (
            [(X, torch.zeros(4, 2))],
            {"loss": per_class},
            r"losses of 4 examples have shape \(4, 2\), .* \(4,\);",
        ),
        ([(X, Y)], {"loss": per_class, "task": ls.Classification()}, "`task` and `loss` both"),
        ([(X, Y)], {"task": "classification"}, r"task='classification' is not a landscape\.Task"),
        ([(X, Y)], {"task": Labels()}, r"outputs hold a tensor of shape \(1,\); let its `outputs` return"),
    ],
)
def test_what_is_no_task_or_no_batch(mlp, data, settings, message):
    with unchanged(mlp), pytest.raises(ls.UserError, match=message):
        ls.Objective(mlp, data, **settings)
