"""The command line in processes of its own, as a user has it."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from helpers import ROOT, cli, invoke, refused

import landscape as ls
from landscape.cli.analyses import counted

SMALL = ("--samples", 64, "--points", 3, "--batches", 2, "--probes", 2, "--steps", 4)


@pytest.fixture(scope="module")
def analysed(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("analysed") / "r8.h5"
    result = cli("analyze", trained, *SMALL, "--out", out)
    assert result.returncode == 0, result.stderr
    return out, result


def test_analyze_writes_the_file_and_its_pictures(analysed, trained):
    out, result = analysed
    groups = ls.load(out)
    assert set(groups) == {"test", "plane", "surface", "spectrum", "density"}
    assert groups.pop("plane").attrs["config"]["directions"] == "random"
    for group in groups.values():
        provenance = group.attrs["config"]["objective"]["provenance"]
        assert provenance["sha256"]
        assert provenance["metadata"]["mean"] == [0.3055]
    for name in ("test_reliability", "surface", "surface_3d", "spectrum", "density"):
        picture = out.parent / f"r8-{name}.png"
        assert picture.stat().st_size > 10_000
        assert f"wrote {picture}" in result.stdout
    assert "test accuracy" in result.stdout
    assert "surface: 100%" in result.stderr


def test_the_test_accuracy_is_the_networks(analysed, trained):
    model, _ = ls.load_checkpoint(trained)
    data = ls.load_data("digits", split="test", transform="eval")
    accuracy = (model(data.x).argmax(1) == data.y).double().mean()
    assert float(ls.load(analysed[0])["test"]["accuracy"]) == float(accuracy)


def test_the_same_again_changes_nothing_and_other_settings_are_refused(analysed, trained):
    out, _ = analysed
    before = out.read_bytes()
    again = cli("analyze", trained, *SMALL, "--out", out, "--quiet")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert out.read_bytes() == before
    refused(cli("surface", trained, "--samples", 64, "--points", 5, "--out", out), "--points: 3 there, 5 asked")
    assert out.read_bytes() == before


def test_one_command_at_a_time_equals_analyze(analysed, trained, tmp_path):
    out = tmp_path / "r8.h5"
    for command in (
        ("surface", "--points", 3),
        ("spectrum", "--batches", 2),
        ("density", "--probes", 2, "--steps", 4),
    ):
        result = cli(command[0], trained, "--samples", 64, *command[1:], "--out", out)
        assert result.returncode == 0, result.stderr
    one, all_at_once = ls.load(out), ls.load(analysed[0])
    assert all(one[name].drop_attrs().identical(all_at_once[name].drop_attrs()) for name in one)


def test_show_and_plot(analysed, trained, tmp_path):
    shown = cli("show", analysed[0])
    assert "9 of 9 done" in shown.stdout
    assert "resnet8" in shown.stdout
    assert "torch " + torch.__version__.split("+")[0] in shown.stdout
    again = tmp_path / "again.h5"
    again.write_bytes(analysed[0].read_bytes())
    several = invoke("show", analysed[0], again)
    table, *blocks = several.stdout.strip().split("\n\n")
    *rows, note = table.splitlines()
    assert [line.split()[0] for line in rows] == ["network", "r8", "again"]
    assert note == "no interval and no standard error is given for fewer than 8 mini-batches"
    assert [block.split()[0] for block in blocks] == ["density", "spectrum", "surface", "test"]
    assert all(block.splitlines()[1].split() == ["done", "yes", "yes"] for block in blocks)
    data = next(line for line in shown.stdout.splitlines() if " of digits, train split" in line)
    for words in (
        "64 of 1,442 examples of digits, train split", "train transform", "mean 0.3055", "no penalty",
        "weight decay of the training: 0.05",
    ):  # fmt: skip
        assert words in data, data
    labelled = invoke("show", f"{analysed[0]}=one", f"{again}=two").stdout.splitlines()
    assert [line.split()[0] for line in labelled[1:3]] == ["one", "two"]
    shown = cli("show", trained)
    assert "fits the networks: resnet8" in shown.stdout
    drawn = cli("plot", analysed[0], again, "--out", tmp_path / "pictures")
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "pictures" / "all-spectra.png").exists()


@pytest.mark.parametrize("command", ["--help", "show"])
def test_what_needs_no_network_imports_little(analysed, command):
    """torch and timm alone would take seconds, and scipy.stats a fifth of one."""
    asked = ["--help"] if command == "--help" else [command, str(analysed[0])]
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "landscape", *asked], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    imported = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines() if "|" in line}
    assert "landscape.cli.main" in imported
    assert not imported & {"torch", "timm", "matplotlib", "scipy.stats", "scipy.interpolate"}


def test_every_command_has_help_with_an_example():
    listed = cli("--help").stdout
    for command in (
        "quickstart", "analyze", "test", "surface", "spectrum", "top", "density", "trace", "series", "train", "plot",
        "report", "show", "import", "export",
    ):  # fmt: skip
        assert command in listed
        assert f"Example: landscape {command}" in invoke(command, "--help").stdout


KILLED = {
    "surface": "ls.evaluate_surface(objective, ls.random_plane(subject.model), points=21, **more)",
    "spectrum": "ls.hessian_spectrum(objective, batch_size=4, ggn_part=True, **more)",
    "density": "ls.spectral_density(objective, probes=12, steps=16, **more)",
    "trace": "ls.hessian_trace(objective, products=150, **more)",
}


@pytest.mark.parametrize(
    ("analysis", "seconds"), [("surface", 0.5), ("surface", 2.0), ("spectrum", 1.5), ("density", 1.5), ("trace", 1.5)]
)
def test_kill_at_any_moment_leaves_a_readable_file_that_goes_on(trained, tmp_path, analysis, seconds):
    """kill -9 while it stores after every unit; what is resumed equals what was never interrupted, to the byte."""
    out, whole = tmp_path / "a.h5", tmp_path / "b.h5"
    script = (
        "import sys, landscape as ls\n"
        "from landscape.analyses.base import Examples\n"
        "from landscape.study.run import into\n"
        "subject = ls.open(sys.argv[1], data='digits', device='cpu')\n"
        "objective = subject.objective(Examples(exactly=128))\n"
        "def compute(stored, save):\n"
        "    more = dict(partial=stored, save=save, save_every=float(sys.argv[3]))\n"
        f"    return {KILLED[analysis]}\n"
        "print('begins', flush=True)\n"
        f"into(sys.argv[2], '{analysis}', compute)\n"
    )
    command = [sys.executable, "-c", script, str(trained)]
    process = subprocess.Popen([*command, str(out), "0"], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"begins\n"
    time.sleep(seconds)
    assert process.poll() is None, "finished before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    held = ls.load(out)  # readable; with a group once the first unit was stored
    assert analysis not in held or not held[analysis]["done"].all()
    if analysis == "surface":
        assert 0 < int(held[analysis]["done"].sum()) < held[analysis]["done"].size
    for path in (out, whole):
        subprocess.run([*command, str(path), "60"], cwd=ROOT, check=True)
    assert ls.load(whole)[analysis]["done"].all()
    assert out.read_bytes() == whole.read_bytes()


def test_interrupt_stores_and_says_how_to_go_on(trained, tmp_path):
    out = tmp_path / "a.h5"
    command = [sys.executable, "-c", "from landscape.cli.main import main; main()", "surface", str(trained),
               "--points", "51", "--out", str(out)]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    while process.poll() is None and not out.exists():
        time.sleep(0.1)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"interrupted; continue with the same command" in stderr
    assert b"Traceback" not in stderr
    assert int(ls.load(out)["surface"]["done"].sum()) > 0


def test_training_is_deterministic(trained, tmp_path):
    again = tmp_path / "again.safetensors"
    cli("train", "--model", "resnet8", "--data", "digits", "--epochs", 2, "--out", again, "--quiet").check_returncode()
    assert again.read_bytes() == trained.read_bytes()


def test_quickstart_is_deterministic_and_goes_on(tmp_path):
    outs = [tmp_path / "one", tmp_path / "two"]
    tables = []
    for out in outs:
        result = cli("quickstart", "--effort", 0.05, "--out", out, "--seed", 3)
        assert result.returncode == 0, result.stderr
        tables.append(result.stdout.splitlines()[-5:])  # the last says that so few mini-batches have no interval
        assert (out / "all-spectra.png").exists()
    assert tables[0] == tables[1]
    assert [line.split()[0] for line in tables[0]] == ["network", "resnet8", "vit_xs", "alternet_xs", "no"]
    for name in ("resnet8", "vit_xs", "alternet_xs"):
        one, two = (ls.load(out / f"{name}.h5") for out in outs)
        assert all(one[g].drop_attrs().identical(two[g].drop_attrs()) for g in one)
        assert (outs[0] / f"{name}.safetensors").read_bytes() == (outs[1] / f"{name}.safetensors").read_bytes()
    before = (outs[0] / "vit_xs.h5").read_bytes()
    assert cli("quickstart", "--effort", 0.05, "--out", outs[0], "--seed", 3, "--quiet").returncode == 0
    assert (outs[0] / "vit_xs.h5").read_bytes() == before


def test_users_mistakes(trained, tmp_path):
    out = tmp_path / "a.h5"
    torch.save([1], tmp_path / "list.pt")
    (tmp_path / "mine").mkdir()
    ls.save_checkpoint(tmp_path / "three.safetensors", ls.create_model("resnet8", 3, 8, 1), {"model": "resnet8"})
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "file").write_text("")
    cases = [
        (("surface", tmp_path / "none.pt", "--data", "digits", "--out", out), "no such checkpoint"),
        (("surface", tmp_path / "list.pt", "--model", "resnet8", "--data", "digits", "--out", out), "holds a list"),
        (("surface", trained, "--model", "vit_xs", "--out", out), "fit resnet8"),
        (("surface", trained, "--model", "resnet9", "--out", out), "did you mean resnet8"),
        (("surface", trained, "--data", "digit", "--out", out), "did you mean digits"),
        (("surface", trained, "--data", tmp_path / "mine", "--out", out), "empty"),
        (("surface", tmp_path / "three.safetensors", "--data", "digits", "--out", out), "label 9 is out of range"),
        (("surface", tmp_path / "three.safetensors", "--out", out), "--data"),
        (("surface", trained, "--out", tmp_path / "text.h5"), "not a readable results file"),
        (("surface", trained, "--out", tmp_path / "file" / "a.h5"), "cannot write"),
        (("surface", trained, "--mean", "a,b", "--out", out), "--mean a,b"),
        (("surface", trained, "--device", "abacus", "--out", out), "device='abacus' is not present"),
        (("spectrum", trained, "--which", "SM", "--samples", 64, "--out", out), "LM, LA, SA, BE"),
        (("plot", tmp_path / "text.h5"), "not a readable results file"),
        (("show", tmp_path / "none.h5"), "no such results file"),
        (("train", "--model", "resnet8", "--data", "digits", "--out", tmp_path / "w.pt"), ".safetensors"),
    ]
    for arguments, words in cases:
        refused(invoke(*arguments), words)
    arguments, words = cases[0]
    refused(cli(*arguments), words)
    assert not list(tmp_path.glob("*.part"))


def test_the_version_is_the_packages():
    assert invoke("--version").stdout.strip() == ls.__version__


def test_unknown_option_is_one_mistake_too():
    result = cli("surface", "--nonsense")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_a_diverged_network_is_analysed_all_the_same(tmp_path):
    model = ls.create_model("resnet8", 10, 8, 1)
    with torch.no_grad():
        model.linear.weight.fill_(np.inf)
    ls.save_checkpoint(tmp_path / "w.safetensors", model, {"model": "resnet8", "data": "digits"})
    result = cli("analyze", tmp_path / "w.safetensors", *SMALL, "--out", tmp_path / "w.h5")
    assert result.returncode == 0, result.stderr
    assert "9 points diverged" in result.stdout


def test_the_other_analyses_of_curvature(analysed, trained, tmp_path):
    out = tmp_path / "r8.h5"
    few = ("--samples", 32, "--out", out)
    commands = {
        "spectrum_ggn": ("spectrum", trained, *few, "--batches", 2, "--kind", "ggn"),
        "spectrum_pyhessian": ("spectrum", trained, *few, "--batches", 1, "--top", 1, "--method", "pyhessian"),
        "spectrum_per_stage": ("spectrum", trained, *few, "--batches", 2, "--per", "stage", "--top", 2),
        "top": ("top", trained, *few, "--top", 2, "--which", "BE", "--max-basis", 12, "--chunk-size", 20),
        "trace": ("trace", trained, *few, "--products", 9),
        "series": ("series", trained, trained.parent / "again.safetensors", *few, "--batch-size", 4),
    }
    (trained.parent / "again.safetensors").write_bytes(trained.read_bytes())
    for group, command in commands.items():
        result = invoke(*command)
        assert result.returncode == 0, result.stderr
        assert group in ls.load(out)
        assert (tmp_path / f"r8-{group}.png").stat().st_size > 5000
    groups = ls.load(out)
    assert groups["series"].sizes["checkpoint"] == 2
    nep, low, high = groups["series"]["summary"].sel(checkpoint="again", statistic="nep").values
    (row,) = (line for line in invoke("show", out).stdout.splitlines() if line.startswith("r8: again "))
    assert f"{nep:.1%} [{low:.1%}, {high:.1%}]" in row
    assert groups["top"]["converged"].all()
    assert "part" in groups["spectrum_per_stage"].dims
    before = out.read_bytes()
    assert invoke(*commands["top"]).returncode == 0
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("spectrum", "--per", "block"), "layer, stage"),
        (("spectrum", "--kind", "fishy"), "hessian, ggn, residual, fisher"),
        (("spectrum", "--method", "power"), "lanczos, pyhessian"),
        (("top", "--max-basis", 3), "max_basis=3 is too small"),
        (("top", "--chunk-size", 0), "chunk_size=0"),
        (("trace", "--estimator", "diagonal"), "hutchinson, hutch++"),
        (("trace", "--products", 1), "a standard error needs 8"),
    ],
)
def test_mistakes_in_asking_for_curvature(trained, tmp_path, options, words):
    command, *rest = options
    refused(invoke(command, trained, "--samples", 32, "--out", tmp_path / "x.h5", *rest), words)


def test_a_series_takes_a_folder_and_the_order_of_its_numbers(trained, tmp_path):
    folder = tmp_path / "epochs"
    folder.mkdir()
    for n in (0, 1, 10, 2):
        (folder / f"epoch{n}.safetensors").write_bytes(trained.read_bytes())
    few = ("--samples", 32, "--batches", 2, "--top", 1)
    right = ["epoch0", "epoch1", "epoch2", "epoch10"]
    asked = {"folder": [folder], "shell": sorted(folder.iterdir())}
    for name, paths in asked.items():
        result = invoke("series", *paths, "--out", tmp_path / f"{name}.h5", *few)
        assert result.returncode == 0, result.stderr
        assert ls.load(tmp_path / f"{name}.h5")["series"]["checkpoint"].values.tolist() == right
    (tmp_path / "empty").mkdir()
    refused(invoke("series", tmp_path / "empty", "--out", tmp_path / "x.h5"), "not a folder of checkpoints")


def test_a_file_takes_no_other_network_nor_training(tmp_path):
    """Whether it is of one network or of several; but of one of several it takes more."""
    one, other, third = (tmp_path / f"{name}.safetensors" for name in ("one", "other", "third"))
    for path in (one, other, third):
        network = ls.create_model("resnet8", 10, 8, 1, widths=(4, 4, 4))
        ls.save_checkpoint(path, network, {"model": "resnet8(widths=(4, 4, 4))", "data": "digits"})
    few = ("--samples", 32, "--out", tmp_path / "x.h5", "--quiet")
    series = ("--batches", 2, "--top", 1, *few)
    assert invoke("series", one, other, *series).returncode == 0
    said = "has the series of another checkpoint", "write to another file"
    refused(invoke("surface", third, *few), *said)
    refused(invoke("trajectory", third, *few), *said)
    assert invoke("surface", other, "--points", 2, "--rays", 0, *few).returncode == 0
    refused(invoke("spectrum", one, *series), "has the surface of another checkpoint", str(other))


@pytest.mark.parametrize(
    ("count", "unit", "words"),
    [
        (1, "part", "1 part is"),
        (2, "mini-batch", "2 mini-batches are"),
        (3, "kind of evidence", "3 kinds of evidence are"),
    ],
)
def test_what_is_left_is_counted_in_words(count, unit, words):
    assert counted(count, unit) == words


def test_a_trajectory_of_ten_epochs_sorts_by_name(tmp_path):
    options = ("--model", "resnet8", "--data", "digits", "--fraction", 0.03, "--epochs", 10, "--quiet")
    made = invoke("train", *options, "--trajectory", tmp_path / "epochs", "--out", tmp_path / "x.safetensors")
    assert made.returncode == 0, made.stderr
    assert sorted(p.stem for p in (tmp_path / "epochs").iterdir()) == [f"epoch{n:02d}" for n in range(11)]


def test_a_budget_ends_in_time_says_what_is_left_and_is_continued(trained, tmp_path):
    out = tmp_path / "r8.h5"
    command = ("analyze", trained, "--samples", 64, "--rays", 0, "--steps", 4, "--out", out, "--budget")
    first = invoke(*command, "1s")
    assert first.returncode == 0, first.stderr
    assert " points are left, about " in first.stdout
    assert "the same command with a larger --budget continues" in first.stdout
    before = {name: int(group["done"].sum()) for name, group in ls.load(out).items() if "done" in group}
    assert before["test"] == 1
    assert 0 < before["surface"] < 51 * 51
    assert invoke(*command, "1s").returncode == 0
    assert int(ls.load(out)["surface"]["done"].sum()) > before["surface"]
