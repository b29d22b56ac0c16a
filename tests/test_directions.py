import pytest
import torch
from conftest import unchanged
from torch import nn

import landscape as ls
from landscape.directions import normalized


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ls.create_model("vit_xs", 10, 8, 1)


def norms(t, normalize):
    dims = {"filter": tuple(range(1, t.ndim)), "layer": None, "column": 0}[normalize]
    return torch.linalg.vector_norm(t, dim=dims)


@pytest.mark.parametrize("normalize", ["filter", "layer", "column"])
def test_norms_are_those_of_the_weights(model, normalize):
    with unchanged(model):
        plane = ls.random_plane(model, normalize=normalize)
    for d in plane.directions:
        for name, p in model.named_parameters():
            if name in d:
                torch.testing.assert_close(norms(d[name], normalize), norms(p.detach(), normalize), rtol=1e-6, atol=0)


def test_weight_normalisation_is_elementwise():
    d, theta = torch.randn(3, 4), torch.randn(3, 4)
    assert torch.equal(normalized(d, theta, "weight"), d * theta)
    assert torch.equal(normalized(d, theta, "none"), d)


def test_a_filter_of_zeros_does_not_move():
    theta = torch.randn(3, 4)
    theta[1] = 0
    d = normalized(torch.randn(3, 4), theta, "filter")
    assert not d[1].any()
    assert d.isfinite().all()


def test_vectors_and_position_embeddings_do_not_move(model):
    moved = ls.random_plane(model).directions[0].keys()
    assert "pos_embed" not in moved
    assert all(dict(model.named_parameters())[name].ndim >= 2 for name in moved)
    assert "pos_embed" in ls.random_plane(model, exclude=()).directions[0]


def test_the_seed_fixes_the_plane(model):
    a, b, c = (ls.random_plane(model, seed=s).directions for s in (1, 1, 2))
    assert all(torch.equal(a[i][k], b[i][k]) for i in range(2) for k in a[i])
    assert not torch.equal(a[0]["head.weight"], c[0]["head.weight"])
    assert not torch.equal(a[0]["head.weight"], a[1]["head.weight"])


def test_bad_requests(model):
    with pytest.raises(ls.UserError, match="filter, layer"):
        ls.random_plane(model, normalize="fliter")
    with pytest.raises(ls.UserError, match="left to move"):
        ls.random_plane(nn.BatchNorm1d(3))
