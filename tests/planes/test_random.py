import pytest
import torch
from helpers import unchanged
from torch import nn

import landscape as ls
from landscape.planes.random import normalized


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


@pytest.mark.parametrize("normalize", ["filter", "layer", "column", "none"])
@pytest.mark.parametrize("biases", [False, True])
def test_orthogonal_and_normalised_at_once(model, normalize, biases):
    plane = ls.random_plane(model, normalize=normalize, biases=biases, orthogonal=True, dims=3)
    vectors = [torch.cat([t.double().flatten() for t in d.values()]) for d in plane.directions]
    for i in range(3):
        for j in range(i):
            assert abs(float(torch.cosine_similarity(vectors[i], vectors[j], dim=0))) < 1e-6
    if normalize == "none":
        return
    for d in plane.directions:
        for name, p in model.named_parameters():
            if name in d and p.ndim >= 2 and (normalize != "column" or p.shape[0] > 1):
                torch.testing.assert_close(norms(d[name], normalize), norms(p.detach(), normalize), rtol=1e-6, atol=0)


def test_too_few_weights_to_be_orthogonal_and_normalised():
    with pytest.raises(ls.UserError, match="cannot be both orthogonal and filter-normalised"):
        ls.random_plane(nn.Linear(1, 3, bias=False), orthogonal=True, dims=4)


def test_biases_move_by_draws_of_their_own_each_as_one_filter(model):
    first, second = ls.random_plane(model, biases=True).directions
    one = "blocks.0.norm1.weight"
    weight = model.get_parameter(one).detach()
    for d in (first, second):
        torch.testing.assert_close(torch.linalg.vector_norm(d[one]), torch.linalg.vector_norm(weight))
        assert not torch.equal(d[one], weight)
    assert not torch.equal(first[one], second[one])
    assert torch.equal(first["head.weight"], ls.random_plane(model).directions[0]["head.weight"])


def test_only_the_chosen_parameters_move(model):
    plane = ls.random_plane(model, parameters=["blocks.0", "head.*"])
    assert plane.directions[0].keys() == {
        name for name, p in model.named_parameters() if name.startswith(("blocks.0.", "head.")) and p.ndim >= 2
    }


def test_bad_requests(model):
    with pytest.raises(ls.UserError, match="filter, layer"):
        ls.random_plane(model, normalize="fliter")
    with pytest.raises(ls.UserError, match="left to move"):
        ls.random_plane(nn.BatchNorm1d(3))
    with pytest.raises(ls.UserError, match="no trainable parameter matches 'stem'"):
        ls.random_plane(model, parameters="stem")
