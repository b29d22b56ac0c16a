"""Folders of Hugging Face: their weights, in one file or several, and what their descriptions say."""

import json

import pytest
import timm
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file

import landscape as ls
from landscape.study.words import describe_file


def folder(tmp_path, state, config, preprocessing=None):
    place = tmp_path / "hub"
    place.mkdir()
    save_file({k: t.contiguous() for k, t in state.items()}, place / "model.safetensors", metadata={"format": "pt"})
    (place / "config.json").write_text(json.dumps(config))
    if preprocessing:
        (place / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return place


def test_a_hugging_face_folder_of_timm_s(tmp_path):
    """As timm itself saves for the hub, which is the truth for what its config says."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=7, depth=2).eval()
    timm.models.save_for_hf(model, tmp_path / "hub", model_args={"depth": 2}, safe_serialization="both")
    assert "fits the networks: timm:vit_tiny_patch16_224 (7 classes, 224 px" in describe_file(tmp_path / "hub")
    for path in (tmp_path / "hub", tmp_path / "hub" / "model.safetensors"):
        network, provenance = ls.load_checkpoint(path)
        assert provenance["model"] == "timm:vit_tiny_patch16_224"
        assert (provenance["num_classes"], provenance["image_size"]) == (7, 224)
        assert provenance["metadata"]["mean"] == [0.5, 0.5, 0.5]
        x = torch.randn(1, 3, 224, 224)
        with torch.no_grad():
            torch.testing.assert_close(network(x), model(x))


def test_a_hugging_face_folder_of_transformers(tmp_path):
    """Its config gives what no shape shows, such as the heads; the numbers are those of a ViT of timm's."""
    torch.manual_seed(0)
    model = ls.create_model("vit_xs", 5, 16, depth=2, num_heads=2, patch_size=4, qkv_bias=True, norm_eps=1e-12).eval()
    state = {}
    names = {
        "cls_token": "vit.embeddings.cls_token",
        "pos_embed": "vit.embeddings.position_embeddings",
        "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "head": "classifier",
    }
    for key, t in model.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        key = key.replace("blocks.", "vit.encoder.layer.")
        key = f"vit.layernorm.{key[5:]}" if key.startswith("norm.") else key
        if ".attn.qkv." in key:
            for part, piece in zip(("query", "key", "value"), t.chunk(3), strict=True):
                state[key.replace("attn.qkv", f"attention.attention.{part}")] = piece
        else:
            state[key] = t
    config = {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 128,
        "image_size": 16,
        "patch_size": 4,
        "layer_norm_eps": 1e-12,
        "id2label": {str(i): str(i) for i in range(5)},
    }
    place = folder(tmp_path, state, config, {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]})
    network, provenance = ls.load_checkpoint(place)
    assert provenance["dialect"] == "ViT of transformers"
    assert provenance["metadata"]["mean"] == [0.1, 0.2, 0.3]
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    "config",
    [
        {"architecture": "resnet18", "pretrained_cfg": None},
        {"model_type": "vit", "id2label": None, "hidden_size": "wide"},
        {"model_type": "vit", "hidden_size": 0},
    ],
)
def test_a_config_that_is_none_is_passed_over(tmp_path, network, config):
    place = folder(tmp_path, network.state_dict(), config)
    assert ls.load_checkpoint(place)[1]["model"] == "resnet8"


def test_a_config_is_of_the_weights_of_its_folder_alone(tmp_path, network):
    place = folder(tmp_path, {"weight": torch.zeros(1)}, {"architecture": "resnet18"})
    torch.save(network.state_dict(), place / "mine.pt")
    assert ls.load_checkpoint(place / "mine.pt")[1]["model"] == "resnet8"


def test_folders_without_weights(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ls.UserError, match=r"is a folder without model.safetensors .* \(it has notes.txt\)"):
        ls.load_checkpoint(tmp_path)


@pytest.mark.parametrize("safe", [True, False])
def test_weights_in_several_files_of_a_folder(tmp_path, network, safe):
    save_torch_state_dict(network.state_dict(), tmp_path, max_shard_size=100_000, safe_serialization=safe)
    parts = sorted(tmp_path.glob("*-of-*"))
    assert len(parts) > 1
    model, provenance = ls.load_checkpoint(tmp_path)
    assert provenance["model"] == "resnet8"
    for name, tensor in network.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    parts[1].unlink()
    with pytest.raises(ls.UserError, match=f"lacks {parts[1].name} of the {len(parts)} files"):
        ls.load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{}", "does not say which files"),
        ('{"weight_map": {"a": 3}}', "does not say which files"),
        ('{"weight_map": {"a": "../a.safetensors"}}', r"not in its folder \(\.\./a"),
        ('{"weight_map": {"a": "a.txt"}}', "does not have the name of a checkpoint"),
    ],
)
def test_an_index_of_other_things(tmp_path, index, message):
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ls.UserError, match=message):
        ls.load_checkpoint(tmp_path)
