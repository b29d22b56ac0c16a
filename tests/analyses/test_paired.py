"""Changes of the same examples: intervals that cover, McNemar's test against its definition, thresholds known."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from landscape.analyses import paired, thresholds


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test_less_half_of_what_is_observed(gained, lost):
    change = np.array([1] * gained + [-1] * lost + [0] * 40)
    p = paired.mcnemar(change)
    exact = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert 0 < p <= exact + 1e-12
    if gained != lost:
        from scipy.stats import binom

        assert p == pytest.approx(exact - binom.pmf(min(gained, lost), gained + lost, 0.5), abs=1e-12)


@pytest.mark.parametrize(("gain", "loss"), [(0.0, 0.005), (0.02, 0.05), (0.1, 0.4)])
@pytest.mark.parametrize("n", [100, 1000])
def test_the_interval_of_a_change_of_accuracy_covers(gain, loss, n):
    rng = np.random.default_rng([int(100 * gain), int(1000 * loss), n])
    truth, missed = gain - loss, 0
    for _ in range(300):
        change = rng.choice([1, -1, 0], n, p=[gain, loss, 1 - gain - loss])
        low, high = paired.change_of_share(change, np.arange(n))[1:]
        missed += not low <= truth <= high
    assert missed <= 26  # 15 expected: P(more) < 0.4 %


@pytest.mark.parametrize("share", [0.02, 0.2])
def test_the_interval_of_a_change_of_the_loss_covers_where_few_images_lose_much(share):
    rng, missed = np.random.default_rng(int(100 * share)), 0
    for _ in range(300):
        change = rng.normal(0, 0.02, 400) + (rng.random(400) < share) * rng.exponential(3, 400)
        low, high = paired.change_of_mean(change, np.arange(400))[1:]
        missed += not low <= 3 * share <= high
    assert missed <= 26  # 15 expected: P(more) < 0.4 %; Student's t misses 12 % at the lower share


def test_the_bootstrap_is_of_clusters_and_the_same_each_time():
    change = np.random.default_rng(0).lognormal(0, 1, 120)
    once = paired.change_of_mean(change, np.arange(120))
    assert paired.change_of_mean(change, np.arange(120)) == once
    assert once.high - once.estimate > once.estimate - once.low, "skewed to above"
    of_copies = paired.change_of_mean(np.repeat(change, 3), np.repeat(np.arange(120), 3))
    assert of_copies == pytest.approx(once), "copies of an image say nothing more"
    mirrored = paired.change_of_mean(-change, np.arange(120))
    assert (mirrored.low, mirrored.high) == pytest.approx((-once.high, -once.low))
    one = np.eye(1, 100)[0]
    assert np.isnan(paired.change_of_mean(one, np.arange(100)).low), "one image alone bounds nothing"


def test_clusters_widen_the_interval_and_no_change_is_no_certainty():
    change = np.repeat([-1, 0, 1, 0, -1, 0, 0, 0, 0, 1] * 4, 5)
    own, clustered = (paired.change_of_share(change, c) for c in (np.arange(200), np.repeat(np.arange(40), 5)))
    assert clustered.high - clustered.low > 1.8 * (own.high - own.low)
    low, high = paired.change_of_share(np.zeros(50), np.arange(50))[1:]
    assert low < 0 < high
    assert np.isnan(paired.change_of_share(np.zeros(7), np.arange(7)).low)
    assert np.isnan(paired.change_of_mean(np.zeros(50), np.arange(50)).low), "nothing changed: no +- 0"
    assert np.isinf(paired.change_of_mean([0, np.inf] * 8, np.arange(16)).estimate)


def test_the_threshold_of_a_known_fall():
    levels = np.array([0.1, 0.2, 0.4])
    assert thresholds.threshold(levels, np.array([-0.05, -0.1, -0.3]), 0.1) == pytest.approx(0.2)
    assert thresholds.threshold(levels, np.array([-0.05, -0.15, -0.3]), 0.1) == pytest.approx(0.1 * 2**0.5)
    assert thresholds.threshold(levels, np.array([-0.2, -0.25, -0.3]), 0.1) == pytest.approx(0.05)
    assert thresholds.threshold(levels, np.array([0.02, 0.0, -0.01]), 0.1) == np.inf
    assert np.isnan(thresholds.threshold(levels, np.array([0.0, np.nan, -0.3]), 0.1))


def test_the_interval_of_a_threshold_covers():
    """Each image fails beyond a level of its own: the accuracy falls by 10 points at the 10 % quantile of these."""
    levels, rng, missed = np.array([0.05, 0.1, 0.2, 0.4]), np.random.default_rng(0), 0
    truth_of = np.exp(rng.normal(np.log(0.35), 0.8, 400_000))
    truth = thresholds.threshold(levels, -np.array([(truth_of < level).mean() for level in levels]), 0.1)
    for seed in range(60):
        own = np.exp(np.random.default_rng([1, seed]).normal(np.log(0.35), 0.8, 300))
        hits = -np.array([own < level for level in levels]).astype(float)
        low, high = thresholds.with_interval(levels, hits, np.arange(300), 0.1)[1:]
        missed += not low <= truth <= high
    assert missed <= 9  # 3 expected: P(more) < 0.3 %


def group(hits: np.ndarray, seed: int = 0) -> xr.Dataset:
    data = {"name": "digits", "split": "test", "samples": hits.shape[1], "seed": seed}
    return xr.Dataset(
        {
            "hit_change": (("frequency", "example"), hits),
            "cluster": ("example", np.arange(hits.shape[1])),
            "done": ("frequency", np.ones(len(hits), bool)),
        },
        {"frequency": [0.1, 0.5]},
        {"config": {"objective": {"data": data}}},
    )


def test_two_networks_are_paired_over_their_images():
    rng = np.random.default_rng(0)
    one = -(rng.random((2, 400)) < 0.3).astype(float)
    other = one.copy()
    other[1, :40] -= 1
    more = paired.between(group(one), group(other))
    assert more.values[0, 0] == 0
    assert np.isnan(more.values[0, 1]), "no difference: no +- 0"
    estimate, low, high = more.values[1]
    assert estimate == pytest.approx(-0.1)
    assert high - low < 0.07, "what both lose is no part of the error"
    assert paired.between(group(one), group(other, seed=1)) is None
    assert paired.between(group(one), group(other[:, :99])) is None
