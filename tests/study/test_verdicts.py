"""Verdicts on claims: calibrated by simulation with the measured clustering, undecided where little is known."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import invoke, refused
from made import E, spectrum

import landscape as ls
from landscape import store
from landscape.analyses.decisions import trainings_needed
from landscape.runtime.errors import UserError
from landscape.study.claims import Claim, read_claims
from landscape.study.verdicts import judged

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from comparisons import Design, sampled

FLAT = Claim(name="flat", statement="b is flatter", estimate="APE", second="b", first="a", side="below")
CONVEX = Claim(name="convex", statement="b is less convex", estimate="NEP", second="b", first="a", side="above")
PAIR = ("vit_gap_1.0", "vit_local_1.0")


def outcomes(pair, claims, design, repetitions, n=16):
    rng = np.random.default_rng(0)
    return [
        judged(claims, [sampled(pair, claim.estimate, n, design, rng) for claim in claims]) for _ in range(repetitions)
    ]


@pytest.mark.parametrize("trainings", [2, 3])
def test_without_an_effect_a_claim_seldom_holds(trainings):
    """Two groups of one and the same network: of two claims either holds in 5 % of the samples at most, and so often
    at most does either not hold.
    """
    design = Design((trainings, trainings), 0.3)
    found = outcomes(("vit_1.0", "vit_1.0"), [FLAT, CONVEX], design, 150)
    slack = 3 * np.sqrt(0.05 * 0.95 / 150)
    for outcome in ("holds", "does not hold"):
        assert np.mean([any(v.outcome == outcome for v in each) for each in found]) <= 0.025 + slack


def test_a_large_effect_is_decided_on_the_side_where_it_is():
    found = outcomes(PAIR, [FLAT], Design((3, 3), 0.05), 20)
    assert np.mean([v.outcome == "does not hold" for (v,) in found]) > 0.8, "vit_local has the larger eigenvalues"
    other = outcomes(PAIR, [replace(FLAT, side="above")], Design((3, 3), 0.05), 20)
    assert np.mean([v.outcome == "holds" for (v,) in other]) > 0.8


def test_the_number_of_trainings_that_would_decide_decides():
    """Measured spectra, trainings that differ by a known spread: the number for the true effect and spread is right
    within a factor of 1.5.
    """
    spread, n = 0.6, 16
    rng = np.random.default_rng(1)
    many = [sampled(PAIR, "APE", n, Design((30, 30), spread), rng).contrast for _ in range(8)]
    effect = np.mean([c.interval.estimate for c in many])
    between = np.mean([c.between for c in many], axis=0)
    needed = trainings_needed(effect, between, float(np.mean([c.within for c in many])))

    def decided(trainings):
        each = outcomes(PAIR, [FLAT], Design((trainings, trainings), spread), 50, n)
        return np.mean([v.outcome == "does not hold" for (v,) in each])

    assert decided(round(needed / 1.5)) < 0.8 + 0.05
    assert decided(round(1.5 * needed)) > 0.8 - 0.05


def test_one_training_decides_nothing():
    (verdict,) = outcomes(PAIR, [FLAT], Design((1, 3), 0.1), 1)[0]
    assert verdict.outcome == "undecided"
    assert str(verdict) == "undecided: needs two trainings or more of each"
    (several,) = outcomes(PAIR, [FLAT], Design((3, 3), 2.0), 1)[0]
    assert "would decide" in str(several)
    assert several.needed > 3


def spectra(folder, name, factors):
    for i, factor in enumerate(factors):
        store.save(folder / f"{name}-{i}.h5", spectrum=spectrum(factor * E, f"{name}{i}"))
    return [folder / f"{name}-{i}.h5" for i in range(len(factors))]


def test_claims_of_a_file_are_judged_by_results_files(tmp_path):
    a, b = spectra(tmp_path, "a", (1.0, 1.02, 1.05)), spectra(tmp_path, "b", (0.5, 0.52, 0.51))
    toml = tmp_path / "claims.toml"
    tables = [FLAT, CONVEX, replace(FLAT, name="other", first="c")]
    keys = ("name", "statement", "estimate", "second", "first", "side")
    toml.write_text("\n".join("[[claim]]\n" + "\n".join(f'{k} = "{getattr(t, k)}"' for k in keys) for t in tables))
    found = ls.verdicts(read_claims(toml), {"a": a, "b": b})
    assert [v.outcome for v in found.verdicts] == ["holds", "undecided"]
    assert found.remarks == ["not looked at: other"]
    shown = found._repr_html_()
    assert re.findall(r"<th>(.*?)</th>", shown)[-3:] == ["p (Holm)", "verdict", "reference"]
    assert shown.count("<tr>") == 3
    assert "<td>holds</td>" in shown
    assert "<div>not looked at: other</div>" in shown
    table = found.to_dataframe()
    assert table["verdict"].tolist() == ["holds", "undecided"]
    assert table["effect"][0] == pytest.approx((0.5 * 0.52 * 0.51 / (1.02 * 1.05)) ** (1 / 3))
    group = [f"{n}={tmp_path}/{n}-*.h5" for n in "ab"]
    done = invoke("compare", "--claims", toml, "--group", group[0], "--group", group[1], "--out", tmp_path / "v.csv")
    assert done.returncode == 0, done.stderr
    assert str(found) in done.stdout
    assert pd.read_csv(tmp_path / "v.csv")["claim"].tolist() == ["flat", "convex"]
    refused(invoke("compare", "--claims", toml, "--group", group[0]), "no claim is about a")
    refused(invoke("compare", "--claims", "park-kin"), "park-kim")


@pytest.mark.parametrize("name", ["park-kim", "sam"])
def test_the_claims_that_come_with_the_toolkit(name):
    claims = read_claims(name)
    assert all(claim.reference for claim in claims)
    assert len({claim.name for claim in claims}) == len(claims)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no claims"),
        ("[[claim]]\nname = 'x'", "claim x has no statement"),
        ("[[claim]", "cannot be read as TOML"),
        ("claim = 3", "no claims"),
    ],
)
def test_a_file_of_claims_that_is_none_is_one_line(tmp_path, text, words):
    path = tmp_path / "claims.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_claims(path)


def test_settings_of_a_claim_that_are_none_are_named():
    with pytest.raises(UserError, match="did you mean estimate"):
        Claim.asked({"name": "x", "estimat": "APE"})
    with pytest.raises(UserError, match="below, above"):
        replace(FLAT, side="left")
    with pytest.raises(UserError, match="itself"):
        replace(FLAT, first="b")
    with pytest.raises(UserError, match="needs `at` losses"):
        replace(FLAT, loss=0.5)
