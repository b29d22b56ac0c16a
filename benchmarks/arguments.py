"""Every option of every command with values that nothing can be meant by: does each end in success or in one line?

    python benchmarks/arguments.py

asks for huge, negative, tiny and no numbers, empty and very long words, within 30 s of the processor and 4 GB each, of
a tiny network. In an order drawn by --seed, so that a part (--skip, --tries) is a sample of all.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from bounded import Ended
from cli.test_arguments import ALL, command, prepared, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=len(ALL))
    parser.add_argument("--skip", type=int, default=0, help="so many of that order")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="those that have this word alone, such as fourier or --data")
    asked = parser.parse_args()
    chosen = [case for case in ALL if not asked.only or asked.only in (case[0], *case[1])]
    random.Random(asked.seed).shuffle(chosen)
    ended: list[tuple[Ended, str]] = []
    kinds: Counter[str] = Counter()
    said = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        prepared(folder)
        for i, case in enumerate(chosen[asked.skip :][: asked.tries], 1):
            why = wrong(*case, note=lambda e: ended.append((e, " ".join(map(str, command(*case))))))  # noqa: B023
            if why:
                kinds[why.strip().rpartition("\n")[2][:120]] += 1
                print(f"{case}\n{why}\n", flush=True)
            if time.monotonic() - said > 60:
                said = time.monotonic()
                print(f"{i} of {len(chosen)}: {sum(kinds.values())} wrong", file=sys.stderr, flush=True)
        slowest, largest = (max(ended, key=key) for key in (lambda e: e[0].seconds, lambda e: e[0].bytes))
        print(f"{len(ended)} of {len(ALL)} tried: {sum(kinds.values())} wrong")
        print(f"at most {slowest[0].seconds:.1f} s: {slowest[1][:200]}")
        print(f"at most {largest[0].bytes / (1 << 30):.2f} GB: {largest[1][:200]}")


if __name__ == "__main__":
    main()
