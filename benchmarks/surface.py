"""Time per point of a loss surface: this toolkit beside a bare forward loop, loss-landscapes, and the reference study.

    python -m pip install -e ".[dev]" loss-landscapes
    python benchmarks/surface.py

On a CPU: a public ResNet-20 on CIFAR-10 (--resnet20 and --cifar10 say where they are; needed). On a GPU instead
ResNet-50 and ViT-Ti at 32 x 32, as timm initialises them.

One run, the contestants in turn on a few points (two for each thread of torch): a noisy machine is noisy for all.


- bare loop: forward passes and the loss over the same tensors, in batches, channels first, under inference_mode, the
  weights never moved. What a surface costs when nothing but the network does.
- this toolkit, in float32 and bfloat16: `evaluate_surface` of these points, all that it stores of them included.
- loss-landscapes: its `random_plane` with its Loss metric, as its documentation shows, the data in one batch.
- reference study: as the code of Park & Kim goes about it (ops/loss_landscapes.py, ops/tests.py): the state dict
  copied, moved and loaded, then a DataLoader that draws and augments the training images anew (RandAugment, mixup and
  cutmix), softmax, logarithm, top 5, Brier score, norms. Left out, in its favour: confusion matrices and its picture.

The last lines are times per point as multiples of the bare loop's, and the reference's as multiples of ours.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from timm.data import Mixup
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

import landscape as ls
from landscape.data.frozen import Drawn
from landscape.data.sources import Source, open_source
from landscape.data.transforms import input_settings, make_transform
from landscape.runtime.random import seeded

SHARED = Path(__file__).resolve().parents[2] / "shared"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
Points = Callable[[int], None]  # computes so many of them


def bare(model: nn.Module, data: ls.FrozenData, device: str) -> Points:
    model = copy.deepcopy(model).to(device).eval()
    batches = [(x.to(device), y.to(device)) for x, y in data]

    @torch.inference_mode()
    def points(count: int) -> None:
        for _ in range(count):
            float(sum(F.cross_entropy(model(x), y, reduction="sum") for x, y in batches))

    return points


def ours(model: nn.Module, data: ls.FrozenData, device: str, precision: str) -> Points:
    objective = ls.Objective(model, data, weight_decay=0.05, device=device)
    plane = ls.random_plane(model)

    def points(count: int) -> None:
        # The points checked in full precision are few for a whole surface, and would be many for these.
        ls.evaluate_surface(objective, plane, points=(count, 1), span=0.5, dtype=precision, checks=0)

    return points


def loss_landscapes(model: nn.Module, data: ls.FrozenData, device: str) -> Points:
    from loss_landscapes import random_plane
    from loss_landscapes.metrics import Loss

    model = copy.deepcopy(model).to(device).eval()
    x, y = (torch.cat([batch[i] for batch in data]).to(device) for i in (0, 1))
    metric = Loss(nn.CrossEntropyLoss(), x, y)

    @torch.no_grad()
    def points(count: int) -> None:
        for _ in range(count):
            random_plane(model, metric, distance=1, steps=1, deepcopy_model=True)

    return points


def reference(
    model: nn.Module,
    source: Source,
    samples: int,
    device: str,
    normalisation: dict[str, tuple[float, ...]],
    workers: int,
) -> Points:
    settings = input_settings(source, None, None, normalisation["mean"], normalisation["std"])
    transform = make_transform(settings, training=True, mirror=source.mirror, auto_augment="rand-m9-n2-mstd1.0")
    mix = Mixup(1.0, 0.8, num_classes=source.num_classes, label_smoothing=0.1)
    model = copy.deepcopy(model).to(device).eval()
    start = copy.deepcopy(model.state_dict())
    bases = []
    for _ in range(2):
        basis = {k: torch.randn(v.shape, device=device) for k, v in start.items()}
        for k, v in start.items():
            norms = [torch.norm(t.float(), dim=0, keepdim=True) for t in (v, basis[k])]
            basis[k] = norms[0] / (norms[1] + 1e-7) * basis[k] if v.ndim >= 2 else torch.zeros_like(basis[k])
        bases.append(basis)
    index, draws = np.arange(samples), itertools.count()

    @torch.no_grad()
    def point() -> None:
        i = next(draws)
        weights = copy.deepcopy(start)
        moved = [{k: 0.1 * b[k] for k in b} for b in bases]
        model.load_state_dict({k: sum(m[k] for m in moved) + weights[k] for k in weights})
        loader = DataLoader(Drawn(source, index, transform, 0, i), 96, num_workers=workers, drop_last=True)
        total, right, brier, seen = 0.0, 0, 0.0, 0
        with seeded(i):
            for x, y in loader:
                x, soft = mix(x.to(device), y.to(device))
                p = F.softmax(model(x), dim=1).cpu()
                soft = soft.cpu()
                total += float(-(soft * torch.log(p)).sum())
                hard = soft.argmax(1)
                right += int((p.argsort(1)[:, -5:] == hard[:, None]).any(1).sum())
                brier += float((F.one_hot(hard, p.shape[1]) - p).square().sum())
                seen += len(x)
        for order in (1, 2):
            float(sum(torch.norm(w, order) for w in model.parameters()))

    def points(count: int) -> None:
        for _ in range(count):
            point()

    return points


def peak(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large product of matrices."""
    n = 8192 if device == "cuda" else 2048
    a = torch.randn(n, n, device=device, dtype=dtype)
    best = np.inf
    for _ in range(5):
        _synchronise()
        began = time.perf_counter()
        a @ a
        _synchronise()
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best


def compare(
    name: str, model: nn.Module, data: ls.FrozenData, source: Source, points: int, options: argparse.Namespace,
    normalisation: dict[str, tuple[float, ...]],
) -> None:  # fmt: skip
    """Run and print one network's comparison."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.eval()
    contestants: dict[str, Points] = {
        "bare loop": bare(model, data, device),
        "this toolkit": ours(model, data, device, "float32"),
        "this toolkit, bfloat16": ours(model, data, device, "bfloat16"),
        "loss-landscapes": loss_landscapes(model, data, device),
        "reference study": reference(
            model, source, len(torch.cat([y for _, y in data])), device, normalisation, options.workers
        ),
    }
    seconds = dict.fromkeys(contestants, 0.0)
    for contestant in contestants.values():  # once untimed: what a first call compiles and caches
        contestant(1)
    each = 2 * torch.get_num_threads() if device == "cpu" else 4
    points = -(-points // each) * each
    for _ in range(points // each):
        for key, contestant in contestants.items():
            _synchronise()
            began = time.perf_counter()
            contestant(each)
            _synchronise()
            seconds[key] += time.perf_counter() - began
    x = next(iter(data))[0]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(model)(x[:1])
    samples = sum(len(y) for _, y in data)
    flops = counter.get_total_flops() * samples
    peaks = {torch.float32: peak(device, torch.float32), torch.bfloat16: peak(device, torch.bfloat16)}
    print(
        f"\n{name}: {sum(p.numel() for p in model.parameters()):,} parameters, {samples} examples, "
        f"{points} points, {device}"
    )
    print(f"{'':24}{'s a point':>10}{'to bare':>9}{'share of peak':>15}")
    for key, total in seconds.items():
        dtype = torch.bfloat16 if "bfloat16" in key else torch.float32
        share = flops / (total / points) / peaks[dtype]
        print(f"{key:24}{total / points:10.3f}{total / seconds['bare loop']:9.2f}{share:15.0%}", flush=True)
    print(
        "the reference study's time as a multiple of this toolkit's: "
        f"{seconds['reference study'] / seconds['this toolkit']:.1f}, "
        f"in bfloat16 {seconds['reference study'] / seconds['this toolkit, bfloat16']:.1f}"
    )


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=10)
    parser.add_argument("--samples", type=int, default=1920)
    parser.add_argument("--workers", type=int, default=0, help="of the reference's DataLoader")
    parser.add_argument("--resnet20", type=Path, default=SHARED / "checkpoints" / "resnet20-12fca82f.th")
    parser.add_argument("--cifar10", type=Path, default=SHARED / "data" / "cifar10")
    options = parser.parse_args()
    source = open_source(f"hfds/{options.cifar10}")
    data = ls.load_data(f"hfds/{options.cifar10}", samples=options.samples, **IMAGENET)
    if torch.cuda.is_available():
        import timm

        with seeded(0):
            networks: dict[str, nn.Module] = {
                "ResNet-50 at 32 px": timm.create_model("resnet50", num_classes=10),
                "ViT-Ti at 32 px": ls.create_model("vit_ti", 10, 32, 3),
            }
    else:
        networks = {"ResNet-20": ls.load_checkpoint(options.resnet20, "resnet20")[0]}
    for name, model in networks.items():
        compare(name, model, data, source, options.points, options, IMAGENET)


if __name__ == "__main__":
    main()
