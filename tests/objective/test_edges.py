"""What is handed over by mistake is said in a line with its remedy; what is wrapped is unwrapped; a repr is a line."""

import numpy as np
import pytest
import torch
from helpers import unchanged
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import landscape as ls

X, Y = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


class Returning(nn.Module):
    def __init__(self, returned):
        super().__init__()
        self.inner, self.returned = network(), returned

    def forward(self, x):
        return self.returned(self.inner(x))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (TensorDataset(X, Y), "DataLoader(dataset, batch_size=256)"),
        ((X, Y), "the data are 2 Tensor, not batches; give an iterable of (x, y), as [(x, y)] is"),
        ((X.numpy(), Y.numpy()), "the data are 2 ndarray, not batches"),
        (X, "the data are 1 Tensor, not batches"),
        (None, "the data are NoneType, not batches"),
        ([(X.numpy(), Y.numpy())], "x of batch 0 is ndarray, not a tensor"),
        ([(X, Y[:, None])], "labels of shape (20, 1) are neither one class per example"),
        ([(X[:, :3], Y)], "the network's own code fails on a batch of shape (1, 3)"),
        ([], "the data set is empty"),
    ],
)
def test_data_of_another_sort(data, words):
    with pytest.raises(ls.UserError) as e:
        ls.Objective(network(), data)
    assert words in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Returning(lambda out: {"logits": out}), "returns a dict of 1, not one tensor of logits; wrap it"),
        (Returning(lambda out: (out, out)), "returns a tuple of 2"),
        (lambda x: x, "the model is a function, not a torch.nn.Module"),
        (nn.Identity(), "has no parameters"),
    ],
)
def test_networks_of_another_sort(model, words):
    with pytest.raises(ls.UserError) as e:
        ls.Objective(model, [(X, Y)])
    assert words in str(e.value)


@pytest.mark.parametrize("reduced", [F.cross_entropy, lambda out, y: F.cross_entropy(out, y, reduction="sum")])
def test_a_loss_that_reduces_is_told_how_not_to(reduced):
    with pytest.raises(ls.UserError, match='reduction="none"'):
        ls.Objective(network(), [(X, Y)], loss=reduced)


def test_a_plane_of_another_network_is_refused():
    with pytest.raises(ls.UserError, match="which is not in the network"):
        ls.evaluate_surface(ls.Objective(network(), [(X, Y)]), ls.random_plane(nn.Linear(4, 3)), points=3)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_a_wrapped_network_is_the_network(wrap):
    """Planes of the one serve the other, and the numbers are the same to the bit."""
    model = network()
    wrapped = wrap(model)
    with unchanged(model):
        plain = ls.evaluate_surface(ls.Objective(model, [(X, Y)]), ls.random_plane(model), points=3)
        objective = ls.Objective(wrapped, [(X, Y)])
        for plane in (ls.random_plane(model), ls.random_plane(wrapped), ls.random_plane(objective.model)):
            np.testing.assert_array_equal(ls.evaluate_surface(objective, plane, points=3)["nll"], plain["nll"])


def test_a_repr_is_one_line_that_tells():
    model = network()
    objective = ls.Objective(model, [(X, Y)], weight_decay=0.1)
    assert repr(objective) == (
        "Objective(Sequential of 43 parameters, 20 examples, Classification, l2 penalty of 0.1, cpu, float32)"
    )
    assert repr(ls.random_plane(model)) == "Plane(2 random directions of 35 parameters, filter-normalised)"
    data = ls.load_data("digits", samples=8, batch_size=4)
    assert (
        repr(data)
        == "FrozenData(8 examples of (1, 8, 8), 10 classes, batches of 4; digits, train split, train transform)"
    )


def test_provenance_of_ones_own_is_shown(tmp_path):
    from landscape.study.words import describe_file

    objective = ls.Objective(network(), [(X, Y)], provenance={"who": "me"})
    ls.save(tmp_path / "a.h5", spectrum=ls.hessian_spectrum(objective, k=2, batch_size=5))
    assert "spectrum: " in describe_file(tmp_path / "a.h5")
