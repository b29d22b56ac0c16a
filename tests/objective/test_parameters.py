import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from landscape.objective.parameters import displaced, flatten, trainable, unflatten


@given(st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=4))
def test_unflatten_inverts_flatten(shapes):
    tensors = {str(i): torch.randn(s) for i, s in enumerate(shapes)}
    back = unflatten(flatten(tensors), tensors)
    assert all(torch.equal(back[k], tensors[k]) for k in tensors)


def test_order_does_not_follow_memory_format():
    t = torch.randn(2, 3, 4, 4)
    assert torch.equal(flatten({"a": t}), flatten({"a": t.to(memory_format=torch.channels_last)}))


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"\(5,\).*4 parameters"):
        unflatten(torch.zeros(5), {"a": torch.zeros(2, 2)})


def test_displaced_moves_and_returns_to_the_bit():
    model = nn.Linear(3, 2)
    theta = {k: p.detach().clone() for k, p in model.named_parameters()}
    d1, d2 = {"weight": torch.randn(2, 3)}, {"weight": torch.randn(2, 3), "bias": torch.randn(2)}
    with displaced(model, (d1, d2), (0.3, -0.7)):
        torch.testing.assert_close(model.weight, theta["weight"] + 0.3 * d1["weight"] - 0.7 * d2["weight"])
        torch.testing.assert_close(model.bias, theta["bias"] - 0.7 * d2["bias"])
    assert all(torch.equal(p, theta[k]) for k, p in model.named_parameters())


def test_displaced_returns_when_the_block_raises():
    model = nn.Linear(3, 2)
    weight = model.weight.detach().clone()
    with pytest.raises(KeyError), displaced(model, ({"weight": torch.ones(2, 3)},), (1.0,)):
        raise KeyError
    assert torch.equal(model.weight, weight)


def test_trainable_leaves_out_frozen_and_counts_tied_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    assert list(trainable(model)) == ["0.weight", "1.bias"]
