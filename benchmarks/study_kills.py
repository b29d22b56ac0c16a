"""Kill -9 a study at three random moments and start it again each time: is its page the same, byte for byte?

    python benchmarks/study_kills.py digits
    python benchmarks/study_kills.py digits --whole FOLDER --seconds 300    # a study that was carried out before

The study is carried out once whole, in a folder of its own, which tells how long it takes; then in another one, where
it is killed at moments that are drawn evenly over that time. Page, table and verdicts are compared in the end. Both run
in as many threads as OMP_NUM_THREADS says, or in one. Of digits, killed after 294, 531 and 591 s, all are the same.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from landscape.study.toml import source_of

WRITTEN = ("page.html", "table.csv", "verdicts.csv")


def begun(study: str, folder: Path) -> subprocess.Popen[bytes]:
    """The study in a process of its own, whose files go to the folder; its parent is where the process works."""
    command = [sys.executable, "-m", "landscape", "study", study, "--out", folder.name, "--device", "cpu", "--quiet"]
    return subprocess.Popen(command, cwd=folder.parent, env={"OMP_NUM_THREADS": "1", **os.environ})


def killed(study: str, folder: Path, moments: list[float]) -> None:
    """The study, killed at these moments, in seconds of its running, and let run to its end."""
    before = 0.0
    for moment in sorted(moments):
        process = begun(study, folder)
        time.sleep(moment - before)
        process.kill()
        ended = process.wait() == 0
        there = len(list((folder / "results").glob("*.h5")))
        more = ", when it had ended" if ended else ""
        print(f"killed after {moment:.0f} s{more}: results files of {there} trainings", flush=True)
        before = moment
    if begun(study, folder).wait():
        raise SystemExit("the last start failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="the name of a study that comes with the toolkit, or a .toml file")
    parser.add_argument("--whole", type=Path, help="the folder of a study that has ended: --out, from where it began")
    parser.add_argument("--seconds", type=float, help="how long that took")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    study = str(source_of(asked.study).resolve()) if Path(asked.study).suffix else asked.study
    draw = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole = asked.whole or Path(scratch) / "whole" / "study"
        other = Path(scratch) / "killed" / whole.name
        other.parent.mkdir()
        seconds = asked.seconds
        if asked.whole is None:
            whole.parent.mkdir()
            began = time.monotonic()
            if begun(study, whole).wait():
                raise SystemExit("the study failed")
            seconds = time.monotonic() - began
            print(f"whole: {seconds:.0f} s", flush=True)
        elif seconds is None:
            parser.error("--whole needs --seconds")
        killed(study, other, [draw.uniform(0, seconds) for _ in range(asked.kills)])
        same = {name: (whole / name).read_bytes() == (other / name).read_bytes() for name in WRITTEN}
    print(", ".join(f"{name}: {'the same' if yes else 'DIFFERENT'}" for name, yes in same.items()))
    sys.exit(not all(same.values()))


if __name__ == "__main__":
    main()
