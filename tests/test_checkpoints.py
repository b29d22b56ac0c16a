import os
import pickle

import pytest
import torch
from conftest import CIFAR10, IMAGENET, RESNET20, needs_shared
from safetensors.torch import save_file

import landscape as ls
from landscape.checkpoints import CONTAINERS, fitting_models


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ls.create_model("resnet8", 4, 8, 1)


def loaded(path, model="resnet8", **settings):
    network, provenance = ls.load_checkpoint(path, model, **settings)
    assert not network.training
    return network.state_dict(), provenance


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".pth.tar"])
@pytest.mark.parametrize("container", [None, *CONTAINERS])
def test_containers_and_endings(tmp_path, network, suffix, container):
    state = network.state_dict()
    path = tmp_path / f"w{suffix}"
    torch.save(state if container is None else {container: state, "epoch": 7, "optimizer": {"lr": 1}}, path)
    found, provenance = loaded(path)
    assert all(torch.equal(found[k], state[k]) for k in state)
    assert provenance["num_classes"] == 4
    assert provenance["in_channels"] == 1
    assert provenance["metadata"] == ({"epoch": 7} if container else {})


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "model.module."])
def test_prefixes(tmp_path, network, prefix):
    torch.save({prefix + k: t for k, t in network.state_dict().items()}, tmp_path / "w.pt")
    assert loaded(tmp_path / "w.pt")[1]["prefix"] == prefix


def test_safetensors_with_and_without_metadata(tmp_path, network):
    save_file(network.state_dict(), tmp_path / "bare.safetensors")
    assert loaded(tmp_path / "bare.safetensors")[1]["metadata"] == {}
    ls.save_checkpoint(tmp_path / "full.safetensors", network, {"model": "resnet8", "mean": [0.5], "weight_decay": 0.1})
    state, provenance = loaded(tmp_path / "full.safetensors", model=None)
    assert provenance["metadata"]["mean"] == [0.5]
    assert all(torch.equal(state[k], t) for k, t in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("vit_ti", {"num_classes": 7, "image_size": 64, "in_channels": 3}),
        ("vit_xs", {"num_classes": 10, "image_size": 8, "in_channels": 1}),
        ("alternet_xs", {"num_classes": 3, "image_size": 32, "in_channels": 1}),
    ],
)
def test_settings_are_read_off_the_weights(tmp_path, name, settings):
    torch.save(ls.create_model(name, **settings).state_dict(), tmp_path / "w.pt")
    provenance = loaded(tmp_path / "w.pt", name)[1]
    assert provenance["num_classes"] == settings["num_classes"]
    assert provenance["in_channels"] == settings["in_channels"]
    assert provenance["image_size"] in (settings["image_size"], None)
    if name.startswith("vit"):
        assert provenance["image_size"] == settings["image_size"]


def test_timm_model(tmp_path):
    import timm

    torch.save(timm.create_model("resnet18", num_classes=5, in_chans=1).state_dict(), tmp_path / "w.pt")
    provenance = loaded(tmp_path / "w.pt", "timm:resnet18")[1]
    assert (provenance["num_classes"], provenance["in_channels"]) == (5, 1)


def test_users_own_function(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n    pass\n"
        "def make(num_classes):\n    return Net(nn.Flatten(), nn.Linear(64, num_classes))\n"
        "def wrong():\n    return 3\n"
        "def broken():\n    raise OSError('no disk')\n"
    )
    weight, bias = torch.randn(6, 64), torch.randn(6)
    torch.save({"1.weight": weight, "1.bias": bias}, tmp_path / "w.pt")
    state, provenance = loaded(tmp_path / "w.pt", f"{tmp_path}/mine.py:make")
    assert torch.equal(state["1.weight"], weight)
    assert provenance["num_classes"] == 6
    with pytest.raises(ls.UserError, match=r"no function 'mkae'; did you mean make"):
        loaded(tmp_path / "w.pt", f"{tmp_path}/mine.py:mkae")
    with pytest.raises(ls.UserError, match="gave a int"):
        loaded(tmp_path / "w.pt", f"{tmp_path}/mine.py:wrong")


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_code_in_a_file_never_runs(tmp_path):
    target = tmp_path / "was-run"
    torch.save({"state_dict": Malicious(target)}, tmp_path / "zip.pt")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Malicious(target)))
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Malicious(target), protocol=2))
    for name in ("zip.pt", "raw.pth", "old.pth"):
        with pytest.raises(ls.UserError, match=r"which weights never need, and was not loaded"):
            loaded(tmp_path / name)
    assert not target.exists()


def test_files_that_are_no_checkpoints(tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "w.pt")
    whole = (tmp_path / "w.pt").read_bytes()
    for name, content in {
        "text.pt": b"hello",
        "empty.pt": b"",
        "cut.pt": whole[:9000],
        "x.safetensors": b"12345678",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ls.UserError, match="damaged"):
            loaded(tmp_path / name)
    for name, held in {"list.pt": [1, 2], "numbers.pt": {"a": 1}, "nothing.pt": {}}.items():
        torch.save(held, tmp_path / name)
        with pytest.raises(ls.UserError, match="state dict"):
            loaded(tmp_path / name)
    with pytest.raises(ls.UserError, match="no such checkpoint"):
        loaded(tmp_path / "none.pt")
    with pytest.raises(ls.UserError, match="is a folder"):
        loaded(tmp_path)


def test_wrong_architecture_names_keys_and_cause(tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ls.UserError, match=r"missing \(.* more\); .*left over .* fit resnet8"):
        loaded(tmp_path / "w.pt", "vit_xs")
    with pytest.raises(ls.UserError, match=r"linear.weight is \(4, 64\) in the file and \(9, 64\) in the network"):
        loaded(tmp_path / "w.pt", num_classes=9)
    with pytest.raises(ls.UserError, match="does not name its network"):
        loaded(tmp_path / "w.pt", None)
    state = network.state_dict()
    extra = {**state, "surplus": torch.zeros(1)}
    torch.save(extra, tmp_path / "e.pt")
    with pytest.raises(ls.UserError, match=r"1 left over \(surplus\)"):
        loaded(tmp_path / "e.pt")


@pytest.mark.parametrize(
    ("model", "near"), [("resnet21", "resnet20"), ("timm:resnet1888", "resnet18"), ("no.py:f", "no such file")]
)
def test_unknown_models(tmp_path, network, model, near):
    torch.save(network.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ls.UserError, match=near):
        loaded(tmp_path / "w.pt", model)


def test_fitting_models(network):
    assert fitting_models(network.state_dict()) == ["resnet8"]


@needs_shared
def test_public_resnet20():
    model, provenance = ls.load_checkpoint(RESNET20, "resnet20")
    assert provenance["sha256"].startswith("12fca82f")
    assert (provenance["container"], provenance["prefix"]) == ("state_dict", "module.")
    test = ls.load_data(f"hfds/{CIFAR10}", split="test", transform="eval", samples=1000, **IMAGENET)
    assert ls.Objective(model, test).evaluate().accuracy > 0.89
