import numpy as np
import pytest
import timm
import torch
from helpers import unchanged
from torch import nn

import landscape as ls
from landscape.analyses.fourier import Fourier
from landscape.features.frequencies import rings
from landscape.store.units import Work
from landscape.study.drawing import draw_group


def objective(model, x):
    return ls.Objective(model, [(x, torch.zeros(len(x), dtype=torch.long))])


def convnext(kernel):
    """One stage of one block on maps of 8 x 8, its branch a depthwise convolution around the edges, and no more."""
    model = timm.create_model("convnext_atto", num_classes=2, depths=(1, 1, 1, 1), dims=(2, 4, 4, 4), in_chans=2)
    model.stem = nn.Identity()
    block = model.stages[0].blocks[0]
    size = kernel.shape[-1]
    block.conv_dw = nn.Conv2d(2, 2, size, padding="same", padding_mode="circular", groups=2, bias=False)
    block.conv_dw.weight.data[:] = kernel
    block.norm, block.mlp, block.gamma = nn.Identity(), nn.Identity(), None
    return model


def points(count=16, side=32):
    x = torch.zeros(count, 2, side, side)
    for i in range(count):
        x[i, :, i % side, (3 * i) % side] = 1 + i
    return x


def test_the_transfer_of_average_pooling_is_the_dirichlet_kernel():
    result = Fourier().run(objective(convnext(torch.full((5, 5), 1 / 25)), points()))
    omega = 2 * np.pi * np.fft.fftfreq(32)
    with np.errstate(invalid="ignore"):
        one = np.where(omega == 0, 1, np.sin(2.5 * omega) / (5 * np.sin(omega / 2)))
    kernel = np.outer(one, one)
    radius = np.rint(32 * np.hypot(*np.meshgrid(np.fft.fftfreq(32), np.fft.fftfreq(32), indexing="ij")))
    ring = np.arange(1, len(rings(32, 32).frequency) + 1)
    for path, response in (("branch", kernel), ("skip", 1 + kernel)):
        expected = [np.square(response[radius == r]).mean() for r in ring]  # points have the same power everywhere
        found = result["transfer"].sel(path=path, block="stages.0.blocks.0", bound="estimate").values
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)
    high = ring > 8
    expected = np.log([np.square((1 + kernel)[radius == r]).mean() for r in ring])
    tilt = result["tilt"].sel(path="skip", block="stages.0.blocks.0", bound="estimate")
    np.testing.assert_allclose(tilt, expected[high].mean() - expected[~high].mean(), rtol=1e-4)


def test_an_identity_block_has_transfer_one_and_a_difference_is_high_pass():
    nothing = Fourier().run(objective(convnext(torch.zeros(1, 1)), torch.randn(16, 2, 32, 32)))
    block = {"block": "stages.0.blocks.0"}
    assert (nothing["transfer"].sel(path="skip", bound="estimate", **block) == 1).all()
    assert nothing["tilt"].sel(path="skip", bound="estimate", **block) == 0
    sharpen = torch.tensor([[0, -1.0, 0], [-1, 4, -1], [0, -1, 0]]) / 4
    sharp = Fourier().run(objective(convnext(sharpen), torch.randn(40, 2, 32, 32)))
    for path in ("skip", "branch"):
        assert sharp["tilt"].sel(path=path, bound="low", **block) > 0


def test_the_studys_number_of_a_network_is_its_notebooks():
    """Block by block on a ViT: its class token dropped, after each attention and each MLP with their skips."""
    torch.manual_seed(0)
    model = ls.create_model("vit_xs", 4, 32, 3, depth=2).eval()
    x = torch.randn(20, 3, 32, 32)
    loss = objective(model, x)
    with unchanged(model), unchanged(loss.model):
        analysis = Fourier(definition="park-kim", chunk_size=3)
        result = analysis.run(loss)
    expected = []
    with torch.no_grad():
        z = x
        for block in ls.blocks(model)[:-1]:
            z = block.module(z)
            latent = z[:, 1:].mT.unflatten(2, (8, 8))
            f = (torch.fft.fft2(latent).abs() + 1e-6).log()
            diagonal = torch.roll(f, (4, 4), (2, 3)).mean(dim=(0, 1)).diag()[4:]
            expected.append(float(diagonal[-1] - diagonal[0]))
    found = result["relative_log_amplitude"].sel(direction="diagonal", bound="estimate")
    np.testing.assert_allclose(found, expected, atol=1e-4)
    estimates = {e.name: e for e in analysis.estimates(result)}
    np.testing.assert_allclose(estimates["relative log amplitude at the end"].value, expected[-1], atol=1e-4)
    np.testing.assert_allclose(
        estimates["step of ln amplitude over attention"].value, np.diff(expected)[::2].mean(), atol=1e-4
    )
    assert analysis.group == "fourier_park_kim"


@pytest.mark.parametrize("name", ["alternet_xs", "resnet8"])
def test_chunks_and_interruptions_change_nothing(name):
    torch.manual_seed(0)
    loss = objective(ls.create_model(name, 4, 16, 1), torch.randn(45, 1, 16, 16))
    whole = Fourier().run(loss)
    some = Fourier(chunk_size=1).run(loss, work=Work(budget=0.0))
    assert 0 < some["done"].sum() < 20
    assert Fourier().remarks(some)
    rest = Fourier(chunk_size=7).run(loss, stored=some)
    for key in ("power", "log_amplitude", "attention_after", "tilt"):
        np.testing.assert_allclose(rest[key], whole[key], rtol=1e-4, atol=1e-5, err_msg=key)


def test_a_result_is_as_large_for_any_number_of_images():
    torch.manual_seed(0)
    model = ls.create_model("resnet8", 4, 16, 1)
    sizes = [Fourier().run(objective(model, torch.randn(n, 1, 16, 16))).nbytes for n in (20, 90)]
    assert sizes[0] == sizes[1]


def test_verdicts_are_said_and_few_blocks_too():
    torch.manual_seed(0)
    loss = objective(ls.create_model("vit_xs", 4, 16, 1, depth=8), torch.randn(40, 1, 16, 16))
    analysis = Fourier()
    result = analysis.run(loss)
    said = " ".join(analysis.remarks(result))
    for words in ("attention, with skip: ", "mlp, branch alone: ", "of 40 images in 20 folds"):
        assert words in said
    by_name = {e.name: e for e in analysis.estimates(result)}
    assert "over 8 blocks and 20 folds" in by_name["tilt of mlp, branch alone"].how
    gain = by_name["ln gain of attention elsewhere over zero, matrices alone"]
    assert gain.value < 0, "averages smooth"
    for name in ("fourier", "fourier_power", "fourier_transfer", "fourier_attention"):
        assert name in draw_group(result, "fourier")
