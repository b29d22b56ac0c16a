"""An analysis in one file and one line of the catalogue has everything that follows from it."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
from helpers import ROOT

from landscape import store

# All that there is to add: the line of the catalogue. The analysis itself is tests/analyses/toy.py.
REGISTERED = """
import sys
sys.path.insert(0, "tests/analyses")
from landscape.catalogue import register
register("weights", "toy:Weights")
"""
MAIN = f"{REGISTERED}\nfrom landscape.cli.main import main\nmain()"
SLOW = """
import time, toy
computed = toy.Weights.compute
toy.Weights.compute = lambda self, *unit: (time.sleep(0.2), computed(self, *unit))[1]
from landscape.store import units
units.SAVE_EVERY = 0.0
"""


def run(*arguments, script=MAIN):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_it_has_a_command_a_table_a_picture_and_a_line(trained, tmp_path):
    out = tmp_path / "r8.h5"
    assert "The mean square of the weights of each parameter" in run("--help").stdout
    shown = run("weights", "--help").stdout
    assert "--least INT" in shown
    assert "Parameters of fewer dimensions are passed over" in shown
    done = run("weights", trained, "--out", out, "--least", 4)
    assert done.returncode == 0, done.stderr
    assert "weights: least=4; 7 of 7 done; mean square of the weights" in done.stdout
    assert f"wrote {tmp_path / 'r8-weights_mean_square.png'}" in done.stdout
    table = done.stdout.strip().split("\n")[-2:]
    assert table[0].split() == ["network", "parameters", "mean", "square", "of", "the", "weights"]
    refused = run("weights", trained, "--out", out, "--least", 2)
    assert refused.returncode == 2
    assert "least: 4 there, 2 asked" in refused.stderr
    assert run("weights", trained, "--out", out, "--least", 0).stderr == "landscape: least=0 must be 1 or more\n"


def test_killed_and_started_again_it_gives_the_same_and_so_do_two_processes(trained, tmp_path):
    whole, again, shared = tmp_path / "whole.h5", tmp_path / "again.h5", tmp_path / "shared.h5"
    assert run("weights", trained, "--out", whole, "-q").returncode == 0
    slow = [sys.executable, "-c", f"{REGISTERED}{SLOW}{MAIN}", "weights", str(trained), "--out", str(again), "-q"]
    killed = subprocess.Popen(slow, cwd=ROOT)
    while killed.poll() is None and not (again.exists() and begun(again)):
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert 0 < int(store.load(again)["weights"]["done"].sum()) < 8
    assert run("weights", trained, "--out", again, "-q").returncode == 0
    script = tmp_path / "main.py"
    script.write_text(MAIN.replace('"tests/analyses"', f"{str(ROOT / 'tests' / 'analyses')!r}"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
                "--rdzv-endpoint", "localhost:0", str(script)]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([*torchrun, "weights", trained, "--out", shared, "-q"], cwd=ROOT, env=env, check=True, timeout=300)
    expected = store.load(whole)["weights"]["mean_square"].values
    for path in (again, shared):
        np.testing.assert_array_equal(store.load(path)["weights"]["mean_square"].values, expected)


def begun(path):
    groups = store.load(path)
    return "weights" in groups and bool(groups["weights"]["done"].any())


def test_contributing_shows_this_very_analysis():
    source = (ROOT / "tests" / "analyses" / "toy.py").read_text()
    assert f"```python\n{source}```" in (ROOT / "CONTRIBUTING.md").read_text()
