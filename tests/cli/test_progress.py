"""What is said while a command computes: bars in a terminal, a line a minute in a pipe, and with -v every step."""

import logging
import time

import pytest
from helpers import cli, invoke, refused

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
