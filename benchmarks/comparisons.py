"""How often the 95 % intervals of differences and ratios, of single and of several trainings, cover the truth.

    python benchmarks/comparisons.py --repetitions 400

The truth is measured: each spectrum of results/study is a population of 32 mini-batches of 5 eigenvalues, and those of
two networks were computed on the same mini-batches. A sample is of 8 to 64 mini-batches, drawn with replacement, the
same ones for both networks or others. A training is made of a population: with a probability of 1/2 a mini-batch is
exchanged for another one, and all eigenvalues are multiplied by exp(spread * normal), or, of NEP, each negative one is
made positive with a probability of 0.4 + 0.4 * spread * normal, so that trainings differ in both ways in which they
can. The estimates and their comparison are those of `landscape compare`.

A row is a pair of networks, with the coverage at 8, 16, 32 and 64 mini-batches, and in brackets how often the truth
lies below and above the interval at 8, in per cent.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from intervals import SIZES, K, populations

from landscape.analyses import summaries
from landscape.analyses.estimates import Estimate
from landscape.analyses.intervals import Interval, share
from landscape.study.comparison import Compared
from landscape.study.effects import compared
from landscape.study.trainings import Known

STATISTICS = {"NEP": "nep", "APE": "ape", "largest": "largest", "smallest": "smallest"}
PAIRS = (("resnet20_0.1", "vit_0.1"), ("vit_gap_0.1", "vit_local_0.1"), ("resnet20_1.0", "vit_local_1.0"),
         ("vit_1.0", "vit_gap_1.0"))  # fmt: skip


@dataclass(frozen=True)
class Design:
    """How many trainings of each network, how far they differ, and whether all have the same mini-batches."""

    trainings: tuple[int, int] = (1, 1)
    spread: float = 0.0
    paired: bool = True

    def __str__(self) -> str:
        """In words."""
        many = f"{self.trainings[0]} and {self.trainings[1]} trainings"
        return f"{many}, spread {self.spread:g}, {'same' if self.paired else 'other'} mini-batches"


DESIGNS = (
    *(Design(paired=paired) for paired in (True, False)),
    *(Design((t, t), spread) for t in (2, 3, 5) for spread in (0.0, 0.2, 0.6)),
    Design((2, 5), 0.2), Design((3, 3), 0.2, paired=False),
)  # fmt: skip


@cache
def _share(counts: tuple[int, ...]) -> Interval:
    return share(np.repeat(np.arange(K + 1), counts), K)


def _estimate(e: np.ndarray, statistic: str) -> Estimate:
    """What `landscape show` says of eigenvalues (mini-batch, K), of one statistic."""
    key = STATISTICS[statistic]
    if key == "nep":
        interval = _share(tuple(np.bincount((e < 0).sum(axis=1), minlength=K + 1).tolist()))
    else:
        interval = summaries._STATISTICS[key](e, 0.95)
    influence = summaries._influences(e)[key]
    return Estimate(name=statistic, value=interval.estimate, low=interval.low, high=interval.high, n=len(e),
                    counts="mini-batches", measure="%" if key == "nep" else "", influence=influence,
                    compared="ratio" if key in ("ape", "largest") else "difference")  # fmt: skip


def _trained(e: np.ndarray, drawn: np.ndarray, statistic: str, spread: float, rng: np.random.Generator) -> np.ndarray:
    """The eigenvalues of one training on the mini-batches drawn."""
    at = np.where(rng.random(len(drawn)) < 0.5, rng.integers(0, len(e), len(drawn)), drawn) if spread else drawn
    x, g = e[at], rng.normal()
    if not spread:
        return x
    if statistic == "NEP":
        return np.where((x < 0) & (rng.random(x.shape) > _kept(spread, g)), -x, x)
    return x * np.exp(spread * g)


def _kept(spread: float, g: np.ndarray | float) -> np.ndarray:
    return np.clip(0.6 + 0.4 * spread * np.asarray(g), 0, 1)


def truth(e: np.ndarray, statistic: str, spread: float) -> float:
    """The mean over trainings; of a ratio the geometric one."""
    if statistic == "NEP" and spread:
        return float((e < 0).mean() * _kept(spread, np.random.default_rng(1).normal(size=400_000)).mean())
    value = _estimate(e, statistic).value
    if statistic == "smallest" and spread:
        return value * float(np.exp(spread**2 / 2))
    return value


def sampled(pair: tuple[str, str], statistic: str, n: int, design: Design, rng: np.random.Generator) -> Compared:
    """The comparison of one sample of trainings of two networks."""
    shared = rng.integers(0, 32, n)
    of = []
    for side, (name, count) in enumerate(zip(pair, design.trainings, strict=True)):
        drawn = [shared if design.paired else rng.integers(0, 32, n) for _ in range(count)]
        trained = [_trained(populations_()[name], d, statistic, design.spread, rng) for d in drawn]
        units = ["all" if design.paired else f"{side} {t}" for t in range(count)]
        of.append([Known(_estimate(e, statistic), u) for e, u in zip(trained, units, strict=True)])
    return compared(pair, "spectrum", statistic, of)


@cache
def populations_() -> dict[str, np.ndarray]:
    return populations()


def missed(
    pair: tuple[str, str], statistic: str, n: int, design: Design, repetitions: int, seed: int = 0
) -> tuple[float, float]:
    """How often the truth lies below and above the interval."""
    rng = np.random.default_rng(seed)
    a, b = (truth(populations_()[name], statistic, design.spread) for name in pair)
    below, above = 0, 0
    for _ in range(repetitions):
        effect = sampled(pair, statistic, n, design, rng).effect
        right = b / a if effect.compared == "ratio" else b - a
        below, above = below + (right < effect.low), above + (right > effect.high)
    return below / repetitions, above / repetitions


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--statistics", nargs="+", default=list(STATISTICS), choices=list(STATISTICS))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    options = parser.parse_args(arguments)
    for statistic in options.statistics:
        for design in DESIGNS:
            print(f"\n{statistic}, {design}".ljust(60) + "".join(f"{n:>8}" for n in options.sizes))
            for pair in PAIRS:
                rates = [missed(pair, statistic, n, design, options.repetitions) for n in options.sizes]
                covered = "".join(f"{1 - below - above:8.3f}" for below, above in rates)
                below, above = (100 * rate for rate in rates[0])
                print(f"{pair[1]} against {pair[0]}".ljust(59) + f"{covered}   [{below:.1f}, {above:.1f}]", flush=True)


if __name__ == "__main__":
    main()
