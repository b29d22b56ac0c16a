"""The surface command: planes of every kind, into groups of their own."""

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, cli, invoke, refused

import landscape as ls

PLANES = ("plane_eigenvectors", "plane_curve_interpolation", "plane_checkpoints", "plane_pca")
FEW = ("--samples", 64, "--points", 5)


@pytest.fixture(scope="module")
def checkpoints(trained, tmp_path_factory):
    """Three checkpoints of one network: the trained one, and two of another training's epochs."""
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = [folder / "epoch10.safetensors"]
    paths[0].write_bytes(trained.read_bytes())
    for epoch in (1, 2):
        paths.append(folder / f"epoch{epoch}.safetensors")
        train = ("train", "--model", "resnet8", "--data", "digits", "--epochs", epoch, "--seed", 7, "--out", paths[-1])
        assert invoke(*train, "--quiet").returncode == 0
    return paths


def test_every_kind_of_plane(checkpoints, tmp_path):
    end, first, second = checkpoints
    out = tmp_path / "r8.h5"
    commands = {
        "surface": ("--adaptive", 0.5, "--points", "33,17", "--y-span", "0,0.5", "--orthogonal"),
        "surface_eigenvectors": ("--directions", "eigenvectors", "--which", "LA"),
        "curve_interpolation": ("--towards", first),
        "surface_checkpoints": ("--towards", first, "--towards", second),
        "surface_pca": ("--directions", "pca", "--trajectory", end.parent),
    }
    for group, options in commands.items():
        result = invoke("surface", end, "--out", out, *FEW, *options)
        assert result.returncode == 0, result.stderr
        assert group in result.stdout
        assert (tmp_path / f"r8-{group}.png").stat().st_size > 5000
    groups = ls.load(out)
    assert groups.keys() == {*commands, "plane", *PLANES}
    assert groups["surface"]["nll"].shape == (17, 33)
    assert groups["surface"]["y"].values[[0, -1]].tolist() == [0, 0.5]
    assert int(groups["surface"]["interpolated"].sum()) > 0
    assert groups["surface_pca"]["checkpoint"].values.tolist() == ["epoch1", "epoch2", "epoch10"]
    line = groups["curve_interpolation"]
    assert line["checkpoint"].values.tolist() == ["epoch10", "epoch1"]
    assert line["x"].values[0] < 0 < 1 < line["x"].values[-1]
    assert {0.0, 1.0} <= set(line["x"].values)
    barrier, sem = line["measure"].sel(quantity="barrier").values[:2]
    between = line["nll"].sel(x=slice(0, 1))
    ends = between["x"] * float(between[-1]) + (1 - between["x"]) * float(between[0])
    assert barrier == pytest.approx(float((between - ends).max()))
    assert barrier > 0
    assert sem > 0
    shown = invoke("show", out).stdout
    assert "surface_pca" in shown
    assert f"barrier {barrier:.3g} +- " in shown
    again = out.read_bytes()
    assert invoke("surface", end, "--out", out, *FEW, *commands["surface_eigenvectors"]).returncode == 0
    assert out.read_bytes() == again


def test_eigenvectors_and_the_surface_over_them_are_of_the_same_examples(trained, tmp_path):
    """Of all 1442: the eigenvectors were of 256 of them, the surface of all."""
    out = tmp_path / "r8.h5"
    result = invoke("surface", trained, "--out", out, "--points", 3, "--rays", 0, "--directions", "eigenvectors")
    assert result.returncode == 0, result.stderr
    surface, plane = (ls.load(out)[name] for name in ("surface_eigenvectors", "plane_eigenvectors"))
    assert surface.attrs["config"]["objective"]["data_sha256"] == plane.attrs["config"]["objective"]["data_sha256"]
    np.testing.assert_allclose(surface["direction_curvature"], plane.attrs["config"]["eigenvalues"], rtol=1e-2)
    assert "v^T H v along x" in result.stdout
    asked = ("--directions", "eigenvectors", "--standard-error", 0.1, "--samples", 64)
    refused(
        invoke("surface", trained, "--out", tmp_path / "y.h5", *asked), "standard_error=0.1", "give samples for both"
    )


def test_the_same_plane_serves_another_checkpoint(checkpoints, tmp_path):
    end, first, _ = checkpoints
    assert invoke("surface", end, "--out", tmp_path / "a.h5", *FEW).returncode == 0
    result = invoke("surface", first, "--out", tmp_path / "b.h5", *FEW, "--directions", tmp_path / "a.h5")
    assert result.returncode == 0, result.stderr
    planes = [ls.load(tmp_path / name)["plane"] for name in ("a.h5", "b.h5")]
    np.testing.assert_array_equal(planes[0]["direction"], planes[1]["direction"])


def test_everything_that_a_point_can_have(checkpoints, tmp_path):
    out = tmp_path / "r8.h5"
    options = ("--gradient-norm", "--eigenvalues", "--batchnorm", "recalibrated", "--dtype", "bfloat16", "--dims", 1)
    result = invoke("surface", checkpoints[0], "--out", out, "--samples", 32, "--points", 3, *options)
    assert result.returncode == 0, result.stderr
    curve = ls.load(out)["curve"]
    for name in ("gradient_norm", "eigenvalue_high", "eigenvalue_low", "checked_error"):
        assert np.isfinite(curve[name]).all()


def test_as_many_examples_as_the_standard_error_needs(checkpoints, tmp_path):
    out = tmp_path / "r8.h5"
    result = invoke(
        "surface", checkpoints[0], "--out", out, "--points", 5, "--span", 0.4, "--standard-error", 0.2, "--samples", 64
    )
    assert result.returncode == 0, result.stderr
    assert "examples meet a standard error of 0.2" in result.stdout
    surface = ls.load(out)["surface"]
    central = surface["nll_sem"].sel(x=slice(-0.1, 0.1), y=slice(-0.1, 0.1))
    assert float(central.max()) <= 0.2
    unmet = invoke("surface", checkpoints[0], "--out", tmp_path / "x.h5", "--points", 1, "--standard-error", 1e-4)
    assert "of which the data set has 1442" in unmet.stdout


def test_under_torchrun_it_speaks_and_writes_once(checkpoints, tmp_path):
    options = (*FEW, "--eval-batch-size", 64)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "landscape"]
    arguments = ["surface", checkpoints[0], "--out", tmp_path / "two.h5", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*torchrun, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=200, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("wrote ") == 3
    assert invoke("surface", checkpoints[0], "--out", tmp_path / "one.h5", *options).returncode == 0
    two, one = (ls.load(tmp_path / name)["surface"] for name in ("two.h5", "one.h5"))
    np.testing.assert_allclose(two["nll"], one["nll"], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--points", "0"), "points=0"),
        (("--points", "5,5,5"), "as many numbers as axes"),
        (("--points", "many"), "--points many"),
        (("--points", "nan"), "--points nan"),
        (("--span", "1,0"), "low below high"),
        (("--span", "1,2,3", "--y-span", "-1,1"), "low below high"),
        (("--eval-batch-size", 0), "eval_batch_size=0"),
        (("--mean", "nan"), "--mean nan"),
        (("--mixup", -1), "mixup=-1"),
        (("--auto-augment", "foo"), "timm's notation"),
        (("--directions", "pca"), "give their folder as "),
        (("--directions", "pca", "--trajectory", "nowhere"), "not a folder of checkpoints"),
        (("--directions", "nowhere.h5"), "no such results file"),
        (("--towards", "nowhere.pt"), "no such checkpoint"),
        (("--directions", "eigenvectors", "--which", "SM"), "LM, LA, SA, BE"),
        (("--batchnorm", "none"), "stored, recalibrated"),
        (("--dtype", "float16"), "float32, bfloat16"),
        (("--standard-error", 0), "standard_error=0.0 must be above 0"),
        (("--adaptive", -1), "adaptive=-1"),
        (("--parameters", "stem"), "no trainable parameter matches 'stem'"),
    ],
)
def test_mistakes_in_asking_for_a_surface(trained, tmp_path, options, words):
    refused(invoke("surface", trained, "--samples", 32, "--out", tmp_path / "x.h5", *options), words)


def test_a_refused_surface_leaves_the_plane_of_the_stored_one(trained, tmp_path):
    out = tmp_path / "x.h5"
    assert invoke("surface", trained, "--out", out, *FEW).returncode == 0
    before = out.read_bytes()
    refused(invoke("surface", trained, "--out", out, *FEW, "--seed", 1), "made with other settings")
    assert out.read_bytes() == before
    assert invoke("surface", trained, "--out", out, *FEW, "--dims", 1).returncode == 0
    assert ls.load(out)["plane"].sizes["axis"] == 2
    assert ls.load(out)["plane_curve"].sizes["axis"] == 1


def test_one_file_one_network(checkpoints, tmp_path):
    end, first, _ = checkpoints
    out = tmp_path / "x.h5"
    assert invoke("surface", end, "--out", out, *FEW).returncode == 0
    moved = tmp_path / "elsewhere.safetensors"
    moved.write_bytes(end.read_bytes())
    assert invoke("surface", moved, "--out", out, *FEW).returncode == 0  # the same weights from another place
    for command in ("surface", "test", "spectrum"):
        refused(invoke(command, first, "--out", out, "--samples", 64), "of another checkpoint", "elsewhere")


def test_checkpoints_of_one_name_are_told_apart(checkpoints, tmp_path):
    end, first, second = checkpoints
    paths = []
    for name, source in (("one", first), ("two", second)):
        (tmp_path / name).mkdir()
        paths.append(tmp_path / name / "last.safetensors")
        paths[-1].write_bytes(source.read_bytes())
    out = tmp_path / "x.h5"
    result = invoke("surface", end, "--out", out, *FEW, "--towards", paths[0], "--towards", paths[1])
    assert result.returncode == 0, result.stderr
    assert ls.load(out)["surface_checkpoints"].sizes["checkpoint"] == 3


def test_towards_itself_there_is_no_line(trained, tmp_path):
    refused(cli("surface", trained, "--samples", 32, "--out", tmp_path / "x.h5", "--towards", trained), "no line")
