"""How often a claim without ground is said to hold, and how right the number of trainings is that would decide.

    python benchmarks/verdicts.py --repetitions 400

Trainings are drawn from the measured spectra of results/study as `benchmarks/comparisons.py` draws them: all trainings
share the mini-batches, the eigenvalues of one go together, and trainings differ by a spread. Without an effect both
groups are of one network, and two claims are looked at, on APE and NEP: a row has the share of samples in which any
holds, and in which any does not hold, in per cent; each is to be 2.5 at most, and 5 together.

With an effect, of two networks, the number of trainings is found that decides in 80 % of the samples, by simulation;
beside it stand the number that the true effect and spread give, and the quartiles of what samples of few trainings say.
A number at the largest that is simulated, 64, may be any number above it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from comparisons import PAIRS, Design, sampled

from landscape.analyses.decisions import trainings_needed
from landscape.study.claims import Claim
from landscape.study.verdicts import judged

MOST = 64  # trainings of each network that are simulated
CLAIMS = [Claim(name=e, statement=e, estimate=e, second="b", first="a", side="below") for e in ("APE", "NEP")]


def without_effect(network: str, design: Design, n: int, repetitions: int) -> tuple[float, float]:
    """How often any claim holds, and how often any does not."""
    rng = np.random.default_rng(0)
    found = [judged(CLAIMS, [sampled((network, network), c.estimate, n, design, rng) for c in CLAIMS])
             for _ in range(repetitions)]  # fmt: skip
    holds, holds_not = (np.mean([any(v.outcome == o for v in each) for each in found])
                        for o in ("holds", "does not hold"))  # fmt: skip
    return float(holds), float(holds_not)


def deciding(pair: tuple[str, str], spread: float, n: int, trainings: int, repetitions: int) -> tuple[int, float, list]:
    """By simulation, by the truth, and quartiles of what samples of so many trainings say, of the APE."""
    rng = np.random.default_rng(1)
    many = [sampled(pair, "APE", n, Design((30, 30), spread), rng).contrast for _ in range(8)]
    effect = float(np.mean([c.interval.estimate for c in many]))
    between, within = np.mean([c.between for c in many], axis=0), float(np.mean([c.within for c in many]))
    by_truth = trainings_needed(effect, between, within)

    def decided(count: int) -> float:
        return float(np.mean([sampled(pair, "APE", n, Design((count, count), spread), rng).p < 0.05
                              for _ in range(repetitions)]))  # fmt: skip

    low, simulated = 1, MOST  # the number lies above the first and is at most the second
    while simulated - low > 1:
        middle = (low + simulated) // 2
        low, simulated = (low, middle) if decided(middle) >= 0.8 else (middle, simulated)
    said = []
    for _ in range(repetitions):
        c = sampled(pair, "APE", n, Design((trainings, trainings), spread), rng).contrast
        said.append(trainings_needed(c.interval.estimate, c.between, c.within))
    return simulated, by_truth, [float(q) for q in np.quantile(said, (0.25, 0.5, 0.75), method="nearest")]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--trainings", type=int, default=3)
    options = parser.parse_args(arguments)
    print("without an effect, 16 mini-batches".ljust(52) + "holds  does not hold")
    for network in ("resnet20_0.1", "vit_0.1", "vit_1.0", "vit_local_1.0"):
        for trainings in (2, 3, 5):
            for spread in (0.0, 0.2, 0.6):
                holds, holds_not = without_effect(
                    network, Design((trainings, trainings), spread), 16, options.repetitions
                )
                what = f"{network}, {trainings} trainings each, spread {spread:g}"
                print(what.ljust(52) + f"{100 * holds:5.1f}  {100 * holds_not:5.1f}", flush=True)
    print(
        "\nwith an effect, 16 mini-batches".ljust(53)
        + f"simulated  by the truth  said by {options.trainings} trainings"
    )
    for pair, spread in ((PAIRS[3], 0.2), (PAIRS[3], 0.4), (("vit_gap_1.0", "vit_local_1.0"), 0.6), (PAIRS[1], 0.6)):
        simulated, by_truth, said = deciding(pair, spread, 16, options.trainings, options.repetitions)
        print(f"{pair[1]} against {pair[0]}, spread {spread:g}".ljust(52) + f"{simulated:9d}  {by_truth:12.0f}  "
              + " ".join(f"{q:.0f}" for q in said), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
