"""What a network must be, said in a line where it is not; and a second derivative where torch leaves one out."""

import copy

import pytest
import timm
import torch
from helpers import dense_hessian, invoke, refused, unchanged
from torch import nn
from torch.nn import functional as F

import landscape as ls
from landscape.curvature.lockstep import MiniBatchCurvatures
from landscape.curvature.operators import Curvature
from landscape.data.sources import open_source
from landscape.training.recipe import Recipe
from landscape.training.train import train

ACTIVATIONS = [
    *(nn.Threshold(0.1, 2.0), nn.ReLU(), nn.RReLU(), nn.Hardtanh(), nn.ReLU6(), nn.Sigmoid(), nn.Hardsigmoid()),
    *(nn.Tanh(), nn.SiLU(), nn.Mish(), nn.Hardswish(), nn.ELU(), nn.CELU(), nn.SELU(), nn.GLU(), nn.GELU()),
    *(nn.Hardshrink(), nn.LeakyReLU(), nn.LogSigmoid(), nn.Softplus(), nn.Softshrink(), nn.PReLU(), nn.Softsign()),
    *(nn.Tanhshrink(), nn.Softmin(1), nn.Softmax(1), nn.LogSoftmax(1), nn.GELU(approximate="tanh")),
]


class Functional(nn.Module):
    """hardsigmoid by its function, in place."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        F.hardsigmoid(x := self.scale * x, inplace=True)
        return x


@pytest.mark.parametrize("activation", [*ACTIVATIONS, Functional()], ids=lambda m: type(m).__name__)
def test_every_activation_has_second_derivatives(activation):
    """The Hessian product against central differences of the gradient."""
    torch.manual_seed(0)
    x, y = torch.randn(12, 4, dtype=torch.float64), torch.randint(0, 3, (12,))
    width = 3 if isinstance(activation, nn.GLU) else 6
    model = nn.Sequential(nn.Linear(4, 6), activation, nn.Linear(width, 3)).double().eval()
    nn.init.normal_(model[0].weight, std=2)
    theta = nn.utils.parameters_to_vector(model.parameters())
    v, h, gradients = torch.randn_like(theta), 1e-6, []
    with unchanged(model):
        objective = ls.Objective(model, [(x, y)], dtype=torch.float64)
        Hv = Curvature(objective)(v)
    for a in (h, -h):
        moved = copy.deepcopy(model)
        nn.utils.vector_to_parameters(theta + a * v, moved.parameters())
        loss = nn.functional.cross_entropy(moved(x), y)
        gradients.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(moved.parameters()))]))
    torch.testing.assert_close(Hv, (gradients[0] - gradients[1]) / (2 * h), rtol=1e-6, atol=1e-8)


def test_hardsigmoid_keeps_its_numbers():
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv3_small_050", num_classes=4).eval()
    x, y = torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 3])
    objective = ls.Objective(model, [(x, y)], dtype=torch.float64)
    with torch.no_grad():
        truth = nn.functional.cross_entropy(copy.deepcopy(model).double()(x.double()), y).item()
    assert objective.evaluate().nll == pytest.approx(truth, rel=1e-12)
    with torch.inference_mode():
        x = torch.linspace(-5, 5, 1001)
        supplied = ls.Objective(nn.Sequential(nn.Linear(1, 1), nn.Hardsigmoid()), [(x[:, None], x.long() * 0)]).model
        assert torch.equal(supplied[1](x), nn.Hardsigmoid()(x))
    small = nn.Sequential(nn.Linear(2, 3), nn.Hardsigmoid(), nn.Linear(3, 2))
    objective = ls.Objective(small, [(torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1]))], dtype=torch.float64)
    H = Curvature(objective)
    full = torch.stack([H(row) for row in torch.eye(H.n, dtype=torch.float64)])
    torch.testing.assert_close(full, torch.from_numpy(dense_hessian(objective)), rtol=1e-9, atol=1e-12)
    together = MiniBatchCurvatures(objective, objective.x[None], objective.y[None])
    torch.testing.assert_close(together(full[:1], [0]), H(full[:1]), rtol=1e-9, atol=1e-12)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 2 * g


class OnceDifferentiable(nn.Linear):
    def forward(self, x):
        return Once.apply(super().forward(x))


def test_no_second_derivative(points):
    objective = ls.Objective(nn.Sequential(nn.Linear(6, 4), OnceDifferentiable(4, 2)), points)
    assert objective.evaluate().nll > 0
    for kind in ("hessian", "ggn"):  # of which torch made numbers, without a word
        with pytest.raises(ls.UserError, match=r"cannot be differentiated twice .*once_differentiable.* for a surface"):
            ls.hessian_spectrum(objective, batches=1, kind=kind)


class Pair(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


class Scalar(nn.Linear):
    def forward(self, x):
        return super().forward(x).sum()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Pair(6, 2), "returns a tuple of 2, not one tensor of logits; wrap it in a module"),
        (Scalar(6, 2), r"returns a tensor of shape \(\), not one"),
        (nn.Linear(7, 2), r"fails on a batch of shape \(1, 6\) .RuntimeError: mat1 and mat2 shapes cannot"),
    ],
)
def test_what_is_no_network_from_examples_to_logits(network, message, points):
    with unchanged(network), pytest.raises(ls.UserError, match=message):
        ls.Objective(network, points)


NETWORKS = """
from torch import nn

def wide(num_classes, image_size, in_channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(100, num_classes))

class Auxiliary(nn.Module):
    "Two outputs in training, as Inception has them."
    def __init__(self, n):
        super().__init__()
        self.main, self.beside = nn.Linear(64, n), nn.Linear(64, n)
    def forward(self, x):
        return (self.main(x.flatten(1)), self.beside(x.flatten(1))) if self.training else self.main(x.flatten(1))

def auxiliary(num_classes, image_size, in_channels):
    return Auxiliary(num_classes)
"""


def test_on_the_command_line(tmp_path):
    (tmp_path / "nets.py").write_text(NETWORKS)
    for name, words in (("wide", "fails on a batch of shape"), ("auxiliary", "returns a tuple of 2")):
        result = invoke(
            "train", "--model", f"{tmp_path}/nets.py:{name}", "--data", "digits", "--epochs", 1,
            "--out", tmp_path / "w.safetensors",
        )  # fmt: skip
        refused(result, words)


def test_training_a_network_with_auxiliary_outputs():
    source = open_source("digits")
    with pytest.raises(ls.UserError, match="returns a tuple of 2"):
        train(nn.Sequential(nn.Flatten(), Pair(64, 10)), source, Recipe(epochs=1, warmup_epochs=0))


def test_recalibration_with_a_last_batch_of_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))
    x, y = torch.randn(9, 6), torch.randint(0, 2, (9,))
    plane = ls.random_plane(model, seed=0)
    settings = {"points": 3, "batchnorm": "recalibrated"}
    odd = ls.Objective(model, [(x[:8], y[:8]), (x[8:], y[8:])])
    with unchanged(model), pytest.raises(ls.UserError, match=r"of one example; take .*the last of 9 examples is alone"):
        ls.evaluate_surface(odd, plane, **settings)
    assert ls.evaluate_surface(ls.Objective(model, [(x, y)]), plane, **settings)["done"].all()
