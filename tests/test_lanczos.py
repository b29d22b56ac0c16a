"""Lanczos against matrices whose spectra are prescribed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape.errors import UserError
from landscape.lanczos import Tridiagonalisation, eigenpairs, quadrature


def matrix(eigenvalues, seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))
    return torch.as_tensor(q @ np.diag(eigenvalues) @ q.T)


def start(n, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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


@given(spectra, st.integers(0, 50))
def test_defining_identity(eigenvalues, seed):
    A = matrix(eigenvalues, seed)
    lanczos = Tridiagonalisation(lambda v: A @ v, start(len(A), seed))
    for _ in range(max(1, len(A) // 2)):
        lanczos.step()
    Q = lanczos.Q.numpy()
    T = np.diag(lanczos.alpha) + np.diag(lanczos.beta, 1) + np.diag(lanczos.beta, -1)
    remainder = A.numpy() @ Q.T - Q.T @ T
    np.testing.assert_allclose(Q @ Q.T, np.eye(len(Q)), atol=1e-12)
    scale = np.abs(eigenvalues).max()
    np.testing.assert_allclose(remainder[:, :-1], 0, atol=1e-11 * scale)
    assert np.linalg.norm(remainder[:, -1]) == pytest.approx(lanczos.beta_last, abs=1e-10 * scale)


@settings(deadline=None)
@given(spectra, st.sampled_from(["LM", "LA", "SA", "BE"]), st.integers(1, 5), st.integers(0, 50))
def test_a_true_eigenvalue_lies_within_each_residual(eigenvalues, which, k, seed):
    A = matrix(eigenvalues, seed)
    pairs = eigenpairs(lambda v: A @ v, start(len(A), seed), min(k, len(A)), which=which, tol=1e-6, vectors=True)
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
    pairs = eigenpairs(lambda v: A @ v, start(len(A)), k, which=which, tol=1e-8)
    np.testing.assert_allclose(pairs.values, expected(eigenvalues, k, which), rtol=1e-10)
    assert pairs.converged.all()


@pytest.mark.parametrize("eigenvalues", [[3.0], [2.0] * 6, [0.0] * 5, [4.0, 0, 0, 0, 0, 0], [5.0, 5, 1, 0, 0]], ids=str)
def test_breakdown_spans_the_whole_space(eigenvalues):
    """1 x 1, multiple and rank-deficient: asked for all, all are found, with their multiplicity."""
    A = matrix(eigenvalues)
    pairs = eigenpairs(lambda v: A @ v, start(len(A)), len(A), which="LA")
    np.testing.assert_allclose(pairs.values, np.sort(eigenvalues)[::-1], atol=1e-12)
    assert pairs.converged.all()
    assert pairs.products <= len(A)


def test_what_has_not_converged_is_marked():
    A = matrix(np.linspace(1, 2, 200))
    pairs = eigenpairs(lambda v: A @ v, start(200), 5, tol=1e-10, max_products=12)
    assert not pairs.converged.any()
    assert pairs.products == 12
    assert (pairs.residuals > 1e-10).all()


def test_fewer_products_than_wanted_leaves_nan():
    A = matrix(np.linspace(1, 2, 20))
    pairs = eigenpairs(lambda v: A @ v, start(20), 5, max_products=3, vectors=True)
    assert np.isnan(pairs.values[3:]).all()
    assert not pairs.converged[3:].any()
    assert pairs.vectors[3:].isnan().all()


def test_an_operator_that_is_not_finite_gives_nan():
    pairs = eigenpairs(lambda v: v * torch.inf, start(9), 3)
    assert np.isnan(pairs.values).all()
    assert pairs.products == 1


@pytest.mark.parametrize("k", [0, 4])
def test_k_out_of_range(k):
    with pytest.raises(UserError, match=f"k={k} .* size 3"):
        eigenpairs(lambda v: v, start(3), k)


def test_unknown_which():
    with pytest.raises(UserError, match="LM, LA, SA, BE"):
        eigenpairs(lambda v: v, start(3), 1, which="SM")


@given(spectra, st.integers(1, 8), st.integers(0, 50))
def test_quadrature_is_exact_for_polynomials(eigenvalues, steps, seed):
    A, v = matrix(eigenvalues, seed), start(len(eigenvalues), seed)
    node, weight = quadrature(lambda v: A @ v, v, steps)
    assert node.shape == weight.shape == (steps,)
    assert weight.sum() == pytest.approx(1)
    u = (v / v.norm()).numpy()
    scale = np.abs(eigenvalues).max()
    for p in range(min(2 * steps, 6)):
        truth = u @ np.linalg.matrix_power(A.numpy(), p) @ u
        assert np.nansum(weight * node**p) == pytest.approx(truth, abs=1e-9 * scale**p)
