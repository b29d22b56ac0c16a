"""Differences and means of estimates against scipy, the analysis of variance, and simulations with known truth."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from landscape.analyses.contrasts import Quantity, combined, covariance, over_trainings
from landscape.analyses.intervals import Interval, bounded_mean, mean, rank_correlation, share
from landscape.objective.clusters import LEAST_UNITS

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from comparisons import Design, missed


def of_units(x, units="these"):
    """The mean of x over units, as an analysis gives it."""
    return Quantity(mean(x), {units: (x - x.mean()) / len(x)})


def exactly(value):
    """An estimate without an error of its own."""
    return Quantity(Interval(value, value, value))


def test_the_difference_of_two_means_is_the_paired_t_test_on_the_same_units():
    rng = np.random.default_rng(0)
    a = rng.normal(size=12)
    b = 0.8 * a + rng.normal(1, 0.4, 12)
    expected = stats.ttest_rel(b, a)
    found = over_trainings([[of_units(b)], [of_units(a)]], [1, -1])
    assert found.interval[1:] == pytest.approx(tuple(expected.confidence_interval()))
    assert found.p == pytest.approx(expected.pvalue)
    apart = combined([of_units(b), of_units(a, "others")], [1, -1]).interval
    half = stats.t.isf(0.025, 11) * np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 12)
    assert apart[1:] == pytest.approx((b.mean() - a.mean() - half, b.mean() - a.mean() + half))


def test_a_difference_keeps_the_skewness_of_its_parts():
    a, b = Quantity(Interval(0.0, 0.0, 0.075)), Quantity(Interval(0.10, 0.06, 0.16))
    found = combined([b, a], [1, -1]).interval
    assert found == pytest.approx((0.10, 0.10 - np.hypot(0.04, 0.075), 0.16))


def test_trainings_without_errors_of_their_own_are_students_and_welchs_t():
    a, b = [1.0, 2.0, 4.0], [3.0, 3.5]
    one = over_trainings([[*map(exactly, a)]], [1])
    expected = stats.ttest_1samp(a, 0)
    assert one.interval[1:] == pytest.approx(tuple(expected.confidence_interval()))
    assert one.p == pytest.approx(expected.pvalue)
    assert one.between == pytest.approx((np.var(a, ddof=1),))
    two = over_trainings([[*map(exactly, b)], [*map(exactly, a)]], [1, -1])
    welch = stats.ttest_ind(b, a, equal_var=False)
    assert two.interval[1:] == pytest.approx(tuple(welch.confidence_interval()))
    assert two.p == pytest.approx(welch.pvalue)


def test_units_that_trainings_share_are_the_two_way_analysis_of_variance():
    """Var of the grand mean = (MS_trainings + MS_units - MS_interaction) / (units * trainings), by hand."""
    rng = np.random.default_rng(1)
    T, n = 4, 30
    x = rng.normal(size=(T, 1)) + 2 * rng.normal(size=n) + rng.normal(size=(T, n))
    rows, columns = x.mean(1), x.mean(0)
    residual = x - rows[:, None] - columns + x.mean()
    of_units_, interaction = T * columns.var(ddof=1), (residual**2).sum() / ((T - 1) * (n - 1))
    found = over_trainings([[of_units(row) for row in x]], [1])
    assert found.within == pytest.approx((of_units_ - interaction) / (n * T))
    assert found.between == pytest.approx((rows.var(ddof=1),))
    nested = over_trainings([[of_units(row, t) for t, row in enumerate(x)]], [1])
    assert nested.within == pytest.approx(0, abs=1e-12), "what units do is in the spread of the trainings already"


def test_two_trainings_that_agree_by_chance_are_not_trusted():
    x = np.random.default_rng(2).normal(size=16)
    same = over_trainings([[of_units(x, "a"), of_units(x, "b")]], [1]).interval
    assert same.high - same.low >= (mean(x).high - mean(x).low) / np.sqrt(2) * (1 - 1e-12)


def test_shares_on_the_same_units_are_compared_within_their_bounds():
    a, b = np.zeros(16), np.where(np.arange(16) < 10, 0.2, 0.0)
    sides = [[Quantity(share(5 * v, 5), {"u": (v - v.mean()) / 16})] for v in (b, a)]
    wide, narrow = (over_trainings(sides, [1, -1], bounds=bounds) for bounds in (None, (-1, 1)))
    assert narrow.interval == pytest.approx(bounded_mean(b - a, -0.2, 0.2))
    assert narrow.interval.high - narrow.interval.low < wide.interval.high - wide.interval.low
    none = over_trainings([sides[1], sides[1]], [1, -1], bounds=(-1, 1)).interval
    assert none.low < 0 < none.high, "two networks of which no hit was seen may differ all the same"


@given(st.integers(1, 5), st.integers(1, 5), st.floats(0.1, 10), st.integers(0, 2**32 - 1))
def test_a_contrast_turns_with_its_sign_and_scales_with_its_values(first, second, factor, seed):
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=(count, 12)) for count in (first, second)]
    there = over_trainings([[of_units(row) for row in side] for side in x], [1, -1])
    back = over_trainings([[of_units(factor * row) for row in side] for side in x[::-1]], [1, -1])
    value, low, high = there.interval
    assert low < value < high
    np.testing.assert_allclose(back.interval, [-factor * value, -factor * high, -factor * low], atol=1e-9)
    assert (there.p < 0.05) == (not low < 0 < high)


def test_no_interval_where_a_part_has_none():
    few = of_units(np.arange(LEAST_UNITS - 1.0))
    found = over_trainings([[few, few], [few]], [1, -1])
    assert found.interval.estimate == 0
    assert np.isnan([found.interval.low, found.interval.high, found.p]).all()


def test_of_different_numbers_of_units_those_in_common_are_paired():
    x = np.random.default_rng(3).normal(size=32)
    long, short = of_units(x), of_units(x[:16])
    assert covariance(long, short) == pytest.approx(
        ((x - x.mean())[:16] / 32) @ ((x[:16] - x[:16].mean()) / 16) * 16 / 15
    )
    assert covariance(long, of_units(x, "others")) == 0


REPETITIONS = 150
SLACK = 3 * np.sqrt(0.95 * 0.05 / REPETITIONS)


@pytest.mark.parametrize(
    ("statistic", "pair", "n", "design"),
    [
        ("APE", ("resnet20_0.1", "vit_0.1"), 16, Design()),
        ("largest", ("vit_1.0", "vit_gap_1.0"), 16, Design(paired=False)),
        ("APE", ("vit_1.0", "vit_gap_1.0"), 16, Design((3, 3), 0.2)),
        ("NEP", ("vit_1.0", "vit_gap_1.0"), 16, Design((3, 3), 0.6)),
        ("largest", ("vit_gap_0.1", "vit_local_0.1"), 8, Design((2, 2), 0.2)),
    ],
)
def test_95_percent_intervals_of_differences_cover(statistic, pair, n, design):
    below, above = missed(pair, statistic, n, design, REPETITIONS)
    assert 1 - below - above >= 0.95 - SLACK


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_intervals_of_rank_correlations_cover(correlation):
    """Of a bivariate normal distribution, rho_s = 6 / pi asin(rho / 2)."""
    rng = np.random.default_rng(0)
    truth, hits = 6 / np.pi * np.arcsin(correlation / 2), 0
    for _ in range(400):
        x, y = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], 15).T
        r, low, high = rank_correlation(x, np.exp(y))
        assert r == pytest.approx(stats.spearmanr(x, y).statistic)
        hits += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_rank_correlations_at_their_ends():
    x = np.arange(10.0)
    assert rank_correlation(x, x**3)[::2] == (pytest.approx(1), pytest.approx(1))
    assert 0.5 < rank_correlation(x, x).low < 1
    assert np.isnan(rank_correlation(x, np.ones(10))).all()
    assert np.isnan(rank_correlation(x[:5], x[:5]).low)
