"""Hessian products against the Hessian in full, another library, and closed forms."""

import gc

import numpy as np
import pytest
import torch
from conftest import dense_hessian, needs_shared, raising, unchanged
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

import landscape as ls
from landscape.curvature import Hessian, MiniBatchHessian, exact_arithmetic
from landscape.lanczos import eigenpairs


def in_full(H):
    return torch.stack([H(row) for row in torch.eye(H.n, dtype=H.objective.dtype)]).numpy()


@pytest.fixture
def objective(mlp, points):
    return ls.Objective(mlp, points, weight_decay=0.3, dtype=torch.float64)


def test_whole_data_set(objective):
    np.testing.assert_allclose(in_full(Hessian(objective)), dense_hessian(objective), atol=1e-12)


def test_mini_batch(objective, points):
    x, y = objective.minibatches(16)[1]
    np.testing.assert_allclose(in_full(MiniBatchHessian(objective, x, y)), dense_hessian(objective, x, y), atol=1e-12)


def test_norm_sum_penalty(mlp, points):
    plain = ls.Objective(mlp, points, dtype=torch.float64)
    penalised = ls.Objective(mlp, points, weight_decay=0.3, penalty="norm-sum", dtype=torch.float64)
    added = in_full(Hessian(penalised)) - in_full(Hessian(plain))

    def penalty(theta):
        return 0.3 * sum(p.norm() for p in theta.split([p.numel() for p in mlp.parameters()]))

    theta = torch.cat([p.detach().double().reshape(-1) for p in mlp.parameters()])
    np.testing.assert_allclose(added, torch.func.hessian(penalty)(theta).numpy(), atol=1e-12)


def test_twice_on_one_model_gives_the_same(objective):
    v = torch.ones(Hessian(objective).n, dtype=torch.float64)
    assert torch.equal(Hessian(objective)(v), Hessian(objective)(v))


def test_linear_regression_has_a_constant_hessian():
    """For 1/2 (w x + b - y)^2 summed over outputs the Hessian is E[(x, 1)(x, 1)^T], whatever the weights."""
    x, y = torch.randn(30, 3, dtype=torch.float64), torch.randn(30, 1, dtype=torch.float64)
    objective = ls.Objective(
        nn.Linear(3, 1), [(x, y)], loss=lambda f, y: 0.5 * (f - y).square().sum(1), dtype=torch.float64
    )
    x1 = torch.cat([x, torch.ones(30, 1, dtype=torch.float64)], 1)
    np.testing.assert_allclose(in_full(Hessian(objective)), (x1.T @ x1 / 30).numpy(), atol=1e-13)


def test_unused_and_frozen_parameters(points):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused, self.frozen = nn.Linear(6, 4), nn.Linear(2, 2), nn.Linear(4, 2)
            self.frozen.requires_grad_(False)

        def forward(self, x):
            return self.frozen(torch.tanh(self.used(x)))

    H = Hessian(ls.Objective(Net(), points, dtype=torch.float64))
    assert H.n == 28 + 6
    full = in_full(H)
    assert np.abs(full[:28, :28]).max() > 1e-3
    assert not full[28:].any()
    np.testing.assert_allclose(full, dense_hessian(H.objective), atol=1e-12)


def test_no_trainable_parameter(mlp, points):
    with pytest.raises(ls.UserError, match="unfreeze"):
        Hessian(ls.Objective(mlp.requires_grad_(False), points))


@pytest.mark.parametrize("name", ["vit_xs", "alternet_xs", "resnet8"])
def test_every_family_has_a_symmetric_product(name):
    torch.manual_seed(0)
    model = ls.create_model(name, 10, 8, 1)
    data = ls.load_data("digits", samples=32)
    objective = ls.Objective(model, data, dtype=torch.float64)
    n = sum(p.numel() for p in model.parameters())
    u, v = torch.randn(2, n, dtype=torch.float64)
    with unchanged(model):
        H = Hessian(objective)
        Hu, Hv = H(u), H(v)
    assert torch.dot(u, Hv).item() == pytest.approx(torch.dot(v, Hu).item(), rel=1e-9)
    assert Hu.norm() > 0


def test_settings_are_restored():
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(KeyError), exact_arithmetic():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
            assert not torch.backends.cuda.flash_sdp_enabled()
            raise KeyError
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cuda.flash_sdp_enabled()
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_network_that_raises_leaves_the_caller_as_it_was(mlp, points):
    broken = raising(mlp, after=2)
    with unchanged(broken):
        objective = ls.Objective(broken, points)  # one pass, to see the outputs
        with pytest.raises(RuntimeError, match="broke"):
            Hessian(objective)(torch.ones(Hessian(objective).n))


def test_nothing_is_kept_from_one_mini_batch_to_the_next(objective):
    def alive():
        gc.collect()
        return sum(isinstance(o, torch.Tensor) for o in gc.get_objects())

    def work():
        for x, y in objective.minibatches(5):
            H = MiniBatchHessian(objective, x, y)
            H(torch.ones(H.n, dtype=torch.float64))

    work()
    before = alive()
    work()
    assert alive() == before


@needs_shared
def test_resnet20_agrees_with_eigsh_in_fewer_products(resnet20, cifar):
    model, _ = resnet20
    with unchanged(model):
        objective = ls.Objective(model, cifar)
        x, y = objective.minibatches(16)[0]
        H = MiniBatchHessian(objective, x, y)
        start = torch.randn(H.n, generator=torch.Generator().manual_seed(0))
        pairs = eigenpairs(H, start, 5)
        assert H.products == pairs.products
        reference = MiniBatchHessian(objective, x, y)
        operator = LinearOperator(
            (H.n, H.n), lambda v: reference(torch.as_tensor(v, dtype=torch.float32).ravel()).numpy(), dtype=np.float32
        )
        values = eigsh(operator, 5, which="LM", v0=start.numpy(), tol=1e-3, return_eigenvectors=False)
    values = values[np.argsort(-np.abs(values))]
    np.testing.assert_allclose(pairs.values, values, rtol=1e-3)
    assert pairs.converged.all()
    assert pairs.products < reference.products


@needs_shared
def test_resnet20_product_agrees_with_curvlinops(resnet20, cifar):
    curvlinops = pytest.importorskip("curvlinops")
    model, _ = resnet20
    objective = ls.Objective(model, cifar, dtype=torch.float64)
    parameters = list(objective.model.parameters())
    theirs = curvlinops.HessianLinearOperator(
        objective.model, nn.CrossEntropyLoss(), parameters, [(objective.x, objective.y)]
    )
    H = Hessian(objective)
    v = torch.randn(H.n, dtype=torch.float64)
    torch.testing.assert_close(H(v), theirs @ v, rtol=1e-9, atol=1e-9)
