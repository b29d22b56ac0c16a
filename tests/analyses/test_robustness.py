"""Robustness: what the analysis stores is what a hand-written loop finds; one draw for every network and chunk."""

import numpy as np
import pytest
import torch
from helpers import unchanged
from torch.nn import functional as F

import landscape as ls
from landscape.analyses.robustness import Robustness, network_robustness
from landscape.data import noise
from landscape.runtime.errors import UserError
from landscape.study import drawing


@pytest.fixture(scope="module")
def digits() -> ls.FrozenData:
    return ls.load_data("digits", split="test", transform="eval", samples=96, seed=0)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return ls.create_model("resnet8", 10, 8, 1)


def test_rings_are_those_of_a_plain_loop(network, digits):
    with unchanged(network):
        found = network_robustness(ls.Objective(network, digits), rms=0.2)
    mean, std = (torch.tensor(digits.config[key]).view(1, 1, 1) for key in ("mean", "std"))
    pixels = digits.x * std + mean
    network.eval()
    clean = F.cross_entropy(network(digits.x), digits.y, reduction="none")
    for i, band in enumerate(noise.rings(8)):
        changed = noise.added(pixels.clamp(0, 1), noise.in_band(noise.white(digits.x, 0, 0), band), 0.2)
        logits = network(((changed - mean) / std).float())
        loss = F.cross_entropy(logits, digits.y, reduction="none")
        np.testing.assert_allclose(found["loss_change"][i], (loss - clean).detach(), atol=2e-5)
        assert float(found["accuracy"][i]) == pytest.approx(float((logits.argmax(1) == digits.y).float().mean()))
        assert float(found["rms"][i]) == pytest.approx(0.2, rel=1e-5)
    np.testing.assert_allclose(found["nll_change"].sel(bound="estimate"), found["loss_change"].mean("example"))
    low, high = (found["nll_change"].sel(bound=b) for b in ("low", "high"))
    assert (low < high).all()


def test_the_study_s_noise_is_added_to_normalised_images(network, digits):
    found = network_robustness(ls.Objective(network, digits), definition="park-kim")
    assert found["frequency"].values.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    network.eval()
    with torch.no_grad():
        clean, noisy = (
            F.cross_entropy(network(digits.x + added), digits.y, reduction="none")
            for added in (0, noise.park_kim(noise.white(digits.x, 0, 0), 0.5).float())
        )
    np.testing.assert_allclose(found["loss_change"].sel(frequency=0.5), noisy - clean, atol=2e-5)


def test_more_noise_hurts_more_and_octaves_have_thresholds(network, digits):
    objective = ls.Objective(network, digits)
    with torch.no_grad():  # so that it knows its own answers, and noise can take them away
        objective = ls.Objective(network, [(digits.x, objective.outputs(digits.x).argmax(1))])
    objective.data_config.update(digits.config)
    analysis = Robustness(perturbation="octaves", fall=0.2)
    found = analysis.run(objective)
    fallen = found["accuracy_change"].sel(bound="estimate").values
    assert (fallen[:, -1] < fallen[:, 0]).all()
    threshold = found["threshold"].values
    assert (threshold[:, 1] <= threshold[:, 0]).all()
    assert [e.name for e in analysis.estimates(found)][-1] == "noise threshold at 0.8 pi"
    assert list(drawing.draw({"robustness_octaves": found})) == ["robustness_octaves"]


def test_two_networks_stand_side_by_side_and_their_difference_beside(network, digits):
    torch.manual_seed(1)
    other = ls.create_model("vit_xs", 10, 8, 1)
    files = {
        name: {"robustness": network_robustness(ls.Objective(model.eval(), digits))}
        for name, model in (("resnet8", network), ("vit_xs", other))
    }
    figure = drawing.compare(files)["robustness"]
    assert [ax.get_ylabel() for ax in figure.axes] == [
        "change of accuracy (points)", "change of NLL", "vit_xs less resnet8:\nchange of accuracy (points)"
    ]  # fmt: skip


def test_what_it_cannot_do_is_said(mlp, points, network, digits):
    with pytest.raises(UserError, match="needs square images"):
        network_robustness(ls.Objective(mlp, points))
    with pytest.raises(UserError, match="do not state the mean and std"):
        network_robustness(ls.Objective(network, [(digits.x, digits.y)]))
    with pytest.raises(UserError, match="definition=park-kim is for rings"):
        Robustness(perturbation="octaves", definition="park-kim")
    with pytest.raises(UserError, match=r"levels=0\.2,0\.1 must rise"):
        Robustness(levels=(0.2, 0.1))
