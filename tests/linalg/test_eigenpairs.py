"""Lanczos against matrices whose spectra are prescribed."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from landscape.linalg.eigenpairs import eigenpairs, eigenpairs_in_lockstep
from landscape.linalg.krylov import Lanczos, rows_held
from landscape.linalg.operators import Rows
from landscape.linalg.quadrature import quadrature
from landscape.linalg.search import Search
from landscape.runtime.errors import UserError


def matrix(eigenvalues, seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))
    return torch.as_tensor(q @ np.diag(eigenvalues) @ q.T)


def start(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def expected(eigenvalues, k, which):
    e = np.sort(eigenvalues)
    if which == "LM":
        return e[np.argsort(-np.abs(e), kind="stable")][:k]
    if which == "SA":
        return e[:k]
    if which == "LA":
        return e[::-1][:k]
    return np.concatenate([e[::-1][: k - k // 2], e[: k // 2][::-1]])


spectra = st.lists(st.floats(-100, 100).filter(lambda e: abs(e) > 1e-3), min_size=1, max_size=20, unique=True)


@dataclass
class Group:
    """Operators by a function from rows (G', b, n) and their numbers to products."""

    rows: Callable


def rows(A):
    """Products of rows with a symmetric matrix, in the shape that a group of operators has."""
    return Group(lambda X, _: X @ A)


def sought(product, v, k, *, vectors=False, verify=False, **search):
    return eigenpairs(Rows(product), v, Search(k=k, **search), vectors=vectors, verify=verify)


def sought_in_lockstep(product, v, k, *, vectors=False, **search):
    return eigenpairs_in_lockstep(Group(product), v, Search(k=k, **search), vectors=vectors)


def identity_holds(A, lanczos):
    """A Q^T - Q^T T = X^T B^T, Q and X orthonormal: what every Ritz value and residual rests on."""
    Q, T, B = lanczos.Q[0].numpy(), lanczos.T[0], lanczos.B[0]
    X = np.zeros((0, len(A))) if lanczos.X is None else lanczos.X[0].numpy()
    basis = np.concatenate([Q, X])
    np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-12)
    scale = np.abs(A).max()
    np.testing.assert_allclose(A @ Q.T - Q.T @ T, X.T @ B.T, atol=1e-11 * max(scale, 1) * len(A))


def repeated(*values):
    """Spectra made of these values, each up to four times."""
    return st.lists(
        st.tuples(st.sampled_from(values), st.integers(1, 4)), min_size=1, max_size=8, unique_by=lambda pair: pair[0]
    ).map(lambda pairs: [value for value, copies in pairs for _ in range(copies)])


whiches, seeds = st.sampled_from(["LM", "LA", "SA", "BE"]), st.integers(0, 50)


@given(st.one_of(spectra, repeated(-3.0, 0.0, 1e-4, 0.5, 90.0)), st.integers(1, 3), st.integers(0, 50))
def test_defining_identity(eigenvalues, block, seed):
    A = matrix(eigenvalues, seed)
    n = len(A)
    lanczos = Lanczos(rows(A), start((1, min(block, n), n), seed))
    while not lanczos.exhausted:
        lanczos.step()
        identity_holds(A.numpy(), lanczos)
        if lanczos.m > 4 and not lanczos.exhausted and lanczos.products < 3 * n:
            theta, S, _ = lanczos.ritz()
            chosen = np.argsort(-np.abs(theta[0]))[:2]
            lanczos.restart(theta[:, chosen], S[:, :, chosen])
            identity_holds(A.numpy(), lanczos)


@given(spectra, st.sampled_from(["LM", "LA", "SA", "BE"]), st.integers(1, 5), st.integers(0, 50))
def test_a_true_eigenvalue_lies_within_each_residual(eigenvalues, which, k, seed):
    A = matrix(eigenvalues, seed)
    pairs = sought(lambda V: V @ A, start(len(A), seed), min(k, len(A)), which=which, tol=1e-6, vectors=True)
    scale = np.abs(eigenvalues).max()
    for value, residual, u in zip(pairs.values, pairs.residuals, pairs.vectors.numpy(), strict=True):
        assert np.abs(np.array(eigenvalues) - value).min() <= residual + 1e-11 * scale
        assert np.linalg.norm(A.numpy() @ u - value * u) == pytest.approx(residual, abs=1e-10 * scale)
    assert pairs.converged.all()


@pytest.mark.parametrize("which", ["LM", "LA", "SA", "BE"])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_finds_the_wanted_ones(which, k):
    eigenvalues = np.concatenate([[50, -30, 20, -9, 7, 6, -5], np.linspace(-1, 1, 60)])
    A = matrix(eigenvalues)
    pairs = sought(lambda V: V @ A, start(len(A)), k, which=which, tol=1e-8)
    np.testing.assert_allclose(pairs.values, expected(eigenvalues, k, which), rtol=1e-10)
    assert pairs.converged.all()


@pytest.mark.parametrize("eigenvalues", [[3.0], [2.0] * 6, [0.0] * 5, [4.0, 0, 0, 0, 0, 0], [5.0, 5, 1, 0, 0]], ids=str)
def test_breakdown_spans_the_whole_space(eigenvalues):
    """1 x 1, multiple and rank-deficient: asked for all, all are found, with their multiplicity."""
    A = matrix(eigenvalues)
    pairs = sought(lambda V: V @ A, start(len(A)), len(A), which="LA")
    np.testing.assert_allclose(pairs.values, np.sort(eigenvalues)[::-1], atol=1e-12)
    assert pairs.converged.all()
    assert pairs.products <= len(A)


@pytest.mark.parametrize("which", ["LM", "SA"])
def test_no_ghosts_after_many_steps(which):
    """Where Lanczos without reorthogonalisation returns copies of the outliers, marked converged."""
    eigenvalues = np.concatenate([np.geomspace(1, 1e4, 40), -np.geomspace(1, 1e3, 20), np.linspace(-0.5, 0.5, 240)])
    A = matrix(eigenvalues)
    pairs = sought(lambda V: V @ A, start(300), 18, which=which, tol=1e-9, max_products=300)
    assert pairs.products > 30
    np.testing.assert_allclose(pairs.values, expected(eigenvalues, 18, which), rtol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_each_eigenvalue_of_a_small_matrix_once(k):
    pairs = sought(lambda v: v * torch.tensor([4.0, 3, 2, 1], dtype=torch.float64), start(4), k, which="LA")
    np.testing.assert_allclose(pairs.values, [4.0, 3, 2, 1][:k], rtol=1e-12)


def test_what_has_not_converged_is_marked():
    A = matrix(np.linspace(1, 2, 200))
    pairs = sought(lambda V: V @ A, start(200), 5, tol=1e-10, max_products=12)
    assert not pairs.converged.any()
    assert pairs.products == 12
    assert (pairs.residuals > 1e-10).all()


def test_fewer_products_than_wanted_leaves_nan():
    A = matrix(np.linspace(1, 2, 20))
    pairs = sought(lambda V: V @ A, start(20), 5, max_products=3, vectors=True)
    assert np.isnan(pairs.values[3:]).all()
    assert not pairs.converged[3:].any()
    assert pairs.vectors[3:].isnan().all()


def test_an_operator_that_is_not_finite_gives_nan():
    pairs = sought(lambda v: v * torch.inf, start(9), 3)
    assert np.isnan(pairs.values).all()
    assert pairs.products == 1


@pytest.mark.parametrize(("k", "said"), [(0, "k=0 must be 1 or more"), (4, "k=4 .* size 3")])
def test_k_out_of_range(k, said):
    with pytest.raises(UserError, match=said):
        sought(lambda v: v, start(3), k)


def test_unknown_which():
    with pytest.raises(UserError, match="LM, LA, SA, BE"):
        sought(lambda v: v, start(3), 1, which="SM")


@given(spectra, st.integers(1, 8), st.integers(0, 50))
def test_quadrature_is_exact_for_polynomials(eigenvalues, steps, seed):
    A, v = matrix(eigenvalues, seed), start(len(eigenvalues), seed)
    node, weight = quadrature(Rows(lambda V: V @ A), v, steps)
    assert node.shape == weight.shape == (steps,)
    assert weight.sum() == pytest.approx(1)
    u = (v / v.norm()).numpy()
    scale = np.abs(eigenvalues).max()
    for p in range(min(2 * steps, 6)):
        truth = u @ np.linalg.matrix_power(A.numpy(), p) @ u
        assert np.nansum(weight * node**p) == pytest.approx(truth, abs=1e-9 * scale**p)


@given(repeated(-7.0, -3.0, -1e-4, 0.0, 1e-4, 0.5, 0.5001, 3.0, 7.0, 90.0), whiches, st.integers(1, 6), seeds)
def test_no_ghosts_and_no_misses(eigenvalues, which, k, seed):
    """Clustered, multiple, indefinite, rank-deficient: a block as wide as the multiplicity finds every copy."""
    check_found(eigenvalues, which, k, seed, max_basis=None)


@settings(max_examples=40)
@given(repeated(-7.0, -3.0, 0.0, 3.0, 7.0, 20.0), whiches, st.integers(1, 6), seeds)
def test_no_ghosts_and_no_misses_with_restarts(eigenvalues, which, k, seed):
    check_found(eigenvalues, which, k, seed, max_basis=min(min(k, len(eigenvalues)) + 12, len(eigenvalues)))


def check_found(eigenvalues, which, k, seed, max_basis):
    n = len(eigenvalues)
    k, b = min(k, n), min(4, n)
    A = matrix(eigenvalues, seed)
    pairs = sought(
        lambda V: V @ A, start((b, n), seed), k, which=which, tol=1e-8, max_products=2000, max_basis=max_basis,
        vectors=True,
    )  # fmt: skip
    scale = max(np.abs(eigenvalues).max(), 1)
    found = np.abs(pairs.values) if which == "LM" else pairs.values
    truth = expected(eigenvalues, k, which)
    np.testing.assert_allclose(found, np.abs(truth) if which == "LM" else truth, atol=1e-8 * scale)
    u = pairs.vectors.numpy()
    np.testing.assert_allclose(u @ u.T, np.eye(k), atol=1e-9)
    assert pairs.converged.all()
    assert pairs.complete


def test_a_wanted_one_that_is_late_is_waited_for():
    """-6.0 converges while 6.5 is still on its way up from the bulk, as seen on a ResNet-20."""
    eigenvalues = torch.as_tensor(np.concatenate([[380, 310, 9, 7, 6.5, -6.0], np.linspace(-5, 6, 400)]))
    for seed in range(20):
        v = start(len(eigenvalues), seed)
        v[4] /= 30
        pairs = sought(lambda u: u * eigenvalues, v, 5, tol=1e-2)
        np.testing.assert_allclose(pairs.values, [380, 310, 9, 7, 6.5], rtol=1e-3)
        assert pairs.complete


@pytest.mark.parametrize("which", ["LM", "LA", "SA", "BE"])
@pytest.mark.parametrize("block", [1, 3])
def test_thick_restart_within_a_small_basis(which, block):
    eigenvalues = np.concatenate([[50, -30, 20, -9, 7, 6, -5, -3], np.linspace(-1, 1, 500)])
    A = matrix(eigenvalues)
    pairs = sought(
        lambda V: V @ A, start((block, len(A))), 4, which=which, tol=1e-9, max_basis=10, max_products=2000, verify=True
    )
    np.testing.assert_allclose(pairs.values, expected(eigenvalues, 4, which), rtol=1e-9)
    assert pairs.verified
    assert (pairs.residuals <= 1.01e-9 * np.abs(pairs.values) + 1e-13).all()


def test_the_basis_never_outgrows_its_bound():
    A = matrix(np.linspace(-1, 1, 400) ** 3)
    lanczos_sizes = []
    grown = Lanczos._reserve

    def watched(self, rows):
        grown(self, rows)
        lanczos_sizes.append(self._Q.shape[1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lanczos, "_reserve", watched)
        pairs = sought(lambda V: V @ A, start(400), 3, tol=1e-6, max_basis=8, max_products=5000)
    assert max(lanczos_sizes) <= 8
    assert pairs.converged.all()
    assert pairs.products > 50  # it did restart


def test_max_basis_too_small():
    with pytest.raises(UserError, match="max_basis=5 is too small for k=5 with blocks of 1; take 7"):
        sought(lambda v: v, start(30), 5, max_basis=5)


def test_a_warm_start_saves_products():
    eigenvalues = np.concatenate([[50, -30, 20, -9], np.linspace(-1, 1, 300)])
    A = matrix(eigenvalues)
    cold = sought(lambda V: V @ A, start((4, len(A))), 4, tol=1e-8, vectors=True)
    warm = sought(lambda V: V @ A, cold.vectors, 4, tol=1e-8)
    np.testing.assert_allclose(warm.values, cold.values, rtol=1e-12)
    assert warm.products <= cold.products // 3


@settings(max_examples=30)
@given(st.lists(spectra.filter(lambda e: len(e) > 5), min_size=1, max_size=4), st.sampled_from(["LM", "BE"]))
def test_lockstep_equals_one_by_one(several, which):
    n = min(map(len, several))
    matrices = torch.stack([matrix(e[:n], i) for i, e in enumerate(several)])
    starts = torch.stack([start((1, n), i) for i in range(len(several))])
    sizes = []

    def matvec(X, members):
        sizes.append(len(members))
        return X @ matrices[list(members)]

    together = sought_in_lockstep(matvec, starts, 3, which=which, tol=1e-7, vectors=True)
    for A, v, pairs in zip(matrices, starts, together, strict=True):
        alone = sought(lambda V, A=A: V @ A, v[0], 3, which=which, tol=1e-7, vectors=True)
        assert abs(pairs.products - alone.products) <= 1  # where two values are equal to rounding, either may end first
        np.testing.assert_allclose(np.abs(pairs.values), np.abs(alone.values), atol=1e-10 * float(A.abs().max()))
        assert pairs.vectors.shape == (3, n)
        for value, residual, u in zip(pairs.values, pairs.residuals, pairs.vectors, strict=True):
            assert float((A @ u - value * u).norm()) == pytest.approx(residual, abs=1e-9 * float(A.abs().max()))
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == sum(pairs.products for pairs in together)


def test_in_lockstep_one_that_is_not_finite_leaves_the_others_alone():
    A = matrix(np.linspace(1, 9, 30))
    scale = torch.tensor([1.0, torch.nan, 2.0], dtype=torch.float64)
    found = sought_in_lockstep(
        lambda X, members: (X @ A) * scale[list(members), None, None], start((3, 1, 30)), 2, tol=1e-8
    )
    assert np.isnan(found[1].values).all()
    np.testing.assert_allclose(found[2].values[0], 18, rtol=1e-9)
    assert found[1].products == 1


class Bases(TorchFunctionMode):
    """The most elements of basis that were held at once."""

    def __init__(self, n):
        super().__init__()
        self.n, self.alive, self.most = n, [], 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "new_empty" and out.numel() > 4 * self.n:
            self.alive = [ref for ref in self.alive if ref() is not None] + [weakref.ref(out)]
            self.most = max(self.most, sum(ref().numel() for ref in self.alive))
        return out


@pytest.mark.parametrize("max_products", [40, 100, 200])
def test_the_memory_of_a_basis_is_what_is_reckoned(max_products):
    n = 1000
    diagonal = torch.linspace(0.01, 1, n, dtype=torch.float64)
    with Bases(n) as bases:
        pairs = sought(lambda v: diagonal * v, start(n), 5, which="SA", tol=0.0, max_products=max_products)
    assert pairs.products == max_products
    assert bases.most == rows_held(max_products) * n


def test_the_residual_is_no_less_than_rounding():
    """In float32 a true eigenvalue lies within each residual too, however far the search went."""
    within = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        eigenvalues = np.concatenate([rng.normal(size=6) * 50, rng.normal(size=150)])
        A = matrix(eigenvalues, seed).float()
        truth = np.linalg.eigvalsh(A.double().numpy())
        for tol in (1e-2, 1e-7):
            pairs = sought(lambda V, A=A: V @ A, start(len(A), seed).float(), 8, tol=tol, max_products=60)
            distance = np.abs(truth[:, None] - pairs.values).min(axis=0)
            within.append(distance <= pairs.residuals)
            strict = pairs.residuals <= tol * np.abs(pairs.values)
            np.testing.assert_array_equal(pairs.converged, strict)
    assert np.all(within)


def test_verified_pairs_have_converged_by_their_true_residuals():
    """A tolerance below what float32 resolves is not met, whatever the Lanczos relation says."""
    A = matrix(np.concatenate([[50, -30, 20, -9], np.linspace(-1, 1, 200)])).float()
    pairs = sought(lambda V: V @ A, start(len(A)).float(), 4, tol=1e-7, max_products=150, verify=True, vectors=True)
    true = np.array([float((A @ u - value * u).norm()) for value, u in zip(pairs.values, pairs.vectors, strict=True)])
    assert (true > 1e-7 * np.abs(pairs.values)).any()
    assert (pairs.residuals >= true - 1e-9).all()
    np.testing.assert_array_equal(pairs.converged, pairs.residuals <= 1e-7 * np.abs(pairs.values))
    zero = sought(lambda v: v * torch.tensor([3.0, 2, 0, 0]), start(4).float(), 2, which="SA", verify=True)
    assert zero.converged.all()


@pytest.mark.parametrize("size", [0.03, 0.3])
@pytest.mark.parametrize(("block", "max_basis"), [(1, None), (1, 9), (2, None), (2, 11)])
def test_an_operator_that_is_not_symmetric_is_refused(size, block, max_basis):
    n = 200
    S = matrix(np.concatenate([[5, -4, 3], np.linspace(-1, 1, n - 3)]))
    K = torch.as_tensor(np.random.default_rng(1).normal(size=(n, n))) * size / n**0.5
    A = (S + (K - K.T)).float()
    settings = {"max_basis": max_basis, "max_products": 80}
    with pytest.raises(UserError, match=r"not symmetric: .* differ by .* weight_norm"):
        sought(lambda V: V @ A, start((block, n)).float(), 4, **settings)
    with pytest.raises(UserError, match="not symmetric"):
        sought_in_lockstep(lambda X, _: torch.cat([X[:1] @ S.float(), X[1:] @ A]), start((2, block, n)).float(), 4)
    with pytest.raises(UserError, match="not symmetric"):
        quadrature(Rows(lambda V: V @ A), start(n).float(), 20)
    found = sought(lambda V: V @ S.float(), start((block, n)).float(), 4, **settings)
    assert found.rounding < 1e-5


class DeviceReads(TorchFunctionMode):
    """Counts what would wait for a device and copy from it, wherever the tensors are."""

    WAITS = (torch.Tensor.cpu, torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.__bool__, torch.Tensor.__float__,
             torch.Tensor.__int__, torch.Tensor.nonzero, torch.nonzero, torch.equal, torch.allclose)  # fmt: skip

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.count += function in self.WAITS
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("group", "block"), [(1, 1), (3, 1), (1, 3)])
def test_a_step_waits_for_the_device_once(group, block):
    eigenvalues = np.concatenate([[50, -30, 20, -9, 7], np.linspace(-1, 1, 300)])
    A = matrix(eigenvalues).float()
    lanczos = Lanczos(rows(A), start((group, block, len(A))).float())
    reads = []
    for i in range(30):
        if lanczos.m >= 20:
            theta, S, _ = lanczos.ritz()
            lanczos.restart(theta[:, -6:], S[:, :, -6:])
        with DeviceReads() as counted:
            lanczos.step()
        reads.append(counted.count)
        if i == 20:
            lanczos.keep([0])
    assert max(reads) <= 2
    assert np.mean(reads) < 1.2


@pytest.mark.parametrize("which", ["LM", "BE", "LA"])
def test_a_second_look_finds_what_the_start_had_next_to_nothing_of(which):
    eigenvalues = torch.as_tensor(np.concatenate([[40, 9, 8.0, -7, 6, -5], np.linspace(-1, 1, 400)]))
    truth = expected(eigenvalues.numpy(), 4, which)
    v = start(len(eigenvalues))
    v[1] = 0
    settings = {"which": which, "tol": 1e-2}
    once = sought(lambda u: u * eigenvalues, v, 4, **settings)
    assert once.complete
    assert np.abs(once.values - truth).max() > 0.5
    looked = sought(lambda u: u * eigenvalues, v, 4, second_look=True, vectors=True, **settings)
    np.testing.assert_allclose(looked.values, truth, rtol=1e-3)
    assert looked.converged.all()
    assert looked.complete
    (together, _) = sought_in_lockstep(
        lambda X, _: X * eigenvalues, torch.stack([v, start(len(v), 1)])[:, None], 4, second_look=True, **settings
    )
    np.testing.assert_allclose(together.values, truth, rtol=1e-3)
    assert together.vectors is None
    twice = sought(lambda u: u * eigenvalues[[0, 0, *range(2, 406)]], v, 3, second_look=True)
    np.testing.assert_allclose(twice.values, [40, 40, 8], rtol=1e-3)


def test_long_vectors_in_float32_are_summed_without_loss():
    """A plain float32 sum over 2 million positive numbers is wrong by more than rounding, and so were length and T."""
    n = 1 << 21
    diagonal = torch.linspace(1, 2, n)
    lanczos = Lanczos(Rows(lambda X: X * diagonal), torch.ones(1, 1, n), most=4)
    for _ in range(3):
        lanczos.step()
    Q = lanczos.Q[0].double()
    torch.testing.assert_close(Q @ Q.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=3e-7)
    np.testing.assert_allclose(lanczos.T[0], ((Q * diagonal) @ Q.T).numpy(), atol=3e-7)
    assert lanczos.asymmetry[0] < 3e-7
