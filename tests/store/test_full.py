"""A disk that fills up while a file is written: one line, no part left, and what was there before stays readable."""

import resource
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from helpers import ROOT

import landscape as ls

MAIN = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.argv[:2] = ["landscape"]
from landscape.cli.main import main
main()
"""


def limited(size, *arguments):
    """The command line in a process that can write no file longer than `size`."""
    command = [sys.executable, "-c", MAIN, str(size), *map(str, arguments)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    assert "Exception ignored" not in run.stderr
    lines = [line for line in run.stderr.split("\n") if line.startswith("landscape: ")]
    assert len(lines) == 1, run.stderr
    return lines[0]


def test_results(trained, tmp_path):
    """The plane of the surface does not fit, nor, in the second run, what is added to a file of another analysis."""
    out = tmp_path / "a.h5"
    arguments = ("surface", trained, "--samples", 32, "--points", 3, "--rays", 0, "--out", out, "-q")
    assert "File too large" in limited(100_000, *arguments)
    earlier = xr.Dataset({"v": ("n", np.arange(20_000.0))})
    ls.save(out, earlier=earlier)
    before = out.read_bytes()
    assert "cannot write" in limited(200_000, *arguments)
    assert out.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_every_size_of_results(tmp_path, share):
    """Wherever in the file the disk is full, this process goes on."""
    path, held = tmp_path / "a.h5", {"g": xr.Dataset({"v": ("n", np.arange(3000.0))})}
    ls.save(path, **held)
    size = path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), hard))
    try:
        with pytest.raises(ls.UserError, match="File too large"):
            ls.save(path, h=held["g"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(ls.load(path)) == ["g"]
    ls.save(path, h=held["g"])
    assert list(ls.load(path)) == ["g", "h"]


@pytest.mark.parametrize("size", [50_000, 400_000])
def test_a_training(tmp_path, size):
    """What keeps the training does not fit, in the middle of it."""
    out = tmp_path / "r.safetensors"
    said = limited(size, "train", "--model", "resnet8", "--data", "digits", "--epochs", 1, "--fraction", 0.1,
                   "--out", out, "-q")  # fmt: skip
    assert "cannot write" in said
    assert list(tmp_path.iterdir()) == []


def test_weights(tmp_path):
    network = ls.create_model("resnet8", 10, 8, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(ls.UserError, match="cannot write"):
            ls.save_checkpoint(tmp_path / "w.safetensors", network, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
