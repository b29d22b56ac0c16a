"""How often a search that calls itself complete has missed a wanted eigenvalue, and how often a second look finds it.

    python benchmarks/second_look.py

Diagonal operators: the eigenvalues of the mini-batches in results/study, and beyond them ones that fall as 1 / rank, a
third of them negative. Each is searched for its 5 of largest magnitude from random starts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import landscape as ls
from landscape.linalg.eigenpairs import eigenpairs
from landscape.linalg.operators import Rows
from landscape.linalg.search import Search

STUDY = Path(__file__).resolve().parents[1] / "results" / "study"
RESNET20 = [137.03, 13.352, 12.803, 2.597, 2.3455, -2.0885, 1.9, -1.85, 1.7, 1.6]  # the first six of one mini-batch


def measured(n: int) -> Iterator[torch.Tensor]:
    """Spectra (n,): the eigenvalues of a mini-batch, and beyond them ones that fall as 1 / rank, a third negative."""
    rng = np.random.default_rng(0)
    rank = np.arange(len(RESNET20) + 1, n + 1)
    yield torch.as_tensor(np.concatenate([RESNET20, 16 / rank * rng.choice([-1, 1, 1], len(rank))]))
    for path in sorted(STUDY.glob("*.h5")):
        for top in ls.load(path)["spectrum"]["eigenvalue"].values if "spectrum" in ls.load(path) else ():
            rank = np.arange(len(top) + 1, n + 1)
            rest = np.abs(top).min() * len(top) / rank * rng.choice([-1, 1, 1], len(rank))
            yield torch.as_tensor(np.concatenate([top, rest]))


def misses(spectrum: torch.Tensor, starts: range, *, second_look: bool) -> tuple[int, int, int]:
    """Complete searches, those of them that lack a wanted value by more than 5 %, and products spent."""
    truth = np.sort(np.abs(spectrum.numpy()))[::-1][:5]
    complete = missed = products = 0
    for seed in starts:
        v = torch.randn(len(spectrum), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        pairs = eigenpairs(Rows(lambda V: V * spectrum), v, Search(k=5, second_look=second_look))
        complete += pairs.complete
        missed += pairs.complete and bool((np.sort(np.abs(pairs.values))[::-1] < 0.95 * truth).any())
        products += pairs.products
    return complete, missed, products


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=5_000)
    parser.add_argument("--starts", type=int, default=6, help="searches of each mini-batch")
    options = parser.parse_args()
    for second_look in (False, True):
        found = [
            misses(spectrum, range(options.starts), second_look=second_look)
            for spectrum in measured(options.parameters)
        ]
        complete, missed, products = np.sum(found, axis=0)
        print(
            f"second look {second_look!s:5}: {missed} of {complete} complete searches missed one, {products} products"
        )


if __name__ == "__main__":
    main()
