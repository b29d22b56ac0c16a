"""How often the 95 % intervals of NEP, APE, largest and smallest cover the truth.

    python benchmarks/intervals.py --repetitions 1000

Two kinds of truth. Measured: each spectrum of results/study is a population of 32 mini-batches of 5 eigenvalues, and
samples of 8 to 64 mini-batches are drawn from it with replacement. Made up: shares of negative eigenvalues that go
together in a mini-batch (beta-binomial, by the correlation within a mini-batch), and eigenvalues whose mean over a
mini-batch is lognormal, by the standard deviation of its logarithm, with a number of positive ones that is all 5 or
depends on it.

A row is one truth, with the coverage at 8, 16, 32 and 64 mini-batches, and in brackets how often the truth lies below
and above the interval at 8, in per cent. A few minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from scipy.stats import norm

from landscape import store
from landscape.analyses.intervals import Interval, median, positive_ratio, share

STUDY = Path(__file__).resolve().parents[1] / "results" / "study"
SIZES = (8, 16, 32, 64)
K = 5
Draw = Callable[[np.random.Generator, int], np.ndarray]  # eigenvalues (mini-batch, K) of so many mini-batches


def populations() -> dict[str, np.ndarray]:
    """The eigenvalues (mini-batch, K) of each spectrum of the study, by file."""
    groups = {path.stem: store.load(path) for path in sorted(STUDY.glob("*.h5"))}
    return {name: g["spectrum"]["eigenvalue"].values for name, g in groups.items() if "spectrum" in g}


def resampled(population: np.ndarray) -> Draw:
    """Mini-batches of a population, with replacement."""
    return lambda rng, n: population[rng.integers(0, len(population), n)]


def clustered(p: float, correlation: float) -> Draw:
    """Signs, of which a share p is negative: a beta-binomial number in each mini-batch."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        size = (1 - correlation) / correlation if correlation else np.inf
        own = rng.beta(p * size, (1 - p) * size, n) if correlation else np.full(n, p)
        negative = np.arange(K) < rng.binomial(K, own)[:, None]
        return np.where(negative, -1.0, 1.0)

    return draw


def heavy(sd: float, dependent: bool = False) -> Draw:
    """Lognormal eigenvalues: the logarithm has a standard deviation of sd between mini-batches and 0.3 within.

    dependent: some are negative, and fewer of them where the others are large.
    """

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        between = rng.normal(size=(n, 1))
        e = np.exp(sd * between + 0.3 * rng.normal(size=(n, K)))
        negative = rng.random((n, K)) < norm.cdf(-1.2 - 0.5 * between)
        return np.where(negative & dependent, -e, e)

    return draw


@cache
def _share(counts: tuple[int, ...]) -> Interval:
    return share(np.repeat(np.arange(K + 1), counts), K)


def nep(e: np.ndarray) -> Interval:
    return _share(tuple(np.bincount((e < 0).sum(axis=1), minlength=K + 1).tolist()))


def ape(e: np.ndarray) -> Interval:
    return positive_ratio(np.where(e > 0, e, 0).sum(axis=1), (e > 0).sum(axis=1))


def largest(e: np.ndarray) -> Interval:
    return median(e.max(axis=1))


def smallest(e: np.ndarray) -> Interval:
    return median(e.min(axis=1))


STATISTICS = {"NEP": nep, "APE": ape, "largest": largest, "smallest": smallest}


def scenarios(statistic: str) -> Iterator[tuple[str, Draw, float]]:
    """Name, how to draw, and the truth, for one statistic."""
    for name, e in populations().items():
        truth = STATISTICS[statistic](e).estimate
        if statistic != "NEP" or truth > 0:
            yield name, resampled(e), truth
    if statistic == "NEP":
        for p in (0.004, 0.018, 0.05, 0.1, 0.3, 0.5):
            for correlation in (0.0, 0.1, 0.3, 0.6, 0.9):
                yield f"{p:.1%}, correlation {correlation:g}", clustered(p, correlation), p
    if statistic == "APE":
        for sd in (0.2, 0.5, 1.0, 1.5):
            yield f"lognormal, sd {sd:g}", heavy(sd), float(np.exp((sd**2 + 0.3**2) / 2))
        many = heavy(1.0, dependent=True)(np.random.default_rng(1), 2_000_000)
        yield "lognormal, sd 1, dependent", heavy(1.0, dependent=True), float(many[many > 0].mean())


def missed(statistic: str, draw: Draw, truth: float, n: int, repetitions: int, seed: int = 0) -> tuple[float, float]:
    """How often the truth lies below and above the interval over n mini-batches."""
    rng = np.random.default_rng(seed)
    intervals = [STATISTICS[statistic](draw(rng, n)) for _ in range(repetitions)]
    low, high = np.array([interval[1:] for interval in intervals]).T
    return float((truth < low).mean()), float((truth > high).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    options = parser.parse_args()
    for statistic in STATISTICS:
        print(f"\n{statistic:28}{'truth':>9}" + "".join(f"{n:>8}" for n in SIZES))
        for name, draw, truth in scenarios(statistic):
            rates = [missed(statistic, draw, truth, n, options.repetitions) for n in SIZES]
            covered = "".join(f"{1 - below - above:8.3f}" for below, above in rates)
            below, above = (100 * rate for rate in rates[0])
            print(f"{name:28}{truth:9.3g}{covered}   [{below:.1f}, {above:.1f}]", flush=True)


if __name__ == "__main__":
    main()
