import argparse
import datetime
import functools
import os
import pathlib
import pickle

import numpy as np
import pytest
import timm
import torch
from helpers import CIFAR10, IMAGENET, RESNET20, needs_shared
from safetensors.torch import save_file

import landscape as ls
from landscape.checkpoints.build import builder
from landscape.checkpoints.read import CONTAINERS
from landscape.checkpoints.recognise import fitting
from landscape.study.words import describe_file


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


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "model.module.", "net."])
def test_prefixes(tmp_path, network, prefix):
    torch.save({prefix + k: t for k, t in network.state_dict().items()}, tmp_path / "w.pt")
    assert loaded(tmp_path / "w.pt")[1]["prefix"] == prefix


def test_a_prefix_that_is_the_network_s_own_stays(tmp_path):
    """A user's network that keeps all it has in self.net, and one that keeps that in self.model."""
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.net = nn.Sequential(nn.Flatten(), nn.Linear(9, num_classes))\n"
        "class Wrapped(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.model = Net(num_classes)\n"
        "def measured(num_classes):\n"
        "    float(nn.Linear(1, 1).weight.detach())  # needs real memory\n"
        "    return Net(num_classes)\n"
    )
    weight = torch.randn(3, 9)
    for own, function in (("net.", "Net"), ("model.net.", "Wrapped"), ("net.", "measured")):
        for prefix in ("", "module.", "model.", "network.module."):
            state = {f"{prefix}{own}1.weight": weight, f"{prefix}{own}1.bias": torch.zeros(3)}
            torch.save(state, tmp_path / "w.pt")
            found, provenance = loaded(tmp_path / "w.pt", f"{tmp_path}/mine.py:{function}", num_classes=3)
            assert torch.equal(found[f"{own}1.weight"], weight)
            assert provenance["prefix"] == prefix


def test_what_a_trainer_keeps_beside_the_network_is_left_out(tmp_path, network):
    lightning = {f"net.{k}": t for k, t in network.state_dict().items()} | {"criterion.weight": torch.ones(4)}
    averaged = torch.optim.swa_utils.AveragedModel(network).state_dict()
    for held, prefix, beside in (
        ({"state_dict": lightning}, "net.", "criterion.weight"),
        (averaged, "module.", "n_averaged"),
    ):
        torch.save(held, tmp_path / "w.ckpt")
        found, provenance = loaded(tmp_path / "w.ckpt", None)
        assert all(torch.equal(found[k], t) for k, t in network.state_dict().items())
        assert (provenance["prefix"], provenance["left_out"]) == (prefix, [beside])
        assert f"prefix {prefix!r} removed, without {beside}\n" in describe_file(tmp_path / "w.ckpt")


def test_show_names_the_weights_that_are_not_read(tmp_path, network):
    state = network.state_dict()
    torch.save({"epoch": 3, "state_dict_ema": state, "state_dict": state, "optimizer": {}}, tmp_path / "w.pth.tar")
    assert "under 'state_dict' (not read: 'state_dict_ema')\n" in describe_file(tmp_path / "w.pth.tar")


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
        ("pit_ti", {"num_classes": 3, "image_size": 28, "in_channels": 1}),
        ("botnet_50", {"num_classes": 3, "image_size": 64, "in_channels": 1}),
    ],
)
def test_settings_are_read_off_the_weights(tmp_path, name, settings):
    torch.save(ls.create_model(name, **settings).state_dict(), tmp_path / "w.pt")
    provenance = loaded(tmp_path / "w.pt", name)[1]
    assert provenance["num_classes"] == settings["num_classes"]
    assert provenance["in_channels"] == settings["in_channels"]
    assert provenance["image_size"] in (settings["image_size"], None)
    if not name.startswith("alternet"):
        assert provenance["image_size"] == settings["image_size"]


def test_timm_model(tmp_path):
    torch.save(timm.create_model("resnet18", num_classes=5, in_chans=1).state_dict(), tmp_path / "w.pt")
    provenance = loaded(tmp_path / "w.pt", "timm:resnet18")[1]
    assert (provenance["num_classes"], provenance["in_channels"]) == (5, 1)
    assert "mean" not in provenance["metadata"], "that of three channels"
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "w.pt")
    assert loaded(tmp_path / "w.pt", "timm:resnet18")[1]["metadata"]["mean"] == list(IMAGENET["mean"])


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("vit_xs(local=3, depth=2)", {"local": 3, "depth": 2}),
        ("vit_xs()", {}),
        ("alternet_xs(attention=(1, 0, 1))", {"attention": (1, 0, 1)}),
    ],
)
def test_settings_after_the_name(tmp_path, model, settings):
    name = model.partition("(")[0]
    torch.save(ls.create_model(name, 4, 8, 1, **settings).state_dict(), tmp_path / "w.pt")
    network, provenance = ls.load_checkpoint(tmp_path / "w.pt", model)
    assert provenance["model"] == model
    assert str(network) == str(ls.create_model(name, 4, 8, 1, **settings).eval())
    ls.save_checkpoint(tmp_path / "named.safetensors", network, {"model": model})
    assert str(ls.load_checkpoint(tmp_path / "named.safetensors")[0]) == str(network)


def test_settings_of_timm_s(tmp_path):
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=5, depth=2).state_dict(), tmp_path / "w.pt")
    network, _ = ls.load_checkpoint(tmp_path / "w.pt", "timm:vit_tiny_patch16_224(depth=2)")
    assert len(network.blocks) == 2


@pytest.mark.parametrize("model", ["vit_xs(3)", "vit_xs(local=3", "vit_xs(local=open('x'))", "vit_xs(local=3).eval()"])
def test_settings_are_literals_by_keyword(model):
    with pytest.raises(ls.UserError, match="is no network with settings; write it as in"):
        builder(model)


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
    def __init__(self, target, call=os.mkdir, *arguments):
        self.call, self.arguments = call, (str(target), *arguments)

    def __reduce__(self):
        return self.call, self.arguments


def test_code_in_a_file_never_runs(tmp_path, network):
    target = tmp_path / "was-run"
    torch.save({"state_dict": Malicious(target)}, tmp_path / "zip.pt")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Malicious(target)))
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Malicious(target), protocol=2))
    for name in ("zip.pt", "raw.pth", "old.pth"):
        with pytest.raises(ls.UserError, match=r"which weights never need, and was not loaded"):
            loaded(tmp_path / name)
    # Of a module whose objects are passed over: nothing of it is called either.
    malicious = Malicious(target, np.memmap, "uint8", "w+", 0, (1,))
    torch.save({"state_dict": network.state_dict(), "where": malicious}, tmp_path / "beside.ckpt")
    assert loaded(tmp_path / "beside.ckpt")[1]["metadata"] == {}
    torch.save({"state_dict": malicious}, tmp_path / "within.ckpt")
    with pytest.raises(ls.UserError, match="no state dict"):
        loaded(tmp_path / "within.ckpt")
    assert not target.exists()


def test_files_that_are_no_checkpoints(tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "w.pt")
    torch.save(network.state_dict(), tmp_path / "w.t7", _use_new_zipfile_serialization=False)
    for path in (tmp_path / "w.pt", tmp_path / "w.t7"):
        whole = path.read_bytes()
        for length in (5, 50, 500, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            with pytest.raises(ls.UserError, match="damaged or cut short"):
                loaded(path)
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
    sparse = {**network.state_dict(), "linear.weight": network.linear.weight.detach().to_sparse()}
    torch.save(sparse, tmp_path / "sparse.pt")
    with pytest.raises(ls.UserError, match=r"no plain numbers in linear\.weight, but"):
        loaded(tmp_path / "sparse.pt")
    numbered = {0: torch.zeros(1)}
    for name, held in {"list.pt": [1, 2], "numbers.pt": {"a": 1}, "nothing.pt": {}, "keys.pt": numbered}.items():
        torch.save(held, tmp_path / name)
        with pytest.raises(ls.UserError, match="state dict"):
            loaded(tmp_path / name)
    with pytest.raises(ls.UserError, match="no such checkpoint"):
        loaded(tmp_path / "none.pt")
    with pytest.raises(ls.UserError, match="is a folder"):
        loaded(tmp_path)


def test_a_dict_without_a_state_dict_says_what_it_has(tmp_path, network):
    state = network.state_dict()
    for held, words in (
        ({"state_dict": {}}, r"no state dict; it has state_dict \(empty\)"),
        ({"model": {"inner": state}, "epoch": 1}, r"it has model \(with inner, a OrderedDict\), epoch \(a int\)"),
        (
            {"a": state, "b": state},
            r"several state dicts and none under state_dict, .* a \(a state dict\), b \(a state",
        ),
    ):
        torch.save(held, tmp_path / "w.pt")
        with pytest.raises(ls.UserError, match=words):
            loaded(tmp_path / "w.pt")
    torch.save({"params": state, "optimizer": {"state": {}}, "epoch": 1}, tmp_path / "w.pt")
    assert loaded(tmp_path / "w.pt")[1]["container"] == "params"


def test_what_other_projects_mean_by_our_words_is_not_taken(tmp_path, network):
    beside = {"mean": 0.5, "std": "0.2", "image_size": "8", "num_classes": "4", "weight_decay": "5e-4", "data": 3, 7: 7}
    torch.save({"state_dict": network.state_dict(), **beside, "smoothing": 0.1}, tmp_path / "w.pt")
    assert loaded(tmp_path / "w.pt")[1]["metadata"] == {"smoothing": 0.1}


def test_wrong_architecture_names_keys_and_cause(tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ls.UserError, match=r"missing \(.* more\); .*left over .* fit resnet8"):
        loaded(tmp_path / "w.pt", "vit_xs")
    with pytest.raises(ls.UserError, match=r"linear.weight is \(4, 64\) in the file and \(9, 64\) in the network"):
        loaded(tmp_path / "w.pt", num_classes=9)
    torch.save(ls.create_model("resnet20").state_dict(), tmp_path / "20.pt")  # with shortcuts or without: same keys
    with pytest.raises(ls.UserError, match=r"does not name its network; .* fit resnet20, resnet20_noshort"):
        loaded(tmp_path / "20.pt", None)
    state = network.state_dict()
    extra = {**state, "surplus": torch.zeros(1)}
    torch.save(extra, tmp_path / "e.pt")
    with pytest.raises(ls.UserError, match=r"1 left over \(surplus\)"):
        loaded(tmp_path / "e.pt")


def test_a_lightning_checkpoint_and_its_settings(tmp_path, network):
    """Hyperparameters of the usual classes are passed over; weights under the module's own attribute."""
    held = {
        "epoch": 7,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {f"net.{k}": t for k, t in network.state_dict().items()},
        "hyper_parameters": {"args": argparse.Namespace(lr=0.1), "where": pathlib.PurePosixPath("/data"), "lr": 0.1},
        "datamodule": functools.partial(torch.optim.Adam, lr=0.1),
        "callbacks": {"best": np.float64(0.9), "at": datetime.datetime(2020, 1, 1)},
    }
    torch.save(held, tmp_path / "last.ckpt")
    safe = set(torch.serialization.get_safe_globals())
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "last.ckpt", weights_only=True)
    state, provenance = loaded(tmp_path / "last.ckpt", None)
    assert all(torch.equal(state[k], t) for k, t in network.state_dict().items())
    assert (provenance["model"], provenance["prefix"], provenance["container"]) == ("resnet8", "net.", "state_dict")
    assert provenance["metadata"] == {"epoch": 7, "pytorch-lightning_version": "2.4.0"}
    assert set(torch.serialization.get_safe_globals()) == safe


def test_li_et_al_s_t7(tmp_path):
    """Their ResNets project their shortcuts; a torch file of accuracy, epoch and weights, in the format of old."""
    model = ls.create_model("resnet20_projection")
    state = model.state_dict()
    assert state["layer2.0.shortcut.0.weight"].shape == (32, 16, 1, 1)
    kept = {k: t for k, t in state.items() if not k.endswith("num_batches_tracked")}  # as before torch 0.4.1
    torch.save(
        {"acc": 92.3, "epoch": 300, "state_dict": {f"module.{k}": t for k, t in kept.items()}},
        tmp_path / "model_300.t7",
        _use_new_zipfile_serialization=False,
    )
    found, provenance = loaded(tmp_path / "model_300.t7", None)
    assert provenance["model"] == "resnet20_projection"
    assert provenance["metadata"]["epoch"] == 300
    assert all(torch.equal(found[k], t) for k, t in state.items())


@pytest.mark.parametrize(
    ("name", "settings", "asked", "message"),
    [
        (
            "resnet_18",
            {"num_classes": 100},
            {"num_classes": 10},
            r"resnet_18: classes 100, not 10; .*\(classifier.0.de",
        ),
        ("alternet_18", {"window": 8}, {}, r"alternet_18: window 8, not 4; 2 of another shape \(layer2.1.attn.pos_emb"),
        (
            "alternet_18",
            {"attention": (0, 0, 1, 1)},
            {},
            r"missing \(layer2.1.norm1.weight,.*left over \(layer2.1.bn.w",
        ),
        ("swin_ti", {"window_size": 8}, {}, r"swin_ti: window 8, not 4; .*relative_position_bias_table is \(225, 3\)"),
        ("vit_xs", {"depth": 6}, {}, r"vit_xs: 6 blocks in blocks, not 4; 22 left over"),
        ("vit_xs", {"qkv_bias": True}, {}, "vit_xs: with a query-key-value bias; 4 left over"),
        ("vit_xs", {"global_pool": "avg"}, {}, "without a class token, with average pooling before the last norm"),
        ("vit_xs", {"image_size": 32}, {"image_size": 16}, r"vit_xs: tokens 65, not 17; 1 of another shape"),
        ("pit_ti", {"depth": (2, 5, 4)}, {}, r"pit_ti: 5 blocks in transformers.1.blocks, not 6; 12 missing"),
        (
            "resnet_18",
            {"in_channels": 1},
            {"in_channels": 3},
            r"resnet_18: input channels 1, not 3; 1 of another shape",
        ),
        ("resnet_18", {"widths": (32, 64, 128, 256)}, {}, "resnet_18: width 32, not 64"),
        (
            "vit_ti",
            {"image_size": 224, "depth": 11, "global_pool": "avg"},
            {},
            r"vit_ti: 11 blocks in blocks, not 12, tokens 196, not 197, without a class token, with average pooling",
        ),
        ("pit_ti", {"base_dims": (48, 48, 48)}, {}, r"pit_ti: width 96, not 64; 159 of another shape [^;]*$"),
        ("resnet20_projection", {"shortcut": "A"}, {}, r"without projected shortcuts; 10 missing .* fit resnet20, "),
    ],
)
def test_a_near_miss_says_what_differs(tmp_path, name, settings, asked, message):
    torch.save(ls.create_model(name, **settings).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ls.UserError, match=message):
        loaded(tmp_path / "w.pt", name, **asked)


def test_asking_for_what_the_weights_are_not_says_what_they_are(tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ls.UserError, match=r"classes 4, not 9; .* fit resnet8 \(4 classes, 1 input channels\)$"):
        loaded(tmp_path / "w.pt", num_classes=9)


def test_show_says_what_fits_or_nearly(tmp_path):
    torch.save(ls.create_model("alternet_18", 100).state_dict(), tmp_path / "w.pt")
    assert "fits the networks: alternet_18 (100 classes, 3 input channels)" in describe_file(tmp_path / "w.pt")
    torch.save(ls.create_model("alternet_18", 100, window=8).state_dict(), tmp_path / "w.pt")
    assert "none of this toolkit's; nearly alternet_18 (100 classes, 3 input channels), but for window 8, not 4" in (
        describe_file(tmp_path / "w.pt")
    )
    distilled = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=5)
    torch.save(distilled.state_dict(), tmp_path / "w.pt")
    assert (
        "nearly vit_ti (5 classes, 224 px, 3 input channels), but for tokens 198, not 197, with a distillation token; "
        "3 left over (dist_token, head_dist.weight, head_dist.bias)"
    ) in describe_file(tmp_path / "w.pt")
    torch.save({"weight": torch.zeros(3, 4)}, tmp_path / "w.pt")
    assert "none of this toolkit's, nor nearly" in describe_file(tmp_path / "w.pt")
    with pytest.raises(ls.UserError, match="no network of this toolkit has such weights"):
        loaded(tmp_path / "w.pt", None)


@pytest.mark.parametrize(
    ("model", "near"), [("resnet21", "resnet20"), ("timm:resnet1888", "resnet18"), ("no.py:f", "no such file")]
)
def test_unknown_models(tmp_path, network, model, near):
    torch.save(network.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ls.UserError, match=near):
        loaded(tmp_path / "w.pt", model)


def test_weights_fit_the_one_network_that_they_are_of(network):
    assert [fit.model for fit in fitting(network.state_dict())] == ["resnet8"]


@needs_shared
def test_public_resnet20():
    model, provenance = ls.load_checkpoint(RESNET20, "resnet20")
    assert provenance["sha256"].startswith("12fca82f")
    assert (provenance["container"], provenance["prefix"]) == ("state_dict", "module.")
    test = ls.load_data(f"hfds/{CIFAR10}", split="test", transform="eval", samples=1000, **IMAGENET)
    assert ls.Objective(model, test).evaluate().accuracy > 0.89
