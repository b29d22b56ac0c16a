"""What is asked for is checked before any data is read and before a file is made; other settings are named at once."""

import shutil

import pytest
from helpers import invoke, refused
from PIL import Image

import landscape as ls
from landscape.store.changes import changes, said

NOWHERE = ("--data", "hfds/nowhere/at-all")  # reading the data would fail by this
FEW = ("--samples", 16, "--batches", 1, "--batch-size", 16, "--top", 1)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("spectrum", "--which", "XX"), "--which XX is not one of LM, LA, SA, BE"),
        (("top", "--tol", -1), "tol=-1"),
        (("top", "--max-basis", 11), "max_basis=11 is too small for k=10; take 12 or more"),
        (("trace", "--products", 3), "products=3 leaves 1 probes"),
        (("density", "--batch-size", 4, "--batches", 9, "--probes", 2), "probes=2 cannot visit 9 mini-batches"),
        (("surface", "--points", 0), "points=0"),
        (("analyze", "--budget", "soon"), "--budget"),
        (("lesion", "--weight-decay", -1), "weight_decay=-1"),
    ],
)
def test_options_are_checked_before_any_data_is_read(trained, tmp_path, command, words):
    name, *options = command
    refused(invoke(name, trained, *options, *NOWHERE, "--out", tmp_path / "new" / "x.h5"), words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x.txt", "x", "x.png", "x.safetensors"])
def test_a_results_file_is_called_one(trained, tmp_path, name):
    refused(invoke("test", trained, *NOWHERE, "--out", tmp_path / name), f"--out {tmp_path / name}", ".h5")
    (tmp_path / "s.csv").write_text("x,y,nll\n0,0,1\n1,0,2\n0,1,2\n1,1,3\n")
    refused(invoke("import", tmp_path / "s.csv", "--out", tmp_path / name), ".h5")
    assert [file.name for file in tmp_path.iterdir()] == ["s.csv"]


def test_a_folder_is_none(trained, tmp_path):
    refused(invoke("test", trained, *NOWHERE, "--out", tmp_path), "is a folder; give the name of a results file")


def test_what_turns_out_to_be_impossible_leaves_no_file(trained, tmp_path):
    command = ("spectrum", trained, "--data", "digits", "--samples", 32, "--batches", 9)
    refused(invoke(*command, "--out", tmp_path / "x.h5"), "9 mini-batches of 16 asked")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image folder that can be taken away."""
    made = tmp_path_factory.mktemp("images") / "digits"
    for split in ("train", "test"):
        for digit in range(10):
            place = made / split / str(digit)
            place.mkdir(parents=True)
            for i in range(3):
                Image.new("L", (8, 8), 20 * digit + i).save(place / f"{i}.png")
    return made


def test_other_settings_are_named_before_any_data_is_read(trained, folder, tmp_path):
    out, kept = tmp_path / "x.h5", tmp_path / "away"
    command = ("top", trained, "--data", folder, "--samples", 16, "--top", 1, "--max-products", 9, "--out", out)
    done = invoke(*command)
    assert done.returncode == 0, done.stderr
    before = out.read_bytes()
    shutil.move(folder, kept)
    try:
        for option, words in {
            ("--which", "SA"): "--which: LM there, SA asked",
            ("--samples", 20): "--samples: 16 there, 20 asked",
            ("--transform", "eval"): "--transform: train there, eval asked",
            ("--weight-decay", 0.1): "--weight-decay: 0 there, 0.1 asked",
            ("--seed", 3): "--seed: 0 there, 3 asked",
            ("--data", "digits"): f"--data: {folder} there, digits asked",
        }.items():
            named = dict(zip(command[2::2], command[3::2], strict=True)) | {option[0]: option[1]}
            result = invoke("top", trained, *(word for item in named.items() for word in item))
            refused(result, words, "--overwrite")
            assert "sha256" not in result.stderr
    finally:
        shutil.move(kept, folder)
    assert out.read_bytes() == before
    assert invoke(*command).returncode == 0  # what was not changed goes on


def test_overwrite_replaces_a_group_and_no_other(trained, tmp_path):
    out = tmp_path / "x.h5"
    assert invoke("test", trained, "--out", out).returncode == 0
    command = ("spectrum", trained, *FEW, "--out", out)
    assert invoke(*command).returncode == 0
    first = ls.load(out)
    assert invoke(*command, "--which", "SA", "--overwrite").returncode == 0
    second = ls.load(out)
    assert second["spectrum"].attrs["config"]["which"] == "SA"
    assert not second["spectrum"]["eigenvalue"].equals(first["spectrum"]["eigenvalue"])
    assert second["test"].identical(first["test"])
    before = out.read_bytes()
    assert invoke(*command, "--which", "SA", "--overwrite").returncode == 0  # the same is continued: nothing is left
    assert out.read_bytes() == before
    assert invoke("spectrum", trained, *FEW, "--batches", 9, "--overwrite", "--out", out).returncode == 2
    assert out.read_bytes() == before  # what cannot be computed replaces nothing


def test_a_damaged_group_is_replaced(trained, tmp_path):
    out = tmp_path / "x.h5"
    command = ("test", trained, "--out", out)
    assert invoke(*command).returncode == 0
    whole = ls.load(out)["test"]
    ls.save(out, test=whole.assign(nll=("of_another", [1.0, 2.0])))
    refused(invoke(*command), "cannot be continued", "--overwrite")
    assert invoke(*command, "--overwrite").returncode == 0
    assert ls.load(out)["test"].drop_attrs().identical(whole.drop_attrs())


def test_differences_in_words():
    there = {"points": [3, 3], "span": [[-1.0, 1.0], [-1.0, 1.0]], "verify": True,
             "objective": {"data": {"name": "a", "samples": 5}, "data_sha256": "ab", "examples": 5,
                           "weights_sha256": "cd", "provenance": {"file": "x"}}}  # fmt: skip
    asked = {"points": [5, 4], "span": [[-2.0, 2.0], [-1.0, 1.0]], "verify": False,
             "objective": {"data": {"name": "b", "samples": 5}, "data_sha256": "ef", "examples": 5,
                           "weights_sha256": "01", "provenance": {"file": "y"}}}  # fmt: skip
    assert changes(there, asked) == [
        "`data`: a there, b asked",
        "the weights are others",
        "`points`: 3 there, 5,4 asked",
        "`span`: -1,1 there, -2,2 and -1,1 asked",
        "`verify`: yes there, no asked",
    ]
    other = {**there, "objective": {**there["objective"], "data_sha256": "ef"}}
    assert changes(there, other) == ["the examples are others"]
    assert changes(there, there) == []
    assert said(None) == "none"
