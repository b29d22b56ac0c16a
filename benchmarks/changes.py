"""How often 95 % intervals of the mean change of the loss cover the truth: the bootstrap-t against its alternatives.

    python benchmarks/changes.py --repetitions 1000

A change is drawn for each image: normal; lognormal; or next to nothing but for a share of the images, whose loss rises
by an exponential of mean 3. A row is a distribution and a number of images, with the coverage of each method, and in
brackets how often the truth lies below and above the interval, in per cent. A minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy.stats import bootstrap

from landscape.analyses.intervals import Interval, bootstrapped_mean, mean

Draw = Callable[[np.random.Generator, int], np.ndarray]


def rare(share: float) -> Draw:
    """A share of the images loses much, the others next to nothing."""
    return lambda rng, n: rng.normal(0, 0.02, n) + (rng.random(n) < share) * rng.exponential(3, n)


DISTRIBUTIONS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, n: rng.normal(0.3, 1, n), 0.3),
    "lognormal, sd 1": (lambda rng, n: rng.lognormal(0, 1, n), float(np.exp(0.5))),
    "20 % lose much": (rare(0.2), 0.6),
    "5 % lose much": (rare(0.05), 0.15),
    "2 % lose much": (rare(0.02), 0.06),
}


def by_scipy(method: str) -> Callable[[np.ndarray], Interval]:
    """The percentile or the BCa interval of scipy.stats.bootstrap."""

    def interval(x: np.ndarray) -> Interval:
        found = bootstrap((x,), np.mean, n_resamples=999, method=method, rng=0, vectorized=True).confidence_interval
        return Interval(float(x.mean()), found.low, found.high)

    return interval


METHODS: dict[str, Callable[[np.ndarray], Interval]] = {
    "bootstrap-t": bootstrapped_mean, "Student's t": mean, "percentile": by_scipy("percentile"), "BCa": by_scipy("BCa"),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 300, 1000])
    options = parser.parse_args()
    print(" " * 26 + "".join(f"{name:22}" for name in METHODS))
    for name, (draw, truth) in DISTRIBUTIONS.items():
        for n in options.sizes:
            cells = []
            for method in METHODS.values():
                rng = np.random.default_rng(1)
                low, high = np.array([method(draw(rng, n))[1:] for _ in range(options.repetitions)]).T
                below, above = float((truth < low).mean()), float((truth > high).mean())
                cells.append(f"{1 - below - above:.3f} [{100 * below:.1f}, {100 * above:.1f}]".ljust(22))
            print(f"{name:18}{n:6}  " + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
