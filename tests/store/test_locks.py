"""One results file and several processes, or another program that holds it open; files that stand for other files."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import xarray as xr
from helpers import ROOT, invoke, refused

import landscape as ls
from landscape.runtime.files import replacing
from landscape.store import file as store

WRITER = """
import sys, time
import numpy as np, xarray as xr
from landscape.store import file as store
from landscape.study.run import into
path, group, wait, saves = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
time.sleep(wait)
def compute(stored, save):
    done = np.zeros(saves, bool) if stored is None else stored["done"].values.copy()
    for i in np.flatnonzero(~done):
        done[i] = True
        result = xr.Dataset({"done": ("unit", done.copy()), "values": ("n", np.full(2000, 7.0))})
        save(result)
        print("computed", flush=True)
    return result if stored is None or not stored["done"].all() else stored
into(path, group, compute)
"""


def writers(path, groups, waits, saves):
    """Processes that each compute a group of one file, all begun at the same moment but for their waits."""
    command = [sys.executable, "-c", WRITER, str(path)]
    started = [
        subprocess.Popen([*command, group, str(wait), str(saves)], cwd=ROOT, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for group, wait in zip(groups, waits, strict=True)
    ]  # fmt: skip
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    with ThreadPoolExecutor() as pool:
        outs = list(pool.map(lambda process: process.communicate(timeout=120), started))
    return [(process.returncode, *out) for process, out in zip(started, outs, strict=True)]


@pytest.mark.parametrize("lag", [0.0, 0.05])
def test_two_runs_of_one_file_end_with_both_results_and_the_earlier_ones(tmp_path, lag):
    path = tmp_path / "a.h5"
    earlier = xr.Dataset({"v": ("n", np.arange(5.0))})
    ls.save(path, earlier=earlier)
    ended = writers(path, ["one", "two", "three"], [0, lag, 2 * lag], 15)
    assert [code for code, *_ in ended] == [0, 0, 0], ended
    held = ls.load(path)
    assert set(held) == {"earlier", "one", "two", "three"}
    assert held["earlier"].drop_attrs().identical(earlier)
    assert all(held[name]["done"].all() for name in ("one", "two", "three"))
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]  # neither parts nor locks


def test_a_second_run_of_the_same_analysis_waits_says_for_whom_and_computes_nothing_again(tmp_path):
    path = tmp_path / "a.h5"
    paused = WRITER.replace('print("computed", flush=True)', 'print("computed", flush=True); sys.stdin.readline()')
    first, second = (
        subprocess.Popen([sys.executable, "-c", script, str(path), "one", "0", "2"], cwd=ROOT, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for script in (paused, WRITER)
    )  # fmt: skip
    first.stdin.write("\n")
    first.stdin.flush()
    assert [first.stdout.readline() for _ in range(2)] == ["ready\n", "computed\n"]
    second.stdin.write("\n")
    second.stdin.flush()
    assert second.stdout.readline() == "ready\n"
    said = second.stderr.readline()
    assert f"process {first.pid} on " in said
    assert f"is writing one of {path}; waiting" in said
    assert first.communicate("\n\n", timeout=60)[0] == "computed\n"
    assert second.communicate(timeout=60) == ("", "")
    assert (first.returncode, second.returncode) == (0, 0)
    assert ls.load(path)["one"]["done"].all()


def test_a_killed_writer_leaves_no_part_for_long_and_no_lock(tmp_path):
    """The next save removes what the killed process left, and leaves alone the part of one that runs."""
    path = tmp_path / "a.h5"
    ls.save(path, g=xr.Dataset({"v": 1.0}))
    killed = (
        "import os, signal, sys\nfrom landscape.runtime.files import alone, replacing\n"
        "with alone(sys.argv[1]), replacing(sys.argv[1]) as part:\n"
        "    part.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", killed, str(path)], cwd=ROOT)
    assert len(list(tmp_path.glob(".*.part"))) == 1
    with replacing(path) as own:
        own.write_bytes(path.read_bytes())
        ls.save(path, h=xr.Dataset({"v": 2.0}))
        assert list(tmp_path.glob(".*.part")) == [own]
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_a_failed_write_removes_its_own_part_alone_and_keeps_the_file(tmp_path):
    path = tmp_path / "a.h5"
    ls.save(path, g=xr.Dataset({"v": 1.0}))
    before = path.read_bytes()
    with replacing(path) as part:
        part.write_bytes(before)
        with pytest.raises(RuntimeError), replacing(path) as other:
            other.write_text("half")
            raise RuntimeError
        assert not other.exists()
        assert part.exists()
    assert path.read_bytes() == before


def test_a_link_and_the_permissions_of_a_file_stay(tmp_path):
    real, link = tmp_path / "real.h5", tmp_path / "link.h5"
    ls.save(real, g=xr.Dataset({"v": 1.0}))
    real.chmod(0o600)
    link.symlink_to(real)
    ls.save(link, h=xr.Dataset({"v": 2.0}))
    assert link.is_symlink()
    assert set(ls.load(real)) == {"g", "h"}
    assert real.stat().st_mode & 0o777 == 0o600


HOLDER = """
import sys, h5py
with h5py.File(sys.argv[1], sys.argv[2]) as f:
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def held_open(tmp_path):
    """Another program with the file open; closes it when called."""
    started = []

    def hold(path, mode):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path), mode], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return lambda: process.communicate("\n", timeout=60)

    yield hold
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_another_program_that_holds_the_file_open_ends_no_run(tmp_path, held_open, mode, trained):
    path = tmp_path / "a.h5"
    earlier = xr.Dataset({"v": ("n", np.arange(5.0))})
    ls.save(path, earlier=earlier)
    let_go = held_open(path, mode)
    script = (
        "import sys\nfrom landscape.store import file as store\nstore.PATIENCE = 0.5\n"
        "from landscape.cli.main import main\n"
        "sys.argv[0] = 'landscape'\nmain()\n"
    )
    command = [sys.executable, "-c", script, "surface", str(trained), "--samples", "32", "--points", "3", "--out"]
    run = subprocess.run([*command, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    assert "9 of 9 done" in run.stdout
    assert "move it away" not in run.stderr
    if mode == "r+":
        with h5py.File(path, locking=False) as f:
            assert list(f) == ["earlier"]
        assert run.stderr.count(f"until it is free, results are kept in {path}.pending") == 1
    let_go()
    assert set(ls.load(path)) == {"earlier", "plane", "surface"}
    assert ls.load(path)["earlier"].drop_attrs().identical(earlier)
    ls.save(path)
    assert not store.pending(path).exists()
    with h5py.File(path) as f:
        assert set(f) >= {"earlier", "plane", "surface"}


def test_what_is_damaged_while_it_waits_is_kept_and_said(tmp_path, capfd):
    """A group of the file beside it whose bits have flipped: the others go into their place, and it is not removed."""
    path = tmp_path / "a.h5"
    waiting = store.pending(path)
    ls.save(path, one=xr.Dataset({"v": ("n", np.arange(5.0))}))
    ls.save(waiting, two=xr.Dataset({"v": ("n", np.arange(3.0))}), three=xr.Dataset({"v": ("n", np.arange(4.0))}))
    with h5py.File(waiting, "a") as f:
        f["two/v"][0] = 7.0
    damaged = waiting.read_bytes()
    ls.save(path, four=xr.Dataset({"v": 1.0}))
    assert set(ls.load(path)) == {"one", "three", "four"}
    assert not waiting.exists()
    kept = tmp_path / "a.h5.pending.damaged-1"
    assert kept.read_bytes() == damaged
    said = capfd.readouterr().err
    assert "the group two is left out: it is not as it was written (v): damaged" in said
    assert f"it is kept in {kept}" in said


def test_a_file_that_is_being_written_is_waited_for(tmp_path, held_open, monkeypatch):
    path = tmp_path / "a.h5"
    monkeypatch.setattr(store, "PATIENCE", 0.3)
    let_go = held_open(path, "w")
    with pytest.raises(ls.UserError, match="held open by another program"):
        ls.load(path)
    let_go()
    with pytest.raises(ls.UserError, match="not a results file"):
        ls.load(path)


def test_without_locks_it_says_so_and_goes_on(tmp_path):
    script = (
        "import errno, fcntl, sys\nimport xarray as xr\n"
        "def flock(fd, how):\n    raise OSError(errno.ENOLCK, 'No locks available')\n"
        "fcntl.flock = flock\n"
        "from landscape import store\n"
        "store.save(sys.argv[1], a=xr.Dataset({'v': 1.0}))\nstore.save(sys.argv[1], b=xr.Dataset({'v': 1.0}))\n"
    )
    path = tmp_path / "a.h5"
    run = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("has no file locks") == 1
    assert set(ls.load(path)) == {"a", "b"}


def refers_by_soft_link(f, _):
    f["surface/loss"] = h5py.SoftLink("/other/v")


def refers_by_external_link(f, secret):
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["v"] = np.arange(8.0)
    f["surface/loss"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "/v")


def refers_by_external_storage(f, secret):
    f["surface"].create_dataset("loss", (8,), "u1", external=[(str(secret), 0, 8)])


def refers_by_virtual_data(f, secret):
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["v"] = np.arange(8.0)
    layout = h5py.VirtualLayout((8,), "f8")
    layout[:] = h5py.VirtualSource(secret.with_suffix(".h5"), "v", (8,))
    f["surface"].create_virtual_dataset("loss", layout)


@pytest.mark.parametrize(
    "refer", [refers_by_soft_link, refers_by_external_link, refers_by_external_storage, refers_by_virtual_data]
)
def test_a_results_file_that_stands_for_another_file_is_refused(tmp_path, refer):
    secret, path, theirs = tmp_path / "secret.txt", tmp_path / "a.h5", tmp_path / "theirs.h5"
    secret.write_text("password")
    ls.save(path, surface=xr.Dataset({"x": ("x", np.arange(8.0))}))
    with h5py.File(path, "a") as f:
        f["other/v"] = np.arange(8.0)
        refer(f, secret)
    with pytest.raises(ls.UserError, match=r"/surface/loss refers to another file or place"):
        ls.load(path)
    refused(invoke("show", path), "refers to another file or place")
    refused(invoke("export", path, "--out", tmp_path / "a.csv"), "refers to another file or place")
    with h5py.File(theirs, "w") as f:
        f["xcoordinates"] = np.arange(8.0)
        f.create_group("surface")
        refer(f, secret)
    refused(invoke("import", theirs, "--out", tmp_path / "b.h5"), "refers to another file or place")
    assert not (tmp_path / "a.csv").exists()
