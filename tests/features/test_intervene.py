"""A network without a block: what is left is the shortcut, and the network is what it was, whatever happens."""

import copy

import pytest
import torch
from helpers import small
from torch import nn

import landscape as ls
from landscape.features.intervene import Lesions
from landscape.models.blocks import blocks
from landscape.runtime.errors import UserError

X = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 4


def objective_of(network: nn.Module) -> ls.Objective:
    return ls.Objective(network.eval(), [(X, Y)])


def state_of(model: nn.Module) -> list:
    return [
        {k: v.clone() for k, v in model.state_dict().items()},
        [(name, type(m), m.training, len(m._forward_hooks)) for name, m in model.named_modules()],
    ]


def same(a: list, b: list) -> bool:
    return a[1] == b[1] and all(torch.equal(a[0][k], b[0][k]) for k in a[0])


@pytest.mark.parametrize("name", ["resnet8", "vit_xs", "alternet_xs", "swin_ti", "pit_ti", "preresnet_18", "botnet_50"])
def test_with_all_blocks_it_is_the_network_and_without_one_its_zeroed_branch(name):
    torch.manual_seed(0)
    size = 32 if name in ("swin_ti", "pit_ti") else 8
    network = small(name, image_size=size)
    x = X if size == 8 else torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(0))
    objective = ls.Objective(network.eval(), [(x, Y[: len(x)])])
    lesions, before = Lesions(objective), state_of(objective.model)
    with torch.no_grad():
        torch.testing.assert_close(lesions.outputs(objective.x), objective.outputs(objective.x), rtol=1e-4, atol=1e-5)
        chain = blocks(objective.model)
        known = {b.name: b for b in chain}
        assert [r.name for r in lesions.removable] == [b.name for b in chain if b.branch is not None]
        for i, removed in enumerate(lesions.removable):
            h = objective.x
            for b in chain:
                residual = b.branch is not None
                h = b.after(b.skip(h) + 0 * b.branch(h)) if residual and b.name == removed.name else b.module(h)
            torch.testing.assert_close(lesions.outputs(objective.x, without=i), h)
            assert (removed.type, removed.stage) == (known[removed.name].type, known[removed.name].stage)
    assert same(before, state_of(objective.model))


def test_blocks_without_shortcuts_are_replaced_by_the_identity_where_their_shape_allows():
    torch.manual_seed(0)
    lesions = Lesions(objective_of(small("resnet20_noshort")))
    assert {r.removal for r in lesions.removable} == {"identity"}
    assert "layer2.0" not in [r.name for r in lesions.removable]  # it halves the map
    assert len(lesions.removable) == 7


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.two(self.one(self.stem(x))).mean((2, 3)))


def test_modules_of_any_network_are_removed_by_name():
    torch.manual_seed(0)
    network = Own()
    objective = objective_of(network)
    lesions = Lesions(objective, "one")
    with torch.no_grad():
        expected = network.head(network.two(network.stem(X)).mean((2, 3)))
        torch.testing.assert_close(lesions.outputs(objective.x, without=0), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(lesions.outputs(objective.x), network(X), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="two cannot be replaced by the identity"):
        Lesions(objective, "two")
    with pytest.raises(UserError, match="name the modules to remove"):
        Lesions(objective)


@pytest.mark.parametrize("modules", [None, "layer*.*.conv2"])
def test_an_exception_leaves_the_network_as_it_was(modules):
    torch.manual_seed(0)
    network = small("resnet8")
    caller = copy.deepcopy(network.state_dict())
    objective = objective_of(network)
    lesions, before = Lesions(objective, modules), state_of(objective.model)

    def broken(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("the network broke")

    objective.model.linear.forward = broken
    with pytest.raises(RuntimeError, match="broke"):
        lesions.outputs(objective.x, without=0)
    del objective.model.linear.forward
    assert same(before, state_of(objective.model))
    assert all(torch.equal(caller[k], v) for k, v in network.state_dict().items())
