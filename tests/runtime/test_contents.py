"""A file is what is in it, whatever it is called."""

import pickle
import zipfile

import h5py
import pytest
import torch
from helpers import invoke, refused

import landscape as ls
from landscape.runtime.contents import kind_of


@pytest.fixture
def weights(tmp_path):
    network = ls.create_model("resnet8", 10, 8, 1)
    torch.save(network.state_dict(), tmp_path / "new.pkl")
    torch.save(network.state_dict(), tmp_path / "old.pkl", _use_new_zipfile_serialization=False)
    ls.save_checkpoint(tmp_path / "a.safetensors", network, {"model": "resnet8", "data": "digits"})
    (tmp_path / "a.safetensors").rename(tmp_path / "weights")
    return tmp_path


@pytest.mark.parametrize("name", ["new.pkl", "old.pkl", "weights"])
def test_a_checkpoint_under_another_name_is_one(weights, name):
    shown = invoke("show", weights / name)
    assert shown.returncode == 0, shown.stderr
    assert "fits the networks: resnet8" in shown.stdout
    refused(invoke("plot", weights / name), "it is a checkpoint; analyse it first")


def test_another_pickle_is_called_one(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": 1}))
    refused(invoke("show", tmp_path / "x.pkl"), "is a pickle, but not a checkpoint of torch; save model.state_dict()")


def test_kinds(tmp_path):
    path = tmp_path / "x"
    for content, kind in {
        b"": "empty", b"x,y\n0,1\n": "text", b"\x89PNG\r\n\x1a\n...": "a picture", b"%PDF-1.4": "a PDF",
        b"\x00\x01\x02\xff": "unknown", "ü".encode() * 400: "text", b"\xff" * 16: "unknown",
    }.items():  # fmt: skip
        path.write_bytes(content)
        assert kind_of(path) == kind, content[:10]
    h5py.File(path, "w").close()
    assert kind_of(path) == "HDF5"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")
    assert kind_of(path) == "a zip"
    assert kind_of(tmp_path / "none") == "unknown"
    (tmp_path / "t.h5").write_text("hello")
    refused(invoke("show", tmp_path / "t.h5"), "not a readable results file (it is text, not HDF5)")
