"""Whatever is asked for on the command line ends well, or in one line: every option of every command.

A few values of options, the same each time; `python benchmarks/arguments.py` asks for all of them.
"""

import os
import random
import shutil
import warnings
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest
from bounded import wrong_end
from helpers import invoke

import landscape as ls
from landscape.analyses.spectrum import Spectrum
from landscape.analyses.top import Top
from landscape.catalogue import CATALOGUE
from landscape.cli.compare import Comparing
from landscape.cli.inspect import Features
from landscape.cli.options import RunSettings, option
from landscape.cli.report import Reporting
from landscape.cli.studies import Quickstart, Whole
from landscape.cli.study import Conducting
from landscape.cli.training import Training
from landscape.pictures.look import Look
from landscape.runtime.errors import UserError
from landscape.runtime.memory import free_memory, in_words, refuse_beyond_memory
from landscape.study.conduct import Spreading
from landscape.study.subject import SubjectSettings
from landscape.training.recipe import Recipe

NUMBERS = ["-1", "0", "1", "1000000000", "1" + 30 * "0", "-9223372036854775809", "18446744073709551616", "nan", "inf",
           "-inf", "1e-308", "1e308", "", "1,nan", "0,0", ",", "0x10", "1.5"]  # fmt: skip
WORDS = ["", " ", "x" * 300, "x" * 5000, "../" * 200, "a\nb", "$$", "\x1b[31m", "-", "*", "none", "{}", "ü" * 200]
FEW = {
    "surface": ("--points", 3, "--rays", 0, "--samples", 32),
    "spectrum": ("--batches", 2, "--top", 1, "--samples", 32),
    "top": ("--top", 1, "--samples", 32),
    "density": ("--probes", 2, "--steps", 3, "--density-samples", 32),
    "trace": ("--products", 16, "--samples", 32),
    "series": ("--batches", 2, "--top", 1, "--samples", 32),
    "sharpness": ("--batches", 1, "--batch-size", 8, "--radii", 2, "--steps", 1, "--directions", 1, "--samples", 32),
    "trajectory": ("--max-products", 2, "--samples", 16),
    "dynamics": ("--images", 16, "--what", "variance"),
    "connectivity": ("--points", 3, "--steps", 2, "--samples", 32),
    **{name: ("--images", 32) for name in ("fourier", "variance", "similarity", "lesion", "robustness", "placement")},
    "inspect": ("--images", 32, "--samples", 32),
    "analyze": ("--points", 3, "--rays", 0, "--samples", 32, "--batches", 2, "--top", 1, "--probes", 2, "--steps", 3,
                "--density-samples", 32),
}  # fmt: skip
OF_FILES = {  # commands on what is there already, and those of several analyses, with their settings
    "compare": ("r.h5", "s.h5", "--out", "c.csv"), "report": ("r.h5", "--quiet", "--out", "p.html"),
    "export": ("r.h5", "--quiet", "--numbers", "--out", "n.csv"), "show": ("r.h5",),
    "study": ("tiny.toml", "--budget", "0s", "--quiet", "--out", "study"),
}  # fmt: skip
SETTINGS = {
    "compare": (Comparing,), "report": (Reporting,), "study": (Conducting, Spreading),
    "inspect": (Features, SubjectSettings, RunSettings), "analyze": (Whole, SubjectSettings, RunSettings),
}  # fmt: skip
OWN = {
    "plot": ("--out", "--picture"), "import": ("--out",), "report": ("--out",), "show": ("--config",),
    "export": ("--out", "--group", "--over", "--quantity"),
}  # fmt: skip
TINY = """title = "Tiny"
data = "digits"
networks.one = {model = "resnet8(widths=(4, 4, 4))"}
recipes.plain = {epochs = 1, warmup_epochs = 0, batch_size = 256}
shares = [0.1]
subject.samples = 32
analyses.test = {}
"""


def asked_for(cls, skipped=()):
    """(option, value) of all fields."""
    hints = get_type_hints(cls)
    for f in fields(cls):
        if f.init and f.name not in skipped and hints[f.name] is not bool:
            numeric = any(part in str(hints[f.name]) for part in ("int", "float", "timedelta"))
            for value in NUMBERS + WORDS[:3] if numeric else WORDS + NUMBERS[:3]:
                yield option(f.name), value


def cases():
    for name, entry in CATALOGUE.items():
        for asked in (*asked_for(entry.settings), *asked_for(SubjectSettings), *asked_for(RunSettings)):
            yield name, asked
    for asked in (*asked_for(Recipe), *asked_for(Training)):
        yield "train", asked
    for asked in asked_for(Look):
        yield "plot", asked
    for asked in asked_for(Quickstart, skipped=("out",)):
        yield "quickstart", asked
    for asked in (("--weight-decay", n) for n in NUMBERS):
        yield "import", asked
    for name in ("show", "plot", "export", "import", "analyze", "train", "nonsense", *CATALOGUE):
        for word in WORDS:
            yield name, (word,)
    for name, classes in SETTINGS.items():
        yield from ((name, asked) for cls in classes for asked in asked_for(cls))
        yield from ((name, (word,)) for word in WORDS)
    for name, options in OWN.items():
        yield from ((name, (asked, word)) for asked in options for word in WORDS + NUMBERS[:3])


ALL = list(dict.fromkeys(cases()))
FOUND = [  # once, by asking for all
    ("similarity", ("--std", "1e-308")),
    ("connectivity", ("--cutmix", "1e-308")),
    ("surface", ("--directions", "")),
    ("plot", ("--style", "*")),
    ("plot", ("--style", "ü" * 200)),
    ("surface", ("--towards", "")),
    ("fourier", ("--image-size", "1")),
    ("plot", ("--notes", "")),
    ("plot", ("--xlabel", "$$")),
    ("plot", ("--title", "$$")),
]
CHOSEN = FOUND + random.Random(0).sample(ALL, 25)


def prepared(folder):
    """Goes into a folder of its own, with checkpoints that are quick to analyse, and a results file."""
    os.chdir(folder)
    named = {"model": "resnet8(widths=(4, 4, 4))", "data": "digits", "num_classes": 10}
    for place in ("w.safetensors", "v.safetensors"):
        ls.save_checkpoint(place, ls.create_model("resnet8", 10, 8, 1, widths=(4, 4, 4)), named)
    assert invoke("test", "w.safetensors", "--out", "r.h5", "--quiet").returncode == 0
    shutil.copyfile("r.h5", "s.h5")
    Path("tiny.toml").write_text(TINY)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    before = Path.cwd()
    prepared(tmp_path_factory.mktemp("arguments"))
    yield
    os.chdir(before)


def command(name, asked):
    """The command with what is asked for, small where that does not say otherwise."""
    if (name in CATALOGUE or name in ("analyze", "inspect")) and asked[0].startswith("--"):
        several = name in CATALOGUE and CATALOGUE[name].settings.several
        checkpoints = ["w.safetensors", "v.safetensors"][: 2 if several else 1]
        small = FEW.get(name, ())
        small = [x for i in range(0, len(small), 2) if small[i] != asked[0] for x in small[i : i + 2]]
        out = [] if asked[0] == "--out" else ["--out", "x.h5"]
        return [name, *checkpoints, *out, "--budget", "0s", "--quiet", *small, *asked]
    if name == "train":
        given = {"--model": "resnet8(widths=(4, 4, 4))", "--data": "digits", "--out": "t.safetensors", "--epochs": "1",
                 "--fraction": "0.02"}  # fmt: skip
        given.pop(asked[0], None)
        return [name, *(x for item in given.items() for x in item), "--overwrite", "--quiet", *asked]
    if name == "quickstart":
        return [name, "--device", "nowhere", "--out", "q", *asked] if asked[0] != "--device" else [name, *asked]
    if name == "plot" and asked[0].startswith("--"):
        return [name, "r.h5", "--quiet", *asked]
    if name in OF_FILES and asked[0].startswith("--"):
        return [name, *(OF_FILES[name][:-2] if asked[0] == "--out" else OF_FILES[name]), *asked]
    if name == "import" and asked[0].startswith("--"):
        Path("s.csv").write_text("x,y,nll\n0,0,1\n1,0,2\n0,1,2\n1,1,3\n")
        return [name, "s.csv", *([] if asked[0] == "--out" else ["--out", "i.h5"]), "--quiet", *asked]
    return [name, *asked]


def wrong(name, asked, note=None):
    """What is wrong with how the command ends; "" for nothing."""
    for left in Path().glob("x.h5*"):
        left.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return wrong_end(command(name, asked), note=note)


@pytest.mark.parametrize(("name", "asked"), CHOSEN, ids=lambda v: repr(v)[:60])
def test_it_ends_well_or_in_one_line(place, name, asked):
    why = wrong(name, asked)
    assert not why, why


@pytest.mark.parametrize("cls", [*(e.settings for e in CATALOGUE.values()), SubjectSettings, Recipe, Look, Quickstart])
def test_every_setting_checks_itself_where_it_is_made(cls):
    """Numbers that nothing can be meant by are refused by the class, whoever makes it."""
    for f in fields(cls):
        for value in (float("nan"), float("inf"), 10**30, -(10**30), 1e-308, "x" * 5000):
            with pytest.raises(UserError, match=f.name):
                cls(**{f.name: value})


def test_memory_is_worked_out_before_it_is_asked_for(mlp, points, monkeypatch):
    assert in_words(7_500_000_000) == "6.98 GiB"
    assert in_words(100) == "100 bytes"
    free = free_memory()
    assert free is None or 0 < free < 1 << 50
    refuse_beyond_memory(1, "a byte")
    monkeypatch.setattr("landscape.runtime.memory.free_memory", lambda: 1000)
    with pytest.raises(UserError, match=r"eigenvalues .* would need 16\.6 KiB; 1e\+03 bytes are free|would need"):
        ls.hessian_top(ls.Objective(mlp, points), k=60)
    with pytest.raises(UserError, match="`points` would need"):
        ls.evaluate_surface(ls.Objective(mlp, points), ls.random_plane(mlp), points=100)
    with pytest.raises(UserError, match="images of 8 x 8"):
        ls.load_data("digits")


def test_counts_of_a_set_have_its_bound_and_others_a_million():
    assert Spectrum(batch_size=10**9, seed=2**63 - 1).seed == 2**63 - 1
    with pytest.raises(UserError, match="seed=9223372036854775808 must be at most 9223372036854775807"):
        Spectrum(seed=2**63)
    with pytest.raises(UserError, match="k=1000001 must be at most 1000000"):
        Top(k=1_000_001)
