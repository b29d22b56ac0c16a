import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from landscape.features.attention import matrix_gains, parts_of, watched
from landscape.features.frequencies import rings, spectra
from landscape.models.blocks import blocks

sides = st.integers(1, 17)


@given(sides, sides, st.integers(0, 9))
@settings(max_examples=40)
def test_parseval(height, width, seed):
    """The power of all coefficients, that of zero apart, is the sum of the squares over positions."""
    maps = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed)) + 0.5
    found, n = spectra(maps), height * width
    assert rings(height, width).coefficients.sum() + 1 == n
    whole = found["power"] @ rings(height, width).coefficients + n * found["zero"]
    np.testing.assert_allclose(whole, maps.double().square().sum(dim=(2, 3)).mean(dim=1).numpy(), rtol=1e-5)


@given(sides, sides, st.data())
@settings(max_examples=40)
def test_a_point_has_the_same_power_at_every_frequency(height, width, data):
    """White in the exact sense: |F| is 1 everywhere, wherever the point is, for sides odd and even."""
    x = torch.zeros(1, 1, height, width)
    x[0, 0, data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))] = 1
    found, n = spectra(x), height * width
    np.testing.assert_allclose(found["power"], 1 / n, rtol=1e-5)
    np.testing.assert_allclose(found["zero"], 1 / n**2, rtol=1e-5)
    np.testing.assert_allclose(found["log_amplitude"], 0, atol=2e-5)


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (14, 14), (9, 6)])
def test_white_noise_has_its_variance_at_every_frequency(size):
    maps = 1 + 2 * torch.randn(400, 8, *size, generator=torch.Generator().manual_seed(0))
    found = spectra(maps)["power"].mean(axis=0)
    independent = 3200 * rings(*size).coefficients / 2  # F(-k) is the conjugate of F(k)
    assert (abs(found / 4 - 1) < 5 / np.sqrt(independent)).all()


def of_study(latent):
    """The notebook of Park & Kim, fourier_analysis.ipynb, word for word but for the class."""

    def fourier(x):
        f = torch.fft.fft2(x)
        f = f.abs() + 1e-6
        return f.log()

    def shift(x):
        h, w = x.shape[2:]
        return torch.roll(x, shifts=(int(h / 2), int(w / 2)), dims=(2, 3))

    latent = fourier(latent)
    h = latent.shape[-1]
    latent = shift(latent).mean(dim=(0, 1))
    latent = latent.diag()[int(h / 2) :]
    return latent - latent[0]


@pytest.mark.parametrize("side", [1, 2, 7, 8, 14, 15])
def test_the_diagonal_is_the_studys(side):
    maps = torch.randn(5, 4, side, side, generator=torch.Generator().manual_seed(side)) + 1
    found = spectra(maps)["log_diagonal"].mean(axis=0)
    np.testing.assert_allclose(found - found[0], of_study(maps).numpy(), atol=1e-5)


def test_what_subsampling_does_to_the_studys_number_and_not_to_power():
    """White noise of mean 1: a stride alone raises the number by ln 2, though nothing is filtered; average pooling, a
    low-pass filter that divides the variance by 4, leaves it where it is. Power is right about both.
    """
    maps = 1 + torch.randn(300, 16, 28, 28, generator=torch.Generator().manual_seed(0))
    levels, powers = [], []
    for x in (maps, maps[..., ::2, ::2], F.avg_pool2d(maps, 2)):
        found = spectra(x)
        diagonal = found["log_diagonal"].mean(axis=0)
        levels.append(diagonal[-1] - diagonal[0])
        powers.append(found["power"].mean())
    assert abs(levels[1] - levels[0] - np.log(2)) < 0.02
    assert abs(levels[2] - levels[0]) < 0.02
    assert abs(powers[1] - 1) < 0.01
    assert abs(powers[2] - 0.25) < 0.01
    assert abs(levels[0] + 3.6) < 0.1, "as STUDY has it at 28 x 28"


def test_gains_of_matrices_whose_gains_are_known():
    t = 5
    for matrix, elsewhere in ((torch.eye(t), 1), (torch.eye(t)[[2, 0, 1, 4, 3]], 1), (torch.ones(t, t) / t, 0)):
        np.testing.assert_allclose(matrix_gains(matrix), [1, elsewhere], atol=1e-6)
    mixed = 0.3 * torch.eye(t) + 0.7 / t
    np.testing.assert_allclose(matrix_gains(mixed), [1, 0.09], atol=1e-6)
    random = torch.randn(2, 3, t, t).softmax(dim=-1)
    x = torch.randn(100_000, t, 1)
    x = x - x.mean(dim=1, keepdim=True)
    passed = random[0, 0] @ x
    expected = (passed - passed.mean(dim=1, keepdim=True)).square().mean() / x.square().mean()
    np.testing.assert_allclose(matrix_gains(random)[0, 0, 1], expected, rtol=0.03)


def test_constant_part_and_rest_are_the_whole():
    x = torch.randn(3, 7, 4)
    np.testing.assert_allclose(parts_of(x).sum(dim=1), x.double().square().mean(dim=(1, 2)), rtol=1e-6)
    image = x[:, :6].mT.unflatten(2, (2, 3))
    np.testing.assert_allclose(parts_of(image), parts_of(x[:, :6]), rtol=1e-6)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "pit_ti_224"])
def test_fused_attention_is_seen_as_the_plain_one_is(name):
    torch.manual_seed(0)
    settings = {"img_size": 56} if name.startswith("swin") else {}
    model = timm.create_model(name, num_classes=3, **settings).eval()
    x = torch.randn(2, 3, *(2 * [settings.get("img_size", 224)]))
    seen = []
    for fused in (True, False):
        for m in model.modules():
            if hasattr(m, "fused_attn"):
                m.fused_attn = fused
        known = {i: b for i, b in enumerate(blocks(model)) if b.type == "attention"}
        with torch.no_grad(), watched(known) as found:
            model(x)
        seen.append([found[i].take(2) for i in known])
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for a, b in zip(*seen, strict=True):
        assert np.isfinite(a["matrix"]).all()
        np.testing.assert_allclose(a["matrix"][:, 0], 1, rtol=1e-5)
        for key in a:
            np.testing.assert_allclose(a[key], b[key], rtol=2e-3, err_msg=key)
