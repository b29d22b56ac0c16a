"""Lesions: none by blocks that do nothing, the whole by the one that does all, and numbers of a plain loop."""

import numpy as np
import pytest
import torch
from helpers import small, unchanged
from torch import nn
from torch.nn import functional as F

import landscape as ls
from landscape.analyses.lesion import Lesion, network_lesions
from landscape.study import drawing

X = torch.randn(48, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(48) % 4


def silenced(network: nn.Module, but: str = "") -> nn.Module:
    """The last weights of each branch set to 0, but of one block."""
    for name, p in network.named_parameters():
        if name.endswith(("attn.proj.weight", "attn.proj.bias", "fc2.weight", "fc2.bias")) and not name.startswith(but):
            p.data.zero_()
    return network


def test_blocks_that_do_nothing_have_lesion_0_and_the_rest_their_own():
    torch.manual_seed(0)
    network = silenced(small("vit_xs"), but="blocks.1.mlp").eval()
    with unchanged(network):
        found = network_lesions(ls.Objective(network, [(X, Y)]))
    idle = found["block"].values != "blocks.1.mlp"
    assert idle.sum() == found.sizes["block"] - 1
    assert (found["loss_change"].values[idle] == 0).all()
    assert (found["hit_change"].values[idle] == 0).all()
    assert (found["mcnemar"].values[idle] == 1).all()
    assert np.isnan(found["nll_change"].sel(bound="low").values[idle]).all(), "nothing changed: no +- 0"
    assert (found["loss_change"].values[~idle] != 0).all()


def test_the_change_is_that_of_a_plain_loop():
    torch.manual_seed(0)
    network = small("resnet8").eval()
    found = network_lesions(ls.Objective(network, [(X, Y)]))
    with torch.no_grad():
        whole = F.cross_entropy(network(X), Y, reduction="none")
        for i, name in enumerate(found["block"].values):
            block = network.get_submodule(str(name))
            stop = block.register_forward_hook(lambda m, inputs, _: F.relu(m.shortcut(inputs[0])))
            logits = network(X)
            stop.remove()
            loss = F.cross_entropy(logits, Y, reduction="none")
            np.testing.assert_allclose(found["loss_change"][i], loss - whole, atol=2e-5)
            assert float(found["accuracy"][i]) == pytest.approx(float((logits.argmax(1) == Y).float().mean()))
    np.testing.assert_allclose(found["nll_change"].sel(bound="estimate"), found["loss_change"].mean("example"))


def test_estimates_and_pictures_are_of_every_block():
    torch.manual_seed(0)
    objective = ls.Objective(small("alternet_xs").eval(), [(X, Y)])
    found = network_lesions(objective)
    names = [e.name for e in Lesion().estimates(found) if e.name.startswith("change")]
    assert len(names) == 2 * found.sizes["block"]
    assert names[0].startswith("change of the NLL without layer1.0")
    assert list(drawing.draw({"lesion": found})) == ["lesion"]
    both = drawing.compare({"a": {"lesion": found}, "b": {"lesion": found}})
    assert len(both["lesion"].axes) == 4
