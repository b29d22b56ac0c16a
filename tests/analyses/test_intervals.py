"""Intervals against closed forms, simulations and scipy: what they claim to cover, they cover."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from landscape.analyses.intervals import mean, median, positive_ratio, share
from landscape.objective.clusters import LEAST_UNITS, standard_error

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from intervals import clustered, heavy, missed, populations, resampled


@pytest.mark.parametrize("seen", [0, 1, 3, 8, 12])
def test_a_share_of_units_that_are_all_or_nothing_is_a_beta_posterior(seen):
    hits = np.where(np.arange(12) < seen, 5, 0)
    estimate, low, high = share(hits, 5)
    assert estimate == seen / 12
    assert low == (pytest.approx(stats.beta.ppf(0.025, seen + 0.4, 12 - seen + 0.5), rel=1e-5) if seen else 0)
    assert high == (pytest.approx(stats.beta.ppf(0.975, seen + 0.5, 12 - seen + 0.4), rel=1e-5) if seen < 12 else 1)


def test_a_share_is_a_quantile_of_the_bayesian_bootstrap():
    hits, trials = np.array([0, 0, 3, 1, 0, 0, 7, 0, 2]), np.array([5, 4, 5, 5, 6, 5, 9, 5, 5])
    rng = np.random.default_rng(0)
    weights = rng.standard_gamma([*np.ones(9), 0.5, 0.4], (400_000, 11))
    size = trials.mean()
    drawn = weights @ [*hits, 0, size] / (weights @ [*trials, size, size])
    result = share(hits, trials)
    assert (drawn < result.low).mean() == pytest.approx(0.025, abs=0.001)
    assert share(trials - hits, trials) == pytest.approx((1 - result.estimate, 1 - result.high, 1 - result.low))


@given(st.lists(st.integers(0, 5), min_size=LEAST_UNITS, max_size=40))
@settings(max_examples=50, deadline=None)
def test_a_share_lies_within_its_interval_which_lies_within_0_and_1(hits):
    estimate, low, high = share(hits, 5)
    assert 0 <= low <= estimate <= high <= 1
    assert low < high
    assert (low == 0) == (estimate == 0)
    assert (high == 1) == (estimate == 1)


@pytest.mark.parametrize("n", [8, 9, 20, 33])
def test_a_median_is_between_order_statistics_of_the_asked_coverage(n):
    x = np.sort(np.random.default_rng(n).normal(size=n))
    k = np.flatnonzero(stats.binom.cdf(np.arange(n), n, 0.5) <= 0.025)[-1]  # from 0: the widest that are confident
    estimate, low, high = median(x)
    assert estimate == np.median(x)
    assert x[k] <= low < x[k + 1]
    assert x[n - 2 - k] < high <= x[n - 1 - k]
    exact = 1 - 2 * stats.binom.cdf(k, n, 0.5)
    assert median(x, confidence=exact)[1:] == pytest.approx((x[k], x[n - 1 - k]))


def test_a_mean_of_units_of_one_size_is_students_t():
    x = np.random.default_rng(0).normal(size=10)
    expected = stats.ttest_1samp(x, 0).confidence_interval()
    assert mean(x)[1:] == pytest.approx((expected.low, expected.high))
    assert mean(5 * x, 5) == pytest.approx(mean(x))
    assert standard_error(x) == pytest.approx(stats.sem(x))


def test_a_ratio_of_lognormal_units_reaches_as_far_as_the_lognormal_mean():
    """The upper end for variance s^2 of the logarithms of n units, by hand from the paper's formula."""
    logarithms = stats.norm.ppf((np.arange(1, 11) - 0.5) / 10)  # without skewness; and 1.5 times it
    n, s2 = 10, np.var(1.5 * logarithms, ddof=1)
    above = np.sqrt(1.959964**2 * s2 / n + (s2 / 2 * (9 / stats.chi2.ppf(0.025, 9) - 1)) ** 2)
    estimate, low, high = positive_ratio(np.exp(1.5 * logarithms), 1)
    assert np.log(high / estimate) == pytest.approx(above, rel=1e-6)
    assert 0 < low < estimate
    scaled = positive_ratio(1e-6 * np.exp(1.5 * logarithms), 1)
    np.testing.assert_allclose(scaled, 1e-6 * np.array([estimate, low, high]))
    assert positive_ratio(np.full(9, 6.0), 2) == pytest.approx((3, 3, 3))


def test_no_interval_below_the_least_number_of_units():
    few = np.arange(1.0, LEAST_UNITS)
    for result in (share(few, 20), positive_ratio(few, 1), mean(few), median(few)):
        assert np.isfinite(result.estimate)
        assert np.isnan(result[1:]).all()
    assert np.isnan(standard_error(few))
    for nothing in (share([], 5), positive_ratio([], []), mean([]), median([])):
        assert np.isnan(nothing).all()
    assert np.isnan(share(np.zeros(9), 0).estimate)
    with pytest.raises(ValueError, match="positive values"):
        positive_ratio([1.0, -2.0], [1, 1])


REPETITIONS = 200
SLACK = 3 * np.sqrt(0.95 * 0.05 / REPETITIONS)  # three standard errors of a coverage


@pytest.mark.parametrize(
    ("statistic", "draw", "truth", "n"),
    [
        ("NEP", clustered(0.004, 0.0), 0.004, 16),
        ("NEP", clustered(0.004, 0.6), 0.004, 32),
        ("NEP", clustered(0.018, 0.3), 0.018, 16),
        ("NEP", clustered(0.018, 0.0), 0.018, 32),
        ("APE", heavy(1.0), np.exp((1 + 0.3**2) / 2), 16),
        ("APE", heavy(0.2), np.exp((0.2**2 + 0.3**2) / 2), 8),
    ],
)
def test_95_percent_intervals_cover(statistic, draw, truth, n):
    below, above = missed(statistic, draw, truth, n, REPETITIONS)
    assert 1 - below - above >= 0.95 - SLACK


@pytest.mark.parametrize(("name", "n"), [("vit_1.0", 16), ("vit_0.1", 8), ("alternet20_0.1", 16), ("vit_local_1.0", 8)])
def test_95_percent_intervals_cover_what_was_measured(name, n):
    """Samples of a measured spectrum. One mini-batch of alternet20_0.1 has 56 % of its positive sum: no interval of its
    APE can know it from the samples that miss it.
    """
    e = populations()[name]
    truth = {
        "NEP": (e < 0).mean(),
        "APE": e[e > 0].mean(),
        "largest": np.median(e.max(1)),
        "smallest": np.median(e.min(1)),
    }
    if name == "alternet20_0.1":
        below, _ = missed("APE", resampled(e), truth.pop("APE"), n, REPETITIONS)
        assert below <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / REPETITIONS), "its low end holds all the same"
    for statistic, value in truth.items():
        below, above = missed(statistic, resampled(e), value, n, REPETITIONS)
        assert 1 - below - above >= 0.95 - SLACK, statistic
