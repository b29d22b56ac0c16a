"""Claims about one network and a value: the t-test over trainings, where units have no part in the error."""

from dataclasses import replace

import numpy as np
import pytest
from made import E, spectrum
from scipy.stats import ttest_1samp

import landscape as ls
from landscape import store
from landscape.analyses.estimates import Estimate
from landscape.runtime.errors import UserError
from landscape.study.claims import Claim
from landscape.study.effects import against
from landscape.study.trainings import Known
from landscape.study.verdicts import judged

TILT = Claim(name="tilt", statement="It is low-pass", estimate="tilt", second="a", than=0.0, side="below")


def trained(values, half=1e-9):
    each = (Estimate(name="tilt", value=float(v), low=float(v) - half, high=float(v) + half) for v in values)
    return against("a", "fourier", "tilt", [Known(e, None) for e in each], 0.0)


def test_it_is_the_t_test_over_trainings():
    values = np.array([-0.3, -0.1, -0.25, -0.4])
    row = trained(values)
    expected = ttest_1samp(values, 0)
    assert row.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (row.effect.low, row.effect.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-6)
    (verdict,) = judged([TILT], [row])
    assert verdict.outcome == "holds"


def test_without_an_effect_it_seldom_holds_and_the_number_that_decides_is_right():
    rng = np.random.default_rng(0)
    held = [judged([TILT], [trained(rng.normal(size=3))])[0].outcome == "holds" for _ in range(400)]
    assert np.mean(held) <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 400)
    needed = judged([TILT], [trained([-1.2, 0.7, -1.6])])[0].needed  # mean -0.7, sd 1.229
    sd = np.std([-1.2, 0.7, -1.6], ddof=1)

    def decides(count):
        return np.mean([trained(rng.normal(-0.7, sd, count)).p < 0.05 for _ in range(300)])

    assert decides(round(needed / 1.5)) < 0.8 + 0.06
    assert decides(round(needed * 1.5)) > 0.8 - 0.06


def test_two_numbers_of_one_network(tmp_path):
    files = [tmp_path / f"a-{i}.h5" for i in range(3)]
    for i, file in enumerate(files):
        store.save(file, spectrum=spectrum((1 + 0.02 * i) * E, f"a{i}"))
    claim = Claim(name="x", statement="x", estimate="smallest", second="a", first="a", first_estimate="largest",
                  side="below")  # fmt: skip
    found = ls.verdicts([claim], {"a": files})
    assert found.verdicts[0].outcome == "holds"
    assert str(claim) == "smallest of a below largest of a"
    with pytest.raises(UserError, match="did you mean largest"):
        ls.verdicts(
            [Claim(name="x", statement="x", estimate="largst", second="a", than=0.0, side="above")], {"a": files}
        )
    assert len(E)


def test_a_claim_has_a_group_or_a_value():
    with pytest.raises(UserError, match="`first` or with a number"):
        replace(TILT, than=None)
    with pytest.raises(UserError, match="`first` or with a number"):
        replace(TILT, first="b")
