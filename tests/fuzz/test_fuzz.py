"""Files and arguments of all sorts of wrong end in success or in one line, within 30 s and 4 GB; never in a traceback.

The tries are the same each time, and take a minute in all. With FUZZ there are that many others of each, of files that
have every analysis:

    FUZZ=4000 python -m pytest -n 0 tests/fuzz -k shown

This continues after a failure, keeps the files in the folder FOUND, and prints all failures at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from analyses.test_catalogue import command
from bounded import Ended, in_time, wrong_end
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
TINY = {"model": "resnet8(widths=(4, 4, 4))", "data": "digits", "num_classes": 10}


def tried(few: int) -> settings:
    return settings(
        max_examples=TRIES or few, derandomize=not TRIES, deadline=None, database=None, print_blob=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture,
                               HealthCheck.large_base_example],
    )  # fmt: skip


class Tally:
    """What a test tried, and what was wrong, of which by hand the rest is told at the end."""

    def __init__(self) -> None:
        self.tries, self.seconds, self.bytes = 0, 0.0, 0
        self.found: Counter[str] = Counter()

    def note(self, ended: Ended) -> None:
        self.tries += 1
        self.seconds, self.bytes = max(self.seconds, ended.seconds), max(self.bytes, ended.bytes)

    def serves(self, path: Path, *commands: Sequence[object]) -> None:
        """Fails unless each ends in success or in one line; path: the file that they are about."""
        why = wrong_end(*commands, note=self.note)
        if not TRIES:
            assert not why, why
        elif why:
            self.keep(path, why)

    def keep(self, path: Path, why: str) -> None:
        kind = why.strip().rpartition("\n")[2][:200]
        self.found[kind] += 1
        if self.found[kind] <= 3 and path.exists():
            folder = Path(os.environ.get("FOUND") or tempfile.gettempdir()) / f"found-{os.getpid()}"
            folder.mkdir(exist_ok=True, parents=True)
            place = folder / f"{sum(self.found.values())}-{path.name}"
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, place)
            (folder / f"{place.name}.txt").write_text(why)


@pytest.fixture
def tally(request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]) -> Iterator[Tally]:
    made = Tally()
    yield made
    if TRIES:
        with capfd.disabled():
            print(
                f"\n{request.node.name}: {made.tries} tries, {sum(made.found.values())} wrong; "
                f"at most {made.seconds:.1f} s and {made.bytes / (1 << 30):.2f} GB"
            )
            for kind, count in made.found.most_common():
                print(f"{count:6} {kind}")
    assert not made.found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def checkpoint(place: Path) -> Path:
    ls.save_checkpoint(place / "tiny.safetensors", ls.create_model("resnet8", 10, 8, 1, widths=(4, 4, 4)), TINY)
    return place / "tiny.safetensors"


@pytest.fixture(scope="module")
def whole(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Results files, an analysis each beside a plane: of those that need a loss alone; by hand of all there are."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    objective = ls.Objective(model, [(torch.randn(40, 4), torch.randint(0, 2, (40,)))])
    plane = ls.random_plane(model)
    groups = {
        "surface": ls.evaluate_surface(objective, plane, points=5, rays=2),
        "spectrum": ls.hessian_spectrum(objective, k=2, batch_size=4),
        "density": ls.spectral_density(objective, probes=2, steps=4),
        "trace": ls.hessian_trace(objective, products=24),
        "top": ls.hessian_top(objective, k=2),
        "test": ls.Test().run(objective),
        "series": ls.hessian_series({"a": objective, "b": objective}, k=2, batch_size=8),
        "curve": ls.evaluate_surface(objective, ls.random_plane(model, dims=1), points=5, rays=0),
    }
    folder = tmp_path_factory.mktemp("whole")
    for name, group in groups.items():
        ls.save(folder / f"{name}.h5", plane=plane.to_dataset(), **{name: group})
    for name in CATALOGUE if TRIES else ():
        assert invoke(*command(name, checkpoint, folder / f"{name}-tiny.h5")).returncode == 0
    (good, *_) = found = sorted(folder.glob("*.h5"))
    for asked in (("show", good), ("plot", good, "--out", folder), ("report", good, "--out", folder / "a.html")):
        assert invoke(*asked).returncode == 0  # and what they import, children need not
    return found


@tried(24)
@given(st.data())
def test_results_files_are_shown_and_exported(whole, place, tally, data):
    path = data.draw(changed_file(data.draw(st.sampled_from(whole)), place / "a.h5"))
    out = place / f"a{data.draw(st.sampled_from(['.csv', '.npz']))}"
    tally.serves(path, ("show", path), ("export", path, "--out", out))


@tried(4)
@given(st.data())
def test_results_files_are_drawn_and_compared(whole, place, tally, data):
    good = data.draw(st.sampled_from(whole))
    path = data.draw(changed_file(good, place / "a.h5"))
    commands = [
        ("plot", path, good, "--out", place / "pictures"),
        ("compare", good, path),
        ("report", path, good, "--out", place / "a.html"),
    ]
    tally.serves(path, *(data.draw(st.permutations(commands))[:2]))


@pytest.fixture(scope="module")
def begun(whole: list[Path], checkpoint: Path, place: Path) -> dict[str, Path]:
    """By their analyses, unfinished results of a network that is at hand: a spectrum, and by hand all."""
    found = {}
    for name in CATALOGUE if TRIES else ("spectrum",):
        found[name] = place / f"begun-{name}.h5"
        assert invoke(*command(name, checkpoint, found[name]), "--budget", "0s").returncode in (0, 2)
    return {name: path for name, path in found.items() if path.exists()}


@tried(4)
@given(st.data())
def test_results_files_are_continued_or_refused(begun, checkpoint, place, tally, data):
    name = data.draw(st.sampled_from(sorted(begun)))
    path = data.draw(changed_file(begun[name], place / "b.h5"))
    tally.serves(path, (*command(name, checkpoint, path), "--budget", "0s"))
    for left in place.glob("b.h5*"):
        left.unlink()


METADATA = {
    "model": "vit_xs(depth=1)", "settings": {"embed_dim": 8, "num_heads": 2}, "num_classes": 10, "image_size": 8,
    "in_channels": 1, "mean": [0.5], "std": [0.5], "data": "digits", "mixup": 0.0, "smoothing": 0.1, "seed": 0,
    "fraction": 1.0, "auto_augment": None, "weight_decay": 0.05, "training_loss": [1.0, 0.5],
}  # fmt: skip
HUGGING = {
    "architecture": "resnet18", "num_classes": 10, "model_args": {"stem_type": "deep"}, "model_type": "vit",
    "hidden_size": 8, "num_hidden_layers": 1, "id2label": {"0": "a"}, "image_size": 8,
    "pretrained_cfg": {"mean": [0.5], "std": [0.5], "input_size": [1, 8, 8]},
}  # fmt: skip


SMALL = ("--samples", 16, "--points", 2, "--rays", 0, "-q")


@pytest.fixture(scope="module")
def state(place: Path) -> dict[str, torch.Tensor]:
    model = ls.create_model("vit_xs", 10, 8, 1, depth=1, embed_dim=8, num_heads=2)
    path = place / "good.safetensors"
    ls.save_checkpoint(path, model, METADATA)
    for asked in (("show", path), ("surface", path, "--out", place / "good.h5", *SMALL)):
        assert invoke(*asked).returncode == 0  # and what they import and remember, children have from now on
    return {k: t.contiguous() for k, t in model.state_dict().items()}


@tried(6)
@given(st.data())
def test_checkpoints_are_described_and_loaded(state, place, tally, data):
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
    tally.serves(path, ("show", path), ("surface", path, "--out", place / "c.h5", *SMALL))
    (place / "c.h5").unlink(missing_ok=True)


@tried(40)
@given(st.data())
def test_tables_are_imported(place, tally, data):
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
    tally.serves(path, ("import", path, "--out", place / "t.h5"))
    (place / "t.h5").unlink(missing_ok=True)


def all_settings() -> list[type[Settings]]:
    return [*(entry.settings for entry in CATALOGUE.values()), Recipe]


@tried(150)
@given(st.data())
def test_settings_are_themselves_or_refused(data):
    cls = data.draw(st.sampled_from(all_settings()))
    names = data.draw(st.lists(st.sampled_from([f.name for f in fields(cls)]), min_size=1, max_size=3))
    given_ = {name: data.draw(values) for name in names}
    with in_time():
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
    with in_time():
        result = invoke(*words)
    assert result.returncode == 2 or command == "quickstart" or "--help" in words, result.stderr
    assert "Traceback" not in result.stderr
