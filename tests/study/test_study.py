"""Studies: mistakes are named before anything is trained, cells run anywhere, and a killed study gives its page."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import CIFAR10, ROOT, invoke, needs_shared, refused

import landscape as ls
from landscape.cli.main import status
from landscape.runtime.errors import UserError
from landscape.study.cells import Places, crossing
from landscape.study.outcome import found
from landscape.study.times import refuse_impossible
from landscape.study.toml import read_study

TINY = """
title = "Tiny"
data = "digits"
seeds = [0, 1]
[networks]
small = "vit_xs(depth=1, embed_dim=8, num_heads=2)"
other = "vit_xs(depth=1, embed_dim=8, num_heads=1)"
[recipes.plain]
epochs = 2
warmup_epochs = 0
batch_size = 256
[groups]
same = {network = "other", share = 1.0}
[moments]
losses = [2.2]
[subject]
samples = 32
[analyses]
test = {}
series = {batch_size = 4, batches = 8, k = 2}
[[claim]]
name = "accuracy"
statement = "The other is more accurate"
estimate = "test accuracy"
second = "other"
first = "small"
side = "above"
reference = "made up: <b>2 %</b>"
[[claim]]
name = "chance"
statement = "The small one is better than chance"
estimate = "test accuracy"
second = "small"
than = 0.1
side = "above"
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def in_a_process(*arguments):
    """A child of its own, without the time to import all again."""
    process = multiprocessing.get_context("fork").Process(target=lambda: os._exit(status(list(map(str, arguments)))))
    process.start()
    return process


def test_killed_at_random_moments_it_gives_the_same_page(tiny, tmp_path):
    before, chance = TINY.partition("[[claim]]")[0], TINY.rpartition("[[claim]]")[2]
    one = before.replace("seeds = [0, 1]", "seeds = [0]").replace('network = "other"', 'network = "small"')
    one = "\n".join(line for line in one.split("\n") if not line.startswith("other"))
    one += f"[[claim]]{chance}reference = 'made up: <b>2 %</b>'\n"
    tiny.write_text(one)
    command = ("study", tiny, "--quiet", "--device", "cpu", "--out")
    began = time.monotonic()
    whole = invoke(*command, "whole")  # here, which also imports for the children whatever they need
    took = time.monotonic() - began
    assert whole.returncode == 0, whole.stderr
    random.seed(0)
    for _ in range(3):
        killed = in_a_process(*command, "killed")
        time.sleep(random.uniform(0.1, 0.4) * took)
        os.kill(killed.pid, signal.SIGKILL)
        killed.join()
    last = in_a_process(*command, "killed")
    last.join()
    assert last.exitcode == 0
    page, other = ((tmp_path / folder / "page.html").read_text() for folder in ("whole", "killed"))
    assert page.replace("whole/", "killed/") == other
    for name in ("table.csv", "verdicts.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    assert "&lt;b&gt;2 %&lt;/b&gt;" in page, "the reference's number stands beside ours, escaped"
    judged = pd.read_csv("whole/verdicts.csv")
    assert judged[["claim", "verdict"]].values.tolist() == [["chance", "undecided"]], "of one training"
    assert pd.read_csv("whole/table.csv")["training"].unique().tolist() == ["small-plain-1-0"]
    file = ls.load("whole/results/small-plain-1-0.h5")
    assert file["series"]["checkpoint"].values[-1] == "epoch 2", "the end is looked at in any case"
    tiny.write_text(one.replace("batches = 8", "batches = 7"))
    refused(invoke("study", tiny, "--out", "whole"), "another study", "analyses.series.batches: 8 there, 7 asked")
    tiny.write_text(one.replace("seeds = [0]", "seeds = [0, 1]"))
    shown = invoke("study", tiny, "--out", "whole", "--dry-run")
    assert shown.stdout.count("finished") == 1, "another seed makes no other study"
    assert "2 trainings, about" in shown.stdout


def test_cells_run_in_processes_of_their_own_and_on_a_cluster(tiny):
    """The moments are epochs: those that are asked for are looked at, and the end. Two processes that share a cell give
    the numbers of one on a cluster.
    """
    pytest.importorskip("submitit")
    tiny.write_text(TINY.replace("losses = [2.2]", "epochs = [1]"))
    common = ("study", tiny, "--device", "cpu", "--quiet", "--jobs", 2, "--out")
    made = []
    for folder, how in (("two", ("--processes", 2)), ("one", ("--cluster", "local"))):
        done = invoke(*common, folder, "--cell", "small-plain-1-0", *how)
        assert done.returncode == 0, done.stderr
        file = ls.load(f"{folder}/results/small-plain-1-0.h5")
        assert {"test", "series"} <= set(file)
        assert file["series"]["checkpoint"].values.tolist() == ["epoch 1", "epoch 2"]
        assert [p.name for p in Path(f"{folder}/weights/small-plain-1-0").iterdir()] == ["epoch1.safetensors"]
        made.append(file["series"])
    for name in ("nll", "eigenvalue"):
        np.testing.assert_allclose(made[0][name], made[1][name], rtol=1e-3)
    told = (word for word in common if word != "--quiet")
    spent = invoke(*told, "one", "--cell", "small-plain-1-1", "--budget", "0s")
    assert spent.returncode == 0, spent.stderr
    assert "1 cell is not finished (small-plain-1-1); the same command continues" in spent.stdout
    refused(invoke(*common, "one", "--cell", "smal-plain-1-0"), "did you mean small-plain-1-0")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('network = "other"', 'network = "othr"', ("groups.same", "did you mean other")),
        ('small = "vit_xs(', 'small = "vit_xss(', ("networks.small", "did you mean vit_xs")),
        ("depth=1, embed_dim=8, num_heads=2", "depht=1", ("networks.small", "depht")),
        ("series =", "serie =", ("analyses.serie", "did you mean series")),
        ("k = 2", "kk = 2", ("analyses.series", "'kk'")),
        ("batches = 8", "batches = 0", ("analyses.series", "batches=0")),
        ("epochs = 2", "epoch = 2", ("recipes.plain", "did you mean epochs")),
        ("seeds = [0, 1]", "seed = [0, 1]", ("'seed'", "did you mean seeds")),
        ("losses = [2.2]", "epochs = [5]", ("moments.epochs 5", "recipes.plain")),
        ('first = "small"', 'first = "smal"', ("claim accuracy", "did you mean small")),
        ("samples = 32", "sample = 32", ("subject", "did you mean samples")),
        ("[[claim]]\nname = \"chance\"", "[[claim]]\nnam = \"chance\"", ("claim", "name")),
        ("title", 'claims = {park-kim = ["flatnes"]}\ntitle', ("claims.park-kim", "did you mean flatness")),
        ("title", 'claims = "park-kin"\ntitle', ("park-kin", "did you mean park-kim")),
        ('data = "digits"', 'data = "digit"', ("did you mean digits",)),
        ("seeds", "seeds]", ("cannot be read as TOML",)),
    ],
)  # fmt: skip
def test_a_strangers_mistake_is_one_line_before_anything_is_trained(tiny, tmp_path, old, new, words):
    tiny.write_text(TINY.replace(old, new, 1))
    refused(invoke("study", tiny, "--out", "out"), *words)
    assert not (tmp_path / "out").exists()


def test_an_estimate_that_is_none_is_named_after_the_first_training(tiny, tmp_path):
    tiny.write_text(TINY.replace('estimate = "test accuracy"', 'estimate = "test acuracy"', 1))
    result = invoke("study", tiny, "--out", "out", "--quiet", "--device", "cpu")
    refused(result, "claim accuracy", "did you mean test accuracy")
    assert len(list((tmp_path / "out" / "results").glob("*.h5"))) == 1


def test_losses_are_crossed_between_two_checkpoints():
    nll = np.array([2.3, 1.5, 1.6, 0.9, 1.1, 0.4])
    assert crossing(nll, [1.0]) == [2, 3, 5]
    assert crossing(nll, [1.55, 0.5]) == [0, 1, 4, 5]
    assert crossing(nll, [3.0]) == [5], "it begins below"
    assert crossing(nll, [0.1]) == [5], "it is never reached"


def test_studies_that_come_with_the_toolkit():
    digits = read_study("digits")
    assert len(digits.cells()) == 8
    assert len({cell.name for cell in digits.cells()}) == 8
    refuse_impossible(digits)
    for name in ("cifar10-desk", "park-kim"):
        study = read_study(name)
        about = [claim for claim in study.claims if set(claim.groups) <= set(study.all_groups)]
        assert len(study.seeds) >= 3
        assert len(about) > 15
    with pytest.raises(UserError, match="did you mean digits"):
        read_study("digit")


def test_the_stored_study_gives_its_verdicts_again():
    folder = ROOT / "results" / "digits"
    has = found(read_study("digits"), Places(folder))
    assert len(has.files) == 8
    again = has.judged.to_dataframe()
    stored = pd.read_csv(folder / "verdicts.csv")
    assert stored[["claim", "verdict"]].values.tolist() == again[["claim", "verdict"]].values.tolist()
    np.testing.assert_allclose(stored[["effect", "low", "high", "p"]], again[["effect", "low", "high", "p"]], rtol=1e-9)


@needs_shared
@pytest.mark.parametrize("name", ["cifar10-desk", "park-kim"])
def test_the_larger_ones_can_be_made(name):
    study = read_study(name, data=f"hfds/{CIFAR10}")
    refuse_impossible(study)
    sizes = {cell.recipe.epochs for cell in study.cells() if cell.network == "vit"}
    assert sizes == ({24, 240} if name == "cifar10-desk" else {300})
