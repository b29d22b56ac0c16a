"""A network rewritten for speed is the same function of the same parameters."""

import copy

import pytest
import timm
import torch
from torch import nn

import landscape as ls
from landscape.objective.folding import FoldedConv2d, accelerate
from landscape.runtime.arithmetic import true_float32


def folded(model):
    return sum(isinstance(m, FoldedConv2d) for m in model.modules())


def with_statistics(model):
    """BatchNorm statistics as training leaves them: none of them 0 or 1."""
    torch.manual_seed(1)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.running_mean)
            nn.init.uniform_(m.running_var, 0.5, 2)
            nn.init.normal_(m.weight, 1, 0.2)
            nn.init.normal_(m.bias)
    return model.eval()


@pytest.mark.parametrize(("name", "expected"), [("resnet20", 19), ("resnet20_noshort", 19), ("alternet_xs", None)])
def test_same_outputs_and_gradients(name, expected):
    model = with_statistics(ls.create_model(name, 10, 8, 3)).double()
    x = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    fast = copy.deepcopy(model)
    x_fast = accelerate(fast, x)
    assert folded(fast) == expected if expected else folded(fast) > 0
    assert list(fast.state_dict()) == list(model.state_dict())
    assert [n for n, _ in fast.named_parameters()] == [n for n, _ in model.named_parameters()]
    torch.testing.assert_close(fast(x_fast), model(x), rtol=1e-10, atol=1e-10)
    for a, b in zip(
        *(torch.autograd.grad(m(x).square().sum(), list(m.parameters())) for m in (fast, model)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8 * float(b.abs().max()) + 1e-12)


def in_tf32(t):
    """Rounded to 10 bits of mantissa, as an NVIDIA GPU's tensor cores take their inputs."""
    return ((t.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def test_batchnorms_are_folded_where_the_caller_has_tf32(monkeypatch):
    """Emulated: the convolutions obey torch's setting as a GPU's do. TF32 differs by more than folding may."""
    exact = nn.functional.conv2d

    def conv2d(x, weight, *rest):
        if torch.backends.cudnn.conv.fp32_precision == "tf32":
            x, weight = in_tf32(x), in_tf32(weight)
        return exact(x, weight, *rest)

    monkeypatch.setattr(nn.functional, "conv2d", conv2d)
    model = with_statistics(ls.create_model("resnet20", 10, 16, 3))
    x, y = torch.randn(4, 3, 16, 16), torch.arange(4)
    with torch.no_grad():
        rounded = model(x)
        with true_float32():
            assert not torch.allclose(rounded, model(x), rtol=1e-4, atol=1e-4 * float(rounded.abs().max()))
    assert folded(ls.Objective(model, [(x, y)]).model) == 19


def test_a_copy_of_a_folded_network_stands_alone():
    fast = with_statistics(ls.create_model("resnet8", 10, 8, 1))
    x = accelerate(fast, torch.randn(2, 1, 8, 8))
    before = fast(x)
    other = copy.deepcopy(fast)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    assert torch.equal(fast(x), before)
    assert not torch.equal(other(x), before)


class Branching(nn.Module):
    """The convolution's output is used beside the BatchNorm too."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return (self.bn(y) + y).mean((2, 3))


class Shared(Branching):
    """One BatchNorm after two uses of the convolution."""

    def forward(self, x):
        return (self.bn(self.conv(x)) + self.bn(self.conv(-x))).mean((2, 3))


class Untraceable(Branching):
    def forward(self, x):
        y = self.bn(self.conv(x))
        return y.mean((2, 3)) if bool((y.detach() > 0).any()) else -y.mean((2, 3))


class Viewing(Branching):
    def forward(self, x):
        y = self.bn(self.conv(x))
        return y.view(y.shape[0], -1)


@pytest.mark.parametrize(("network", "pairs"), [(Branching, 0), (Shared, 0), (Untraceable, 0), (Viewing, 1)])
def test_what_must_not_change_does_not(network, pairs):
    model = with_statistics(network())
    x = torch.randn(4, 3, 6, 6)
    fast = copy.deepcopy(model)
    y = fast(accelerate(fast, x))
    torch.testing.assert_close(y, model(x), rtol=1e-4, atol=1e-4)
    assert folded(fast) == pairs


def test_a_batchnorm_in_train_mode_is_not_folded():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()).train()
    model[0].eval()
    accelerate(model, torch.randn(4, 3, 6, 6))
    assert folded(model) == 0


class Volumes(nn.Module):
    """A convolution over images, one over volumes of its channels, and so parameters of four and five dimensions."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.deep = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv3d(1, 2, 3)

    def forward(self, x):
        y = torch.relu(self.bn(self.conv(x)))
        return self.deep(y[:, None]).mean((3, 4)).flatten(1)


@pytest.mark.parametrize("network", [Volumes, lambda: timm.create_model("lambda_resnet26t", num_classes=4)])
def test_parameters_of_five_dimensions(network):
    torch.manual_seed(0)
    model = with_statistics(network())
    x, y = torch.randn(2, 3, 64, 64), torch.tensor([0, 1])
    objective = ls.Objective(model, [(x, y)])
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in objective.model.parameters() if p.ndim == 4)
    with torch.no_grad():
        truth = nn.functional.cross_entropy(model(x), y)
    assert objective.evaluate().nll == pytest.approx(truth.item(), rel=1e-4)
