"""Two real processes that make products together, beside one alone."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json
import torch
import landscape as ls
from landscape.curvature.spread import Spread, by_all
from landscape.runtime import processes

torch.set_num_threads(1)
processes.start()
torch.manual_seed(0)
model = ls.create_model("resnet8", 10, 8, 1)
x, y = torch.randn(64, 1, 8, 8), torch.randint(0, 10, (64,))
objective = ls.Objective(model, [(x[:20], y[:20]), (x[20:], y[20:])], weight_decay=0.1, dtype=torch.float64)
v = torch.linspace(-1, 1, 75002, dtype=torch.float64)
found = {}
found["product"] = by_all(lambda H: (H(torch.stack([v, v**2])).tolist(), H.products), objective, kind="ggn")
found["gradient"] = by_all(lambda H: H.gradient().norm().item(), objective)
found["top"] = ls.hessian_top(objective, k=10, seed=3)["eigenvalue"].values.tolist()
found["part"] = ls.hessian_top(objective, k=2, seed=3, per="stage")["eigenvalue"].values.tolist()
part = ls.hessian_top(objective, k=2, budget=0.0)
found["stopped"] = bool(part["done"]), int(part["products"])
plane = ls.eigenvector_plane(objective, ls.Search(k=2, which="BE", tol=1e-3))
found["plane"] = plane.config["eigenvalues"], sum(float(d.abs().sum()) for d in plane.directions[0].values())
density = ls.spectral_density(objective, probes=2, steps=6)
found["density"] = density["node"].values.tolist()
one = ls.spectral_density(objective, probes=1, steps=6)  # fewer probes than processes
found["one probe"] = one["node"].values.tolist(), one["trace_without_fold"].values.tolist()
trace = ls.hessian_trace(objective, products=12)
found["trace"] = [trace[name].values.tolist() for name in ("trace", "frobenius_squared", "trace_without_fold")]
try:
    by_all(lambda H: H(v) if H is None else 1 / 0, objective)
except ZeroDivisionError as e:
    found["raised"] = str(e)
if processes.size() > 1:
    found["examples"] = sum(len(y) for _, y in Spread(objective, kind="hessian", parameters=None, chunk_size=7)._chunks)
everyone = processes.gathered(found)
if processes.rank() == 0:
    print(json.dumps(everyone))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    script = tmp_path_factory.mktemp("spread") / "script.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    one, two = (
        subprocess.run([*command, script], capture_output=True, text=True, timeout=300, env=env)
        for command in ([sys.executable], torchrun)
    )
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    (alone,), together = (json.loads(done.stdout.strip().splitlines()[-1]) for done in (one, two))
    return alone, together


def test_two_processes_differentiate_a_share_each(found):
    _, together = found
    shares = [each["examples"] for each in together]
    assert sum(shares) == 64
    assert max(shares) < 40


@pytest.mark.parametrize("what", ["product", "gradient", "top", "part", "plane", "density", "one probe", "trace"])
def test_together_they_find_what_one_finds(found, what):
    alone, (first, second) = found
    assert first[what] == second[what]
    assert flat(first[what]) == pytest.approx(flat(alone[what]), rel=1e-7, abs=1e-9)


def test_they_stop_and_fail_together(found):
    alone, together = found
    for each in (alone, *together):
        assert each["stopped"] == [False, 1]
        assert each["raised"] == "division by zero"


def flat(nest):
    return [number for entry in nest for number in flat(entry)] if isinstance(nest, list) else [nest]
