import numpy as np
import pytest
import torch
import xarray as xr
from conftest import dense_hessian, raising, unchanged

import landscape as ls


@pytest.fixture
def objective(mlp, points):
    return ls.Objective(mlp, points, weight_decay=0.2, dtype=torch.float64)


def test_per_mini_batch_eigenvalues_are_the_true_ones(mlp, objective):
    with unchanged(mlp):
        spectrum = ls.hessian_spectrum(objective, k=4, batch_size=16, tol=1e-8)
    assert spectrum["eigenvalue"].dims == ("batch", "rank")
    assert spectrum.sizes["batch"] == 3  # 50 // 16
    for i, (x, y) in enumerate(objective.minibatches(16)):
        truth = np.linalg.eigvalsh(dense_hessian(objective, x, y))
        truth = truth[np.argsort(-np.abs(truth))][:4]
        np.testing.assert_allclose(spectrum["eigenvalue"].values[i], truth, rtol=1e-9)
    assert spectrum["converged"].all()
    assert (spectrum["products"] > 4).all()


@pytest.mark.parametrize("which", ["LM", "BE"])
def test_whole_data_top(mlp, objective, which):
    with unchanged(mlp):
        top = ls.hessian_top(objective, k=4, which=which, tol=1e-8)
    truth = np.linalg.eigvalsh(dense_hessian(objective))
    wanted = truth[np.argsort(-np.abs(truth))][:4] if which == "LM" else truth[[-1, -2, 1, 0]]
    np.testing.assert_allclose(top["eigenvalue"], wanted, rtol=1e-7, atol=1e-9)


def gathered(eigenvalue):
    return xr.Dataset({"eigenvalue": (("batch", "rank"), np.array(eigenvalue, float))})


def test_summary_by_hand():
    s = ls.summarize(gathered([[4, -1], [2, 1], [6, -3], [3, 1]]))["summary"]
    assert s.sel(statistic="nep", bound="estimate") == 2 / 8
    assert s.sel(statistic="ape", bound="estimate") == pytest.approx((4 + 2 + 1 + 6 + 3 + 1) / 6)
    assert s.sel(statistic="largest", bound="estimate") == 3.5
    assert s.sel(statistic="smallest", bound="estimate") == 0
    assert (s.sel(bound="low") <= s.sel(bound="estimate")).all()
    assert (s.sel(bound="estimate") <= s.sel(bound="high")).all()


def test_intervals_cover():
    """95 % intervals of NEP over 40 mini-batches cover the truth about as often as they say."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        e = np.where(rng.random((40, 5)) < 0.3, -1.0, 1.0)
        _, low, high = ls.summarize(gathered(e), seed=trial)["summary"].sel(statistic="nep").values
        covered += low <= 0.3 <= high
    assert covered >= 60 * 0.85


@pytest.mark.parametrize(
    ("eigenvalue", "nep", "ape"),
    [([[1, 2], [1, 2]], (0, 0, 0), 1.5), ([[-1, -2], [-1, -3]], (1, 1, 1), np.nan), ([[np.nan, 1], [2, 2]], (0,), 2)],
)
def test_summary_of_one_sided_and_broken_spectra(eigenvalue, nep, ape):
    s = ls.summarize(gathered(eigenvalue))["summary"]
    assert tuple(s.sel(statistic="nep").values[: len(nep)]) == nep
    np.testing.assert_equal(float(s.sel(statistic="ape", bound="estimate")), ape)


@pytest.mark.parametrize("analysis", ["spectrum", "density"])
def test_interrupted_and_resumed_equals_uninterrupted(mlp, points, objective, analysis):
    def run(objective, **more):
        if analysis == "spectrum":
            return ls.hessian_spectrum(objective, k=2, batch_size=10, **more)
        return ls.spectral_density(objective, probes=4, steps=3, **more)

    whole = run(objective)
    after = {"spectrum": 4, "density": 12}[analysis]
    broken = ls.Objective(raising(mlp, after), points, weight_decay=0.2, dtype=torch.float64)
    kept = []
    with pytest.raises(RuntimeError, match="broke"):
        run(broken, save=lambda d: kept.append(d.copy(deep=True)))
    assert 0 < kept[-1]["done"].sum() < kept[-1]["done"].size
    assert run(objective, partial=kept[-1]).identical(whole)


def test_a_loss_that_is_not_finite_gives_nan(mlp, points):
    with torch.no_grad():
        mlp[3].weight.fill_(torch.nan)
    spectrum = ls.hessian_spectrum(ls.Objective(mlp, points), k=2, batches=2)
    assert spectrum["eigenvalue"].isnull().all()
    assert not spectrum["converged"].any()
    assert spectrum["done"].all()


def test_bad_requests(objective):
    with pytest.raises(ls.UserError, match="50 frozen examples make 3"):
        ls.hessian_spectrum(objective, batches=4)
