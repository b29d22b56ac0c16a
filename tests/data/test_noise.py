"""Noise of chosen frequencies: real, in its band, of the asked energy after clipping, for every size; the study's."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from landscape.data import noise
from landscape.runtime.errors import UserError

SIZES = st.integers(3, 33)


@given(SIZES, st.integers(0, 9), st.data())
def test_noise_in_a_band_is_real_and_has_no_energy_outside(size, seed, data):
    band = data.draw(st.sampled_from(noise.rings(size) + noise.octaves(size)))
    x = torch.zeros(2, 1, size, size, dtype=torch.float64)
    found = noise.in_band(noise.white(x, 0, seed), band)
    power = torch.fft.fft2(found).abs().square()
    inside = noise.mask(band, size, size)
    assert float((power * ~inside).sum() / power.sum()) < 1e-24
    np.testing.assert_allclose(found.square().mean((1, 2, 3)), 1)
    whole = torch.fft.ifft2(torch.fft.fft2(noise.white(x, 0, seed)) * inside)
    assert whole.imag.abs().max() < 1e-12 * whole.real.abs().max()
    np.testing.assert_allclose(power.sum((1, 2, 3)) / size**2, size**2)  # Parseval


@given(SIZES)
def test_masks_are_symmetric_and_bands_part_the_frequencies(size):
    for band in noise.rings(size):
        m = noise.mask(band, size, size)
        opposite = m.flip(0, 1).roll((1, 1), (0, 1))  # the coefficient at -k
        assert torch.equal(m, opposite)
    whole = sum(noise.mask(band, size, size).int() for band in noise.octaves(size))
    f = noise.radial_frequency(size, size)
    assert whole.max() == 1
    assert whole[0, 0] == 0
    assert (whole[f <= 2 * (size // 2) / size + 1e-9].sum()) == (f <= 2 * (size // 2) / size + 1e-9).sum() - 1


@pytest.mark.parametrize("size", [8, 15, 32])
@pytest.mark.parametrize("rms", [0.02, 0.1, 0.3])
def test_after_clipping_the_change_has_the_asked_energy(size, rms):
    g = torch.Generator().manual_seed(0)
    x = torch.rand(6, 3, size, size, generator=g)
    x[:2] = (x[:2] > 0.5).float()  # all black or white: clipping takes half of the noise
    band = noise.rings(size)[-1]
    after = noise.added(x, noise.in_band(noise.white(x, 0, 0), band), rms)
    assert after.min() >= 0
    assert after.max() <= 1
    np.testing.assert_allclose((after - x).square().mean((1, 2, 3)).sqrt(), rms, rtol=1e-6)
    outside = noise.share_outside(after - x, band)
    assert (outside[:2] > 0.1).all()
    gray = torch.full_like(x, 0.5)
    little = noise.added(gray, noise.in_band(noise.white(x, 0, 0), band), 0.01)
    assert noise.share_outside(little - gray, band).abs().max() < 1e-12


def test_an_image_without_room_gets_as_much_as_it_has():
    x = torch.full((1, 1, 8, 8), 0.5)
    after = noise.added(x, noise.in_band(noise.white(x, 0, 0), noise.rings(8)[0]), 0.9)
    assert 0.45 < float((after - x).square().mean().sqrt()) <= 0.5


def test_each_image_has_a_draw_of_its_own_whatever_is_drawn_with_it():
    x = torch.zeros(5, 1, 8, 8)
    whole = noise.white(x, 0, 3)
    assert torch.equal(whole[2:4], noise.white(x[:2], 2, 3))
    assert not torch.equal(whole[0], whole[1])


def theirs(random: torch.Tensor, f: float, s: float = 0.2, eps: float = 0.7) -> torch.Tensor:
    """Park & Kim's noise, step by step from its description, by index and by angle as their code has it."""
    h = random.shape[-1]
    spectrum = torch.roll(torch.fft.fft2(eps * random.sign()), (h // 2, h // 2), (2, 3))
    ring = torch.zeros(h, h)
    for sign, half in ((1, f + s), (0, f - s)):
        side = min(max(int(half * h / (2 * math.pi)) * 2, 0), h)
        edge = (h - side) // 2
        ring[edge : edge + side, edge : edge + side] = sign
    kept = ring * spectrum.abs() * torch.exp(1j * spectrum.angle())
    return torch.fft.ifft2(torch.roll(kept, (h // 2, h // 2), (2, 3))).real


@pytest.mark.parametrize("size", [8, 32, 56])
def test_park_kims_noise_is_theirs_with_its_mistakes(size):
    random = noise.white(torch.zeros(2, 3, size, size), 0, 0)
    for f in np.arange(0.1, 1.0, 0.1):
        np.testing.assert_allclose(noise.park_kim(random, f), theirs(random, f * math.pi), atol=1e-12)
    with pytest.raises(UserError, match="even side, not 7 x 7"):
        noise.park_kim(random[..., :7, :7], 0.5)


def test_the_energy_of_park_kims_noise_grows_ninefold_at_224_pixels_and_of_ours_not_at_all():
    random = noise.white(torch.zeros(1, 3, 224, 224), 0, 0)
    low, high = (float(noise.park_kim(random, f).square().mean()) / 0.49 for f in (0.1, 0.9))
    assert low == pytest.approx((36**2 - 8**2) / 224**2, rel=0.06)  # 2.5 % of the coefficients
    assert high == pytest.approx((214**2 - 186**2) / 224**2, rel=0.06)  # 22 %
    assert 8 < high / low < 10
    for band in noise.rings(224):
        np.testing.assert_allclose(noise.in_band(random, band).square().mean(), 1)
