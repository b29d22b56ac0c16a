"""The common corruptions: of the published strengths at 32 pixels, of the package's beyond; drawn by seed and image."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

import landscape as ls
from landscape.analyses.robustness import Robustness
from landscape.data.corruptions import CIFAR_C, CORRUPTIONS, SEVERITIES, corrupted
from landscape.runtime.errors import UserError
from landscape.study import drawing

pytest.importorskip("imagecorruptions", reason="the extra landscape[corruptions] is not installed")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(4, 3, 5, 5, generator=g), 32, mode="bicubic").clamp(0, 1)
    return (255 * smooth).round() / 255


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_is_drawn_by_seed_and_image_and_grows_with_severity(name, images):
    whole = [corrupted(images, name, severity, 0, 0) for severity in SEVERITIES]
    assert torch.equal(whole[2][1:3], corrupted(images[1:3], name, 3, 1, 0))
    rms = [float((changed - images).square().mean().sqrt()) for changed in whole]
    assert all(changed.min() >= 0 and changed.max() <= 1 for changed in whole)
    assert 0 < rms[0] < 0.2
    assert rms[4] > rms[0] or name == "elastic_transform"  # whose published severities do not rise at every step
    np.random.seed(0)
    state = np.random.get_state()[1].copy()
    corrupted(images[:1], name, 5, 0, 0)
    assert (np.random.get_state()[1] == state).all()


def test_strengths_at_32_pixels_are_those_published_for_cifar():
    gray = torch.full((6, 3, 32, 32), 128 / 255)
    for severity in SEVERITIES:

        def of(name: str, x: torch.Tensor = gray, severity: int = severity) -> np.ndarray:
            return corrupted(x, name, severity, 0, 0).numpy()

        i = severity - 1
        assert of("gaussian_noise").std() == pytest.approx(CIFAR_C["gaussian_noise"][i], rel=0.03)
        photons = CIFAR_C["shot_noise"][i]
        assert of("shot_noise").std() == pytest.approx((0.5 / photons) ** 0.5, rel=0.05)
        hit = (np.abs(of("impulse_noise") - 0.5) > 0.4).mean()
        assert hit == pytest.approx(CIFAR_C["impulse_noise"][i], rel=0.25)
        assert of("brightness").mean() - 128 / 255 == pytest.approx(CIFAR_C["brightness"][i], abs=0.004)
    assert CIFAR_C["contrast"] == (0.75, 0.5, 0.4, 0.3, 0.15)


def test_contrast_jpeg_and_pixelate_are_what_they_say(images):
    for severity in SEVERITIES:
        kept = CIFAR_C["contrast"][severity - 1]
        less = corrupted(images, "contrast", severity, 0, 0)
        ratio = less.std((2, 3)) / images.std((2, 3))
        np.testing.assert_allclose(ratio, kept, rtol=0.03)
        byte = (255 * images[0].permute(1, 2, 0)).round().numpy().astype(np.uint8)
        held = BytesIO()
        Image.fromarray(byte).save(held, "JPEG", quality=CIFAR_C["jpeg_compression"][severity - 1])
        theirs = torch.from_numpy(np.array(Image.open(held)) / 255).permute(2, 0, 1)
        assert torch.equal(corrupted(images[:1], "jpeg_compression", severity, 0, 0)[0], theirs)


def test_large_images_have_the_package_s_severities():
    from imagecorruptions import corrupt

    g = torch.Generator().manual_seed(1)
    x = (255 * torch.rand(1, 3, 64, 64, generator=g)).round() / 255
    theirs = corrupt((255 * x[0].permute(1, 2, 0)).round().numpy().astype(np.uint8), 3, "contrast")
    assert torch.equal(corrupted(x, "contrast", 3, 0, 0)[0], torch.from_numpy(theirs / 255).permute(2, 0, 1))
    for name in ("impulse_noise", "glass_blur", "fog"):
        assert torch.equal(corrupted(x, name, 3, 0, 5), corrupted(x, name, 3, 0, 5))


def test_images_that_are_too_small_are_refused():
    with pytest.raises(UserError, match="32 pixels or more; these have 1 channel and 8 x 8"):
        corrupted(torch.zeros(1, 1, 8, 8), "fog", 1, 0, 0)


def test_the_analysis_finds_the_mean_over_corruptions(images):
    torch.manual_seed(0)
    network = ls.create_model("resnet8", 10, 32, 3)
    objective = ls.Objective(network, [(images.repeat(3, 1, 1, 1), torch.arange(12) % 10)])
    objective.data_config |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    analysis = Robustness(perturbation="corruptions")
    found = analysis.run(objective)
    assert dict(found["done"].sizes) == {"corruption": 15, "severity": 5}
    nll, accuracy = analysis.estimates(found)
    assert nll.value == pytest.approx(float(found["loss_change"].mean()), abs=1e-6)
    assert accuracy.low < accuracy.value < accuracy.high or accuracy.value == 0
    assert list(drawing.draw({"robustness_corruptions": found})) == ["robustness_corruptions"]
