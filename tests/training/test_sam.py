import copy

import torch
from torch import nn

from landscape.training.sam import ascended


def test_the_ascent_of_sam_is_along_the_gradient_by_rho():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
    x = torch.randn(8, 3)
    network(x).square().sum().backward()
    before = copy.deepcopy(network.state_dict())
    g = torch.cat([p.grad.flatten() for p in network.parameters()])
    with ascended(network, 0.05):
        moved = torch.cat([(p - before[k]).detach().flatten() for k, p in network.named_parameters()])
        network(x)  # its statistics are left alone
    torch.testing.assert_close(moved, 0.05 * g / g.norm(), rtol=1e-4, atol=1e-7)
    for name, t in network.state_dict().items():
        assert torch.equal(t, before[name]) or name.endswith("num_batches_tracked")
