import pytest
import timm
import torch
from helpers import small, unchanged
from torch import nn

import landscape as ls
from landscape.models.blocks import TYPES

TIMM = {
    "resnet18": {},
    "resnet50d": {},
    "vit_tiny_patch16_224": {"img_size": 32, "depth": 2},
    "deit3_small_patch16_224": {"img_size": 32, "depth": 2},
    "vit_base_patch16_reg4_gap_256": {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 2},
    "vit_base_patch32_clip_224": {"img_size": 64, "depth": 2, "embed_dim": 24, "num_heads": 2},
    "swin_tiny_patch4_window7_224": {"img_size": 56},
    "pit_ti_224": {},
    "pit_ti_distilled_224": {},
    "deit_tiny_distilled_patch16_224": {"img_size": 32, "depth": 2},
    "convnext_atto": {},
    "convnextv2_atto": {},
    "seresnet50": {},
}


def networks():
    for name in ls.list_models():
        yield pytest.param(lambda name=name: (small(name, image_size=16), torch.randn(2, 1, 16, 16)), id=name)
    for name, settings in {
        "vit_xs": {"local": 3},
        "resnet20": {"shortcut": "B"},
        "alternet_xs": {"stages": ("ca", "cac", "ccca")},
    }.items():
        yield pytest.param(
            lambda name=name, settings=settings: (
                ls.create_model(name, 3, 16, 1, **settings),
                torch.randn(2, 1, 16, 16),
            ),
            id=f"{name} {settings}",
        )
    for name, settings in TIMM.items():
        size = settings.get("img_size", 224 if name.startswith("pit") else 64)
        yield pytest.param(
            lambda name=name, settings=settings, size=size: (
                timm.create_model(name, num_classes=3, **settings),
                torch.randn(1, 3, size, size),
            ),
            id=f"timm:{name}",
        )


@pytest.mark.parametrize("make", list(networks()))
def test_the_blocks_in_order_are_the_network(make):
    torch.manual_seed(0)
    model, x = make()
    model.eval()
    with torch.no_grad(), unchanged(model):
        logits = model(x)
        found = ls.blocks(model)
        for block in found:
            before, x = x, block.module(x)
            if block.branch is not None:
                parts = block.after(block.skip(before) + block.branch(before))
                torch.testing.assert_close(parts, x, msg=f"the branch and the skip of {block.name}")
            assert (block.attends is not None) == (block.type == "attention")
    torch.testing.assert_close(x, logits)

    names = [block.name for block in found]
    assert len(set(names)) == len(names)
    for name in names:
        model.get_submodule(name)
    assert found[0].type == "stem"
    assert found[-1].type == "head"
    assert {block.type for block in found[1:-1]} <= set(TYPES) - {"stem", "head"}
    stages = [block.stage for block in found]
    assert stages == sorted(stages)
    assert set(stages) == set(range(max(stages) + 1))
    held = [id(p) for block in found for p in block.module.parameters()]
    assert sorted(held) == sorted(map(id, model.parameters()))


def kinds(model):
    return "".join(block.type[0] for block in ls.blocks(model))


def test_kinds():
    assert kinds(small("resnet_50")) == "s" + 16 * "c" + "h"
    assert kinds(small("alternet_50")) == "s" + "ccc" + "ccca" + "cacaca" + "caca" + "h"
    assert kinds(small("botnet_50")) == "s" + 13 * "c" + 3 * "a" + "h"
    assert kinds(small("vit_ti")) == "s" + 12 * "am" + "h"
    assert kinds(small("pit_ti")) == "s" + 2 * "am" + "p" + 6 * "am" + "p" + 4 * "am" + "h"
    assert kinds(small("swin_ti")) == "s" + 2 * "am" + "p" + 2 * "am" + "p" + 6 * "am" + "p" + 2 * "am" + "h"


def test_an_unknown_network_is_said_to_be_one():
    with pytest.raises(ValueError, match=r"blocks of Sequential are not known; known are those of CifarResNet"):
        ls.blocks(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="a variant"):
        ls.blocks(Variant())


class Variant(timm.models.vision_transformer.VisionTransformer):
    """A ViT whose layers are of another make."""

    def __init__(self):
        super().__init__(32, 16, embed_dim=8, depth=1, num_heads=1)
        self.blocks = nn.Sequential(nn.Linear(8, 8))
