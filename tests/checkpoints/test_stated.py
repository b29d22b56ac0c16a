"""Files from strangers: what they state of themselves runs no code, makes no request, and is in range or refused."""

import io
import json
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import torch
from helpers import ROOT, invoke, refused
from safetensors.torch import save_file

import landscape as ls
from landscape.checkpoints.build import builder
from landscape.checkpoints.read import read_checkpoint
from landscape.checkpoints.stated import stated_network

RESNET18 = {"model": "timm:resnet18", "num_classes": 10}
EVIL = {
    "code": ({"model": "EVIL:make"}, "names code as its network"),
    "code in settings": ({"model": "EVIL:make(depth=1)"}, "names code as its network"),
    "url": ({**RESNET18, "settings": {"pretrained": True, "pretrained_cfg": {"url": "http://127.0.0.1:9/w.pth"}}},
            "pretrained_cfg"),
    "overlay": ({**RESNET18, "settings": {"pretrained_cfg_overlay": {"url": "http://127.0.0.1:9/"}}},
                "pretrained_cfg_overlay"),
    "in the name": ({"model": "timm:resnet18(pretrained='http://127.0.0.1:9/w.pth')"}, "pretrained"),
    "starred": ({"model": "timm:resnet18(**{'checkpoint_path': 'EVIL'})"}, "None"),
    "file": ({**RESNET18, "settings": {"checkpoint_path": "EVIL"}}, "checkpoint_path"),
    "cache": ({**RESNET18, "settings": {"cache_dir": "/tmp"}}, "cache_dir"),
    "features": ({**RESNET18, "settings": {"features_only": True}}, "features_only"),
    "hub": ({"model": "timm:hf-hub:someone/something"}, "not known"),
    "local folder": ({"model": "timm:local-dir:/tmp"}, "not known"),
    "layer": ({"model": "vit_xs", "settings": {"attn_layer": "torch.hub.load"}}, "attn_layer"),
    "size": ({"model": "vit_xs", "settings": {"embed_dim": 10**9}}, "embed_dim=1000000000"),
    "type": ({"model": "vit_xs", "settings": {"depth": "four"}}, "depth='four'"),
    "layers": ({"model": "vit_xs", "settings": {"depth": 1000}}, "depth=1000 of its network"),
    "no name": ({"model": ["resnet8"]}, "no name"),
}  # fmt: skip

BLOCKED = """
import json, socket, sys, urllib.request
attempts = []
class Blocked(socket.socket):
    def __new__(cls, *a, **k):
        attempts.append("socket")
        raise OSError("blocked")
def lookup(*a, **k):
    attempts.append("getaddrinfo")
    raise OSError("blocked")
import torch, timm, landscape as ls
from landscape.cli.main import main
socket.socket, socket.create_connection, socket.getaddrinfo = Blocked, lookup, lookup
said = []
for path in sys.argv[1:]:
    try:
        ls.load_checkpoint(path)
        said.append("loaded")
    except ls.UserError as e:
        said.append(str(e))
paths, sys.argv = sys.argv[1:], ["landscape"]
for path in paths:
    for command in (["show", path], ["surface", path, "--data", "digits", "--out", path + ".h5"]):
        sys.argv[1:] = command
        try:
            main()
        except SystemExit:
            pass
print("RESULT" + json.dumps([said, attempts]))
"""


def test_what_files_state_runs_no_code_and_makes_no_request(tmp_path):
    """By counting: the sockets that a process asked for, and a mark that the code in question would have left."""
    code = tmp_path / "evil.py"
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\ndef make():\n    raise SystemExit\n")
    state = ls.create_model("resnet8", 10, 8, 1).state_dict()
    paths = []
    for name, (metadata, _) in EVIL.items():
        text = json.dumps(metadata).replace("EVIL", str(code))
        paths.append(tmp_path / f"{name.replace(' ', '_')}.safetensors")
        save_file(state, paths[-1], metadata={"landscape": text})
    folder = tmp_path / "published"
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    evil = {"architecture": "resnet18", "model_args": {"pretrained_cfg": {"hf_hub_id": "someone/something"}}}
    (folder / "config.json").write_text(json.dumps({**evil, "num_classes": 10}))
    run = subprocess.run([sys.executable, "-c", BLOCKED, *map(str, paths), str(folder)], cwd=ROOT,
                         capture_output=True, text=True, timeout=300)  # fmt: skip
    assert run.returncode == 0, run.stderr
    said, attempts = json.loads(run.stdout.split("RESULT")[1])
    assert attempts == []
    assert not (tmp_path / "ran").exists()
    for line, (_, words) in zip(said, [*EVIL.values(), (None, "pretrained_cfg")], strict=True):
        assert words in line
        assert "`model`" in line
        assert "\n" not in line
    assert "Traceback" not in run.stderr


def test_the_users_own_option_runs_the_code_that_a_file_names(tmp_path):
    code = tmp_path / "mine.py"
    code.write_text("import landscape as ls\ndef make():\n    return ls.create_model('resnet8', 10, 8, 1)\n")
    path = tmp_path / "w.safetensors"
    ls.save_checkpoint(path, ls.create_model("resnet8", 10, 8, 1), {"model": f"{code}:make"})
    assert ls.load_checkpoint(path, f"{code}:make")[1]["model"] == f"{code}:make"


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("vit_xs(local=3, depth=2)", {"qkv_bias": True}),
        ("alternet_xs", {"stages": ["cc", "ca"], "widths": [16, 32], "heads": [1, 2]}),
        ("resnet20", {"shortcut": "B", "widths": [4, 8, 16]}),
        ("timm:vit_tiny_patch16_224(depth=1)", {"global_pool": "avg", "class_token": False}),
        ("timm:resnet18(pretrained=True)", {"stem_type": "deep", "stem_width": 32}),
    ],
)
def test_plain_settings_are_taken(tmp_path, model, settings):
    spelled, more = stated_network({"model": model, "settings": settings}, "w", 100)
    assert "pretrained" not in spelled

    network = builder(spelled, more)[0](num_classes=4, in_channels=1)
    path = tmp_path / "w.safetensors"
    ls.save_checkpoint(path, network, {"model": model, "settings": settings})
    loaded, _ = ls.load_checkpoint(path)
    assert str(loaded) == str(network.eval())
    assert "fits the networks: " + spelled in invoke("show", path).stdout


ABSURD = {
    "std": ([float("nan")], [0.0], [-1.0], ["one"], 0.5, []),
    "mean": ([float("inf")], [None], "0.5"),
    "num_classes": (10**12, -1, 1.5, "ten", True),
    "image_size": (10**9, 0),
    "mixup": (float("nan"), -1),
    "smoothing": (1.0, "much"),
    "fraction": (0.0, 2.0),
    "seed": (-1, 2**70),
    "auto_augment": ("../rand", 3),
    "data": (5,),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_metadata_end_in_one_line(tmp_path, name):
    path = tmp_path / "w.safetensors"
    network = ls.create_model("resnet8", 10, 8, 1)
    for value in ABSURD[name]:
        ls.save_checkpoint(path, network, {"model": "resnet8", "data": "digits", name: value})
        refused(invoke("test", path, "--out", tmp_path / "a.h5"), f"states {name}=", str(path))
        assert invoke("show", path).returncode == 0


def test_what_the_user_gives_goes_before_an_absurd_value(tmp_path):
    path = tmp_path / "w.safetensors"
    ls.save_checkpoint(path, ls.create_model("resnet8", 10, 8, 1), {"data": "digits", "std": [np.nan]})
    assert invoke("test", path, "--std", 0.4, "--out", tmp_path / "a.h5").returncode == 0
    assert np.isnan(read_checkpoint(path).metadata["std"]).all()


def test_data_that_a_file_names_are_not_fetched(tmp_path):
    path = tmp_path / "w.safetensors"
    for data in ("hfds/someone/something", "torch/cifar10"):
        ls.save_checkpoint(path, ls.create_model("resnet8", 10, 8, 3), {"model": "resnet8", "data": data})
        result = invoke("test", path, "--root", tmp_path / "none", "--out", tmp_path / "a.h5")
        refused(result, "give it with --data")


def test_a_network_of_any_size_takes_no_memory_before_it_fits(tmp_path):
    """A hundred billion weights are named, 80 kB are in the file."""
    path = tmp_path / "w.safetensors"
    state = ls.create_model("resnet8", 10, 8, 1).state_dict()
    metadata = {"model": "vit_b", "settings": {"embed_dim": 16384, "num_heads": 16}, "num_classes": 1_000_000}
    save_file(state, path, metadata={"landscape": json.dumps(metadata)})
    with pytest.raises(ls.UserError, match="does not fit vit_b"):
        ls.load_checkpoint(path)


@pytest.mark.parametrize(
    "model",
    ["vit_xs(depth=" + "(" * 900, "vit_xs(depth=" + "-" * 900 + "1)", "vit_xs(" + "a=[" * 300, "vit_xs(d=9**9**9)"],
)
def test_a_name_that_is_no_text_of_settings(tmp_path, model):
    path = tmp_path / "w.safetensors"
    ls.save_checkpoint(path, ls.create_model("resnet8", 10, 8, 1), {"model": model})
    refused(invoke("test", path, "--out", tmp_path / "a.h5"), "no network with settings")
    assert "no network with settings" in invoke("show", path).stdout


def test_metadata_without_end(tmp_path):
    path = tmp_path / "w.safetensors"
    state = ls.create_model("resnet8", 10, 8, 1).state_dict()
    save_file(state, path, metadata={"landscape": "[" * 100_000})
    refused(invoke("show", path), "is damaged")
    save_file(state, path, metadata={"landscape": json.dumps({"note": "x" * 100_000})})
    assert len(invoke("show", path).stdout) < 10_000
    folder = tmp_path / "published"
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    for config in ("[" * 100_000, '{"architecture": ' * 100_000):
        (folder / "config.json").write_text(config)
        assert ls.load_checkpoint(folder)[1]["model"] == "resnet8"


def torch_file(path, pickled, more=b""):
    """A torch file whose pickle is `pickled`, and that has a packed part `more`."""
    plain = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name in source.namelist():
            held = source.read(name) + (more if name.endswith("data/0") else b"")
            made.writestr(name, pickled if name.endswith("data.pkl") else held)


def test_the_work_of_reading_is_bounded(tmp_path):
    """Objects of 20,000 kinds, each of which would take another pass; a few bytes that unpack to a gigabyte."""
    path = tmp_path / "w.pt"
    kinds = b"".join(b"ctorch.optim.x\nC%d\n" % i for i in range(20_000))
    torch_file(path, b"\x80\x02(" + kinds + b"l.")
    began = time.process_time()
    refused(invoke("show", path), "objects of more than 64 kinds beside its weights")
    assert time.process_time() - began < 10
    torch_file(path, b"\x80\x02}.", bytes(1 << 27))
    assert path.stat().st_size < 1 << 21
    refused(invoke("show", path), "unpacks to", "far more than it has")


def test_local_attention_over_more_patches_than_a_mask_is_made_for(tmp_path):
    path = tmp_path / "w.safetensors"
    metadata = {"model": "vit_xs", "settings": {"patch_size": 1, "local": 3}, "image_size": 128}
    ls.save_checkpoint(path, ls.create_model("resnet8", 10, 8, 1), metadata)
    refused(invoke("test", path, "--out", tmp_path / "a.h5"), "there are 16384")
