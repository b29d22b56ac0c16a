"""What every analysis of the catalogue must do: continue after a kill, share its units, and refuse bad settings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from helpers import ROOT, cli, invoke, refused
from matplotlib.figure import Figure

import landscape as ls
from landscape import store
from landscape.catalogue import CATALOGUE
from landscape.cli.options import explained
from landscape.runtime.errors import UserError
from landscape.study.reading import contents

# Small, so that each runs in seconds; an analysis that is not named runs as it is by default.
QUICK = {
    "surface": ("--points", 5, "--samples", 64, "--rays", 2),
    "spectrum": ("--batches", 6),
    "top": ("--top", 2, "--samples", 64, "--per", "stage", "--tol", 0.1),
    "fourier": ("--images", 40),
    "variance": ("--images", 40),
    "similarity": ("--images", 40, "--batch-size", 8),
    "dynamics": ("--images", 20, "--what", "variance"),
    "series": ("--batches", 3),
    "density": ("--probes", 4, "--steps", 5, "--density-samples", 64),
    "trace": ("--products", 16, "--samples", 64),
    "connectivity": ("--samples", 64, "--points", 3, "--steps", 3, "--batch-size", 16),
    "trajectory": ("--samples", 48, "--max-products", 20),
    "placement": ("--images", 48),
    "sharpness": ("--batches", 3, "--batch-size", 16, "--radii", 3, "--steps", 3, "--directions", 2),
}
SINGLE = {"test"}  # of one unit: there is nothing to share or to continue


def command(name: str, checkpoint: Path, out: Path) -> list[str]:
    checkpoints = (
        [checkpoint, checkpoint.parent / "again.safetensors"] if CATALOGUE[name].settings.several else [checkpoint]
    )
    for path in checkpoints:
        if not path.exists():
            path.write_bytes(checkpoint.read_bytes())
    return list(map(str, (name, *checkpoints, "--out", out, "--quiet", *QUICK.get(name, ()))))


def same_numbers(a: Path, b: Path, name: str, *, exactly: bool = True) -> None:
    one, two = (store.load(path)[group_of(path, name)] for path in (a, b))
    assert set(one.variables) == set(two.variables)
    for key in one.variables:
        if exactly or one[key].dtype.kind != "f":
            np.testing.assert_array_equal(one[key].values, two[key].values, err_msg=str(key))
        elif key != "residual":  # of rounding alone, where a search has ended early
            np.testing.assert_allclose(one[key].values, two[key].values, rtol=1e-3, err_msg=str(key))


def group_of(path: Path, name: str) -> str:
    return next(g for g, d in store.load(path).items() if d.attrs["config"]["analysis"] == name)


@pytest.fixture(scope="module", params=sorted(CATALOGUE))
def whole(request, trained, tmp_path_factory):
    """The name of an analysis, its checkpoint, and the file of an uninterrupted run."""
    out = tmp_path_factory.mktemp(request.param) / "whole.h5"
    cli(*command(request.param, trained, out)).check_returncode()
    return request.param, trained, out


def test_killed_and_started_again_it_gives_the_same(whole, tmp_path):
    name, checkpoint, out = whole
    again = tmp_path / "again.h5"
    script = "from landscape.store import units\nunits.SAVE_EVERY = 0.0\nfrom landscape.cli.main import main\nmain()"
    run = subprocess.Popen([sys.executable, "-c", script, *command(name, checkpoint, again)], cwd=ROOT)
    while run.poll() is None and not begun(again):
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    held = store.load(again)
    if name not in SINGLE and run.returncode == -signal.SIGKILL and held:
        assert begun(again)
    cli(*command(name, checkpoint, again)).check_returncode()
    same_numbers(out, again, name)


def test_its_results_are_taken_from_strangers_as_they_are_or_named(whole, tmp_path):
    """Each variable left out, and each made text, with digests that hold: no more than the group itself is lost."""
    name, _, out = whole
    assert not contents(out).bad
    groups, path = store.load(out), tmp_path / "wrong.h5"
    group = group_of(out, name)
    good = groups[group]
    for variable in map(str, good.variables):
        as_text = good[variable].variable.astype(str).astype(object)
        for wrong in (good.drop_vars(variable), good.drop_vars(variable).assign({variable: as_text})):
            store.save(path, **{**groups, group: wrong})
            found = contents(path)
            assert set(found.groups) | {group} == set(groups)
            if variable == "done" and variable in wrong:
                assert "done of the type" in found.bad[group]
            assert group in found.groups or found.bad[group]
            assert invoke("show", path).returncode == 0
            path.unlink()


def begun(path: Path) -> bool:
    """Whether a unit is stored, or the state of one under way."""
    if list(path.parent.glob(f"{path.name}.*unfinished")):
        return True
    try:
        return path.exists() and any(bool(d["done"].any()) for d in store.load(path).values() if "done" in d)
    except UserError:  # between two writes
        return False


def test_two_processes_give_the_numbers_of_one(whole, tmp_path):
    name, checkpoint, out = whole
    shared = tmp_path / "shared.h5"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
                "--rdzv-endpoint", "localhost:0", "-m", "landscape"]  # fmt: skip
    done = subprocess.run(
        [*torchrun, *command(name, checkpoint, shared)], cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    same_numbers(out, shared, name, exactly=not CATALOGUE[name].settings().by_all())


def test_its_numbers_are_compared_with_those_of_another_training(whole, tmp_path):
    """Of the same numbers under the weights of another training, no difference is found."""
    name, _, out = whole
    group = group_of(out, name)
    found = store.load(out)[group]
    config = found.attrs["config"]
    other = {**config, "objective": {**config.get("objective", {}), "weights_sha256": "another"}}
    store.save(tmp_path / "other.h5", **{group: found.assign_attrs(config=other)})
    files = out, tmp_path / "other.h5"
    settings = CATALOGUE[name].settings.of(config)
    each = [es for label, es in settings.rows(found).items() if not (label and settings.several)]
    if not any(each):  # nothing, or checkpoints of one loss
        with pytest.raises(UserError, match="no number in common"):
            ls.compare(*files)
        return
    for row in ls.compare(*files).rows:
        value, low, high = row.effect.value, row.effect.low, row.effect.high
        if np.isnan(value):  # of a number that neither has, such as the accuracy of images none of which is certain
            assert np.isnan(low), row.heading
            continue
        assert value == pytest.approx(1 if row.effect.compared == "ratio" else 0), row.heading
        assert np.isnan(low) or low <= value <= high


def test_its_picture_goes_onto_axes_of_ones_own(whole):
    name, _, out = whole
    group, ax = store.load(out)[group_of(out, name)], Figure().add_subplot()
    picture = CATALOGUE[name].picture
    if picture is not None and not hasattr(import_module(picture), "plot"):
        with pytest.raises(UserError, match="no picture of this on one pair of axes"):
            ls.plot(group, ax)
        return
    assert ls.plot(group, ax, title="mine", notes=False) is ax
    assert ax.get_title() == "mine"
    assert ax.has_data()


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_settings_are_read_back_from_what_is_stored(name):
    cls = CATALOGUE[name].settings
    assert cls.of({"analysis": name, **cls().asdict()}) == cls()
    assert cls.of({}) == cls(), "a file from before these settings existed has their defaults"


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_setting_is_explained_and_an_unknown_one_refused(name, trained, tmp_path):
    cls = CATALOGUE[name].settings
    shown = invoke(name, "--help").stdout
    assert "Example: landscape " in shown
    hints = get_type_hints(cls)
    for f in fields(cls):
        assert f.name in hints
        assert f.name in explained(cls), f"{f.name} of {name} has no line in the docstring"
    refused(invoke(name, trained, "--out", tmp_path / "x.h5", "--nonsense", 1), "--nonsense")
