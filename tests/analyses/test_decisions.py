"""Decisions against textbook values and simulations: corrected for their number, and by how many trainings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscape.analyses.contrasts import Quantity, over_trainings
from landscape.analyses.decisions import MOST, holm, power, trainings_needed
from landscape.analyses.intervals import Interval


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    found = holm([0.02, np.nan, 0.5])
    assert (found[0], found[2]) == pytest.approx((0.04, 0.5))
    assert np.isnan(found[1]), "a claim that was not looked at costs the others nothing"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_p_and_bonferroni_and_keeps_the_order(p):
    found = holm(p)
    assert all(x <= y <= min(len(p) * x, 1) + 1e-12 for x, y in zip(p, found, strict=True))
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(found)[order]) >= 0).all()


@pytest.mark.parametrize(("effect", "trainings"), [(1.0, 17), (0.8, 26), (0.5, 64)])
def test_trainings_of_two_groups_are_those_of_the_tables(effect, trainings):
    """Cohen (1988), table 2.4.1: n of each group for a power of 0.8 at a two-sided level of 0.05."""
    assert trainings_needed(effect, (1, 1), 0.0) == trainings


def test_an_error_that_all_trainings_share_is_not_reduced_by_more_of_them():
    assert trainings_needed(1.0, (1, 1), 0.0) < trainings_needed(1.0, (1, 1), 0.05) < np.inf
    assert trainings_needed(1.0, (1, 1), 0.5) == np.inf
    assert trainings_needed(0.0, (1, 1), 0.0) == np.inf
    assert power(10.0, (1, 1), 0.0, 1, 0.05) == 0, "one training knows no spread"
    assert trainings_needed(1e-3, (1, 1), 0.0) == np.inf, f"more than {MOST} are not said"


@pytest.mark.parametrize(("effect", "level"), [(1.0, 0.05), (1.5, 0.05), (1.2, 0.05 / 6)])
def test_so_many_trainings_decide_and_two_thirds_of_them_do_not(effect, level):
    """The number is right within a factor of 1.5: so many decide four times of five or more often, fewer do not."""
    needed = trainings_needed(effect, (1, 1), 0.0, level=level)
    rng = np.random.default_rng(0)

    def decided(trainings):
        groups = ((rng.normal(effect, 1, trainings), rng.normal(0, 1, trainings)) for _ in range(400))
        exact = [[[Quantity(Interval(x, x, x)) for x in side] for side in pair] for pair in groups]
        return np.mean([over_trainings(sides, [1, -1]).p < level for sides in exact])

    assert decided(round(needed / 1.5)) < 0.8 < decided(round(1.5 * needed))
    assert decided(int(needed)) == pytest.approx(0.8, abs=3 * 0.02 + 0.03)
