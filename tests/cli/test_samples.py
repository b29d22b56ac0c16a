"""Of the test split `--samples` are test examples; of what studies the training they are training examples."""

import numpy as np
from helpers import invoke

import landscape as ls


def test_samples_of_test_are_test_examples(trained, tmp_path):
    out, whole = tmp_path / "few.h5", tmp_path / "all.h5"
    done = invoke("test", trained, "--samples", 100, "--out", out)
    assert done.returncode == 0, done.stderr
    assert invoke("test", trained, "--out", whole).returncode == 0
    few, every = ls.load(out)["test"], ls.load(whole)["test"]
    assert (int(few["examples"]), few.sizes["example"]) == (100, 100)
    assert few.attrs["config"]["objective"]["data"]["split"] == "test"
    assert int(every["examples"]) == 355
    assert np.allclose(few["example_nll"], every["example_nll"][:100], atol=1e-5)  # the beginning of the same draw
    assert "Test examples" in invoke("test", "--help").stdout
    assert "Frozen examples of the training split" in invoke("surface", "--help").stdout


def test_samples_of_the_whole_analysis_leave_the_test_split_whole(trained, tmp_path):
    few = ("--samples", 32, "--points", 1, "--rays", 0, "--batches", 1, "--probes", 1, "--steps", 2)
    assert invoke("analyze", trained, *few, "--out", tmp_path / "x.h5").returncode == 0
    groups = ls.load(tmp_path / "x.h5")
    assert int(groups["test"]["examples"]) == 355
    assert groups["surface"].attrs["config"]["objective"]["examples"] == 32
