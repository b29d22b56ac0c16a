"""A command for each analysis of the catalogue, made when it is needed: `landscape.cli.analyses.spectrum`, ..."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import xarray as xr
from cyclopts import Parameter

from landscape.analyses.base import Analysis
from landscape.catalogue import CATALOGUE, entry_of
from landscape.cli.options import RunSettings, default_of, options_of, settled
from landscape.runtime.visible import say
from landscape.study.subject import SubjectSettings

CHECKPOINT = Annotated[Path, Parameter(help="Weights: .safetensors, a torch file (.pt, .pth, ...) or a folder.")]
CHECKPOINTS = Annotated[Path, Parameter(help="Weights, or a folder of them, ordered by the numbers in their names.")]


def __getattr__(name: str) -> Callable[..., None]:
    if name not in CATALOGUE:
        raise AttributeError(name)
    return command(name)


def command(name: str) -> Callable[..., None]:
    """The command of an analysis: its own settings, those of the subject, and those of a run."""
    cls = CATALOGUE[name].settings
    known = {f.name for f in fields(SubjectSettings)}
    shared = tuple(f.name for f in fields(cls) if f.name in known and f.name != "seed")  # then the analysis's own
    own_seed = any(f.name == "seed" for f in fields(cls))

    def carry_out(checkpoints: Sequence[Path], own: Any, run: Any, subject: Any) -> None:
        settings = settled(SubjectSettings, subject)
        analysis = settled(cls, own, **({"seed": settings.seed} if own_seed else {}))
        report([analysis], list(checkpoints), settings, settled(RunSettings, run))

    def of_one(checkpoint: Path, *, own: Any, run: Any, subject: Any) -> None:
        carry_out([checkpoint], own, run, subject)

    def of_several(*checkpoints: Path, own: Any, run: Any, subject: Any) -> None:
        carry_out(checkpoints, own, run, subject)

    made: Any = of_several if cls.several else of_one
    made.__name__, made.__doc__ = name, _in_paragraphs((cls.__doc__ or "").split("\n    Parameters\n")[0])
    made.__annotations__ = {
        **({"checkpoints": CHECKPOINTS} if cls.several else {"checkpoint": CHECKPOINT}),
        "own": options_of(cls, without=("seed",)),
        "run": options_of(RunSettings),
        "subject": options_of(SubjectSettings, without=shared),
        "return": None,
    }
    made.__kwdefaults__ = {option: default_of(made, option) for option in ("own", "subject")}
    return made


def _in_paragraphs(docstring: str) -> str:
    """A docstring without breaks within a paragraph: a terminal makes its own."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in docstring.split("\n\n"))


def _left(name: str, group: xr.Dataset, seconds: float) -> str:
    """How much of a group is left to compute, and how long that takes at the pace so far."""
    entry = entry_of(group, name)
    done, left = int(group["done"].sum()), int((~group["done"]).sum())
    unit = entry.settings.unit if entry is not None else "unit"
    more = f", about {left * seconds / done / 60:.2g} minutes" if done else ""
    return f"{name}: {counted(left, unit)} left{more}; the same command with a larger --budget continues"


def counted(count: int, unit: str) -> str:
    """A count with its verb, such as "1 part is", "2 mini-batches are" or "3 kinds of evidence are"."""
    first, *rest = unit.split(" ")
    ending = "" if count == 1 else "es" if first.endswith(("ch", "s")) else "s"
    return f"{count} {' '.join([first + ending, *rest])} {'is' if count == 1 else 'are'}"


def report(analyses: Sequence[Analysis], checkpoints: list[Path], settings: SubjectSettings, run: RunSettings) -> None:
    """Run analyses one after another, print what was found, draw it, and print what was written."""
    from landscape.data.sources import MissingSplit
    from landscape.runtime import processes
    from landscape.study.drawing import draw_file
    from landscape.study.files import by_name, in_order
    from landscape.study.reading import load
    from landscape.study.run import run as carry_out
    from landscape.study.run import run_several
    from landscape.study.subject import Subject
    from landscape.study.words import describe, table

    processes.start()
    shown = not run.quiet and processes.rank() == 0
    level = logging.INFO if shown else logging.WARNING
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=level, force=True)
    several = any(analysis.several for analysis in analyses)
    named = by_name(in_order(checkpoints)) if several else {path.stem: path for path in checkpoints}
    subjects = {label: Subject(path, settings, progress=shown) for label, path in named.items()}
    ends = None if run.seconds is None else time.monotonic() + run.seconds
    groups, paces = [], {}
    for i, analysis in enumerate(analyses):
        began = time.monotonic()
        share = None if ends is None else max(ends - time.monotonic(), 0.0) / (len(analyses) - i)
        how: dict[str, Any] = {"budget": share, "progress": shown, "overwrite": run.overwrite}
        try:
            if analysis.several:
                found = run_several(subjects, analysis, run.out, **how)
            else:
                (subject,) = subjects.values()
                found = carry_out(subject, analysis, run.out, **how)
        except MissingSplit:
            if len(analyses) == 1:
                raise
            if shown:
                say(f"no test split found: {analysis.name} is left out")
            continue
        groups.append(found.group)
        paces[found.group] = time.monotonic() - began
    if not shown:
        return
    held = load(run.out)
    for name in groups:
        say(describe(name, held[name]))
        if not held[name].get("done", xr.DataArray(True)).all():
            say(_left(name, held[name], paces[name]))
    say(f"wrote {run.out}")
    for picture in draw_file(run.out):
        say(f"wrote {picture}")
    say(table({run.out.stem: held}))
