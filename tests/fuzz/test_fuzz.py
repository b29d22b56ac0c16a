"""Files and arguments of all sorts of wrong end in success or in one line, within 30 s and 4 GB; never in a traceback.

The same tries each time, a minute in all; FUZZ=20000 draws that many others of each (python -m pytest -n 0 tests/fuzz).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import invoke
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
from mutations import NASTY, changed_file, changed_json, damaged_bytes, values

import landscape as ls
from landscape.catalogue import CATALOGUE
from landscape.runtime.settings import Settings
from landscape.training.recipe import Recipe

TRIES = int(os.environ.get("FUZZ", 0))
SECONDS, BYTES = 30, 4 << 30


def tried(few: int) -> settings:
    return settings(
        max_examples=TRIES or few, derandomize=not TRIES, deadline=None, database=None, print_blob=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture,
                               HealthCheck.large_base_example],
    )  # fmt: skip


@contextmanager
def bounded() -> Iterator[None]:
    """Fails where the block takes over SECONDS of the processor, or over BYTES of memory beyond what it had."""

    def late(*_: object) -> None:
        pytest.fail(f"hung for {SECONDS} s")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    handler = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < BYTES


def serves(*arguments: object) -> str:
    """What a command prints, which ends in success or in one line."""
    with bounded():
        result = invoke(*arguments)
    lines = result.stderr.strip().split("\n")
    assert result.returncode in (0, 2), result.stderr
    assert "Traceback" not in result.stderr
    if result.returncode == 2:
        wrong = [line for line in lines if line.startswith("landscape: ") and " is left alone: " not in line]
        assert len(wrong) == 1, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results file of every analysis that needs no more than a loss, of a tiny network."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    x, y = torch.randn(40, 4), torch.randint(0, 2, (40,))
    objective = ls.Objective(model, [(x, y)])
    plane = ls.random_plane(model)
    path = tmp_path_factory.mktemp("whole") / "a.h5"
    ls.save(
        path, plane=plane.to_dataset(), surface=ls.evaluate_surface(objective, plane, points=5, rays=2),
        spectrum=ls.hessian_spectrum(objective, k=2, batch_size=4),
        density=ls.spectral_density(objective, probes=2, steps=4),
        trace=ls.hessian_trace(objective, products=24), top=ls.hessian_top(objective, k=2),
        test=ls.Test().run(objective), series=ls.hessian_series({"a": objective, "b": objective}, k=2, batch_size=8),
        curve=ls.evaluate_surface(objective, ls.random_plane(model, dims=1), points=5, rays=0),
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@tried(24)
@given(st.data())
def test_results_files_are_shown_and_exported(whole, place, data):
    path = data.draw(changed_file(whole, place / "a.h5"))
    serves("show", path)
    serves("export", path, "--out", place / f"a{data.draw(st.sampled_from(['.csv', '.npz']))}")


@tried(4)
@given(st.data())
def test_results_files_are_drawn_and_compared(whole, place, data):
    path = data.draw(changed_file(whole, place / "a.h5"))
    serves("plot", path, whole, "--out", place / "pictures")


@pytest.fixture(scope="module")
def begun(trained, tmp_path_factory) -> Path:
    """An unfinished spectrum of a network that is at hand."""
    out = tmp_path_factory.mktemp("begun") / "a.h5"
    serves("spectrum", trained, "--batches", 2, "-k", 2, "--tol", 0.3, "--out", out, "-q")
    groups = ls.load(out)
    groups["spectrum"]["done"][1:] = False
    ls.save(out, **groups)
    return out


@tried(4)
@given(st.data())
def test_results_files_are_continued_or_refused(begun, trained, place, data):
    path = data.draw(changed_file(begun, place / "b.h5"))
    serves("spectrum", trained, "--batches", 2, "-k", 2, "--tol", 0.3, "--out", path, "-q")
    path.unlink(missing_ok=True)


METADATA = {
    "model": "vit_xs(depth=1)", "settings": {"embed_dim": 8, "num_heads": 2}, "num_classes": 4, "image_size": 8,
    "in_channels": 1, "mean": [0.5], "std": [0.5], "data": "digits", "mixup": 0.0, "smoothing": 0.1, "seed": 0,
    "fraction": 1.0, "auto_augment": None, "weight_decay": 0.05, "training_loss": [1.0, 0.5],
}  # fmt: skip
HUGGING = {
    "architecture": "resnet18", "num_classes": 4, "model_args": {"stem_type": "deep"}, "model_type": "vit",
    "hidden_size": 8, "num_hidden_layers": 1, "id2label": {"0": "a"}, "image_size": 8,
    "pretrained_cfg": {"mean": [0.5], "std": [0.5], "input_size": [1, 8, 8]},
}  # fmt: skip


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    model = ls.create_model("vit_xs", 4, 8, 1, depth=1, embed_dim=8, num_heads=2)
    return {k: t.contiguous() for k, t in model.state_dict().items()}


@tried(6)
@given(st.data())
def test_checkpoints_are_described_and_loaded(state, place, data):
    sort = data.draw(st.sampled_from(["safetensors", "folder", "torch", "bytes"]))
    path = place / "w.safetensors"
    if sort == "folder":
        path = place / "published"
        path.mkdir(exist_ok=True)
        save_file(state, path / "model.safetensors")
        (path / "config.json").write_text(json.dumps(data.draw(changed_json(HUGGING))))
    elif sort == "safetensors":
        text = json.dumps(data.draw(changed_json(METADATA)))
        assume("\0" not in text)
        save_file(state, path, metadata={"landscape": text})
    else:
        path = place / "w.pt"
        held = {"state_dict": state, **METADATA, "epoch": 3}
        if sort == "torch":
            held = data.draw(changed_json(held))
        torch.save(held, path)
        if sort == "bytes":
            path.write_bytes(data.draw(damaged_bytes(path.read_bytes())))
    serves("show", path)
    serves("test", path, "--out", place / "c.h5", "--samples", 16, "-q")
    (place / "c.h5").unlink(missing_ok=True)


def rows(text: str) -> list[list[str]]:
    return [line.split(",") for line in text.strip().split("\n")]


@tried(40)
@given(st.data())
def test_tables_are_imported(place, data):
    grid = np.linspace(-1, 1, 4)
    table = [["x", "y", "nll", "accuracy"], *([f"{x}", f"{y}", f"{x * x + y}", "0.5"] for x in grid for y in grid)]
    for _ in range(data.draw(st.integers(1, 3))):
        row = data.draw(st.integers(0, len(table) - 1))
        cell = data.draw(st.integers(0, len(table[row]) - 1)) if table[row] else 0
        match data.draw(st.sampled_from(["cell", "cell", "row", "double", "short"])):
            case "cell":
                table[row][cell : cell + 1] = [str(data.draw(values))]
            case "row":
                del table[row]
            case "double":
                table.insert(row, list(table[row]))
            case "short":
                del table[row][cell:]
        if not table:
            break
    content = "\n".join(",".join(row) for row in table).encode("utf-8", "surrogatepass")
    if data.draw(st.booleans()):
        content = data.draw(damaged_bytes(content)) if content else content
    path = place / "t.csv"
    path.write_bytes(content)
    serves("import", path, "--out", place / "t.h5")
    (place / "t.h5").unlink(missing_ok=True)


def all_settings() -> list[type[Settings]]:
    return [*(entry.settings for entry in CATALOGUE.values()), Recipe]


@tried(150)
@given(st.data())
def test_settings_are_themselves_or_refused(data):
    cls = data.draw(st.sampled_from(all_settings()))
    names = data.draw(st.lists(st.sampled_from([f.name for f in fields(cls)]), min_size=1, max_size=3))
    given_ = {name: data.draw(values) for name in names}
    with bounded():
        try:
            made = cls.asked(given_)
        except ls.UserError as e:
            said = str(e).strip()
        else:
            said = str(cls.of(json.loads(json.dumps(made.asdict(), default=str))))
    assert said


@tried(40)
@given(st.data())
def test_arguments_are_understood_or_refused(place, data):
    """Of a checkpoint that is not there: whatever is asked, nothing is computed."""
    command = data.draw(
        st.sampled_from([*sorted(CATALOGUE), "analyze", "train", "quickstart", "plot", "show", "export"])
    )
    names = [f.name for f in fields(CATALOGUE[command].settings)] if command in CATALOGUE else ["model", "points", "lr"]
    words = [command, str(place / "none.pt"), "--out", str(place / "n.h5")]
    for _ in range(data.draw(st.integers(1, 3))):
        words.append("--" + data.draw(st.sampled_from(names) | st.text(max_size=5)).replace("_", "-"))
        words.append(str(data.draw(st.sampled_from(NASTY))).replace("\0", ""))
    assume(command not in ("quickstart",) or "--effort" not in words)
    with bounded():
        result = invoke(*words)
    assert result.returncode == 2 or command == "quickstart" or "--help" in words, result.stderr
    assert "Traceback" not in result.stderr
