import numpy as np
import pytest
import timm
import torch
from helpers import small, unchanged
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import landscape as ls
from landscape.features.capture import TYPES, Capture
from landscape.features.moments import Moments
from landscape.models.blocks import blocks


def objective(model, size=16, channels=1, examples=5):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(examples, channels, size, size, generator=g), torch.zeros(examples, dtype=torch.long)
    return ls.Objective(model, [(x[:3], y[:3]), (x[3:], y[3:])])


NETWORKS = {
    **{name: lambda name=name: small(name, image_size=16) for name in
       ("resnet8", "resnet20_noshort", "preresnet_18", "alternet_18", "botnet_50", "vit_xs", "swin_ti", "pit_ti")},
    "convnext": lambda: timm.create_model("convnext_atto", in_chans=1, num_classes=4),
    "deit": lambda: timm.create_model("deit_tiny_distilled_patch16_224", in_chans=1, img_size=32, depth=2),
    "timm's resnet": lambda: timm.create_model("resnet18", in_chans=1, num_classes=4),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_those_of_the_network_and_leave_it_as_it_is(name):
    """Against hooks on the network's own modules, of which each block's output is one."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    size = 32 if name in ("convnext", "deit", "timm's resnet") else 16
    loss = objective(model, size)
    with unchanged(model), unchanged(loss.model):
        capture = Capture(loss)
        x = next(capture.batches(np.arange(loss.examples), 2))
        found = list(capture(x))
    assert [f.number for f in found] == list(range(len(capture.places)))
    known = blocks(model.eval())[:-1]
    assert [p.name for p in capture.places] == [b.name for b in known]
    assert {p.type for p in capture.places} <= set(TYPES)
    z = x
    with torch.no_grad():
        for features, place, block in zip(found, capture.places, known, strict=True):
            before, z = z, block.module(z)
            positions, tokens = features.stream
            assert positions.shape == (2, place.channels, place.height, place.width)
            assert positions.numel() + tokens.numel() == z.numel()
            torch.testing.assert_close(positions.square().sum() + tokens.square().sum(), z.square().sum())
            assert (features.branch is not None) == place.residual == (block.branch is not None)
            if features.before is not None:
                assert features.before.positions.numel() + features.before.tokens.numel() == before.numel()
                assert place.same_size == (features.before.positions.shape[2:] == positions.shape[2:])
            if block.type in ("attention", "mlp") and place.same_size and name not in ("botnet_50",):
                torch.testing.assert_close(features.before.positions + features.branch.positions, positions)


def test_a_position_is_where_it_is_in_the_image():
    """A ViT without mixing: what is seen at a position is a function of the pixels of its patch alone."""
    for name in ("vit_xs", "swin_ti", "pit_ti"):
        settings = {"patch_size": 4, "stride": 4} if name == "pit_ti" else {"patch_size": 4}
        torch.manual_seed(0)
        model = ls.create_model(name, 4, 32, 1, **settings)
        blank = torch.zeros(1, 1, 32, 32)
        marked = blank.clone()
        marked[0, 0, 4:8, 20:24] = 1  # patch (1, 5)
        capture = Capture(ls.Objective(model, [(blank, torch.zeros(1, dtype=torch.long))]))
        one, other = (next(capture(x)).stream.positions for x in (blank, marked))
        changed = (one - other).abs().amax(dim=(0, 1)) > 1e-4
        assert changed.nonzero().tolist() == [[1, 5]], name


def test_class_tokens_stand_apart():
    model = timm.create_model(
        "vit_base_patch16_reg4_gap_256", img_size=32, depth=1, embed_dim=8, num_heads=2, in_chans=1
    )
    capture = Capture(objective(model, 32))
    stem = next(capture(torch.zeros(2, 1, 32, 32)))
    assert stem.stream.tokens.shape == (2, 4, 8)
    assert stem.stream.positions.shape == (2, 8, 2, 2)


def test_modules_are_found_by_name_in_any_network():
    torch.manual_seed(0)
    mixer = timm.create_model("mixer_s32_224", img_size=96, in_chans=1, num_classes=4)
    loss = objective(mixer, 96)
    with unchanged(mixer), unchanged(loss.model):
        capture = Capture(loss, ("blocks.?", "stem"))
        found = list(capture(loss.batches[0][0]))
    assert [p.name for p in capture.places] == ["stem", *(f"blocks.{i}" for i in range(8))], "as they are called"
    assert {(p.type, p.height, p.width, p.residual) for p in capture.places} == {("module", 3, 3, False)}
    with torch.no_grad():
        expected = mixer.eval().blocks[0](mixer.stem(loss.batches[0][0]))
    torch.testing.assert_close(found[1].stream.positions.flatten(2).mT, expected)


def test_a_folded_convolution_gives_what_the_callers_gives():
    torch.manual_seed(0)
    model = ls.create_model("resnet8", 4, 16, 1).eval()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_var.uniform_(0.5, 2)
            m.running_mean.normal_()
    loss = objective(model)
    found = list(Capture(loss, "conv1")(loss.batches[0][0]))
    with torch.no_grad():
        torch.testing.assert_close(found[0].stream.positions, model.conv1(loss.batches[0][0]))


@pytest.mark.parametrize(
    ("modules", "words"),
    [(None, "are not known; .*name the modules"), ("blocks.99", "did you mean"), ("head", "not a feature map"),
     ("drop", "twice"), ("unused", "does not call")],
)  # fmt: skip
def test_what_has_no_feature_maps_is_refused(modules, words):
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Conv2d(1, 2, 3, padding=1) for _ in range(1)])
            self.drop, self.unused, self.head = nn.ReLU(), nn.ReLU(), nn.Linear(2, 4)

        def forward(self, x):
            x = self.drop(self.drop(self.blocks[0](x)))
            return self.head(x.mean(dim=(2, 3)))

    with pytest.raises(ls.UserError, match=words.replace("twice", "more than once")):
        Capture(objective(Other()), modules)


@given(st.lists(st.integers(0, 7), min_size=1, max_size=6), st.integers(0, 5))
def test_moments_by_batches_are_those_of_the_whole(sizes, seed):
    values = np.random.default_rng(seed).normal(1e3, 1, (sum(sizes), 3)).astype(np.float32)
    whole, half, rest = Moments(), Moments(), Moments()
    for part in np.split(values, np.cumsum(sizes)[:-1]):
        whole.add(part)
    half.add(values[: len(values) // 2])
    rest.add(values[len(values) // 2 :])
    half.merge(rest)
    for found in (whole, half):
        assert found.count == len(values)
        if len(values):
            np.testing.assert_allclose(found.mean, values.astype(float).mean(axis=0), rtol=1e-12)
        if len(values) > 1:
            np.testing.assert_allclose(found.variance, values.astype(float).var(axis=0, ddof=1), rtol=1e-6)
        else:
            assert np.isnan(found.variance).all()
