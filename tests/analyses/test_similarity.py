import numpy as np
import pytest
import torch
import xarray as xr
from helpers import unchanged
from hypothesis import given, settings
from hypothesis import strategies as st

import landscape as ls
from landscape.analyses.alignment import hsic
from landscape.analyses.blockwise import over_folds
from landscape.analyses.similarity import Similarity
from landscape.features.capture import Capture
from landscape.store.units import Work
from landscape.study.drawing import draw_group


def objective(model, count=45, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(count, 1, 16, 16, generator=g), torch.randint(0, 4, (count,), generator=g)
    return ls.Objective(model, [(x[:20], y[:20]), (x[20:], y[20:])])


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return ls.create_model("resnet8", 4, 16, 1)


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(1)
    return ls.create_model("vit_xs", 4, 16, 1, depth=2)


def features(model, loss):
    """Of each block all features of all images at once."""
    found = list(Capture(loss)(loss.x))
    return [torch.cat([f.stream.positions.flatten(1), f.stream.tokens.flatten(1)], dim=1).double() for f in found]


def unbiased(x, y):
    """CKA from Song et al. 2012, eq. 5, word for word, of features (images, values)."""
    n = len(x)
    one = torch.ones(n, dtype=torch.float64)

    def h(k, m):
        k, m = k - torch.diag(k.diagonal()), m - torch.diag(m.diagonal())
        first = torch.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return (first - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))

    k, m = x @ x.T, y @ y.T
    return float(h(k, m) / torch.sqrt(h(k, k) * h(m, m)))


@pytest.mark.parametrize("batch_size", [4, 7, 32, 45, 64])
def test_mini_batches_give_the_value_of_the_full_batch(resnet, batch_size):
    loss = objective(resnet)
    with unchanged(resnet), unchanged(loss.model):
        result = Similarity(batch_size=batch_size).run({"r": loss})
    each = features(resnet, loss)
    expected = [[unbiased(a, b) for b in each] for a in each]
    np.testing.assert_allclose(result["cka"].sel(bound="estimate"), expected, atol=1e-6)
    np.testing.assert_allclose(np.diagonal(result["cka"].sel(bound="estimate")), 1)


def test_the_mini_batch_form_is_the_mean_of_hsic(resnet):
    loss = objective(resnet, count=64)
    analysis = Similarity(definition="park-kim", batch_size=8)
    result = analysis.run({"r": loss})
    each = [f.reshape(8, 8, -1) for f in features(resnet, loss)]
    h = sum(hsic(np.stack([(f[i] @ f[i].T).numpy() for f in each])) for i in range(8))
    expected = h / np.sqrt(np.outer(np.diagonal(h), np.diagonal(h)))
    np.testing.assert_allclose(result["cka"].sel(bound="estimate"), expected, atol=1e-6)
    assert np.isfinite(result["cka"].sel(bound="low").values[0, 1])
    one = Similarity(definition="park-kim", batch_size=64).run({"r": loss})
    full = Similarity().run({"r": loss})
    np.testing.assert_allclose(one["cka"].sel(bound="estimate"), full["cka"].sel(bound="estimate"), atol=1e-9)


def test_it_is_that_of_pytorch_cka(resnet, vit):
    cka = pytest.importorskip("cka", reason="pytorch-cka is not installed")
    loss = objective(resnet)
    each = features(resnet, loss)
    result = Similarity(batch_size=16).run({"r": loss, "v": objective(vit)})
    each += features(vit, objective(vit))
    found = result["cka"].sel(bound="estimate").values
    theirs = np.array([[float(cka.cka_from_features(a, b)) for b in each] for a in each])
    np.testing.assert_allclose(found.clip(0, 1), theirs, atol=1e-5)  # they clip


@given(st.integers(5, 30), st.integers(1, 12), st.integers(0, 9))
@settings(max_examples=25)
def test_a_rotation_a_scale_and_a_shift_change_nothing(n, width, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width))
    q, _ = np.linalg.qr(rng.normal(size=(width, width)))
    other = 3 * x @ q + rng.normal(size=width)
    h = hsic(np.stack([x @ x.T, other @ other.T]))
    if h[0, 0] > 1e-9:
        np.testing.assert_allclose(h[0, 1] / np.sqrt(h[0, 0] * h[1, 1]), 1, rtol=1e-6)


def test_it_is_unbiased():
    """Of independent features it is 0 in the mean, where the biased one is far above."""
    rng = np.random.default_rng(0)
    each = []
    for _ in range(2000):
        a, b = rng.normal(size=(2, 8, 20))
        each.append(hsic(np.stack([a @ a.T, b @ b.T]))[0, 1])
    assert abs(np.mean(each)) < 4 * np.std(each) / np.sqrt(2000)


def test_intervals_cover_over_images():
    """Of two noisy views of the same values, whose CKA is known from very many."""
    rng = np.random.default_rng(1)

    def views(n):
        z = rng.normal(size=(n, 3)) * [2, 1, 0.5]
        return z + 0.5 * rng.normal(size=z.shape), z + rng.normal(size=z.shape)

    def measured(a, b):
        h = hsic(np.stack([a @ a.T, b @ b.T]))
        return h[0, 1] / np.sqrt(h[0, 0] * h[1, 1])

    truth = measured(*views(3000))
    covered = 0
    for _ in range(150):
        a, b = views(100)
        gram = np.stack([a @ a.T, b @ b.T])[None]
        group = xr.Dataset({"gram": (("batch", "block", "image", "other"), gram), "done": ("batch", [True])})
        _, low, high = over_folds(Similarity().cka(group))[0, 1]
        covered += low < truth < high
    assert covered / 150 > 0.88


def test_two_networks_stand_side_by_side(resnet, vit, tmp_path):
    analysis = Similarity(batch_size=16)
    result = analysis.run({"r": objective(resnet), "v": objective(vit)})
    alone = Similarity(batch_size=16).run({"r": objective(resnet)})
    n = alone.sizes["block"]
    np.testing.assert_allclose(result["cka"].values[:n, :n], alone["cka"].values, atol=1e-9)
    rows = analysis.rows(result)
    assert list(rows) == ["r", "v"]
    assert "CKA of last blocks with r" in {e.name for e in rows["v"]}
    assert [e.value for e in analysis.rows(alone)[""]] == pytest.approx([e.value for e in rows["r"]])
    assert draw_group(result, "similarity").keys() == {"similarity"}
    with pytest.raises(ls.UserError, match="different images"):
        analysis.run({"r": objective(resnet), "v": objective(vit, seed=1)})


def test_a_block_that_does_nothing_changes_nothing():
    torch.manual_seed(0)
    model = ls.create_model("vit_xs", 4, 16, 1, depth=1)
    torch.nn.init.zeros_(model.blocks[0].attn.proj.weight)
    torch.nn.init.zeros_(model.blocks[0].attn.proj.bias)
    loss = objective(model)
    cka = Similarity(batch_size=16).run({"a": loss, "b": loss})["cka"].sel(bound="estimate").values
    np.testing.assert_allclose([cka[0, 1], cka[3, 4], *np.diagonal(cka, 3)], 1, rtol=1e-9)
    assert cka[1, 2] < 1 - 1e-6


def test_cut_short_it_is_that_of_the_images_seen(resnet):
    loss = objective(resnet)
    some = Similarity(batch_size=16).run({"r": loss}, work=Work(budget=0.0))
    assert some["done"].sum() == 1
    first = Similarity(batch_size=16).run({"r": ls.Objective(resnet, [(loss.x[:16], loss.y[:16])])})
    np.testing.assert_allclose(some["cka"], first["cka"], atol=1e-9)
    rest = Similarity(batch_size=16).run({"r": loss}, stored=some)
    whole = Similarity(batch_size=16).run({"r": loss})
    np.testing.assert_array_equal(rest["cka"], whole["cka"])
