"""Two real processes under torchrun, one thread each, beside one process of one thread."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import landscape as ls

SCRIPT = """
import json, os, sys, time
import torch
import landscape as ls
from landscape.runtime import processes
from landscape.study.run import into

torch.set_num_threads(1)
processes.start()
out, points, attempts = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with open(attempts, "a") as f:
    f.write(f"{os.getpid()} {processes.rank()}\\n")
torch.manual_seed(0)
model = ls.create_model("resnet8", 10, 8, 1)
x, y = torch.randn(256, 1, 8, 8), torch.randint(0, 10, (256,))
objective = ls.Objective(model, list(zip(x.split(128), y.split(128))), weight_decay=0.1)
plane = ls.random_plane(model)
# What is imported when it is first needed is not work that could be shared.
ls.evaluate_surface(objective, plane, points=1, rays=2)
ls.hessian_spectrum(objective, k=1, batch_size=16, batches=1, max_products=2)
began = time.process_time()
into(out, "surface", lambda stored, save: ls.evaluate_surface(
    objective, plane, points=points, adaptive=0.001, partial=stored, save=save, save_every=0.2))
if len(sys.argv) > 4:
    into(out, "spectrum", lambda stored, save: ls.hessian_spectrum(
        objective, k=3, batch_size=16, partial=stored, save=save, save_every=0.2))
spent = processes.gathered(time.process_time() - began)
if processes.rank() == 0:
    print(json.dumps(spent))
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def command(script, out, *arguments, ranks=1, restarts=0):
    alone = [str(script), str(out), *map(str, arguments)]
    if ranks == 1:
        return [sys.executable, *alone]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return [*torchrun, f"--max-restarts={restarts}", *alone]


def run(*arguments, **options):
    result = subprocess.run(
        command(*arguments, **options),
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.strip().split("\n")[-1])


def test_two_ranks_give_the_same_file_for_half_the_work_each(script, tmp_path):
    """Work is processor time, which a busy machine stretches too, if less than time: the best of three tries."""
    for attempt in range(3):
        outs = [tmp_path / f"{ranks}-{attempt}.h5" for ranks in (1, 2)]
        (alone,) = run(script, outs[0], 41, tmp_path / "one", "spectrum")
        shares = run(script, outs[1], 41, tmp_path / "two", "spectrum", ranks=2)
        assert outs[1].read_bytes() == outs[0].read_bytes()
        if max(shares) <= 0.65 * alone:
            return
    raise AssertionError(f"processor seconds {shares} against {alone}")


def test_a_killed_rank_is_started_again_and_the_file_is_the_same(script, tmp_path):
    run(script, tmp_path / "whole.h5", 31, tmp_path / "whole")
    out, attempts = tmp_path / "killed.h5", tmp_path / "attempts"
    process = subprocess.Popen(
        command(script, out, 31, attempts, ranks=2, restarts=1),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        done = _wait_for_some(out)
        victim = next(int(line.split()[0]) for line in attempts.read_text().splitlines() if line.endswith(" 1"))
        os.kill(victim, signal.SIGKILL)
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert done > 0
    assert len(attempts.read_text().splitlines()) == 4  # two ranks, twice
    assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def _wait_for_some(out: Path) -> int:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if out.exists():
            surface = ls.load(out).get("surface")
            if surface is not None and 0 < int(surface["done"].sum()) < surface["done"].size:
                return int(surface["done"].sum())
        time.sleep(0.05)
    raise AssertionError("nothing was stored in two minutes")


def test_on_one_process_nothing_happens():
    from landscape.runtime import processes

    processes.start()
    assert not torch.distributed.is_initialized()
    assert (processes.rank(), processes.size(), processes.local_rank()) == (0, 1, 0)
    assert processes.gathered("mine") == ["mine"]
    assert processes.from_first("mine") == "mine"
