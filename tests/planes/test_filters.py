"""What a filter is, module by module: against what the outputs of real modules are made of."""

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import landscape as ls
from landscape.planes.filters import filters_of


def filters(module, weight):
    """The filters of a weight (n, -1), each all that one output of the module is made of: written out by hand."""
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        by_group = weight.chunk(module.groups)
        return torch.stack([part[:, o].flatten() for part in by_group for o in range(part.shape[1])])
    return weight.flatten(1)


def convolution(kind, dimensions, groups, inputs, outputs, kernel):
    return getattr(nn, f"Conv{kind}{dimensions}d")(groups * inputs, groups * outputs, kernel, groups=groups)


few = st.integers(1, 3)
MODULES = st.one_of(
    st.builds(nn.Linear, st.integers(1, 5), st.integers(1, 5)),
    st.builds(convolution, st.sampled_from(["", "Transpose"]), few, few, few, few, few),
    st.builds(nn.Bilinear, few, few, few),
    st.builds(nn.RNN, few, few),
    st.builds(nn.GRU, few, few),
    st.builds(nn.Embedding, st.integers(2, 4), st.integers(2, 4)),
)


@given(MODULES, st.integers(0, 99), st.booleans())
def test_every_filter_keeps_its_norm_and_none_is_left_to_its_sign(module, seed, biases):
    model = nn.Sequential(module, nn.Linear(2, 2))
    (d,) = ls.random_plane(model, seed=seed, dims=1, biases=biases).directions
    for leaf, p in module.named_parameters():
        name = f"0.{leaf}"
        if p.numel() == 1 or (p.ndim < 2 and not biases):
            assert name not in d
            continue
        theta, moved = (filters(module, t) if p.ndim > 1 else t[None] for t in (p.detach(), d[name]))
        if theta.shape[1] == 1:  # one number per filter: they are one filter together
            theta, moved = theta.T, moved.T
        torch.testing.assert_close(moved.norm(dim=1), theta.norm(dim=1), rtol=1e-5, atol=0)
        assert not torch.allclose(moved.abs(), theta.abs(), rtol=1e-4) or not theta.any()


def test_outputs_of_a_transposed_convolution_are_linear_in_its_filters():
    """What `filters` above takes for the filter of an output is what that output is made of."""
    torch.manual_seed(0)
    module = nn.ConvTranspose2d(6, 4, 3, groups=2, bias=False)
    x = torch.randn(1, 6, 5, 5)
    before = module(x)
    norms = filters_of(module)["weight"].norms(module.weight.detach())
    for o in range(4):
        group, within = divmod(o, 2)
        mask = torch.zeros_like(module.weight)
        mask[3 * group : 3 * group + 3, within] = 1
        doubled = torch.func.functional_call(module, {"weight": module.weight * (1 + mask)}, (x,))
        factor = torch.ones(4)
        factor[o] = 2
        torch.testing.assert_close(doubled, before * factor[:, None, None])
        torch.testing.assert_close(norms[mask.bool()], (module.weight * mask).detach().norm().expand(27))


def test_norms_of_any_number_of_dimensions_stay_and_move_as_one_vector():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.LayerNorm((3, 4, 4)), nn.GroupNorm(1, 3), nn.RMSNorm((4, 4)))
    assert ls.random_plane(model).directions[0].keys() == {"0.weight"}
    nn.init.normal_(model[1].bias)
    (d,) = ls.random_plane(model, biases=True, dims=1).directions
    for name in ("1.weight", "1.bias", "2.weight", "3.weight"):
        theta = model.get_parameter(name).detach()
        torch.testing.assert_close(d[name].norm(), theta.norm())
        assert not torch.allclose(d[name].abs(), theta.abs())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_scales_of_reparametrised_weights_stay():
    new = nn.Sequential(weight_norm(nn.Conv2d(2, 3, 3)), weight_norm(nn.Linear(1, 3)), spectral_norm(nn.Linear(3, 2)),
                        weight_norm(nn.ConvTranspose1d(4, 6, 2, groups=2), dim=1))  # fmt: skip
    (d,) = ls.random_plane(new, dims=1).directions
    v = "parametrizations.weight.original"
    assert d.keys() == {f"0.{v}1", f"1.{v}1", f"2.{v}", f"3.{v}1"}
    for name in (f"0.{v}1", f"2.{v}", f"3.{v}1"):
        theta, moved = (filters(new[int(name[0])], w) for w in (new.get_parameter(name).detach(), d[name]))
        torch.testing.assert_close(moved.norm(dim=1), theta.norm(dim=1))
    (with_scales,) = ls.random_plane(new, biases=True, dims=1).directions
    scale = new.get_parameter(f"0.{v}0").detach()
    torch.testing.assert_close(with_scales[f"0.{v}0"].norm(), scale.norm())
    assert not torch.allclose(with_scales[f"0.{v}0"].abs(), scale.abs())
    old = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 3)), nn.utils.spectral_norm(nn.Linear(1, 2)))
    assert ls.random_plane(old).directions[0].keys() == {"0.weight_v", "1.weight_orig"}


@pytest.mark.parametrize(
    ("name", "settings", "scale"),
    [
        ("xcit_nano_12_p16_224", {"depth": 1, "embed_dim": 32, "num_heads": 2, "img_size": 32}, "temperature"),
        (
            "swinv2_tiny_window8_256",
            {"embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2), "img_size": 64, "window_size": 2},
            "logit_scale",
        ),
    ],
)
def test_scales_of_attention_stay(name, settings, scale):
    model = timm.create_model(name, **settings)
    assert any(scale in name for name, _ in model.named_parameters())
    (d,) = ls.random_plane(model, dims=1).directions
    assert len(d) > 5
    assert not any(word in name for name in d for word in (scale, "cls_token", "pos_embed"))
    for name, t in d.items():
        theta = model.get_parameter(name).detach()
        torch.testing.assert_close(t.flatten(1).norm(dim=1), theta.flatten(1).norm(dim=1), rtol=1e-5, atol=0)
        assert not torch.allclose(t.abs(), theta.abs())


def test_position_embeddings_by_every_name_stay():
    """Names as in transformers' ViT, BERT and CLIP, OpenAI's CLIP, GPT-2, SAM, LeViT and timm."""
    names = ("position_embeddings", "position_embedding", "wpe", "word_embeddings")
    model = nn.ModuleDict({name: nn.Embedding(4, 3) for name in names})
    model["embeddings"] = nn.Module()
    for name in ("position_embeddings", "positional_embedding", "rel_pos_h", "attention_biases", "pos_embed"):
        model["embeddings"].register_parameter(name, nn.Parameter(torch.randn(5, 3)))
    model["embeddings"].register_parameter("class_embedding", nn.Parameter(torch.randn(1, 1, 3)))
    assert ls.random_plane(model).directions[0].keys() == {"word_embeddings.weight"}
    assert "embeddings.class_embedding" in ls.random_plane(model, biases=True).directions[0]


def test_conv1d_of_transformers_has_its_outputs_along_axis_1():
    class Conv1D(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.zeros(3))

    model = Conv1D()
    (d,) = ls.random_plane(model, dims=1).directions
    torch.testing.assert_close(d["weight"].norm(dim=0), model.weight.detach().norm(dim=0))
    assert not torch.allclose(d["weight"].norm(dim=1), model.weight.detach().norm(dim=1))


def test_frozen_parameters_stay_unless_asked():
    model = ls.create_model("vit_xs", 10, 8, 1)
    model.blocks[:3].requires_grad_(False)
    stay, move = (ls.random_plane(model, frozen=frozen).directions for frozen in (False, True))
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert len(frozen) > 30
    assert not frozen & stay[0].keys()
    assert frozen & move[0].keys()
    assert all(torch.equal(t, move[1][name]) for name, t in stay[1].items())
    with pytest.raises(ls.UserError, match="require a gradient"):
        ls.random_plane(model.requires_grad_(False))
