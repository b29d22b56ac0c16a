import json
import sys

import numpy as np
import pytest
import torch
from conftest import SHARED

import landscape as ls
from landscape.models.alternet import published_stage

PARITY = SHARED / "reference" / "parity" / "hdv_alternet_18.json"


@pytest.mark.parametrize("name", ls.list_models())
def test_every_model_maps_images_to_logits(name):
    model = ls.create_model(name, num_classes=7, image_size=32, in_channels=1).eval()
    with torch.no_grad():
        logits = model(torch.randn(1, 1, 32, 32))
    assert logits.shape == (1, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("name", "millions"),
    [("resnet20", 0.27), ("resnet32", 0.46), ("resnet44", 0.66), ("resnet56", 0.85), ("resnet110", 1.7)],
)
def test_cifar_resnets_have_the_published_size(name, millions):
    """He et al. 2016, table 6."""
    n = sum(p.numel() for p in ls.create_model(name).parameters()) / 1e6
    assert round(n, 1 if millions > 1 else 2) == millions


def test_without_shortcuts_the_identity_is_gone():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    with_skip, without = ls.create_model("resnet20").eval(), ls.create_model("resnet20_noshort").eval()
    without.load_state_dict(with_skip.state_dict())
    for model in (with_skip, without):
        for block in [b for s in (model.layer1, model.layer2, model.layer3) for b in s]:
            torch.nn.init.zeros_(block.bn2.weight)
    assert with_skip.layer1(torch.rand(1, 16, 8, 8)).abs().sum() > 0
    assert without.layer1(torch.rand(1, 16, 8, 8)).abs().sum() == 0
    assert with_skip(x).std(0).sum() > 0


@pytest.mark.skipif(not PARITY.exists(), reason="the parity files of the reference study are not here")
def test_alternet_18_gives_the_published_logits(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(PARITY.parent.parent), *sys.path])
    from fill import fill, images

    held = json.loads(PARITY.read_text())
    model = ls.create_model("alternet_18", held["classes"]).double().eval()
    model.load_state_dict({k: torch.as_tensor(fill(k, tuple(s))) for k, s in held["entries"].items()})
    with torch.no_grad():
        np.testing.assert_allclose(model(torch.as_tensor(images())), held["logits"], atol=1e-9)


@pytest.mark.parametrize(
    ("n", "m", "order"), [(2, 0, "cc"), (2, 1, "ca"), (6, 3, "cacaca"), (4, 1, "ccca"), (4, 2, "caca")]
)
def test_published_order(n, m, order):
    assert published_stage(n, m) == order


def test_any_placement_of_attention():
    model = ls.create_model("alternet_xs", 10, 8, 1, stages=("ca", "cac", "cc"))
    kinds = [[type(b).__name__[0] for b in getattr(model, f"layer{s}")] for s in (1, 2, 3)]
    assert kinds == [["C", "A"], ["C", "A", "C"], ["C", "C"]]
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_bad_requests():
    with pytest.raises(ls.UserError, match=r"resnet21.*resnet20"):
        ls.create_model("resnet21")
    with pytest.raises(ls.UserError, match="block 1 cannot be 'a'"):
        ls.create_model("alternet_xs", 10, 8, 1, stages=("cc", "ac", "cc"))
    with pytest.raises(ls.UserError, match="depht"):
        ls.create_model("vit_xs", depht=3)
