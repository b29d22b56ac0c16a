"""Permuted networks are the same function, and weight matching finds the permutation of a permuted copy."""

import itertools

import numpy as np
import pytest
import torch
from helpers import small, unchanged
from torch import nn

import landscape as ls
from landscape.planes.alignment import _Matching, aligned_to, refuse_unlike
from landscape.planes.permutations import Heads, Permutations, permutations_of

ARCHITECTURES = [
    "resnet8", "resnet20_noshort", "resnet20_projection", "resnet_18", "resnet_50", "preresnet_18", "preresnet_50",
    "vit_xs", "alternet_xs",
]  # fmt: skip


def spread(net: nn.Module) -> nn.Module:
    """With norms and biases of their own, as after training: fresh ones are all alike."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, t in net.state_dict().items():
            if t.ndim == 1:
                t.copy_(torch.rand(t.shape, generator=g) + (0.5 if name.endswith("var") else -0.3))
    return net


def images(net: nn.Module) -> ls.Objective:
    g = torch.Generator().manual_seed(5)
    return ls.Objective(net, [(torch.randn(8, 1, 8, 8, generator=g), torch.arange(8) % 4)])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_permuted_copy_is_the_same_function_and_is_brought_back_to_the_bit(name):
    torch.manual_seed(0)
    net = spread(small(name, in_channels=1)).eval()
    objective, groups = images(net), permutations_of(net)
    permuted = groups.applied(net.state_dict(), groups.random(3))
    changed = sum(not torch.equal(t, net.state_dict()[name]) for name, t in permuted.items())
    assert changed > len(permuted) / 3
    copy = small(name, in_channels=1).eval()
    copy.load_state_dict(permuted)
    torch.testing.assert_close(copy(objective.x), net(objective.x), rtol=1e-3, atol=1e-4)
    with unchanged(net):
        back = aligned_to(objective, permuted)
    assert all(torch.equal(back[key].cpu(), t) for key, t in net.state_dict().items())


def test_nothing_but_norm_vectors_and_the_input_and_output_axes_is_left_out():
    """Every axis of the hidden channels of a ViT is in a group: patches, tokens, heads, MLPs, head."""
    net = small("vit_xs")
    groups = permutations_of(net)
    covered = {(tensor, axis) for members in groups.members.values() for tensor, axis, _ in members}
    state = net.state_dict()
    assert {(name, 0) for name in state if "norm" in name} <= covered
    for i in range(4):
        assert {(f"blocks.{i}.attn.qkv.weight", 0), (f"blocks.{i}.attn.qkv.weight", 1)} <= covered
    assert ("head.weight", 1) in covered
    assert ("head.weight", 0) not in covered
    assert groups.heads["blocks.0 attention"] == Heads(2, 4)


def test_the_matching_is_the_best_of_all_where_all_can_be_tried():
    """One hidden layer of 4: weight matching is one assignment, so that no permutation has a larger inner product."""
    g = torch.Generator().manual_seed(0)
    own, theirs = (
        {"a": torch.randn(4, 3, generator=g).double(), "b": torch.randn(2, 4, generator=g).double()} for _ in range(2)
    )
    groups = Permutations({"hidden": [("a", 0, np.arange(4)), ("b", 1, np.arange(4))]})
    matching = _Matching(groups, own, theirs)
    found = matching.descended(groups.identity(), 0)
    best = max(matching.inner({"hidden": np.array(p)}) for p in itertools.permutations(range(4)))
    assert matching.inner(found) == pytest.approx(best)


def test_alignment_never_takes_weights_further_apart_and_is_the_same_again():
    torch.manual_seed(0)
    one, other = spread(small("vit_xs")), small("vit_xs")
    objective = images(one)
    first, again = (aligned_to(objective, other.state_dict(), seed=2) for _ in range(2))
    assert all(torch.equal(first[k], again[k]) for k in first)

    def distance(state):
        return sum(float((p.detach() - state[name]).square().sum()) for name, p in one.named_parameters())

    assert distance(first) < distance(other.state_dict())


@pytest.mark.parametrize("net", [small("botnet_50", image_size=16), small("pit_ti"), nn.Linear(3, 2)], ids=type)
def test_other_networks_are_refused(net):
    with pytest.raises(ls.UserError, match="can change places is not known"):
        permutations_of(net)


def test_a_variant_that_the_groups_do_not_fit_is_refused():
    class Doubled(type(small("resnet8"))):
        def forward(self, x):
            x = super().forward(x)
            return x + self.bn1.weight.cumsum(0)[:4]

    torch.manual_seed(0)
    net = Doubled(8, num_classes=4, in_channels=1, widths=(4, 4, 4))
    with torch.no_grad():
        net.bn1.weight.copy_(torch.arange(1, 5))
    objective = images(net)
    before = {k: t.clone() for k, t in objective.model.state_dict().items()}
    with pytest.raises(ls.UserError, match="variant of Doubled changes with its channels permuted"):
        refuse_unlike(objective, permutations_of(objective.model), 0)
    assert all(torch.equal(t, before[k]) for k, t in objective.model.state_dict().items())
