"""Per-mini-batch top-5 Hessian eigenvalues: this toolkit beside PyHessian, curvlinops with eigsh, hessian-eigenthings.

    python -m pip install -e ".[dev]" hessian-eigenthings
    python benchmarks/curvature.py --batches 8

On a CPU: a public ResNet-20 on CIFAR-10 (--resnet20 and --cifar10 say where they are; passed over where absent) and a
small ViT that it trains on the digits. On a GPU also ResNet-50 and ViT-Ti at 32 x 32, as timm initialises them.

One run, the contestants in turn on a few mini-batches (two for each thread of torch; on a GPU, on all of them), so
that a noisy machine is noisy for all. A contestant's time counts all that it does for a mini-batch, from the forward
pass on; each is the whole call that its documentation shows. Errors are of the sorted eigenvalues, relative to those of
a float64 search to residuals of 1e-6 of the value. The last lines are the ratios of total times to ours.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

import landscape as ls
from landscape.curvature.minibatches import minibatch_eigenpairs
from landscape.curvature.operators import Curvature
from landscape.data.sources import open_source
from landscape.data.transforms import input_settings
from landscape.linalg.eigenpairs import eigenpairs
from landscape.linalg.ritz import RitzPairs
from landscape.linalg.search import Search
from landscape.runtime.arithmetic import exact_arithmetic
from landscape.runtime.random import seeded
from landscape.runtime.threads import side_by_side
from landscape.training.recipe import Recipe
from landscape.training.train import train

K, BATCH_SIZE, TOL = 5, 16, 1e-2
SHARED = Path(__file__).resolve().parents[2] / "shared"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
Batch = tuple[Tensor, Tensor]
Found = tuple[Sequence[float], int]  # K eigenvalues, and the Hessian products spent on them


@dataclass
class Record:
    """What one contestant did on one network."""

    values: list[np.ndarray] = field(default_factory=list)
    products: int = 0
    seconds: float = 0.0

    def errors(self, reference: list[np.ndarray]) -> np.ndarray:
        """Relative errors (mini-batch, rank) of the eigenvalues, each side sorted by value."""
        return np.array([np.abs(np.sort(v) / np.sort(r) - 1) for v, r in zip(self.values, reference, strict=True)])


class Counting(nn.Module):
    """The network, counting products by the zero_grad that PyHessian calls before each."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.zeroed = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.zeroed += 1
        super().zero_grad(set_to_none)


def ours(objective: ls.Objective, model: nn.Module, batches: Sequence[Batch]) -> list[Found]:
    if objective.device.type == "cuda":
        found = minibatch_eigenpairs(objective, dict(enumerate(batches)), Search(k=K, tol=TOL))
    else:
        workers = min(torch.get_num_threads(), len(batches))

        def compute(i: int) -> RitzPairs:
            return minibatch_eigenpairs(objective, {i: batches[i]}, Search(k=K, tol=TOL))[0]

        found = [pairs for _, pairs in sorted(side_by_side(compute, range(len(batches)), workers), key=itemgetter(0))]
    return [(pairs.values.tolist(), pairs.products) for pairs in found]


def pyhessian(objective: ls.Objective, model: nn.Module, batches: Sequence[Batch]) -> list[Found]:
    """At its defaults: power iteration with deflation, at most 100 iterations each, tolerance 1e-3."""
    from pyhessian import hessian

    found = []
    for batch in batches:
        counted = Counting(copy.deepcopy(model))
        engine = hessian(counted, nn.CrossEntropyLoss(), data=batch, cuda=objective.device.type == "cuda")
        values, _ = engine.eigenvalues(top_n=K)
        found.append((values, counted.zeroed))
    return found


def curvlinops(objective: ls.Objective, model: nn.Module, batches: Sequence[Batch]) -> list[Found]:
    """Its Hessian as a scipy operator, given to eigsh at the same tolerance."""
    from curvlinops import HessianLinearOperator

    found = []
    for batch in batches:
        H = HessianLinearOperator(
            model, nn.CrossEntropyLoss(), list(model.parameters()), [batch], check_deterministic=False
        )
        operator = H.to_scipy()
        products = 0

        def matvec(v: np.ndarray, operator: object = operator) -> np.ndarray:
            nonlocal products
            products += 1
            return operator @ v

        counted = LinearOperator(operator.shape, matvec, dtype=operator.dtype)
        values = eigsh(counted, K, which="LM", tol=TOL, return_eigenvectors=False)
        found.append((values.tolist(), products))
    return found


def eigenthings(objective: ls.Objective, model: nn.Module, batches: Sequence[Batch]) -> list[Found]:
    """Its Lanczos at the same tolerance."""
    from hessian_eigenthings import HessianOperator, lanczos, supervised_loss

    found = []
    for batch in batches:
        H = HessianOperator(model, [batch], supervised_loss(nn.CrossEntropyLoss()))
        products = 0
        apply = H.matvec

        def matvec(v: Tensor, apply: Callable[[Tensor], Tensor] = apply) -> Tensor:
            nonlocal products
            products += 1
            return apply(v)

        H.matvec = matvec
        result = lanczos(H, k=K, tol=TOL, which="LM", seed=0)
        found.append((result.eigenvalues.tolist(), products))
    return found


CONTESTANTS = {
    "this toolkit": ours,
    "PyHessian": pyhessian,
    "curvlinops + eigsh": curvlinops,
    "hessian-eigenthings": eigenthings,
}


def converged(objective: ls.Objective, batches: Sequence[Batch]) -> list[np.ndarray]:
    """Eigenvalues in float64, to residuals of 1e-6 of each."""
    exact = ls.Objective(objective.model, objective.batches, dtype=torch.float64)
    found = []
    for x, y in batches:
        H = Curvature(exact, x.double(), y)
        start = torch.randn(H.n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        pairs = eigenpairs(H, start.to(H.zeros()), Search(k=K, tol=1e-6, max_products=1000))
        assert pairs.converged.all()
        found.append(pairs.values)
    return found


def compare(name: str, model: nn.Module, data: ls.FrozenData, count: int, chosen: Sequence[str]) -> dict[str, float]:
    """Run and print one network's comparison; the ratios of time to ours."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device).eval()
    objective = ls.Objective(model, data, device=device)
    batches = objective.minibatches(BATCH_SIZE, count)
    at_once = count if device == "cuda" else 2 * torch.get_num_threads()
    turns = [batches[i : i + at_once] for i in range(0, count, at_once)]
    records = {contestant: Record() for contestant in chosen}
    with exact_arithmetic():  # else none of the others can differentiate an attention twice
        for contestant in chosen:  # once untimed: what the first call compiles and caches
            CONTESTANTS[contestant](objective, model, turns[0][:1])
        for turn in turns:
            for contestant, record in records.items():
                _synchronise()
                began = time.perf_counter()
                found = CONTESTANTS[contestant](objective, model, turn)
                _synchronise()
                record.seconds += time.perf_counter() - began
                record.values += [np.array(values) for values, _ in found]
                record.products += sum(products for _, products in found)
    reference = converged(objective, batches)
    n = sum(p.numel() for p in model.parameters())
    print(f"\n{name}: {n:,} parameters, {count} mini-batches of {BATCH_SIZE}, top {K}, {device}")
    print(f"{'':22}{'products':>10}{'seconds':>10}{'worst error':>14}{'median error':>14}")
    for contestant, record in records.items():
        errors = record.errors(reference)
        print(
            f"{contestant:22}{record.products:10}{record.seconds:10.2f}{errors.max():14.1e}{np.median(errors):14.1e}",
            flush=True,
        )
    return {c: record.seconds / records["this toolkit"].seconds for c, record in records.items()}


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def networks(resnet20: Path, cifar10: Path, samples: int) -> dict[str, tuple[nn.Module, ls.FrozenData]]:
    """What is compared here, by name."""
    found = {}
    if resnet20.exists() and cifar10.exists():
        cifar = ls.load_data(f"hfds/{cifar10}", samples=samples, **IMAGENET)
        found["ResNet-20, trained"] = (ls.load_checkpoint(resnet20, "resnet20")[0], cifar)
    source = open_source("digits")
    recipe = Recipe(epochs=30, lr=3e-3, warmup_epochs=5)
    with seeded(0):
        vit = ls.create_model("vit_xs", source.num_classes, 8, 1)
    train(vit, source, recipe, input_settings(source))
    found["ViT-xs, trained on digits"] = (vit, ls.load_data("digits", samples=samples))
    if torch.cuda.is_available():
        import timm

        g = torch.Generator().manual_seed(0)
        noise = [(torch.randn(samples, 3, 32, 32, generator=g), torch.randint(0, 100, (samples,), generator=g))]
        images = found["ResNet-20, trained"][1] if "ResNet-20, trained" in found else noise
        with seeded(0):
            found["ResNet-50 at 32 px"] = (timm.create_model("resnet50", num_classes=100), images)
            found["ViT-Ti at 32 px"] = (ls.create_model("vit_ti", 100, 32, 3), images)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--resnet20", type=Path, default=SHARED / "checkpoints" / "resnet20-12fca82f.th")
    parser.add_argument("--cifar10", type=Path, default=SHARED / "data" / "cifar10")
    parser.add_argument("--only", nargs="*", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    options = parser.parse_args()
    chosen = list(dict.fromkeys(["this toolkit", *options.only]))
    compared = networks(options.resnet20, options.cifar10, BATCH_SIZE * options.batches)
    ratios = {name: compare(name, model, data, options.batches, chosen) for name, (model, data) in compared.items()}
    print("\ntimes as much time as this toolkit:")
    for name, row in ratios.items():
        print(f"{name}: " + ", ".join(f"{c} {r:.1f}" for c, r in row.items() if c != "this toolkit"))


if __name__ == "__main__":
    main()
