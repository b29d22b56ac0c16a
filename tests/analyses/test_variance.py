import numpy as np
import pytest
import torch
from helpers import unchanged

import landscape as ls
from landscape.analyses.variance import Variance, moments_of
from landscape.features.frequencies import rings, spectra
from landscape.study.drawing import draw_group


def objective(model, count=45, side=16):
    x = torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(0))
    return ls.Objective(model, [(x, torch.zeros(count, dtype=torch.long))])


def test_of_white_noise_and_of_constants():
    variance, square = moments_of(3 + 2 * torch.randn(500, 4, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert abs(variance.mean() - 4) < 0.1
    assert abs(square.mean() - 13) < 0.2
    variance, square = moments_of(torch.full((2, 3, 4, 4), 1e3))
    assert (variance == 0).all()
    assert (square == 1e6).all()
    assert np.isnan(moments_of(torch.ones(2, 3, 1, 1))[0]).all()


def test_it_is_what_is_not_at_frequency_zero():
    maps = torch.randn(3, 4, 7, 7) + 1
    variance, square = moments_of(maps)
    found = spectra(maps)
    np.testing.assert_allclose(variance * 48 / 49, found["power"] @ rings(7, 7).coefficients / 49, rtol=1e-5)
    np.testing.assert_allclose(variance * 48 / 49 + found["zero"], square, rtol=1e-5)


@pytest.mark.parametrize("definition", ["relative", "park-kim"])
def test_levels_and_steps_are_those_of_the_formula(definition):
    torch.manual_seed(0)
    model = ls.create_model("vit_xs", 4, 16, 1, depth=8).eval()
    loss = objective(model)
    analysis = Variance(definition=definition, chunk_size=4)
    with unchanged(model), unchanged(loss.model):
        result = analysis.run(loss)
    expected = []
    with torch.no_grad():
        z = loss.x
        for block in ls.blocks(model)[:-1]:
            z = block.module(z)
            latent = z[:, 1:].mT.unflatten(2, (4, 4)).double()
            over = latent.var(dim=[-1, -2]).mean([0, 1])  # the study's line
            expected.append(float(over if definition == "park-kim" else over * 15 / 16 / latent.square().mean()))
    np.testing.assert_allclose(result["level"].sel(bound="estimate"), expected, rtol=1e-4)
    estimates = {e.name: e for e in analysis.estimates(result)}
    np.testing.assert_allclose(
        estimates["step of the variance over mlp"].value, np.diff(expected)[1::2].mean(), rtol=1e-3
    )
    assert estimates["step of the variance over mlp"].counts == "blocks and folds of the images"
    said = " ".join(analysis.remarks(result))
    assert "of 8 blocks lower it beyond doubt" in said
    assert draw_group(result, "variance").keys() == {"variance"}


def test_a_scale_changes_the_studys_number_alone():
    torch.manual_seed(0)
    model = ls.create_model("resnet8", 4, 16, 1)
    other = ls.create_model("resnet8", 4, 16, 1)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.bn1.weight *= 2
        other.bn1.bias *= 2
    relative, study = ({d: Variance(definition=d).run(objective(m))["level"].sel(bound="estimate")[0]
                        for d in ("relative", "park-kim")} for m in (model, other))  # fmt: skip
    np.testing.assert_allclose(relative["relative"], study["relative"], rtol=1e-5)
    np.testing.assert_allclose(study["park-kim"], 4 * relative["park-kim"], rtol=1e-5)
