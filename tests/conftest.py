"""Fixtures: small networks, real data where it is at hand, and a trained checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import CIFAR10, IMAGENET, RESNET20, cli
from torch import Tensor, nn

import landscape as ls


@pytest.fixture
def mlp() -> nn.Module:
    """65 parameters, smooth, in train mode with a gradient left on it, as a caller may have it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Dropout(0.5), nn.Linear(7, 2, bias=True)).train()
    model(torch.randn(3, 6)).sum().backward()
    return model


@pytest.fixture
def points() -> list[tuple[Tensor, Tensor]]:
    """40 + 10 examples: batches of unequal length, on purpose."""
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(50, 6, generator=g), torch.randint(0, 2, (50,), generator=g)
    return [(x[:40], y[:40]), (x[40:], y[40:])]


@pytest.fixture(scope="session")
def resnet20() -> tuple[nn.Module, dict]:
    return ls.load_checkpoint(RESNET20, "resnet20")


@pytest.fixture(scope="session")
def cifar() -> ls.FrozenData:
    return ls.load_data(f"hfds/{CIFAR10}", samples=64, **IMAGENET)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small ResNet, trained for two epochs on the digits by the command line."""
    path = tmp_path_factory.mktemp("trained") / "resnet8.safetensors"
    cli("train", "--model", "resnet8", "--data", "digits", "--epochs", "2", "--out", path).check_returncode()
    return path
