import numpy as np
import pytest
import xarray as xr

from landscape.analyses.blockwise import Means, means, of_type, over_blocks, over_folds, verdict
from landscape.analyses.estimates import Estimate


def folds(values, count=20):
    """The means of values (images, ...), of all and without each fold."""
    fold = np.arange(len(values)) % count
    return Means(values.mean(axis=0), np.stack([values[fold != f].mean(axis=0) for f in range(count)]))


def test_means_of_folds_are_those_of_the_images():
    rng = np.random.default_rng(0)
    values, fold = rng.normal(size=(50, 3)), np.arange(50) % 20
    result = xr.Dataset(
        {"v": (("fold", "block"), np.stack([values[fold == f].mean(axis=0) for f in range(20)])),
         "fold_images": ("fold", np.bincount(fold)), "done": ("fold", np.ones(20, bool))}
    )  # fmt: skip
    found, expected = means(result, "v"), folds(values)
    np.testing.assert_allclose(found.whole, expected.whole)
    np.testing.assert_allclose(found.without, expected.without)
    result["done"][5:] = False
    np.testing.assert_allclose(means(result, "v").whole, values[fold < 5].mean(axis=0))
    result["done"][:] = False
    assert np.isnan(means(result, "v").whole).all()


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(1).normal(size=20)
    estimate, low, high = over_folds(folds(values))
    sem = values.std(ddof=1) / np.sqrt(20)
    np.testing.assert_allclose((high - low) / 2, 2.093024 * sem, rtol=1e-6)
    np.testing.assert_allclose(estimate, values.mean())


def test_intervals_cover_ratios_over_images():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(800):
        images = rng.gamma(2, size=(100, 1)) * rng.gamma(3, size=(100, 2))  # out and in go together
        out, into = folds(images).without.T
        whole = images.mean(axis=0)
        _, low, high = over_folds(Means(np.log(whole[0] / whole[1]), np.log(out / into)))
        covered += low < 0 < high
    assert 0.93 < covered / 800 < 0.975


@pytest.mark.parametrize(("block", "image"), [(1.0, 0.1), (0.3, 3.0), (0.5, 0.5), (0.0, 1.0), (1.0, 0.0)])
def test_intervals_cover_over_blocks_and_images(block, image):
    """Blocks and images drawn anew: over 12 blocks and 20 folds, 95 % intervals cover 93 % of the time or more."""
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(600):
        y = rng.normal(size=(1, 12)) * block + rng.normal(size=(60, 1)) * image + rng.normal(size=(60, 12))
        found = over_blocks(*folds(y))
        covered += found.low < 0 < found.high
    assert covered / 600 > 0.93


def test_too_few_are_said_to_be_too_few():
    y = np.random.default_rng(4).normal(size=(60, 12)) + 3
    assert np.isnan(over_blocks(*folds(y[:, :7])).low)
    assert np.isnan(over_blocks(*folds(y, 7)).low)
    result = xr.Dataset(coords={"block_type": ("block", ["attention"] * 8 + ["mlp"] * 3 + ["stem"])})
    values = folds(y)
    many, few = of_type(result, values, "attention", "a"), of_type(result, values, "mlp", "m")
    assert (many.n, many.counts, many.note) == (8, "blocks and folds of the images", "")
    assert (few.n, few.counts) == (20, "folds of the images")
    assert "these 3 blocks alone" in few.note
    assert of_type(result, values, "pool", "p") is None
    short = folds(y, 7)
    assert np.isnan(of_type(result, short, "attention", "a").low)
    assert np.isnan(over_folds(short)[:, 1:]).all()


def test_what_no_fold_changes_has_no_interval():
    assert np.isnan(over_folds(folds(np.full(40, 3.0)))[1:]).all()


def test_verdicts():
    def found(low, high):
        return verdict(Estimate(name="x", value=0.0, low=low, high=high), "down", "up")

    assert [found(-2, -1), found(1, 2), found(-1, 1), found(np.nan, np.nan)] == ["down", "up", "neither", "undecided"]
