"""What is said while a command computes: bars in a terminal, a line per minute in a pipe, and with -v every step."""

import logging
import re
import shutil
import time

import pytest
from helpers import cli, invoke, refused

import landscape as ls
from landscape.runtime.files import NOTICES, say_once
from landscape.runtime.progress import Lines, bar

FEW = ("--density-samples", 32, "--probes", 3, "--steps", 5)


def test_in_a_pipe_progress_is_lines_and_a_density_counts_its_products(trained, tmp_path):
    result = cli("density", trained, *FEW, "--out", tmp_path / "x.h5")
    assert result.returncode == 0, result.stderr
    assert "\r" not in result.stderr + result.stdout
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("density: "))  # it took no minute
    assert "100%" in line
    assert "15/15" in line
    assert "product" in line
    assert cli("density", trained, *FEW, "--out", tmp_path / "x.h5", "-q").stderr == ""


def test_a_line_each_so_many_seconds_with_what_is_left(capsys):
    shown = bar(shown=True, every=0.1, desc="step", total=20, unit="product")
    assert isinstance(shown, Lines)
    with shown:
        for _ in range(20):
            time.sleep(0.02)
            shown.update()
    err = capsys.readouterr().err
    lines = err.splitlines()
    assert "\r" not in err
    assert 2 <= len(lines) <= 6
    assert "20/20" in lines[-1]
    assert "<00:00" in lines[0]  # how long it will take
    with bar(shown=False, total=2) as hidden:
        hidden.update()
    assert capsys.readouterr().err == ""


BROKEN = "import torch\n\ndef make(depth=1):\n    raise RuntimeError(f'no network of depth {depth}')\n"
FAILS_LATER = """import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(3))

    def forward(self, x):
        raise KeyError("deep inside")

def make():
    return Net()
"""


@pytest.mark.parametrize("name", ["make(depth=20)", "later"])
def test_with_v_an_error_in_the_users_code_shows_its_traceback(tmp_path, name):
    import torch
    from safetensors.torch import save_file

    save_file({"w": torch.ones(3)}, tmp_path / "w.safetensors")
    (tmp_path / "net.py").write_text(FAILS_LATER if name == "later" else BROKEN)
    model = f"{tmp_path / 'net.py'}:{name.replace('later', 'make')}"
    words = "KeyError: 'deep inside'" if name == "later" else "no network of depth 20"
    command = ("test", tmp_path / "w.safetensors", "--model", model, "--data", "digits", "--num-classes", 10,
               "--out", tmp_path / "x.h5", "-q")  # fmt: skip
    refused(invoke(*command), words)
    loud = invoke(*command, "-v")
    assert loud.returncode == 2
    assert "Traceback (most recent call last)" in loud.stderr
    assert f'File "{tmp_path / "net.py"}", line' in loud.stderr
    assert words in loud.stderr.strip().splitlines()[-1]


def test_with_v_every_step_is_said_and_logging_is_as_it_was(trained, tmp_path):
    library = logging.getLogger("landscape")
    before = library.level, library.propagate, list(library.handlers)
    loud = invoke("test", trained, "--out", tmp_path / "x.h5", "--verbose")
    assert loud.returncode == 0, loud.stderr
    assert "landscape.study.run: test of resnet8, into" in loud.stderr
    assert "landscape.store.file: stored test in" in loud.stderr
    assert "landscape.study.run" not in invoke("test", trained, "--out", tmp_path / "y.h5").stderr
    assert (library.level, library.propagate, library.handlers) == before


def test_long_steps_outside_of_units_say_how_far_they_are(trained, tmp_path):
    few = ("--samples", 32, "--out", tmp_path / "x.h5", "-v")
    sketched = invoke("trace", trained, "--products", 30, *few).stderr
    assert "landscape.analyses.trace: a sketch by 20 products" in sketched
    assert re.search(r"trace: sketch: 100%.* 20/20 ", sketched)
    other = shutil.copy(trained, tmp_path / "other.safetensors")
    path = invoke("connectivity", trained, other, "--points", 3, "--steps", 3, *few[:3], tmp_path / "y.h5", "-v").stderr
    assert "landscape.planes.alignment: aligning " in path
    assert "the curved path: 3 steps of its bend, on 16 examples; 0 are done" in path
    assert re.search(r"connectivity: bend: 100%.* 3/3 ", path)
    assert "alignment, at most: " in path
    rays = invoke("surface", trained, "--points", 3, "--rays", 2, *few[:3], tmp_path / "z.h5").stderr
    assert re.search(r"width: 100%.* 2/2 ", rays)
    assert invoke("trace", trained, "--products", 30, *few[:3], tmp_path / "q.h5", "-q").stderr == ""


def test_what_is_read_drawn_computed_and_stored_is_said_of_each_analysis(trained, tmp_path):
    said = invoke("lesion", trained, "--images", 32, "--out", tmp_path / "x.h5", "-v").stderr
    steps = [line.split(" ", 1)[1] for line in said.splitlines() if re.match(r"\d\d:\d\d:\d\d landscape", line)]
    wanted = ["checkpoints.load: read ", "study.run: lesion of", "data.frozen: drew 32 of the",
              "base: lesion begins with 0", "base: lesion stops with", "store.file: stored lesion"]  # fmt: skip
    places = [next(i for i, step in enumerate(steps) if words in step) for words in wanted]
    assert places == sorted(places), steps
    again = invoke("lesion", trained, "--images", 32, "--out", tmp_path / "x.h5", "-v").stderr
    assert re.search(r"lesion begins with (\d+) of \1 done", again)


def test_the_normalisation_that_a_checkpoint_does_not_state_is_said(trained, tmp_path):
    from landscape.checkpoints.read import read_checkpoint
    from landscape.checkpoints.read import save_checkpoint as saved

    assert "normalised" not in invoke("test", trained, "--out", tmp_path / "x.h5").stdout
    model, provenance = ls.load_checkpoint(trained)
    unsaid = {k: v for k, v in provenance["metadata"].items() if k not in ("mean", "std")}
    saved(tmp_path / "bare.safetensors", model, unsaid)
    assert "mean" not in read_checkpoint(tmp_path / "bare.safetensors").metadata
    said = invoke("test", tmp_path / "bare.safetensors", "--out", tmp_path / "y.h5").stdout
    assert "bare.safetensors does not say how its images were normalised: by mean 0.3055 and std 0.3764" in said
    given = ("--mean", 0.3055, "--std", 0.3764, "--out", tmp_path / "z.h5")
    assert "normalised" not in invoke("test", tmp_path / "bare.safetensors", *given).stdout


def test_the_environment_can_turn_bars_off(trained, tmp_path, monkeypatch):
    for value, shown in (("1", False), ("0", True), ("", True)):
        monkeypatch.setenv("TQDM_DISABLE", value)
        said = invoke("test", trained, "--samples", 16, "--out", tmp_path / f"x{value}.h5").stderr
        assert ("batch/s" in said) is shown
        assert "wrote" not in said


def test_what_must_be_known_is_logged_too(capsys):
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    NOTICES.addHandler(handler)
    try:
        say_once.cache_clear()
        say_once("a word of a test")
        say_once("a word of a test")
    finally:
        NOTICES.removeHandler(handler)
    assert said == ["a word of a test"]
    assert capsys.readouterr().err == "landscape: a word of a test\n"
