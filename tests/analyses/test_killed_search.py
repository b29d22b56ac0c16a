"""A search of the whole data is one unit that may take hours: killed or out of time, it continues to the same."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
from helpers import ROOT, invoke

import landscape as ls
from landscape.curvature.operators import Curvature

TOP = ("--top", 3, "--samples", 32, "--tol", 1e-3, "--which", "BE", "--max-basis", 12, "--second-look")
SURFACE = ("--directions", "eigenvectors", "--samples", 32, "--points", 3, "--rays", 0)
EAGER = """import time
from landscape.cli.main import main
from landscape.store import aside, units

units.SAVE_EVERY = -1.0
keep = aside.Aside.keep
aside.Aside.keep = lambda self, state: (keep(self, state), time.sleep(0.03))  # time for a kill
main()
"""
ASKED = {"top": TOP, "surface": SURFACE}
STATE = {"top": "top", "surface": "plane_eigenvectors"}


def files(out):
    return sorted(out.parent.glob(f"{out.name}.*unfinished"))


def same(a, b):
    one, two = ls.load(a), ls.load(b)
    assert one.keys() == two.keys()
    for group in one:
        for name in one[group].variables:
            np.testing.assert_array_equal(one[group][name].values, two[group][name].values, err_msg=str(name))


@pytest.fixture(scope="module", params=sorted(ASKED))
def whole(request, trained, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param) / "whole.h5"
    result = invoke(request.param, trained, "--out", out, *ASKED[request.param], "--quiet")
    assert result.returncode == 0, result.stderr
    assert not files(out), "no state is left of what is done"
    return request.param, trained, out


def test_killed_it_gives_the_same(whole, tmp_path):
    name, checkpoint, out = whole
    again = tmp_path / "again.h5"
    command = list(map(str, (name, checkpoint, "--out", again, "--quiet", *ASKED[name])))
    run = subprocess.Popen([sys.executable, "-c", EAGER, *command], cwd=ROOT)
    while run.poll() is None and not (files(again) and written(again) > 5):
        time.sleep(0.002)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, "it was over before it could be killed"
    assert [f.name for f in files(again)] == [f"again.h5.{STATE[name]}.unfinished"]
    with counted() as products:
        done = invoke(*command)
    assert done.returncode == 0, done.stderr
    assert "passed over" not in done.stderr
    assert not files(again)
    assert not [path.name for path in tmp_path.iterdir() if ".part" in path.name], "no half-written state is left"
    same(out, again)
    if name == "top":
        assert products() <= int(ls.load(out)["top"]["products"]) - 6, "those before the kill are not made again"


@contextmanager
def counted():
    """How many products of the Hessian are made."""
    made, product = [], Curvature.rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Curvature, "rows", lambda self, X, members=(0,): made.append(1) or product(self, X, members))
        yield lambda: len(made)


def written(out):
    """The products that the state holds; of one that is just being replaced, none."""
    try:
        with np.load(files(out)[0]) as state:
            return int(state["numbers"][1]) if "numbers" in state else 10**6
    except (OSError, IndexError, ValueError):
        return 0


def test_a_state_of_other_settings_or_a_damaged_one_is_passed_over(trained, tmp_path):
    out = tmp_path / "a.h5"
    asked = ("top", trained, "--samples", 32, "--tol", 1e-2, "--quiet", "--out")
    assert invoke(*asked, out, "--top", 3, "--budget", "0s").returncode == 0
    (state,) = files(out)
    part = ls.load(out)["top"]
    assert not part["done"]
    kept = state.read_bytes()
    for content in (kept, kept[: len(kept) // 2]):
        other = tmp_path / f"b{len(content)}.h5"
        state_of_other = other.with_name(f"{other.name}.top.unfinished")
        state_of_other.write_bytes(content)
        result = invoke(*asked, other, "--top", 4)
        assert result.returncode == 0
        assert "is passed over, and the search begins anew" in result.stderr
        assert not state_of_other.exists()
        whole = tmp_path / "whole.h5"
        assert invoke(*asked, whole, "--top", 4).returncode == 0
        same(whole, other)


def test_a_budget_is_kept_within_one_search(whole, tmp_path):
    """What is found by then is valid, is said to be unfinished, and the same command continues it to the same."""
    name, checkpoint, out = whole
    again = tmp_path / "again.h5"
    command = (name, checkpoint, "--out", again, *ASKED[name], "--budget")
    first = invoke(*command, "0s")
    assert len(files(again)) == 1
    if name == "surface":
        assert first.returncode == 2
        assert "the time is over within the search for eigenvectors, after 1 products" in first.stderr
    else:
        assert first.returncode == 0, first.stderr
        assert "0 of 1 done" in first.stdout
        assert "the same command with a larger --budget continues" in first.stdout
        part = ls.load(again)["top"]
        assert not part["complete"]
        assert not part["done"]
        assert int(part["products"]) == 1
        assert np.isfinite(part["eigenvalue"]).sum() == 1
        true = ls.load(out)["top"]["eigenvalue"].values
        seen = float(part["eigenvalue"][0])
        assert np.abs(true - seen).min() <= float(part["residual"][0]) or true.min() < seen < true.max()
    for _ in range(2):  # a product each
        assert invoke(*command, "0s", "--quiet").returncode == first.returncode
    assert written(again) == 3
    assert invoke(*command, "10m", "--quiet").returncode == 0
    assert not files(again)
    same(out, again)
