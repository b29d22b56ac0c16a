import copy
import json
import math
import sys

import numpy as np
import pytest
import timm
import torch
import torchvision
from helpers import SHARED, same, small, unchanged
from torch import nn
from torch.nn import functional as F

import landscape as ls
from landscape.curvature.lockstep import MiniBatchCurvatures
from landscape.curvature.operators import Curvature
from landscape.models.alternet import published_stage
from landscape.models.vit import local_window
from landscape.objective.folding import FoldedConv2d, accelerate

PARITY = SHARED / "reference" / "parity"


@pytest.mark.parametrize("name", ls.list_models())
def test_every_model_maps_images_to_logits(name):
    model = small(name, num_classes=7, image_size=32, in_channels=1).eval()
    with torch.no_grad():
        logits = model(torch.randn(1, 1, 32, 32))
    assert logits.shape == (1, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", ls.list_models())
def test_every_model_has_curvature(name):
    """A product, symmetric to rounding, the same from many mini-batches at once, and a top eigenvalue."""
    torch.manual_seed(0)
    model = small(name)
    x, y = torch.randn(4, 1, 8, 8), torch.randint(0, 4, (4,))
    objective = ls.Objective(model, [(x, y)], dtype=torch.float64)
    n = sum(p.numel() for p in model.parameters())
    u, v = torch.randn(2, n, dtype=torch.float64)
    with unchanged(model):
        H = Curvature(objective)
        Hu, Hv = H(torch.stack((u, v)))
        assert torch.dot(u, Hv).item() == pytest.approx(torch.dot(v, Hu).item(), rel=1e-9)
        assert Hu.norm() > 0
        pairs = objective.x.unflatten(0, (2, 2)), objective.y.unflatten(0, (2, 2))
        halves = MiniBatchCurvatures(objective, *pairs)(torch.stack((v, v)), [0, 1])
        torch.testing.assert_close(halves.mean(0), Hv, rtol=1e-9, atol=1e-9 * float(Hv.abs().max()))
        top = ls.hessian_top(objective, k=1, which="LA", tol=0.05, max_products=60)
    assert top.converged.all()
    assert top.eigenvalue.item() > 0
    assert 0 <= top.residual.item() <= 0.05 * top.eigenvalue.item()


@pytest.mark.parametrize("name", ls.list_models())
def test_folding_leaves_every_model_as_it_is(name):
    torch.manual_seed(0)
    model = small(name).eval()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.running_mean)
            nn.init.uniform_(m.running_var, 0.5, 2)
    x = torch.randn(3, 1, 8, 8)
    fast = copy.deepcopy(model)
    x_fast = accelerate(fast, x)
    with torch.no_grad():
        before = model(x)
        torch.testing.assert_close(fast(x_fast), before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))
    assert list(fast.state_dict()) == list(model.state_dict())
    convolutional = any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert any(isinstance(m, FoldedConv2d) for m in fast.modules()) == convolutional


@pytest.mark.parametrize(
    ("name", "classes", "millions"),
    [
        ("resnet20", 10, 0.27),  # He et al. 2016, table 6
        ("resnet32", 10, 0.46),
        ("resnet44", 10, 0.66),
        ("resnet56", 10, 0.85),
        ("resnet110", 10, 1.7),
        ("vit_s", 1000, 22.1),  # Touvron et al. 2021, table 1; at 224 px
        ("vit_b", 1000, 86.6),
        ("pit_ti", 1000, 4.9),  # Heo et al. 2021, table 1
        ("swin_ti", 1000, 28.3),  # Liu et al. 2021, table 1
        ("botnet_50", 1000, 20.8),  # Srinivas et al. 2021, table 1
    ],
)
def test_published_sizes(name, classes, millions):
    with torch.device("meta"):
        model = ls.create_model(name, classes, 224 if classes == 1000 else 32)
    n = sum(p.numel() for p in model.parameters()) / 1e6
    assert n == pytest.approx(millions, abs=0.06 if millions > 1 else 0.005)  # the papers round or cut off


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_resnets_have_torchvision_s_shapes(depth):
    with torch.device("meta"):
        ours = [tuple(p.shape) for p in ls.create_model(f"resnet_{depth}", 1000, 224).parameters()]
        theirs = [tuple(p.shape) for p in getattr(torchvision.models, f"resnet{depth}")().parameters()]
        rests = sum(math.prod(p.shape) for p in ls.create_model(f"preresnet_{depth}", 1000, 224).parameters())
    assert sorted(ours) == sorted(theirs)
    # Each block has a BatchNorm before its first convolution in place of one after its last; shortcuts have none.
    pre = {18: 11.69, 34: 21.79, 50: 25.55, 101: 44.54, 152: 60.19}[depth]
    assert rests / 1e6 == pytest.approx(pre, abs=0.02)


def test_without_shortcuts_the_identity_is_gone():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    with_skip, without = ls.create_model("resnet20").eval(), ls.create_model("resnet20_noshort").eval()
    without.load_state_dict(with_skip.state_dict())
    for model in (with_skip, without):
        for block in [b for s in (model.layer1, model.layer2, model.layer3) for b in s]:
            nn.init.zeros_(block.bn2.weight)
    assert with_skip.layer1(torch.rand(1, 16, 8, 8)).abs().sum() > 0
    assert without.layer1(torch.rand(1, 16, 8, 8)).abs().sum() == 0
    assert with_skip(x).std(0).sum() > 0


@pytest.mark.skipif(not PARITY.exists(), reason="the parity files of the reference study are not here")
@pytest.mark.parametrize("name", ["resnet_18", "alternet_18"])
def test_published_logits(name, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(PARITY.parent), *sys.path])
    from fill import fill, images

    held = json.loads((PARITY / f"hdv_{name}.json").read_text())
    model = ls.create_model(name, held["classes"]).double().eval()
    model.load_state_dict({k: torch.as_tensor(fill(k, tuple(s))) for k, s in held["entries"].items()})
    with torch.no_grad():
        np.testing.assert_allclose(model(torch.as_tensor(images())), held["logits"], rtol=0, atol=1e-9)


def test_a_pre_activation_resnet_is_timm_s():
    """timm's ResNetV2 in its BatchNorm form, parameters copied in order of use."""
    torch.manual_seed(0)
    theirs = timm.create_model("resnetv2_50", num_classes=5).eval()
    ours = ls.create_model("preresnet_50", 5, 224).eval()
    named = dict(theirs.named_parameters())

    def key(name):
        name = name.replace("layer0.0", "stem.conv").replace("classifier.0.dense", "head.fc")
        name = name.replace("classifier.0.bn", "norm").replace("shortcut.0", "downsample.conv")
        for s in range(4, 0, -1):
            name = name.replace(f"layer{s}.", f"stages.{s - 1}.blocks.")
        for i in (2, 3):
            name = name.replace(f"conv{i}.0", f"norm{i}").replace(f"conv{i}.2", f"conv{i}")
        return name.replace(".bn.", ".norm1.")

    with torch.no_grad():
        for name, p in ours.named_parameters():
            source = named.pop(key(name))
            p.copy_(source.view(p.shape))
        assert not named
        x = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_both_stems_at_any_size():
    for name in ("resnet_18", "preresnet_18", "alternet_18", "botnet_50"):
        with torch.device("meta"):
            big, little = ls.create_model(name, 10, 32, stem="imagenet"), ls.create_model(name, 10, 224, stem="cifar")
        assert next(big.parameters()).shape == (64, 3, 7, 7)
        assert next(little.parameters()).shape == (64, 3, 3, 3)


@pytest.mark.parametrize(
    "name", ["resnet_18", "preresnet_50", "alternet_18", "botnet_50", "vit_ti", "pit_ti", "swin_ti"]
)
def test_at_imagenet_s_size(name):
    with torch.no_grad():
        assert small(name, 5, 224, 3).eval()(torch.randn(1, 3, 224, 224)).shape == (1, 5)


@pytest.mark.parametrize(
    ("n", "m", "order"), [(2, 0, "cc"), (2, 1, "ca"), (6, 3, "cacaca"), (4, 1, "ccca"), (4, 2, "caca")]
)
def test_published_order(n, m, order):
    assert published_stage(n, m) == order


def test_any_placement_of_attention():
    model = ls.create_model("alternet_xs", 10, 8, 1, stages=("ca", "cac", "cc"))
    kinds = [[type(b).__name__[0] for b in getattr(model, f"layer{s}")] for s in (1, 2, 3)]
    assert kinds == [["P", "A"], ["P", "A", "P"], ["P", "P"]]
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("attention", [(0, 0, 0, 1), (0, 0, 1, 1), (0, 1, 1, 1), (1, 1, 1, 1), (0, 1, 3, 2)])
def test_build_up(attention):
    """Attention stage by stage, from the last: Park & Kim 2022, fig. 12."""
    with torch.device("meta"):
        model = ls.create_model("alternet_50", 100, attention=attention)
    found = [sum(b.type == "attention" and b.stage == s for b in ls.blocks(model)) for s in (1, 2, 3, 4)]
    assert tuple(found) == attention
    assert [b.type for b in ls.blocks(model) if b.stage == 4][-1] == "attention"


@pytest.mark.parametrize("image_size", [28, 33, 37, 56, 97])
def test_botnet_at_sizes_whose_maps_have_an_odd_side(image_size):
    model = small("botnet_50", image_size=image_size).eval()
    x = torch.randn(2, 1, image_size, image_size, requires_grad=True)
    logits = model(x)
    assert logits.shape == (2, 4)
    logits.sum().backward()
    assert x.grad[:, :, -1].any()  # the last row is seen


@pytest.mark.parametrize(
    ("image_size", "patch", "patch_xs"),
    [(8, 1, 2), (16, 1, 4), (24, 2, 4), (28, 2, 4), (32, 2, 4), (33, 3, 3), (37, 1, 1), (64, 4, 4), (96, 6, 4)],
)
def test_patches_of_small_images_are_as_near_to_16_a_side_as_they_divide(image_size, patch, patch_xs):
    for name, size in (("vit_ti", patch), ("vit_xs", patch_xs)):
        model = ls.create_model(name, 4, image_size, 1, depth=1)
        assert model.patch_embed.patch_size == (size, size)
        assert model(torch.randn(1, 1, image_size, image_size)).shape == (1, 4)


def test_botnet_attends_by_content_and_position():
    """Logits q k^T + q (r_rows + r_columns)^T with scaled q, written out, and the average pooling after."""
    torch.manual_seed(0)
    model = small("botnet_50", image_size=32).eval()
    attention = model.layer4[0].conv2[0]
    x = torch.randn(2, 8, 8, 8)
    q, k, v = attention.qkv(x).reshape(2, 3, 2, 4, 64).permute(1, 0, 2, 4, 3)  # (batch, heads, positions, width)
    at = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    step = at[None, :] - at[:, None] + 7
    r = attention.pos_embed.height_rel[step[..., 0]] + attention.pos_embed.width_rel[step[..., 1]]
    logits = (q @ k.transpose(-2, -1) + torch.einsum("bhid,ijd->bhij", q, r)) * 4**-0.5
    out = (logits.softmax(-1) @ v).transpose(-2, -1).reshape(2, 8, 8, 8)
    torch.testing.assert_close(attention(x), F.avg_pool2d(out, 2))


@pytest.mark.parametrize(("local", "sees"), [(1, (0, 0)), (3, (1, 1)), (5, (2, 2)), (8, (4, 3))])
def test_local_window(local, sees):
    window = local_window((16, 16), local, 1)
    patches = window[1:, 1:].view(16, 16, 16, 16)
    for row, column in ((0, 0), (7, 9), (15, 3)):
        expected = torch.zeros(16, 16, dtype=torch.bool)
        up, left = max(0, row - sees[0]), max(0, column - sees[0])
        expected[up : row + sees[1] + 1, left : column + sees[1] + 1] = True
        assert torch.equal(patches[row, column], expected)
    assert window[0].all()
    assert not window[1:, 0].any()
    assert local_window((4, 4), 8, 1).all()


@pytest.mark.parametrize("settings", [{}, {"global_pool": "avg"}, {"global_pool": "avg", "class_token": True}])
def test_nothing_comes_from_outside_the_window(settings):
    """After L blocks a patch has seen L * (local // 2) patches around it, class token or not."""
    torch.manual_seed(0)
    model = ls.create_model("vit_xs", 5, 32, 1, local=3, depth=2, **settings).eval()
    prefix = model.num_prefix_tokens
    x = torch.randn(1, 1, 32, 32)
    other = x.clone()
    other[..., :4, :4] += 1
    with torch.no_grad():
        change = (model.forward_features(x) - model.forward_features(other)).abs().amax(-1)[0]
    moved = change[prefix:].view(8, 8) > 0
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:3, :3] = True
    assert torch.equal(moved, expected)
    assert (change[:prefix] > 0).all()
    assert same(model.state_dict().keys(), ls.create_model("vit_xs", 5, 32, 1, depth=2, **settings).state_dict().keys())


def test_local_attention_is_the_masked_softmax():
    torch.manual_seed(0)
    model = ls.create_model("vit_xs", 5, 16, 1, local=3, patch_size=4).eval()
    attention = model.blocks[0].attn
    x = torch.randn(2, 17, 64)
    q, k, v = attention.qkv(x).reshape(2, 17, 3, 4, 16).permute(2, 0, 3, 1, 4)
    logits = (q @ k.transpose(-2, -1) / 4).masked_fill(~attention.window, -torch.inf)
    expected = attention.proj((logits.softmax(-1) @ v).transpose(1, 2).reshape(2, 17, 64))
    torch.testing.assert_close(attention(x), expected)
    wide = ls.create_model("vit_xs", 5, 16, 1, local=7, patch_size=4).eval()
    plain = ls.create_model("vit_xs", 5, 16, 1, patch_size=4).eval()
    wide.load_state_dict(plain.state_dict())
    images = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(wide(images), plain(images))


def test_the_study_s_sizes_for_cifar():
    with torch.device("meta"):
        vit, pit, swin = (ls.create_model(n, 100) for n in ("vit_ti", "pit_ti", "swin_ti"))
    shapes = {k: tuple(p.shape) for m in (vit, pit, swin) for k, p in m.named_parameters()}
    assert tuple(vit.pos_embed.shape) == (1, 257, 192)
    assert vit.blocks[0].attn.qkv.bias is None
    assert tuple(pit.pos_embed.shape) == (1, 64, 31, 31)
    assert [len(s.blocks) for s in pit.transformers] == [2, 6, 4]
    assert shapes["layers.0.blocks.1.attn.relative_position_bias_table"] == (49, 3)
    assert shapes["layers.3.blocks.1.attn.relative_position_bias_table"] == (49, 24)
    assert swin.layers[0].blocks[0].attn.qkv.bias is None
    assert [len(s.blocks) for s in swin.layers] == [2, 2, 6, 2]


@pytest.mark.parametrize(
    "name", ["resnet8", "resnet_18", "preresnet_18", "alternet_18", "botnet_50", "vit_ti", "pit_ti"]
)
def test_stochastic_depth_is_for_training_alone(name):
    with torch.device("meta"):
        plain = ls.create_model(name)
        dropping = ls.create_model(name, drop_path_rate=0.1)
    rates = [m.drop_prob for m in dropping.modules() if isinstance(m, timm.layers.DropPath)]
    assert rates == sorted(rates)
    assert max(rates) == pytest.approx(0.1)
    assert dropping.state_dict().keys() == plain.state_dict().keys()


def test_names_may_leave_out_underscores():
    for spelling, name in {"resnet50": "resnet_50", "ViT-Ti": "vit_ti", "resnet20": "resnet20"}.items():
        with torch.device("meta"):
            a, b = ls.create_model(spelling), ls.create_model(name)
        assert {k: t.shape for k, t in a.state_dict().items()} == {k: t.shape for k, t in b.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet21", {}, r"resnet21.*resnet20"),
        ("alternet_xs", {"stages": ("cc", "ac", "cc")}, "block 1 cannot be 'a'"),
        ("alternet_18", {"attention": (0, 2, 1, 1)}, "2 attention blocks"),
        ("vit_xs", {"depht": 3}, "depht"),
        ("vit_xs", {"local": 0}, "local=0"),
        ("resnet_18", {"stem": "s2d"}, "stem='s2d' is not one of cifar, imagenet"),
        ("resnet20", {"shortcut": "C"}, "shortcut='C' is not one of A, B, none"),
        ("botnet_50", {"heads": 3}, "heads=3"),
        (
            "alternet_xs",
            {"image_size": 28},
            "at image_size=28 the map of stage 2 is 14 x 14, which cannot be cut into windows of 4",
        ),
        ("alternet_18", {"window": 0}, "cut into windows of 0"),
        ("alternet_18", {"stages": ("cc", "ca", "ca", "ca", "ca")}, "cannot make alternet_18: tuple index"),
        ("vit_xs", {"depth": -1}, "cannot make vit_xs"),
        ("vit_xs", {"embed_dim": 0}, "cannot make vit_xs"),
        ("resnet_18", {"in_channels": -1}, "cannot make resnet_18"),
    ],
)
def test_bad_requests(name, settings, message):
    with pytest.raises(ValueError, match=message):
        ls.create_model(name, **settings)
