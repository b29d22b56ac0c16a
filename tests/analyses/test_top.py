"""The search on the whole data: its eigenvectors too."""

import numpy as np
import pytest
from helpers import dense_hessian

import landscape as ls


def test_the_vectors_of_a_whole_data_search_are_the_hessians(mlp, points, tmp_path):
    """H V = V diag(values) by torch.func's Hessian, orthonormal; stored, read again, and no part of the table."""
    objective = ls.Objective(mlp, points)
    top = ls.hessian_top(objective, k=4, which="BE", tol=1e-5, vectors=True)
    V, values = top["vector"].values.astype(float), top["eigenvalue"].values
    H = dense_hessian(objective)
    assert V.shape == (4, len(H))
    assert np.allclose(V @ V.T, np.eye(4), atol=1e-4)
    assert np.allclose(V @ H, values[:, None] * V, atol=1e-3 * np.abs(values).max())
    ls.save(tmp_path / "x.h5", top=top)
    assert ls.load(tmp_path / "x.h5")["top"]["vector"].equals(top["vector"])
    assert "vector" not in ls.hessian_top(objective, k=4)
    few = ls.hessian_top(objective, k=2, parameters="0.bias", vectors=True)
    assert few["vector"].shape == (2, 7)
    with pytest.raises(ls.UserError, match="vectors are of one search"):
        ls.hessian_top(objective, k=2, per="layer", vectors=True)
