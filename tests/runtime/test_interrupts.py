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
from helpers import ROOT, cli

import landscape as ls
from landscape.runtime.interrupts import Interrupted, deferred, noted, stop_if_interrupted

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
WORK = ("spectrum", "--batches", 24, "--top", 2, "--samples", 96, "--batch-size", 4, "--quiet")


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
    began = time.monotonic()
    cli(WORK[0], trained, "--out", out, *WORK[1:]).check_returncode()
    return ls.load(out)["spectrum"], trained, time.monotonic() - began


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_at_any_moment_it_is_stored_and_goes_on_to_the_same(whole, tmp_path, sent):
    spectrum, trained, seconds = whole
    out, moments = tmp_path / "a.h5", random.Random(int(sent))
    for _ in range(3):
        process = started(WORK[0], trained, "--out", out, *WORK[1:])
        time.sleep(moments.uniform(0.1, 0.9) * seconds)
        process.send_signal(sent)
        began = time.monotonic()
        _, said = process.communicate(timeout=60)
        assert time.monotonic() - began < 20
        assert "Traceback" not in said, said
        assert process.returncode in (128 + sent, 0), said
        if process.returncode:
            assert "continue with the same command" in said
        if out.exists():
            ls.load(out)
    cli(WORK[0], trained, "--out", out, *WORK[1:]).check_returncode()
    for name, variable in ls.load(out)["spectrum"].variables.items():
        np.testing.assert_array_equal(variable.values, spectrum[name].values)


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
    assert "ends at once" in said
    assert "Traceback" not in said


def test_under_torchrun_every_process_stores_and_one_says_so(whole, tmp_path):
    spectrum, trained, _ = whole
    out = tmp_path / "a.h5"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "landscape")
    process = started(WORK[0], trained, "--out", out, *WORK[1:], launcher=launcher)
    try:
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and not out.exists():
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if "ended by SIGTERM" not in said and ls.load(out)["spectrum"]["done"].all():
        pytest.skip("the run was done before the signal came")
    assert said.count("landscape: ended by SIGTERM; continue with the same command") == 1, said
    held = ls.load(out)["spectrum"]["done"]
    assert 0 < int(held.sum()) < held.size
    cli(WORK[0], trained, "--out", out, *WORK[1:]).check_returncode()
    np.testing.assert_array_equal(ls.load(out)["spectrum"]["eigenvalue"].values, spectrum["eigenvalue"].values)
