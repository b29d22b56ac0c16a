"""A search that is interrupted and continued is the one that was not, to the bit."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from landscape.linalg.eigenpairs import eigenpairs
from landscape.linalg.operators import Rows
from landscape.linalg.search import Search
from landscape.store.aside import Aside

HARD = torch.as_tensor(np.concatenate([[40, 9, 8.0, -7, 6, -5, 4.5], np.linspace(-3, 3, 300)]))


def operator(counted, broken_at=None):
    def product(V):
        counted.append(len(V))
        if len(counted) == broken_at:
            raise KeyboardInterrupt
        return V * HARD.to(V)

    return Rows(product)


def start(block, seed=0, dtype=torch.float32):
    v = torch.randn(block, len(HARD), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    v[:, 1] = 0  # so that a second look has something to find
    return v.to(dtype)


def aside(path, budget=None, config=None):
    """That keeps the state after every product, and stops after `budget` of them."""
    left = iter(range(budget or 10**9))
    return Aside(path, config or {"analysis": "top"}, -1.0, lambda: budget is not None and next(left) == budget - 1)


def same(a, b):
    for name in ("values", "residuals", "converged"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert (a.complete, a.products, a.verified, a.rounding, a.finished) == (
        b.complete, b.products, b.verified, b.rounding, b.finished,
    )  # fmt: skip
    assert (a.vectors is None) == (b.vectors is None)
    if a.vectors is not None:
        assert torch.equal(a.vectors, b.vectors)


ASKED = {
    "plain": Search(k=4, tol=1e-4),
    "both ends, restarted": Search(k=4, which="BE", tol=1e-6, max_basis=11, max_products=2000),
    "second look": Search(k=4, tol=1e-3, second_look=True),
    "second look at both ends": Search(k=3, which="BE", tol=1e-3, second_look=True),
    "not converged": Search(k=3, tol=1e-12, max_products=17),
}


@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("name", ASKED)
def test_stopped_again_and_again_and_continued(name, block, tmp_path):
    """Every few products the search is stopped, and another process's worth of objects continues it."""
    whole, pieces = [], []
    uninterrupted = eigenpairs(operator(whole), start(block), ASKED[name], vectors=True, verify=True)
    for _ in range(2000):
        found = eigenpairs(
            operator(pieces), start(block), ASKED[name], vectors=True, verify=True,
            keeper=aside(tmp_path / "state", budget=3),
        )  # fmt: skip
        if found.finished:
            break
        assert found.vectors is None
        assert not found.complete or "second look" in name or found.products >= uninterrupted.products - 4
    same(found, uninterrupted)
    assert pieces == whole, "no product is made twice"


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 40), st.sampled_from(sorted(ASKED)))
def test_interrupted_within_a_product(tmp_path_factory, capsys, at, name):
    """By Ctrl-C, or anything else that a product raises: only that product is made again."""
    path, whole, first, second = tmp_path_factory.mktemp("state") / "state", [], [], []
    uninterrupted = eigenpairs(operator(whole), start(1), ASKED[name], verify=True)
    never = Aside(path, {}, 1e9, lambda: False)  # which keeps it when interrupted alone
    try:
        eigenpairs(operator(first, broken_at=at), start(1), ASKED[name], verify=True, keeper=never)
    except KeyboardInterrupt:
        found = eigenpairs(operator(second), start(1), ASKED[name], verify=True, keeper=Aside(path, {}, 1e9, bool))
        same(found, uninterrupted)
        assert "passed over" not in capsys.readouterr().err
        assert sum(first[:-1]) + sum(second) == sum(whole) or at > len(whole) - 4, "true residuals are measured again"


def test_pairs_so_far_are_ritz_pairs_with_true_residuals():
    A, v = Rows(lambda V: V * HARD), start(1, dtype=torch.float64)
    found = eigenpairs(A, v, Search(k=3, tol=1e-8), keeper=aside(None, budget=9))
    assert not found.finished
    assert not found.complete
    assert found.products == 9
    again = eigenpairs(A, v, Search(k=3, tol=1e-8, max_products=9), vectors=True)
    np.testing.assert_array_equal(found.values, again.values)
    true = [float((u * HARD - value * u).norm()) for value, u in zip(again.values, again.vectors, strict=True)]
    np.testing.assert_allclose(found.residuals, true, rtol=1e-6)


def test_a_search_stopped_before_it_has_k_values_marks_the_rest():
    found = eigenpairs(operator([]), start(1), Search(k=5), keeper=aside(None, budget=2))
    assert np.isfinite(found.values[:2]).all()
    assert np.isnan(found.values[2:]).all()
    assert not found.converged[2:].any()


@pytest.mark.parametrize("changed", [{"k": 5}, {"max_basis": 30}, {"second_look": True}])
@pytest.mark.parametrize("block", [1, 2])
def test_the_state_of_another_search_is_never_taken_for_its_own(changed, block, tmp_path, capsys):
    """Even where somebody gives it the same name: shapes that do not fit are passed over with a word."""
    search = Search(k=4, tol=1e-6, max_products=100)
    eigenpairs(operator([]), start(3), search, vectors=True, keeper=aside(tmp_path / "s", budget=40))
    other = Search(**{**search.asdict(), **changed})
    expected = eigenpairs(operator([]), start(block), other, vectors=True)
    found = eigenpairs(operator([]), start(block), other, vectors=True, keeper=aside(tmp_path / "s"))
    same(found, expected)
    assert "is passed over" in capsys.readouterr().err
