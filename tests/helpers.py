"""What tests share: small networks whose whole Hessian fits, the command line, and the promise kept to the caller."""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: small networks gain nothing from more
import hypothesis
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import hessian, jacrev
from torch.utils import _pytree as pytree

import landscape as ls
from landscape.cli.main import status

os.environ.setdefault("HF_HUB_OFFLINE", "1")
hypothesis.settings.register_profile("noisy", deadline=None)  # a shared machine is no stopwatch
hypothesis.settings.load_profile("noisy")
ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
RESNET20 = SHARED / "checkpoints" / "resnet20-12fca82f.th"
CIFAR10 = SHARED / "data" / "cifar10"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
needs_shared = pytest.mark.skipif(
    not (RESNET20.exists() and CIFAR10.exists()), reason=f"the public ResNet-20 and CIFAR-10 are not in {SHARED.name}/"
)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Fails where the block changed a weight, a buffer, a gradient, a mode, requires_grad or a random state."""

    def state() -> tuple[object, ...]:
        return (
            {k: v.clone() for k, v in model.state_dict().items()},
            {k: None if p.grad is None else p.grad.clone() for k, p in model.named_parameters()},
            [(m.training, k) for k, m in model.named_modules()],
            [(p.requires_grad, id(p)) for p in model.parameters()],
            torch.default_generator.get_state(),
            torch.get_float32_matmul_precision(),
            torch.backends.cuda.flash_sdp_enabled(),
        )

    before = state()
    try:
        yield
    finally:
        for a, b in zip(before, state(), strict=True):
            if isinstance(a, dict) and isinstance(b, dict):
                assert a.keys() == b.keys()
                assert all(same(a[k], b[k]) for k in a)
            else:
                assert same(a, b)


def same(a: object, b: object) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b


def small(name: str, num_classes: int = 4, image_size: int = 8, in_channels: int = 1) -> nn.Module:
    """A network of list_models() in its full depth, and so narrow that a Hessian product takes milliseconds."""
    family = name.split("_")[0].rstrip("0123456789")
    settings: dict[str, object] = {
        "vit": {"embed_dim": 8, "num_heads": 2},
        "pit": {"base_dims": (4, 4, 4), "heads": (1, 2, 2)},
        "swin": {"embed_dim": 4, "num_heads": (1, 2, 2, 2)},
        "botnet": {"widths": (4, 4, 4, 8), "heads": 2},
        "alternet": {"widths": (4, 4, 8, 8), "heads": (1, 1, 2, 2), "head_width": 4},
        "preresnet": {"widths": (4, 4, 4, 4)},
        "resnet": {"widths": (4, 4, 4, 4) if "resnet_" in name else (4, 4, 4)},
    }[family]
    if name == "alternet_xs":
        settings = {"widths": (4, 4, 8), "heads": (1, 1, 2), "head_width": 4}
    return ls.create_model(name, num_classes, image_size, in_channels, **settings)


def dense_hessian(objective: ls.Objective, x: Tensor | None = None, y: Tensor | None = None) -> np.ndarray:
    """The Hessian in full by torch.func.hessian of the written-out loss: shares nothing with the operators."""
    model = objective.model
    names = [k for k, p in model.named_parameters() if p.requires_grad]
    shapes = [dict(model.named_parameters())[k].shape for k in names]
    theta = torch.cat([dict(model.named_parameters())[k].detach().reshape(-1) for k in names])
    x, y = (objective.x, objective.y) if x is None or y is None else (x, y)

    def loss(t: Tensor) -> Tensor:
        parts = t.split([s.numel() for s in shapes])
        named = {k: p.view(s) for k, p, s in zip(names, parts, shapes, strict=True)}
        logits = torch.func.functional_call(model, named, (x,))
        penalty = sum((p**2).sum() for p in named.values() if p.ndim >= 2)
        return nn.functional.cross_entropy(logits, y) + 0.5 * objective.penalty.weight_decay * penalty

    return torch.func.hessian(loss)(theta).numpy()


def cli(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-c", "from landscape.cli.main import main; main()", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def invoke(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in this process, where a process of its own would only cost time."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = status(list(map(str, arguments)))
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit status 2, and one line that has every one of `words`."""
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.strip().split("\n") if line.startswith("landscape: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in lines[0], lines[0]


def raising(model: nn.Module, after: int) -> nn.Module:
    """A copy of `model` whose forward pass raises from its `after`-th call on."""
    model = copy.deepcopy(model)
    calls = 0

    def fail(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise RuntimeError("the network broke")

    model.register_forward_pre_hook(fail)
    return model


class LittleMemory(nn.Module):
    """Runs out of memory, as a GPU does, by more than `most` examples whose graph is to be kept."""

    def __init__(self, network, most):
        super().__init__()
        self.network, self.most = network, most

    def forward(self, x):
        if torch.is_grad_enabled() and len(x) > self.most:
            raise torch.OutOfMemoryError(f"CUDA out of memory by {len(x)} examples")
        return self.network(x)


def in_full(H):
    return torch.stack([H(row) for row in torch.eye(H.n, dtype=H.objective.dtype)])


def dense(objective, outputs, loss):
    """H, G and H - G in full: of theta -> loss(outputs(theta)), by torch.func."""
    theta = {name: p.detach() for name, p in objective.model.named_parameters()}

    def loss_of_vector(vector):
        parts = vector.split([p.numel() for p in theta.values()])
        named = {name: part.view(p.shape) for (name, p), part in zip(theta.items(), parts, strict=True)}
        return loss(outputs(named))

    H = hessian(loss_of_vector)(torch.cat([p.reshape(-1) for p in theta.values()]))
    f, form = pytree.tree_flatten(outputs(theta))
    sizes = [t.numel() for t in f]
    at = torch.cat([t.reshape(-1) for t in f])

    def loss_of_outputs(vector):
        parts = [part.view(t.shape) for part, t in zip(vector.split(sizes), f, strict=True)]
        return loss(pytree.tree_unflatten(parts, form))

    def flat_outputs(theta):
        return torch.cat([t.reshape(-1) for t in pytree.tree_leaves(outputs(theta))])

    J = torch.cat([j.flatten(1) for j in jacrev(flat_outputs)(theta).values()], 1)
    G = J.T @ hessian(loss_of_outputs)(at) @ J
    return {"hessian": H, "ggn": G, "residual": H - G}
