"""Time of whole-data searches by one process and by two, each process with one thread.

    python benchmarks/processes.py --processes 2

A ResNet-20 on random images, in float32. The same script runs alone and under torchrun, in turn, several times; printed
are the ratio of the least times, and how far the numbers of the two are apart.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path


def work(examples: int) -> None:
    """Search in this process, and print times and numbers as JSON in the first one."""
    import torch

    import landscape as ls
    from landscape.runtime import processes

    torch.set_num_threads(1)
    processes.start()
    torch.manual_seed(0)
    model = ls.create_model("resnet20", 10, 32, 3).eval()
    x, y = torch.randn(examples, 3, 32, 32), torch.randint(0, 10, (examples,))
    objective = ls.Objective(model, [(x[i : i + 32], y[i : i + 32]) for i in range(0, examples, 32)])
    asked = {
        "top": lambda: ls.hessian_top(objective, k=10, max_products=24)["eigenvalue"].values,
        "density": lambda: ls.spectral_density(objective, probes=1, steps=16)["node"].values,
        "trace": lambda: [float(ls.hessian_trace(objective, products=15)["trace"])],
    }
    found = {}
    for name, search in asked.items():
        processes.gathered(None)
        start = time.perf_counter()
        values = search()
        found[name] = {"seconds": time.perf_counter() - start, "values": [float(v) for v in _flat(values)]}
    if processes.rank() == 0:
        print(json.dumps(found))


def _flat(values):
    return values.ravel() if hasattr(values, "ravel") else values


def main() -> None:
    """Print, for each search, the least seconds of one process and of several, their ratio, and the difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--examples", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--work", action="store_true", help="what the processes themselves are given")
    asked = parser.parse_args()
    if asked.work:
        return work(asked.examples)
    here, env = str(Path(__file__)), {**os.environ, "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={asked.processes}"]
    each: dict[int, list] = {1: [], asked.processes: []}
    for _ in range(asked.repeats):
        for count, launcher in ((1, []), (asked.processes, torchrun)):
            command = [sys.executable, *launcher, here, "--work", f"--examples={asked.examples}"]
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
            each[count].append(json.loads(done.stdout.strip().splitlines()[-1]))
    for name, first in each[1][0].items():
        alone, together = (min(run[name]["seconds"] for run in runs) for runs in each.values())
        apart = max(
            abs(a - b) / max(map(abs, first["values"]))
            for a, b in zip(first["values"], each[asked.processes][0][name]["values"], strict=True)
        )
        print(f"{name}: {alone:.1f} s alone, {together:.1f} s by {asked.processes}, ratio {together / alone:.2f}, "
              f"apart {apart:.1e}")  # fmt: skip


if __name__ == "__main__":
    main()
