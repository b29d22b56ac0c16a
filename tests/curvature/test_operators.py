"""Hessian products against the Hessian in full, another library, and closed forms."""

import gc
from typing import get_args

import numpy as np
import pytest
import torch
from helpers import LittleMemory, dense_hessian, needs_shared, raising, small, unchanged
from scipy.sparse.linalg import eigsh
from torch import nn

import landscape as ls
from landscape.analyses.curved import Kind
from landscape.curvature.forms import FORMS
from landscape.curvature.lockstep import MiniBatchCurvatures
from landscape.curvature.operators import Curvature
from landscape.linalg.eigenpairs import eigenpairs, eigenpairs_in_lockstep
from landscape.linalg.quadrature import quadrature
from landscape.linalg.search import Search
from landscape.objective.parameters import displaced, parts_of, unflatten
from landscape.pictures.canvas import variant_of
from landscape.runtime.arithmetic import exact_arithmetic
from landscape.store import comparable


def in_full(H):
    return torch.stack([H(row) for row in torch.eye(H.n, dtype=H.objective.dtype)]).numpy()


@pytest.fixture
def objective(mlp, points):
    return ls.Objective(mlp, points, weight_decay=0.3, dtype=torch.float64)


def test_whole_data_set(objective):
    np.testing.assert_allclose(in_full(Curvature(objective)), dense_hessian(objective), atol=1e-12)


def test_mini_batch(objective, points):
    x, y = objective.minibatches(16)[1]
    np.testing.assert_allclose(in_full(Curvature(objective, x, y)), dense_hessian(objective, x, y), atol=1e-12)


def test_norm_sum_penalty(mlp, points):
    plain = ls.Objective(mlp, points, dtype=torch.float64)
    penalised = ls.Objective(mlp, points, weight_decay=0.3, penalty="norm-sum", dtype=torch.float64)
    added = in_full(Curvature(penalised)) - in_full(Curvature(plain))

    def penalty(theta):
        return 0.3 * sum(p.norm() for p in theta.split([p.numel() for p in mlp.parameters()]))

    theta = torch.cat([p.detach().double().reshape(-1) for p in mlp.parameters()])
    np.testing.assert_allclose(added, torch.func.hessian(penalty)(theta).numpy(), atol=1e-12)


def test_twice_on_one_model_gives_the_same(objective):
    v = torch.ones(Curvature(objective).n, dtype=torch.float64)
    assert torch.equal(Curvature(objective)(v), Curvature(objective)(v))


def test_linear_regression_has_a_constant_hessian():
    """For 1/2 (w x + b - y)^2 summed over outputs the Hessian is E[(x, 1)(x, 1)^T], whatever the weights."""
    x, y = torch.randn(30, 3, dtype=torch.float64), torch.randn(30, 1, dtype=torch.float64)
    objective = ls.Objective(
        nn.Linear(3, 1), [(x, y)], loss=lambda f, y: 0.5 * (f - y).square().sum(1), dtype=torch.float64
    )
    x1 = torch.cat([x, torch.ones(30, 1, dtype=torch.float64)], 1)
    np.testing.assert_allclose(in_full(Curvature(objective)), (x1.T @ x1 / 30).numpy(), atol=1e-13)


def test_unused_and_frozen_parameters(points):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused, self.frozen = nn.Linear(6, 4), nn.Linear(2, 2), nn.Linear(4, 2)
            self.frozen.requires_grad_(False)

        def forward(self, x):
            return self.frozen(torch.tanh(self.used(x)))

    H = Curvature(ls.Objective(Net(), points, dtype=torch.float64))
    assert H.n == 28 + 6
    full = in_full(H)
    assert np.abs(full[:28, :28]).max() > 1e-3
    assert not full[28:].any()
    np.testing.assert_allclose(full, dense_hessian(H.objective), atol=1e-12)


def test_no_trainable_parameter(mlp, points):
    with pytest.raises(ls.UserError, match="unfreeze"):
        Curvature(ls.Objective(mlp.requires_grad_(False), points))


@pytest.mark.parametrize("name", ["vit_xs", "alternet_xs", "resnet8"])
def test_every_family_has_a_symmetric_product(name):
    torch.manual_seed(0)
    model = ls.create_model(name, 10, 8, 1)
    data = ls.load_data("digits", samples=32)
    objective = ls.Objective(model, data, dtype=torch.float64)
    n = sum(p.numel() for p in model.parameters())
    u, v = torch.randn(2, n, dtype=torch.float64)
    with unchanged(model):
        H = Curvature(objective)
        Hu, Hv = H(u), H(v)
    assert torch.dot(u, Hv).item() == pytest.approx(torch.dot(v, Hu).item(), rel=1e-9)
    assert Hu.norm() > 0


KINDS = ["hessian", "ggn", "residual"]


def dense_ggn(objective, x, y):
    """(1/N) sum_i J_i^T (diag p - p p^T) J_i, written out for cross-entropy, and the penalty."""
    model = objective.model
    parameters = dict(model.named_parameters())
    J = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, (x,)))(parameters)
    J = torch.cat([j.reshape(*j.shape[:2], -1) for j in J.values()], dim=2).detach()
    p = model(x).softmax(1).detach()
    A = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    G = torch.einsum("nci,ncd,ndj->ij", J, A, J) / len(y)
    decay = torch.cat([torch.full((q.numel(),), float(q.ndim >= 2), dtype=x.dtype) for q in parameters.values()])
    return (G + objective.penalty.weight_decay * torch.diag(decay)).numpy()


def test_gauss_newton_and_residual(objective):
    x, y = objective.x, objective.y
    truth = {"hessian": dense_hessian(objective), "ggn": dense_ggn(objective, x, y)}
    truth["residual"] = truth["hessian"] - truth["ggn"]
    for kind in KINDS:
        np.testing.assert_allclose(in_full(Curvature(objective, kind=kind)), truth[kind], atol=1e-12)
        np.testing.assert_allclose(in_full(Curvature(objective, x, y, kind=kind)), truth[kind], atol=1e-12)
    assert np.linalg.eigvalsh(truth["ggn"]).min() > -1e-12
    assert np.abs(truth["residual"]).max() > 1e-3


def test_logistic_regression_in_closed_form():
    """Softmax regression: H = E[(diag p - p p^T) x x^T], the residual part 0, since the outputs are linear."""
    x, y = torch.randn(40, 3, dtype=torch.float64), torch.randint(0, 4, (40,))
    objective = ls.Objective(nn.Linear(3, 4, bias=False), [(x, y)], dtype=torch.float64)
    p = (x @ objective.model.weight.T).softmax(1)
    A = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    truth = torch.einsum("ncd,ni,nj->cidj", A, x, x).reshape(12, 12) / 40
    np.testing.assert_allclose(in_full(Curvature(objective)), truth.detach().numpy(), atol=1e-14)
    np.testing.assert_allclose(in_full(Curvature(objective, kind="residual")), 0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk_size", [1, 7, 50, 1000])
def test_any_chunking_and_any_split_give_the_same(mlp, points, kind, chunk_size):
    x, y = (torch.cat(parts) for parts in zip(*points, strict=True))
    reference = ls.Objective(mlp, [(x, y)], weight_decay=0.3, dtype=torch.float64)
    V = torch.randn(3, 65, dtype=torch.float64)
    truth = Curvature(reference, kind=kind)(V)
    for split in (points, [(x[:1], y[:1]), (x[1:], y[1:])]):
        H = Curvature(ls.Objective(mlp, split, weight_decay=0.3, dtype=torch.float64), kind=kind, chunk_size=chunk_size)
        torch.testing.assert_close(H(V), truth, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(torch.stack([H(v) for v in V]), truth, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(H.gradient(), Curvature(reference).gradient(), rtol=1e-12, atol=1e-13)
        assert H.products == 6


def test_a_subset_of_parameters_is_a_diagonal_block(objective):
    names = [name for name, p in objective.model.named_parameters() for _ in range(p.numel())]
    full = dense_hessian(objective)
    for patterns, wanted in (
        ("0", "0."),
        (["3.bias", "0.weight"], ("0.weight", "3.bias")),
        ("*weight", ("0.w", "3.w")),
    ):
        rows = [i for i, name in enumerate(names) if name.startswith(wanted)]
        np.testing.assert_allclose(
            in_full(Curvature(objective, parameters=patterns)), full[np.ix_(rows, rows)], atol=1e-12
        )
    with pytest.raises(ls.UserError, match=r"no trainable parameter matches 'wieght'"):
        Curvature(objective, parameters="wieght")
    with pytest.raises(ls.UserError, match="hessian, ggn, residual, fisher, fisher_mc"):
        Curvature(objective, kind="fishy")
    with pytest.raises(ls.UserError, match="chunk_size=0"):
        Curvature(objective, chunk_size=0)


def test_linear_operator(objective):
    operator = Curvature(objective, chunk_size=9).linear_operator()
    dense = dense_hessian(objective)
    V = np.random.default_rng(0).normal(size=(65, 4))
    np.testing.assert_allclose(operator @ V, dense @ V, atol=1e-12)
    np.testing.assert_allclose(operator.T @ V[:, 0], dense @ V[:, 0], atol=1e-12)
    np.testing.assert_allclose(eigsh(operator, 3, which="LA")[0], np.linalg.eigvalsh(dense)[-3:], rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["vit_xs", "alternet_xs", "resnet8"])
def test_many_mini_batches_at_once(name, kind):
    torch.manual_seed(0)
    objective = ls.Objective(
        ls.create_model(name, 10, 8, 1), ls.load_data("digits", samples=32), weight_decay=0.1, dtype=torch.float64
    )
    batches = objective.minibatches(8)
    x, y = (torch.stack([b[j] for b in batches]) for j in (0, 1))
    together = MiniBatchCurvatures(objective, x, y, kind=kind)
    V = torch.randn(4, sum(p.numel() for p in together.parameters.values()), dtype=torch.float64)
    one_by_one = torch.stack([Curvature(objective, *b, kind=kind)(v) for b, v in zip(batches, V, strict=True)])
    scale = one_by_one.abs().max()
    torch.testing.assert_close(together(V, range(4)) / scale, one_by_one / scale, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(together(V[[3, 1]], [3, 1]) / scale, one_by_one[[3, 1]] / scale, rtol=1e-9, atol=1e-11)


class Checkpointed(nn.Linear):
    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(super().forward, x, use_reentrant=False)


class Recurrent(nn.GRU):
    def forward(self, x):
        return super().forward(x[:, None])[0][:, 0]


class IntoZeros(nn.Linear):
    def forward(self, x):
        y = torch.zeros(len(x), self.out_features, dtype=x.dtype)
        y[:] = super().forward(x)
        return y


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "layer",
    [
        *(Checkpointed(6, 5), Recurrent(6, 5, batch_first=True), IntoZeros(6, 5)),
        nn.Sequential(nn.Linear(6, 5), nn.RReLU()),
        nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_what_cannot_be_vectorised_is_multiplied_one_at_a_time(layer, kind, points):
    torch.manual_seed(0)
    model = nn.Sequential(layer, nn.Tanh(), nn.Linear(5, 2))
    objective = ls.Objective(model, points, weight_decay=0.1, dtype=torch.float64)
    batches = objective.minibatches(10, 3)
    x, y = (torch.stack([b[j] for b in batches]) for j in (0, 1))
    together = MiniBatchCurvatures(objective, x, y, kind=kind)
    V = torch.randn(2, sum(p.numel() for p in together.parameters.values()), dtype=torch.float64)
    with pytest.warns(RuntimeWarning, match="cannot be vectorised .* one at a time") as said:
        first, second = together(V, [2, 0]), together(V, [2, 0])
    assert len([w for w in said if w.category is RuntimeWarning]) == 1
    assert not together.vectorised
    one_by_one = torch.stack([Curvature(objective, *batches[i], kind=kind)(v) for i, v in zip((2, 0), V, strict=True)])
    assert torch.equal(first, one_by_one)
    assert torch.equal(second, one_by_one)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("most", [1, 3, 40])
def test_the_chunk_is_halved_where_the_memory_runs_out(mlp, points, kind, most):
    truth = Curvature(ls.Objective(mlp, points, weight_decay=0.3, dtype=torch.float64), kind=kind)
    little = ls.Objective(LittleMemory(mlp, most), points, weight_decay=0.3, dtype=torch.float64)
    V = torch.randn(2, 65, dtype=torch.float64)
    H = Curvature(little, kind=kind)
    torch.testing.assert_close(H(V), truth(V), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(H.gradient(), truth.gradient(), rtol=1e-12, atol=1e-13)
    assert H.products == 2
    batch = little.minibatches(16)[1]
    expected = Curvature(truth.objective, *batch, kind=kind)(V)
    torch.testing.assert_close(Curvature(little, *batch, kind=kind)(V), expected, rtol=1e-12, atol=1e-13)


def test_no_memory_for_a_single_example(mlp, points):
    objective = ls.Objective(LittleMemory(mlp, 1), points)
    objective.model.most = 0
    with pytest.raises(ls.UserError, match=r"does not hold the graph of a single example .*by 1 examples"):
        Curvature(objective).gradient()


def test_parts_of():
    resnet = [n for n, _ in ls.create_model("resnet20", 10, 32, 3).named_parameters()]
    vit = [n for n, _ in ls.create_model("vit_xs", 10, 8, 1).named_parameters()]
    assert list(parts_of(resnet, "stage")) == ["conv1", "bn1", "layer1", "layer2", "layer3", "linear"]
    assert "blocks.0" in parts_of(vit, "stage")
    assert "layer1.0.conv1" in parts_of(resnet, "layer")
    for names in (resnet, vit):
        for per in ("layer", "stage"):
            assert sorted(n for part in parts_of(names, per).values() for n in part) == sorted(names)
    with pytest.raises(ls.UserError, match="layer, stage"):
        parts_of(resnet, "block")


def test_second_differences_of_the_surface_along_an_eigenvector(objective):
    """Curvature and surface are one objective: along u, (L(h) - 2 L(0) + L(-h)) / h^2 is u's eigenvalue."""
    H = Curvature(objective)
    pairs = eigenpairs(H, torch.ones(65, dtype=torch.float64), Search(k=2, which="BE", tol=1e-9), vectors=True)
    h = 1e-3
    for value, u in zip(pairs.values, pairs.vectors, strict=True):
        direction = unflatten(u, H.parameters)
        losses = []
        for a in (-h, 0, h):
            with displaced(objective.model, [direction], [a]):
                losses.append(objective.evaluate().loss)
        assert (losses[0] - 2 * losses[1] + losses[2]) / h**2 == pytest.approx(value, rel=1e-4, abs=1e-7)


def test_settings_are_restored():
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(KeyError), exact_arithmetic():
            assert torch.get_float32_matmul_precision() == "highest"
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
            assert not torch.backends.cuda.flash_sdp_enabled()
            raise KeyError
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cuda.flash_sdp_enabled()
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_network_that_raises_leaves_the_caller_as_it_was(mlp, points):
    broken = raising(mlp, after=4)
    with unchanged(broken):
        objective = ls.Objective(broken, points)  # three passes: to see the outputs, and whether they repeat
        with pytest.raises(RuntimeError, match="broke"):
            Curvature(objective)(torch.ones(Curvature(objective).n))


def test_nothing_is_kept_from_one_mini_batch_to_the_next(objective):
    def alive():
        gc.collect()
        return sum(isinstance(o, torch.Tensor) for o in gc.get_objects())

    def work():
        for x, y in objective.minibatches(5):
            H = Curvature(objective, x, y)
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
        H = Curvature(objective, x, y)
        start = torch.randn(H.n, generator=torch.Generator().manual_seed(0))
        pairs = eigenpairs(H, start, Search(k=5))
        assert H.products == pairs.products
        reference = Curvature(objective, x, y)
        values = eigsh(
            reference.linear_operator(), 5, which="LM", v0=start.numpy(), tol=1e-3, return_eigenvectors=False
        )
    values = values[np.argsort(-np.abs(values))]
    np.testing.assert_allclose(pairs.values, values, rtol=1e-3)
    assert pairs.converged.all()
    assert pairs.products < reference.products


@needs_shared
def test_resnet20_in_float64_agrees_with_curvlinops_and_eigsh(resnet20, cifar):
    curvlinops = pytest.importorskip("curvlinops")
    objective = ls.Objective(resnet20[0], cifar, dtype=torch.float64)
    x, y = objective.minibatches(4)[0]
    pairs = eigenpairs(Curvature(objective, x, y), torch.ones(269_722, dtype=torch.float64), Search(k=3, tol=1e-5))
    theirs = curvlinops.HessianLinearOperator(
        objective.model, nn.CrossEntropyLoss(), list(objective.model.parameters()), [(x, y)], check_deterministic=False
    )
    values = eigsh(theirs.to_scipy(), 3, which="LM", tol=1e-6, return_eigenvectors=False)
    np.testing.assert_allclose(pairs.values, values[np.argsort(-np.abs(values))], rtol=1e-6)


@needs_shared
def test_resnet20_product_agrees_with_curvlinops(resnet20, cifar):
    curvlinops = pytest.importorskip("curvlinops")
    model, _ = resnet20
    objective = ls.Objective(model, cifar, dtype=torch.float64)
    parameters = list(objective.model.parameters())
    theirs = curvlinops.HessianLinearOperator(
        objective.model, nn.CrossEntropyLoss(), parameters, [(objective.x, objective.y)]
    )
    H = Curvature(objective)
    v = torch.randn(H.n, dtype=torch.float64)
    torch.testing.assert_close(H(v), theirs @ v, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["resnet8", "vit_xs", "alternet_xs"])
def test_a_networks_products_are_symmetric_to_rounding_in_float32(name):
    """In one vector or a block, through thick restarts, in lockstep and in quadrature: none is refused."""
    torch.manual_seed(0)
    x, y = torch.randn(8, 1, 8, 8), torch.randint(0, 4, (8,))
    objective = ls.Objective(small(name), [(x, y)])
    H = Curvature(objective)
    v = torch.randn(2, H.n)
    roundings = [eigenpairs(H, v, Search(k=3, max_products=16)).rounding]
    roundings.append(eigenpairs(H, v[0], Search(k=3, max_basis=8, tol=1e-7, max_products=24)).rounding)
    together = MiniBatchCurvatures(objective, x.unflatten(0, (2, 4)), y.unflatten(0, (2, 4)))
    found = eigenpairs_in_lockstep(together, v[:, None], Search(k=3, max_products=10))
    norms = [float(np.abs(pairs.values[0])) for pairs in (eigenpairs(H, v[0], Search(k=1)), *found)]
    for rounding, norm in zip([*roundings, *(pairs.rounding for pairs in found)], [norms[0], *norms], strict=True):
        assert rounding < 1e-5 * norm  # a thirtieth of what is refused
    quadrature(H, v[0], 10)


@pytest.mark.parametrize("kind", ["utils", "parametrizations"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_wrong_second_derivative_of_weight_norm_is_refused(kind, dtype):
    wrap = nn.utils.weight_norm if kind == "utils" else nn.utils.parametrizations.weight_norm
    torch.manual_seed(0)
    model = nn.Sequential(wrap(nn.Linear(6, 7)), nn.Tanh(), nn.Linear(7, 3))
    x, y = torch.randn(16, 6), torch.arange(16) % 3
    with torch.no_grad():
        model(x)  # utils' weight is the product of its last pass, which can be copied where it has no graph
    objective = ls.Objective(model, [(x, y)], dtype=dtype)
    with pytest.raises(ls.UserError, match=r"not symmetric: .* weight_norm"):
        ls.hessian_spectrum(objective, batch_size=16)
    with pytest.raises(ls.UserError, match="not symmetric"):
        ls.hessian_top(objective, k=3)
    with pytest.raises(ls.UserError, match="not symmetric"):
        ls.spectral_density(objective, probes=1, steps=10)
    with pytest.raises(ls.UserError, match="not symmetric"):
        ls.hessian_trace(objective, products=30)


@needs_shared
def test_a_true_eigenvalue_of_a_resnet20_lies_within_each_residual(resnet20, cifar):
    """The eigenvalues of float64 are the truth for those of float32."""
    x, y = next(iter(cifar))
    batch = [(x[:8], y[:8])]
    H, exact = (Curvature(ls.Objective(resnet20[0], batch, dtype=dtype)) for dtype in (torch.float32, torch.float64))
    v = torch.randn(H.n, generator=torch.Generator().manual_seed(0))
    found = eigenpairs(H, v, Search(k=4, tol=1e-2, max_products=30))
    truth = eigenpairs(exact, v.double(), Search(k=6, tol=1e-3, max_products=30))
    distance = np.abs(truth.values[truth.converged][:, None] - found.values).min(axis=0)
    assert (distance <= found.residuals).all()
    assert (distance > 10 * torch.finfo(torch.float32).eps * found.values).any()  # products round the spectrum itself


def test_a_form_is_told_by_one_name_and_one_title(objective):
    """Settings, operators, stored results and pictures name the same forms."""
    assert list(FORMS) == list(comparable.KINDS) == [*get_args(Kind), "fisher_mc"] == [*KINDS, "fisher", "fisher_mc"]
    for kind, form in FORMS.items():
        assert form.name == kind
        found = ls.hessian_top(objective, k=1, kind=kind)
        assert found["eigenvalue"].attrs["long_name"] == f"{form.title} eigenvalue"
        assert variant_of(found) == form.title
