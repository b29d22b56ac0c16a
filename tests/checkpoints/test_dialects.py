"""Each table of names against the implementation whose names they are: every key once, and the same logits."""

import json
import re
import sys

import pytest
import timm
import torch
import torchvision
from helpers import SHARED
from torch import nn

import landscape as ls
from landscape.checkpoints.dialects import DIALECTS, readings

REFERENCE = SHARED / "reference"


def fill(keys):
    """Numbers from the names alone, as in the parity files where these are at hand."""
    g = torch.Generator()
    state = {}
    for i, (key, shape) in enumerate(keys.items()):
        g.manual_seed(i)
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros((), dtype=torch.long)
        elif key.endswith("running_var"):
            state[key] = 0.5 + torch.rand(shape, generator=g)
        else:
            state[key] = torch.randn(shape, generator=g) / max(1, int(torch.tensor(shape[1:]).prod())) ** 0.5
    return state


def bn(name, n):
    return {
        **{f"{name}.{part}": (n,) for part in ("weight", "bias", "running_mean", "running_var")},
        f"{name}.num_batches_tracked": (),
    }


def study_resnet_50(classes):
    """The keys of models/resnet.py and models/resnet_dnn_block.py of the study's code."""
    keys = {"layer0.0.weight": (64, 3, 3, 3), **bn("layer0.1", 64)}
    into = 64
    for stage, (blocks, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True), 1):
        for block in range(blocks):
            name, out = f"layer{stage}.{block}", 4 * width
            if into != out:
                keys |= {f"{name}.shortcut.0.weight": (out, into, 1, 1), **bn(f"{name}.shortcut.1", out)}
            keys |= {f"{name}.conv1.0.weight": (width, into, 1, 1), **bn(f"{name}.conv1.1", width)}
            keys |= {f"{name}.conv2.0.weight": (width, width, 3, 3), **bn(f"{name}.conv2.1", width)}
            keys |= {f"{name}.conv3.0.weight": (out, width, 1, 1), **bn(f"{name}.conv3.1", out)}
            into = out
    return keys | {"classifier.0.dense.weight": (classes, 2048), "classifier.0.dense.bias": (classes,)}


def study_alternet_50(classes):
    """The keys of models/alternet.py, models/attentions.py and models/preresnet_dnn_block.py of the study's code."""
    keys = {"layer0.layer0.0.weight": (64, 3, 3, 3)}
    into = 64
    stages = ("ccc", "ccca", "cacaca", "caca")
    for stage, (letters, width, heads) in enumerate(zip(stages, (64, 128, 256, 512), (3, 6, 12, 24), strict=True), 1):
        for block, letter in enumerate(letters):
            name, out = f"layer{stage}.{block}", 4 * width
            if into != out:
                keys[f"{name}.shortcut.0.weight"] = (out, into, 1, 1)
            if letter == "c":
                keys |= {**bn(f"{name}.bn", into), f"{name}.conv1.weight": (width, into, 1, 1)}
                keys |= {**bn(f"{name}.conv2.0", width), f"{name}.conv2.2.weight": (width, width, 3, 3)}
                keys |= {**bn(f"{name}.conv3.0", width), f"{name}.conv3.2.weight": (out, width, 1, 1)}
            else:
                inner = heads * 64
                keys |= {**bn(f"{name}.norm1", into), f"{name}.conv.weight": (into // 4, into, 1, 1)}
                keys |= {**bn(f"{name}.norm2", into // 4), f"{name}.attn.pos_embedding": (7, 7)}
                keys[f"{name}.attn.attn.to_q.weight"] = (inner, into // 4, 1, 1)
                keys[f"{name}.attn.attn.to_kv.weight"] = (2 * inner, into // 4, 1, 1)
                keys[f"{name}.attn.attn.to_out.0.weight"] = (out, inner, 1, 1)
                keys[f"{name}.attn.attn.to_out.0.bias"] = (out,)
            into = out
    return keys | {
        **bn("classifier.0.bn", 2048),
        "classifier.0.dense.weight": (classes, 2048),
        "classifier.0.dense.bias": (classes,),
    }


def transformer_block(name, width, bias):
    keys = {}
    for norm in ("norm1", "norm2"):
        keys |= {f"{name}.{norm}.weight": (width,), f"{name}.{norm}.bias": (width,)}
    for layer, shape in {
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "mlp.fc1": (4 * width, width),
        "mlp.fc2": (width, 4 * width),
    }.items():
        keys[f"{name}.{layer}.weight"] = shape
        if bias or layer != "attn.qkv":
            keys[f"{name}.{layer}.bias"] = shape[:1]
    return keys


def linear(name, out, into):
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def timm_05_vit_ti(classes):
    """timm 0.5.4, VisionTransformer(img_size=32, patch_size=2, embed_dim=192, num_heads=3, qkv_bias=False)."""
    keys = {"cls_token": (1, 1, 192), "pos_embed": (1, 257, 192)}
    keys |= {"patch_embed.proj.weight": (192, 3, 2, 2), "patch_embed.proj.bias": (192,)}
    for i in range(12):
        keys |= transformer_block(f"blocks.{i}", 192, bias=False)
    return keys | norm("norm", 192) | linear("head", classes, 192)


def timm_05_pit_ti(classes):
    """timm 0.5.4, PoolingVisionTransformer: poolings at the end of stages 0 and 1."""
    keys = {"pos_embed": (1, 64, 31, 31), "cls_token": (1, 1, 64)}
    keys |= {"patch_embed.conv.weight": (64, 3, 2, 2), "patch_embed.conv.bias": (64,)}
    for stage, (blocks, width) in enumerate(((2, 64), (6, 128), (4, 256))):
        for i in range(blocks):
            keys |= transformer_block(f"transformers.{stage}.blocks.{i}", width, bias=True)
        if stage < 2:
            pool = f"transformers.{stage}.pool"
            keys |= {f"{pool}.conv.weight": (2 * width, 1, 3, 3), f"{pool}.conv.bias": (2 * width,)}
            keys |= linear(f"{pool}.fc", 2 * width, width)
    return keys | norm("norm", 256) | linear("head", classes, 256)


def timm_05_swin_ti(classes):
    """timm 0.5.4, SwinTransformer: patch mergings at the end of stages 0 to 2, and two buffers kept."""
    keys = {"patch_embed.proj.weight": (96, 3, 1, 1), "patch_embed.proj.bias": (96,), **norm("patch_embed.norm", 96)}
    for stage, (blocks, heads) in enumerate(((2, 3), (2, 6), (6, 12), (2, 24))):
        width, windows = 96 * 2**stage, (8 // 2**stage) ** 2
        for i in range(blocks):
            name = f"layers.{stage}.blocks.{i}"
            keys |= transformer_block(name, width, bias=False)
            keys[f"{name}.attn.relative_position_bias_table"] = (49, heads)
            keys[f"{name}.attn.relative_position_index"] = (16, 16)
            if i % 2 and windows > 1:
                keys[f"{name}.attn_mask"] = (windows, 16, 16)
        if stage < 3:
            down = f"layers.{stage}.downsample"
            keys |= {f"{down}.reduction.weight": (2 * width, 4 * width), **norm(f"{down}.norm", 4 * width)}
    return keys | norm("norm", 768) | linear("head", classes, 768)


STUDY = {
    "resnet_50": study_resnet_50,
    "alternet_50": study_alternet_50,
    "vit_ti": timm_05_vit_ti,
    "pit_ti": timm_05_pit_ti,
    "swin_ti": timm_05_swin_ti,
}


@pytest.mark.parametrize("name", STUDY)
def test_the_study_s_checkpoints(name, tmp_path):
    """Recognised by their keys, in a file as the study's code saves one; every number arrives, once."""
    state = fill(STUDY[name](100))
    path = tmp_path / f"{name}_cifar100_0123456789.pth.tar"
    torch.save({"name": name, "state_dict": state, "optimizer": {"state": {}}}, path)
    model, provenance = ls.load_checkpoint(path)
    assert (provenance["model"], provenance["num_classes"]) == (name, 100)
    arrived = sorted(float(t.double().sum()) for t in model.state_dict().values())
    sent = [t for k, t in state.items() if not re.search("relative_position_index|attn_mask", k)]
    assert arrived == sorted(float(t.double().sum()) for t in sent)
    with torch.no_grad():
        assert model(torch.randn(1, 3, 32, 32)).shape == (1, 100)


@pytest.mark.skipif(not REFERENCE.exists(), reason="the parity files of the reference study are not here")
@pytest.mark.parametrize("name", ["resnet_18", "alternet_18"])
def test_the_study_s_logits_from_a_file(name, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(REFERENCE), *sys.path])
    from fill import fill, images

    held = json.loads((REFERENCE / "parity" / f"hdv_{name}.json").read_text())
    state = {k: torch.as_tensor(fill(k, tuple(s))) for k, s in held["entries"].items()}
    torch.save({"state_dict": state}, tmp_path / "w.pth.tar")
    model, provenance = ls.load_checkpoint(tmp_path / "w.pth.tar")
    assert provenance["model"] == name
    with torch.no_grad():
        logits = model(torch.as_tensor(images(), dtype=torch.float32)).double()
    torch.testing.assert_close(logits, torch.tensor(held["logits"]).double(), rtol=1e-5, atol=1e-5)


def test_swin_of_old_is_read_as_timm_reads_it():
    """timm's own reader of its older Swin checkpoints gives the same entries."""
    state = fill(timm_05_swin_ti(100))
    model = ls.create_model("swin_ti", 100)
    theirs = timm.models.swin_transformer.checkpoint_filter_fn(dict(state), model)
    (_, _), (dialect, ours) = readings(state)
    assert dialect == "Swin of timm before 0.9"
    assert ours.keys() == theirs.keys() == model.state_dict().keys()
    assert all(torch.equal(ours[k], t) for k, t in theirs.items())


@torch.no_grad()
def randomised(model):
    """Statistics and norms that are not those of a fresh network."""
    torch.manual_seed(0)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 1.5)
        if isinstance(m, (nn.BatchNorm2d, nn.LayerNorm)):
            m.weight.uniform_(0.5, 1.5)
            m.bias.normal_(0, 0.1)
    for name, p in model.named_parameters():
        if name.split(".")[-1] in ("class_token", "cls_token", "relative_position_bias_table"):
            p.normal_()
    return model.eval()


TV = torchvision.models
OTHERS = {
    "torchvision resnet18": (lambda: TV.resnet18(num_classes=7), "resnet_18", 64),
    "torchvision resnet50": (lambda: TV.resnet50(num_classes=7), "resnet_50", 64),
    "timm resnet34": (lambda: timm.create_model("resnet34", num_classes=7), "resnet_34", 64),
    "timm resnet50": (lambda: timm.create_model("resnet50", num_classes=7), "resnet_50", 64),
    "torchvision vit": (lambda: TV.VisionTransformer(224, 16, 12, 6, 384, 1536, num_classes=7), "vit_s", 224),
    "torchvision swin": (lambda: TV.swin_t(num_classes=7), "swin_ti", 224),
    "timm vit": (lambda: timm.create_model("vit_tiny_patch16_224", num_classes=7), "vit_ti", 224),
    "timm pit": (lambda: timm.create_model("pit_ti_224", num_classes=7), "pit_ti", 224),
    "timm swin": (lambda: timm.create_model("swin_tiny_patch4_window7_224", num_classes=7), "swin_ti", 224),
}


@pytest.mark.parametrize("which", OTHERS)
def test_other_projects_networks_give_their_logits(which, tmp_path):
    """Recognised by their keys; the logits are those of the implementation that the weights come from."""
    make, name, side = OTHERS[which]
    theirs = randomised(make())
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours, provenance = ls.load_checkpoint(tmp_path / "w.pth")
    assert provenance["model"] == name
    x = torch.randn(1, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_transformers_resnet():
    """Its names, written from torchvision's by the layout of the published microsoft/resnet-18."""
    theirs = randomised(TV.resnet18(num_classes=7))
    state = {}
    for key, t in theirs.state_dict().items():
        key = re.sub(r"^conv1\.", "resnet.embedder.embedder.convolution.", key)
        key = re.sub(r"^bn1\.", "resnet.embedder.embedder.normalization.", key)
        key = re.sub(r"downsample\.0", "shortcut.convolution", key)
        key = re.sub(r"downsample\.1", "shortcut.normalization", key)
        key = re.sub(r"\.conv(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.convolution.", key)
        key = re.sub(r"\.bn(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.normalization.", key)
        key = re.sub(r"^layer(\d)\.", lambda m: f"resnet.encoder.stages.{int(m[1]) - 1}.layers.", key)
        state[re.sub(r"^fc\.", "classifier.1.", key)] = t
    (_, _), (_, read) = readings(state)
    ours = ls.create_model("resnet_18", 7, 224).eval()
    ours.load_state_dict(read)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_transformers_swin(tmp_path):
    """Its names, written from torchvision's by the layout of the published microsoft/swin-tiny-patch4-window7-224."""
    theirs = randomised(TV.swin_t(num_classes=7))
    state = {}
    for key, t in theirs.state_dict().items():
        key = re.sub(r"^features\.0\.0\.", "swin.embeddings.patch_embeddings.projection.", key)
        key = re.sub(r"^features\.0\.2\.", "swin.embeddings.norm.", key)
        key = re.sub(r"^features\.([1357])\.", lambda m: f"swin.encoder.layers.{int(m[1]) // 2}.blocks.", key)
        key = re.sub(r"^features\.([246])\.", lambda m: f"swin.encoder.layers.{int(m[1]) // 2 - 1}.downsample.", key)
        key = re.sub(r"\.norm1\.", ".layernorm_before.", re.sub(r"\.norm2\.", ".layernorm_after.", key))
        key = re.sub(r"\.mlp\.0\.", ".intermediate.dense.", re.sub(r"\.mlp\.3\.", ".output.dense.", key))
        key = re.sub(
            r"\.attn\.proj\.", ".attention.output.dense.", re.sub(r"\.attn\.relative", ".attention.self.relative", key)
        )
        key = re.sub(r"^norm\.", "swin.layernorm.", re.sub(r"^head\.", "classifier.", key))
        if ".attn.qkv." in key:
            for part, piece in zip(("query", "key", "value"), t.chunk(3), strict=True):
                state[key.replace(".attn.qkv.", f".attention.self.{part}.")] = piece.clone()
        else:
            state[key] = t
    torch.save(state, tmp_path / "pytorch_model.bin")
    ours, provenance = ls.load_checkpoint(tmp_path / "pytorch_model.bin")
    assert (provenance["model"], provenance["dialect"]) == ("swin_ti", "Swin of transformers")
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "back"),
    [
        ("pit_ti_224", [(rf"^transformers\.{i}\.pool", f"transformers.{i - 1}.pool") for i in (1, 2)]),
        (
            "swin_tiny_patch4_window7_224",
            [
                *((rf"^layers\.{i}\.downsample", f"layers.{i - 1}.downsample") for i in (1, 2, 3)),
                (r"^head\.fc", "head"),
            ],
        ),
    ],
)
def test_timm_s_networks_from_its_names_of_old(name, back, tmp_path):
    """timm's present network, its keys named back to 0.5: `--model timm:NAME` gives the same logits."""
    theirs = randomised(timm.create_model(name, num_classes=7))
    state = {}
    for key, t in theirs.state_dict().items():
        for pattern, replacement in back:
            key, done = re.subn(pattern, replacement, key)
            if done:
                break
        state[key] = t
    assert state.keys() != theirs.state_dict().keys()
    torch.save(state, tmp_path / "w.pth")
    ours, provenance = ls.load_checkpoint(tmp_path / "w.pth", f"timm:{name}")
    assert "before 0.9" in provenance["dialect"]
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


def test_pit_of_its_authors():
    state = fill(timm_05_pit_ti(10))
    theirs = {re.sub(r"^transformers\.(\d)\.pool\.", r"pools.\1.", k): t for k, t in state.items()}
    (_, _), (_, read) = readings(theirs)
    (_, _), (_, same) = readings(state)
    assert read.keys() == same.keys()
    assert all(torch.equal(read[k], t) for k, t in same.items())


@pytest.mark.parametrize("name", ls.list_models())
def test_our_own_names_are_in_no_other_dialect(name):
    with torch.device("meta"):
        state = ls.create_model(name).state_dict()
    assert [dialect for dialect, _ in readings(state)] == [None]


def test_rules_are_regular_expressions_that_compile():
    assert len({dialect.name for dialect in DIALECTS}) == len(DIALECTS)
    for dialect in DIALECTS:
        for pattern in (*dialect.marks, *(p for p, _ in dialect.rules)):
            re.compile(pattern)
