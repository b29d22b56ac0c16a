"""Kill -9 at random moments, over all analyses of the catalogue: is every file readable, and what is resumed the same?

    python benchmarks/kills.py --kills 100

Each analysis is run once whole. Then the same command is started again and again into one file, and killed at a moment
drawn evenly over the time of the whole run, until it has had its share of the kills; where it is finished, a new file
is begun. At last it is let run to its end, and its numbers are compared with those of the whole run, to the bit. Units
are stored as soon as they are computed, so that as many kills as can be fall into a write.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from analyses.test_catalogue import command, same_numbers
from bounded import ended, started

from landscape import store
from landscape.catalogue import CATALOGUE
from landscape.runtime.errors import UserError


def sweep(name: str, checkpoint: Path, folder: Path, kills: int, draw: random.Random) -> dict[str, int]:
    """The kills of one analysis, and what came of them."""
    whole = folder / f"{name}.h5"
    began = time.monotonic()
    assert ended(started(command(name, checkpoint, whole), save_every=0.0)) == 0
    seconds = time.monotonic() - began
    counts = {"kills": 0, "with_results": 0, "unreadable": 0, "resumed": 0, "different": 0}
    while counts["kills"] < kills:
        out = folder / f"{name}-{counts['kills']}.h5"
        while counts["kills"] < kills:
            child = started(command(name, checkpoint, out), save_every=0.0)
            time.sleep(draw.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            if ended(child) == 0:
                break
            counts["kills"] += 1
            try:
                held = store.load(out) if out.exists() else {}
                counts["with_results"] += any(bool(d["done"].any()) for d in held.values() if "done" in d)
            except UserError as e:
                counts["unreadable"] += 1
                print(f"{name}: {e}", file=sys.stderr)
        if ended(started(command(name, checkpoint, out), save_every=0.0)):
            counts["different"] += 1
            continue
        counts["resumed"] += 1
        try:
            same_numbers(whole, out, name)
        except AssertionError as e:
            counts["different"] += 1
            print(f"{name}: {e}", file=sys.stderr)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--analyses", nargs="*", default=sorted(CATALOGUE), help="by default all of the catalogue")
    asked = parser.parse_args()
    draw = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "resnet8.safetensors"
        train = (
            "train",
            "--model",
            "resnet8",
            "--data",
            "digits",
            "--epochs",
            "2",
            "--quiet",
            "--out",
            str(checkpoint),
        )
        assert ended(started(train)) == 0
        import timm  # noqa: F401  (once, for all processes that follow)

        import landscape.study.run  # noqa: F401

        names = asked.analyses
        print(f"{'analysis':<14}{'kills':>7}{'with results':>14}{'unreadable':>12}{'resumed':>9}{'different':>11}")
        total = dict.fromkeys(("kills", "with_results", "unreadable", "resumed", "different"), 0)
        for i, name in enumerate(names):
            share = asked.kills // len(names) + (i < asked.kills % len(names))
            counts = sweep(name, checkpoint, Path(folder), share, draw)
            total = {key: total[key] + counts[key] for key in total}
            print(line(name, counts), flush=True)
        print(line("all", total))


def line(name: str, counts: dict[str, int]) -> str:
    return (
        f"{name:<14}{counts['kills']:>7}{counts['with_results']:>14}{counts['unreadable']:>12}"
        f"{counts['resumed']:>9}{counts['different']:>11}"
    )


if __name__ == "__main__":
    main()
