"""A network of the user's own code, file.py:function: what it raises or ends is one line, and it is called seldom."""

import pytest
import torch
from helpers import invoke, refused
from torch import nn

import landscape as ls

CODE = """
import os, sys
from pathlib import Path
from torch import nn

HERE = Path(__file__).parent

class Net(nn.Module):
    def __init__(self, depth=1, fails=None):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), *(nn.Linear(64, 64) for _ in range(depth - 1)), nn.Linear(64, 10))
        self.fails = fails

    def forward(self, x):
        if self.fails == "late":
            import beside
            return beside.doubled(self.layers(x))
        if self.fails == "exit":
            sys.exit(0)
        if self.fails:
            raise ZeroDivisionError("of mine")
        return self.layers(x)

def net(depth=1, fails=None):
    with open(HERE / "calls", "a") as calls:
        calls.write("x")
    return Net(depth, fails)

def broken():
    raise LookupError("no such thing")

def leaves():
    sys.exit(0)
"""


@pytest.fixture
def own(tmp_path):
    """A folder with the code, and the command line on weights of one layer."""
    (tmp_path / "mine.py").write_text(CODE)
    torch.save(weights(1), tmp_path / "w.pt")

    def asked(function, *more, command="surface", weights="w.pt"):
        few = ("--samples", 16, "--points", 3, "--rays", 0) if command == "surface" else ()
        return invoke(
            command, tmp_path / weights, "--model", f"{tmp_path}/mine.py:{function}", "--data", "digits",
            "--out", tmp_path / "a.h5", "-q", *few, *more,
        )  # fmt: skip

    return tmp_path, asked


def weights(depth, seed=0):
    torch.manual_seed(seed)
    linear = [nn.Linear(64, 64) for _ in range(depth - 1)] + [nn.Linear(64, 10)]
    return {f"layers.{k}": v for k, v in nn.Sequential(nn.Flatten(), *linear).state_dict().items()}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("broken", ["broken fails: LookupError: ", "no such thing"]),
        ("leaves", ["leaves fails: sys.exit: 0"]),
        ("net(fails='raises')", ["ZeroDivisionError: of mine"]),
        ("net(fails='exit')", ["sys.exit: 0"]),
    ],
)
def test_what_it_raises_or_ends_is_one_line(own, function, words):
    folder, asked = own
    refused(asked(function), *words)
    assert not (folder / "a.h5").exists() or not ls.load(folder / "a.h5")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("import sys; sys.exit(0)", "sys.exit: 0"),
        ("1 / 0", "ZeroDivisionError"),
        ("import no_such", "no_such"),
        ("(", "SyntaxError"),
    ],
)
def test_at_its_import_likewise_and_nothing_is_said_to_be_done(tmp_path, line, words):
    (tmp_path / "mine.py").write_text(f"{line}\ndef net():\n    pass\n")
    torch.save(weights(1), tmp_path / "w.pt")
    command = ("test", tmp_path / "w.pt", "--data", "digits", "--out", tmp_path / "b.h5")
    refused(invoke(*command, "--model", f"{tmp_path}/mine.py:net"), "mine.py cannot be imported", words)
    assert not (tmp_path / "b.h5").exists()


def test_an_exit_in_the_middle_is_no_success(tmp_path):
    """sys.exit(0) within the training that was asked for."""
    (tmp_path / "mine.py").write_text(CODE)
    model, out = f"{tmp_path}/mine.py:net(fails='exit')", tmp_path / "t.safetensors"
    refused(invoke("train", "--model", model, "--data", "digits", "--epochs", 1, "--out", out, "-q"), "sys.exit: 0")
    assert not out.exists()


def test_what_lies_beside_it_is_imported_when_the_network_runs(own):
    folder, asked = own
    (folder / "beside.py").write_text("def doubled(x):\n    return 2 * x\n")
    assert asked("net(fails='late')").returncode == 0
    whole = ls.load(folder / "a.h5")["surface"]
    assert bool(whole["done"].all())


def test_settings_after_its_name(own):
    """They go to the function, and are part of the name that the results have."""
    folder, asked = own
    torch.save(weights(20), folder / "deep.pt")
    result = asked("net(depth=20)", command="test", weights="deep.pt")
    assert result.returncode == 0, result.stderr
    origin = ls.load(folder / "a.h5")["test"].attrs["config"]["objective"]["provenance"]
    assert origin["model"] == f"{folder}/mine.py:net(depth=20)"
    assert origin["parameters"] == 19 * (64 * 64 + 64) + 650
    refused(asked("net(deep=20)", command="test"), "net takes no deep; did you mean depth?")
    refused(asked("net(20)", command="test"), "is no model with settings")


def test_principal_components_of_checkpoints_call_it_a_few_times(own):
    """However many there are: the networks of a trajectory are copies of the first."""
    folder, asked = own
    calls = {}
    for count in (3, 8):
        epochs = folder / f"epochs{count}"
        epochs.mkdir()
        for i in range(count):
            torch.save(weights(1, seed=i + 1), epochs / f"epoch{i}.pt")
        (folder / "calls").write_text("")
        (folder / "a.h5").unlink(missing_ok=True)
        result = asked("net", "--directions", "pca", "--trajectory", epochs)
        assert result.returncode == 0, result.stderr
        calls[count] = len((folder / "calls").read_text())
    assert calls[3] == calls[8] <= 4
