"""Ctrl-C and SIGTERM in real processes, at whatever moment: stored, said in one line, handlers as they were."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from bounded import carried_out, ended
from bounded import started as forked
from helpers import ROOT

import landscape as ls
from landscape.runtime.interrupts import Interrupted, deferred, noted, stop_if_interrupted

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
WORK = ("spectrum", "--batches", 8, "--top", 2, "--samples", 32, "--batch-size", 4, "--lockstep", 1, "--quiet")
SLOW = """import time
from landscape.analyses.spectrum import Spectrum
from landscape.cli import start
from landscape.store import units

units.SAVE_EVERY = 0.0
together = Spectrum.compute_together
Spectrum.compute_together = lambda *given: (time.sleep(0.2), together(*given))[1]
start()
"""


def started(*arguments, launcher=("-m", "landscape")):
    return subprocess.Popen(
        [sys.executable, *launcher, *map(str, arguments)], cwd=ROOT, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def test_a_first_ctrl_c_waits_for_the_next_look_and_a_second_does_not():
    before, steps = signal.getsignal(signal.SIGINT), 0
    with pytest.raises(Interrupted), deferred():
        os.kill(os.getpid(), signal.SIGINT)
        steps = 1
        assert noted() == signal.SIGINT
        stop_if_interrupted()
        steps = 2
    assert steps == 1
    with pytest.raises(Interrupted), deferred():
        os.kill(os.getpid(), signal.SIGINT)
        steps = 3
    assert steps == 3, "nobody looked, and it is raised at the end"
    with pytest.raises(KeyboardInterrupt) as second, deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        steps = 4
    assert (steps, second.type) == (3, KeyboardInterrupt)
    assert signal.getsignal(signal.SIGINT) is before
    assert noted() is None
    stop_if_interrupted()


def test_within_one_long_unit_between_two_products(mlp, points):
    """A library call gets KeyboardInterrupt after the product under way, not after the unit."""
    objective = ls.Objective(mlp, points)
    settings = {"k": 20, "tol": 0.0, "max_products": 20_000, "max_basis": 40, "chunk_size": 1}
    ls.hessian_top(objective, **{**settings, "max_products": 50})  # nothing is left to import: there Python is not safe
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    before = signal.getsignal(signal.SIGINT)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ls.hessian_top(objective, **settings)
    assert time.monotonic() - began < 10
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """An uninterrupted run, its checkpoint, and how long it takes."""
    out = tmp_path_factory.mktemp("whole") / "whole.h5"
    carried_out(WORK[0], trained, "--out", out.with_name("first.h5"), *WORK[1:])  # after which the files are at hand
    began = time.monotonic()
    carried_out(WORK[0], trained, "--out", out, *WORK[1:])
    return ls.load(out)["spectrum"], trained, time.monotonic() - began


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_at_any_moment_it_is_stored_and_goes_on_to_the_same(whole, tmp_path, sent):
    spectrum, trained, seconds = whole
    out, said, moments = tmp_path / "a.h5", tmp_path / "said", random.Random(int(sent))
    command = (WORK[0], trained, "--out", out, *WORK[1:])
    for _ in range(4):
        child = forked(command, said)
        time.sleep(moments.uniform(0.1, 0.9) * seconds)
        os.kill(child, sent)
        stopped(ended(child, 20), sent, said.read_text())
        if out.exists():
            ls.load(out)
    carried_out(*command)
    for name, variable in ls.load(out)["spectrum"].variables.items():
        np.testing.assert_array_equal(variable.values, spectrum[name].values)


def test_while_it_starts(whole, tmp_path):
    """Among its imports, which take seconds."""
    process = started(WORK[0], whole[1], "--out", tmp_path / "a.h5", *WORK[1:])
    time.sleep(random.Random(0).uniform(0.5, 2))
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    stopped(process.returncode, signal.SIGTERM, said)


def stopped(code, sent, said):
    assert "Traceback" not in said, said
    assert code in (128 + sent, 0), said
    if code:
        assert "continue with the same command" in said


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    """Where the first cannot be heeded, since a step takes forever."""
    (tmp_path / "slow.py").write_text("import time\n\ndef net(num_classes):\n    print('in', flush=True)\n"
                                      "    while True:\n        time.sleep(0.1)\n")  # fmt: skip
    process = started(
        "train", "--model", f"{tmp_path}/slow.py:net", "--data", "digits", "--out", tmp_path / "w.safetensors"
    )
    assert process.stdout.readline() == "in\n"
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=5)
    assert process.returncode == -signal.SIGINT
    assert "a second signal stops at once" in said
    assert "Traceback" not in said


def test_under_torchrun_every_process_stores_and_one_says_so(whole, tmp_path):
    """Slowed down, so that the signal comes after the first mini-batch and long before the last."""
    spectrum, trained, _ = whole
    out = tmp_path / "a.h5"
    (tmp_path / "slow.py").write_text(SLOW)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", tmp_path / "slow.py")
    process = started(WORK[0], trained, "--out", out, *WORK[1:], launcher=map(str, launcher))
    try:
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and not (out.exists() and ls.load(out).get("spectrum")):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert said.count("landscape: ended by SIGTERM; continue with the same command") == 1, said
    held = ls.load(out)["spectrum"]["done"]
    assert 0 < int(held.sum()) < held.size
    carried_out(WORK[0], trained, "--out", out, *WORK[1:])
    np.testing.assert_array_equal(ls.load(out)["spectrum"]["eigenvalue"].values, spectrum["eigenvalue"].values)
