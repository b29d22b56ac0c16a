"""Calibration: against torchmetrics and closed forms, in simulations of known truth, and where numbers are extreme."""

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import ROOT, invoke, unchanged
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

import landscape as ls
from landscape import store
from landscape.analyses import calibration
from landscape.analyses.test import Test
from landscape.study import drawing


def drawn(n: int, *, seed: object, sharper: float = 1.0, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Logits and classes; calibrated at the temperature `sharper`."""
    rng = np.random.default_rng(seed)
    z = 3 * rng.normal(size=(n, classes))
    y = (softmax(z, axis=1).cumsum(1) > rng.random((n, 1))).argmax(1)
    return sharper * z, y


def own(n: int) -> np.ndarray:
    return np.arange(n)


def test_scores_and_binned_error_are_those_of_torchmetrics():
    from torchmetrics.functional.classification import binary_calibration_error, multiclass_accuracy

    z, y = drawn(1000, seed=0, sharper=1.7)
    found = calibration.scores(z, y)
    logits, classes = torch.tensor(z), torch.tensor(y)
    for name, k in (("right", 1), ("top5", 5)):
        theirs = multiclass_accuracy(logits, classes, num_classes=10, top_k=k, average="micro")
        assert found[name].mean() == pytest.approx(float(theirs))
    # theirs have equal widths; the sum over bins is the same
    bins = np.clip(np.ceil(15 * found["confidence"]).astype(int) - 1, 0, 14)
    bins = np.unique(bins, return_inverse=True)[1]
    ours = calibration.calibration_error(found["confidence"], found["right"], bins).plugin
    theirs = binary_calibration_error(torch.tensor(found["confidence"]), torch.tensor(found["right"]).long(), n_bins=15)
    assert ours == pytest.approx(float(theirs), abs=1e-6)
    onehot = np.eye(10)[y]
    np.testing.assert_allclose(found["brier"], ((softmax(z, axis=1) - onehot) ** 2).sum(1))
    np.testing.assert_allclose(
        calibration.nll(z, y), torch.nn.functional.cross_entropy(logits, classes, reduction="none")
    )


@given(st.integers(2, 400), st.integers(1, 20), st.integers(0, 99), st.booleans())
def test_bins_have_about_equal_mass_and_keep_ties_together(n, most, seed, ties):
    confidence = np.random.default_rng(seed).random(n)
    confidence = np.round(confidence, 1) if ties else confidence
    bins = calibration.equal_mass_bins(confidence, most)
    assert len(set(bins)) == bins.max() + 1 <= most
    for value in np.unique(confidence):
        assert len(set(bins[confidence == value])) == 1
    order = np.argsort(confidence)
    assert (np.diff(bins[order]) >= 0).all()
    if not ties:
        assert np.ptp(np.bincount(bins)) <= 1


@given(st.integers(0, 30), st.sampled_from([2, 3, 10]), st.floats(0.2, 4))
def test_the_parts_of_the_brier_score_sum_to_it(seed, classes, sharper):
    z, y = drawn(60, seed=seed, classes=classes, sharper=sharper)
    parts = calibration.brier_parts(z, y, own(60) // 2)
    whole = parts["miscalibration"] - parts["discrimination"] + parts["uncertainty"]
    np.testing.assert_allclose(whole, calibration.scores(z, y)["brier"], atol=1e-12)


def test_parts_of_known_forecasts():
    _, y = drawn(2000, seed=1)
    constant = calibration.brier_parts(np.zeros((2000, 10)), y, own(2000))
    np.testing.assert_allclose(constant["discrimination"], 0, atol=1e-12)  # it tells nothing apart
    np.testing.assert_allclose(constant["uncertainty"].mean(), 0.9, atol=2e-3)
    sure = calibration.brier_parts(400 * np.eye(10)[y], y, own(2000))
    np.testing.assert_allclose(sure["miscalibration"], 0, atol=1e-12)
    np.testing.assert_allclose(sure["discrimination"], sure["uncertainty"], atol=1e-12)


def test_recalibration_saves_nothing_of_calibrated_and_much_of_overconfident_forecasts():
    savings = []
    for sharper in (1.0, 3.0):
        z, y = drawn(4000, seed=2, sharper=sharper)
        savings.append(calibration.measured(z, y, own(4000)))
    calibrated, overconfident = savings
    assert -0.02 < calibrated["miscalibration"] <= 3 * calibrated["miscalibration_sem"]
    assert overconfident["miscalibration"] > 10 * overconfident["miscalibration_sem"]
    # recalibration leaves the order of the examples as it is
    assert overconfident["discrimination"] == pytest.approx(calibrated["discrimination"], abs=0.02)


def test_the_temperature_is_the_one_that_was_hidden():
    hits, changes = 0, []
    for seed in range(60):
        z, y = drawn(600, seed=[3, seed], sharper=2.5)
        best = calibration.temperature(z, y, own(600))
        hits += best.low < 2.5 < best.high
        changes.append(best.nll_change / best.nll_change_sem)
    assert hits >= 52  # of 57 expected: P(fewer) < 0.5 %
    assert max(changes) < -2
    z, y = drawn(600, seed=4)
    assert calibration.best_temperature(np.append(z, z, 0), np.append(y, y)) == pytest.approx(
        calibration.best_temperature(z, y)
    )
    losses = [
        calibration.nll(z / T, y).mean() for T in calibration.best_temperature(z, y) * np.array([0.99, 1.0, 1.01])
    ]
    assert np.argmin(losses) == 1


@pytest.mark.parametrize("sharper", [1.0, 1.25, 2.0])
def test_the_interval_of_the_calibration_error_covers(sharper):
    z, y = drawn(200_000, seed=5, sharper=sharper)
    p, found = softmax(z / sharper, axis=1), calibration.scores(z, y)
    true_right = p[own(len(y)), z.argmax(1)]
    of = calibration.binned(found["confidence"], true_right, calibration.equal_mass_bins(found["confidence"], 15))
    truth = of.examples / of.examples.sum() @ np.abs(of.accuracy - of.confidence)
    assert (truth == pytest.approx(0, abs=1e-3)) == (sharper == 1)
    missed, debiased, plugin = 0, [], []
    for seed in range(120):
        each = calibration.scores(*drawn(1500, seed=[6, seed], sharper=sharper))
        bins = calibration.equal_mass_bins(each["confidence"], 15)
        error = calibration.calibration_error(each["confidence"], each["right"], bins)
        missed += not error.low <= truth + 1e-3 or not error.high >= truth
        debiased.append(error.debiased)
        plugin.append(error.plugin)
    assert missed <= 13  # 6 expected: P(more) < 0.5 %
    assert abs(np.mean(debiased) - truth) < 0.5 * abs(np.mean(plugin) - truth) + 1e-3


def test_extreme_logits_are_finite_and_a_perfect_certain_network_has_no_error():
    z = np.zeros((40, 4))
    y = own(40) % 4
    z[own(40), y] = 150
    each = calibration.scores(z, y)
    bins = calibration.equal_mass_bins(each["confidence"], 15)
    assert calibration.calibration_error(each["confidence"], each["right"], bins)[:3] == (0, 0, 0)
    assert 0.02 < calibration.calibration_error(each["confidence"], each["right"], bins).high < 0.2  # 40 say no more
    np.testing.assert_allclose(calibration.nll(z, (y + 1) % 4), 150)
    assert np.isfinite(list(calibration.measured(z, (y + 1) % 4, own(40)).values())[:8]).all()


def test_a_logit_that_is_not_finite_is_wrong_and_its_probability_not_known():
    z = np.array([[np.nan, 1.0], [np.inf, 0.0], [2.0, 0.0]])
    each = calibration.scores(z, np.array([1, 0, 0]))
    assert each["right"].tolist() == [0, 0, 1]
    assert np.isnan(each["confidence"]).tolist() == [True, True, False]
    assert calibration.measured(z, np.array([1, 0, 0]), own(3)) == {}


def test_of_too_few_examples_no_interval():
    z, y = drawn(7, seed=7)
    each = calibration.scores(z, y)
    error = calibration.calibration_error(each["confidence"], each["right"], np.zeros(7, int))
    assert np.isnan([error.low, error.high]).all()
    assert np.isnan(calibration.temperature(z, y, own(7)).low)


def test_the_command_says_draws_and_brings_files_of_before_up_to_date(trained, tmp_path):
    out = tmp_path / "net.h5"
    said = invoke("test", trained, "--out", out)
    assert said.returncode == 0, said.stderr
    assert "ECE " in said.stdout
    assert "best temperature" in said.stdout
    assert (tmp_path / "net-test_reliability.png").exists()
    group = store.load(out)["test"]
    assert group["example_nll"].mean().item() == pytest.approx(group["nll"].item(), rel=1e-6)
    assert group["right"].mean().item() == pytest.approx(group["accuracy"].item())
    assert group["bin_examples"].sum().item() == group["examples"].item() == 355
    before = xr.Dataset({name: group[name] for name in ("nll", "nll_sem", "accuracy", "accuracy_sem", "examples")})
    old = before.assign_attrs(config={k: v for k, v in group.attrs["config"].items() if k != "bins"})
    store.save(tmp_path / "old.h5", test=old)
    assert invoke("show", tmp_path / "old.h5").returncode == 0
    assert drawing.draw({"test": old}) == {}
    assert invoke("test", trained, "--out", tmp_path / "old.h5").returncode == 0
    xr.testing.assert_equal(store.load(tmp_path / "old.h5")["test"], group)


def test_files_of_before_are_read():
    said = invoke("show", ROOT / "results" / "study" / "vit_1.0.h5").stdout
    assert "test accuracy" in said
    assert "ECE" not in said


def test_other_tasks_keep_the_nll(mlp):
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    squares = ls.Objective(mlp, [(x, x[:, :2])], loss=lambda out, y: (out - y).square().mean(-1))
    with unchanged(mlp):
        found = Test().run(squares)
    assert "ece" not in found
    assert [e.name for e in Test().estimates(found)] == ["test accuracy", "test NLL"]
    soft = ls.Objective(mlp, [(x, torch.softmax(x[:, :2], -1))])
    assert "ece" not in Test().run(soft)
