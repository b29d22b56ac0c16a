"""Surfaces of other software, as its own code writes them; and ours, as other software reads them."""

import csv
import itertools
import sys

import h5py
import numpy as np
import pytest
import xarray as xr
from helpers import SHARED, invoke, refused
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import landscape as ls
from landscape.surfaces.exports import export_surface
from landscape.surfaces.imports import STUDY_COLUMNS, import_surface

STUDY = {name: SHARED / "reference" / f"cifar100_{name}_losslandscape.csv" for name in ("resnet_dnn_50", "vit_ti")}
needs_study = pytest.mark.skipif(
    not all(path.exists() for path in STUDY.values()), reason=f"the study's surfaces are not in {SHARED.name}/"
)


def study_csv(path, xs, ys, skip=(), nll=lambda x, y: x + 10 * y):
    """As the reference study writes it: x innermost, 19 columns, no header."""
    with open(path, "w", newline="") as f:
        for i, (y, x) in enumerate(itertools.product(ys, xs)):
            if i not in skip:
                csv.writer(f).writerow([x, y, 7.0, 2.0 + x, nll(x, y), *([0.5] * 14)])


def li_h5(path, x, y=None, loss=lambda x, y: x + 10 * y, undone=(), **more):
    """As loss-landscape's crunch fills it: arrays shaped (x, y), filled through ravel() in the order of meshgrid."""
    if y is None:
        losses, coordinates = -np.ones(len(x)), [(a, 0.0) for a in x]
    else:
        losses = -np.ones((len(x), len(y)))
        mesh = np.meshgrid(x, y)
        coordinates = list(zip(mesh[0].ravel(), mesh[1].ravel(), strict=True))
    accuracies = losses.copy()
    for i, (a, b) in enumerate(coordinates):
        if i not in undone:
            losses.ravel()[i], accuracies.ravel()[i] = loss(a, b), 50 + a
    with h5py.File(path, "w") as f:
        f["dir_file"] = "directions.h5"
        f["xcoordinates"] = x
        if y is not None:
            f["ycoordinates"] = y
        f["train_loss"], f["train_acc"] = losses, accuracies
        for name, values in more.items():
            f[name] = values


def ours(folds=True):
    x, y = np.linspace(-0.5, 1.5, 5), np.linspace(0, 1, 3)
    z = np.add.outer(10 * y, x) + 1 / 3
    z[0, 0], z[2, 4] = np.inf, np.nan
    done = np.ones(z.shape, bool)
    done[2, 4] = False
    nll = xr.Dataset(
        {
            "nll": (("y", "x"), z), "penalty": (("y", "x"), np.full(z.shape, 0.1)), "loss": (("y", "x"), z + 0.1),
            "done": (("y", "x"), done), "interpolated": (("y", "x"), z > 5),
            "trajectory": (("checkpoint", "axis"), np.arange(4.0).reshape(2, 2)),
        },
        {"x": x, "y": y, "checkpoint": np.array(["first", "last"], object)},
        {"config": {"analysis": "surface", "plane": {"directions": "random"}}},
    )  # fmt: skip
    return nll.assign(nll_fold=(("fold", "y", "x"), np.stack([z, z]))) if folds else nll


@needs_study
def test_the_reference_studys_surfaces_have_its_numbers():
    """Those that its own notebook gets from them."""
    resnet = import_surface(STUDY["resnet_dnn_50"], weight_decay=0.05)
    vit = import_surface(STUDY["vit_ti"], weight_decay=0.05)
    assert np.isfinite(resnet["loss"]).sum() == 410
    assert float(resnet["loss"].sel(x=0, y=0)) == pytest.approx(78.904, abs=5e-4)
    assert float(resnet["nll"].sel(x=0, y=0)) == pytest.approx(2.194, abs=5e-4)
    assert np.isfinite(vit["loss"]).all()
    assert float(vit["loss"].sel(x=0, y=0)) == pytest.approx(40.965, abs=5e-4)
    for surface in (resnet, vit):
        lowest = surface["nll"].where(np.isfinite(surface["nll"])).argmin(dim=("y", "x"))
        assert float(surface["x"][lowest["x"]]) == pytest.approx(-0.1)
        assert float(surface["y"][lowest["y"]]) == pytest.approx(0)
        assert surface["done"].all()


def test_the_studys_columns_not_square_rows_missing(tmp_path):
    path, xs, ys = tmp_path / "s.csv", [-0.5, 0.0, 0.5, 1.0], [0.0, 1.0, 2.0]
    study_csv(path, xs, ys, skip=(5,), nll=lambda x, y: np.inf if x == y == 0 else np.nan if x == y else x + 10 * y)
    s = import_surface(path, weight_decay=0.5)
    assert s["nll"].dims == ("y", "x")
    assert s["nll"].shape == (3, 4)
    assert not s["done"].sel(x=0, y=1)
    assert s["done"].sum() == 11
    assert float(s["nll"].sel(x=0.5, y=2)) == 20.5
    assert float(s["nll"].sel(x=0, y=0)) == np.inf
    assert np.isnan(s["nll"].sel(x=1, y=1))
    assert s["done"].sel(x=1, y=1)
    np.testing.assert_allclose(s["penalty"].sel(y=0), 0.5 * (2 + np.array(xs)))
    assert float(s["loss"].sel(x=0.5, y=2)) == 20.5 + 0.5 * 2.5
    assert s.attrs["config"]["objective"] == {"penalty": "norm-sum", "weight_decay": 0.5}
    assert len(s.attrs["config"]["source"]["sha256"]) == 64
    assert set(STUDY_COLUMNS) - {"x", "y"} <= set(s.data_vars)


def test_what_the_file_does_not_say_is_not_made_up(tmp_path):
    study_csv(tmp_path / "s.csv", [0.0, 1.0], [0.0, 1.0])
    s = import_surface(tmp_path / "s.csv")
    assert "penalty" not in s
    assert "nll_sem" not in s
    assert "plane" not in s.attrs["config"]
    np.testing.assert_array_equal(s["loss"], s["nll"])
    assert "no penalty" in s["loss"].attrs["long_name"]


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (1, 6)])
def test_li_et_al_every_point_at_its_coordinates(tmp_path, shape):
    ny, nx = shape
    x, y = np.linspace(0, 1, nx), np.linspace(-1, 2, ny)
    li_h5(tmp_path / "s.h5", x, y, undone=(1,), test_loss=-np.ones((nx, ny)))
    s = import_surface(tmp_path / "s.h5")
    for j, i in np.ndindex(ny, nx):
        point = s.sel(x=x[i], y=y[j])
        undone = j * nx + i == 1
        assert bool(point["done"]) is not undone
        if not undone and x[i] + 10 * y[j] != -1:
            assert float(point["nll"]) == pytest.approx(x[i] + 10 * y[j])
            assert float(point["accuracy"]) == pytest.approx((50 + x[i]) / 100)
    assert s["test_nll"].isnull().all()


def test_li_et_al_nan_zero_and_eigenvalues(tmp_path):
    x, y = np.arange(3.0), np.arange(2.0)
    low, high = np.array([1.0, -3, 2, 1, -1, 0]), np.array([-1.0, 5, 4, 7, -0.5, -1])
    li_h5(tmp_path / "s.h5", x, y, loss=lambda x, y: np.nan if x == 2 else 0.0,
          min_eig=low.reshape(3, 2), max_eig=high.reshape(3, 2))  # fmt: skip
    s = import_surface(tmp_path / "s.h5")
    assert s["done"].all()  # a loss of 0, and NaN, are results
    assert s["nll"].isnull().sum() == 2
    np.testing.assert_array_equal(s["eigenvalue_low"], [[np.nan, -3, 2], [1, -1, 0]])
    np.testing.assert_array_equal(s["eigenvalue_high"], [[np.nan, 5, 4], [7, -0.5, -1]])


def test_li_et_al_in_one_dimension(tmp_path):
    li_h5(tmp_path / "s.h5", np.array([1.0, 0.5, 0.0]), undone=(1,))
    s = import_surface(tmp_path / "s.h5")
    assert s["nll"].dims == ("x",)
    np.testing.assert_array_equal(s["x"], [0, 0.5, 1])
    np.testing.assert_array_equal(s["nll"], [0, np.nan, 1])
    np.testing.assert_array_equal(s["done"], [True, False, True])


@pytest.mark.parametrize("dims", [("y", "x"), ("x",)])
def test_csv_round_trip(tmp_path, dims):
    group = ours() if dims == ("y", "x") else ours().isel(y=0, drop=True).drop_vars("trajectory")
    export_surface(group, tmp_path / "s.csv")
    back = import_surface(tmp_path / "s.csv")
    for name in ("nll", "loss", "penalty", "done", "interpolated"):
        np.testing.assert_array_equal(back[name], group[name])
        assert back[name].dims == dims
        assert back[name].dtype == group[name].dtype
    for axis in dims:
        np.testing.assert_array_equal(back[axis], group[axis])
    header, first = (tmp_path / "s.csv").read_text().splitlines()[:2]
    assert header.startswith("x,y,") if len(dims) == 2 else header.startswith("x,")
    assert "fold" not in header
    assert "inf" in first


@given(arrays(np.float64, (2, 3), elements=st.floats()))
def test_csv_keeps_every_float(tmp_path_factory, z):
    path = tmp_path_factory.mktemp("floats") / "s.csv"
    grid = xr.Dataset({"nll": (("y", "x"), z), "loss": (("y", "x"), z)}, {"x": [0.1, 0.2, 0.3], "y": [-1 / 3, 2.0]})
    export_surface(grid, path)
    np.testing.assert_array_equal(import_surface(path)["nll"], z)


def test_npz_round_trip_without_pickle(tmp_path):
    group = ours()
    export_surface(group, tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz", allow_pickle=False) as held:
        for name in group.variables:
            np.testing.assert_array_equal(held[name], group[name].values)
        assert '"directions": "random"' in str(held["config"])


@pytest.mark.parametrize("suffix", [".vtu", ".vtk"])
def test_vtk_relief(tmp_path, suffix):
    meshio = pytest.importorskip("meshio")
    group = ours()
    export_surface(group, tmp_path / f"loss{suffix}", quantity="loss")
    np.testing.assert_allclose(
        np.sort(meshio.read(tmp_path / f"loss{suffix}").points[:, 2])[-2:],
        np.sort(group["loss"].values[np.isfinite(group["loss"].values)])[-2:],
    )
    export_surface(group, tmp_path / f"s{suffix}")
    mesh = meshio.read(tmp_path / f"s{suffix}")
    assert len(mesh.points) == 15
    assert mesh.cells[0].type == "quad"
    assert len(mesh.cells[0].data) == 8 - 2  # one corner diverged, one not computed
    flat = {name: group[name].values.ravel() for name in ("nll", "penalty", "loss", "done", "interpolated")}
    for name, values in flat.items():
        np.testing.assert_array_equal(mesh.point_data[name], values)
    used = np.unique(mesh.cells[0].data)
    np.testing.assert_array_equal(mesh.points[used, 2], flat["nll"][used])
    assert np.isfinite(mesh.points).all()
    np.testing.assert_array_equal(mesh.points[:, 0], np.tile(group["x"], 3))
    np.testing.assert_array_equal(mesh.points[:, 1], np.repeat(group["y"], 5))
    # every cell is one square of the grid, corners in turn
    for cell in mesh.cells[0].data:
        around = mesh.points[cell][:, :2]
        step = np.abs(np.roll(around, -1, axis=0) - around)
        assert sorted(map(tuple, step)) == [(0, 0.5), (0, 0.5), (0.5, 0), (0.5, 0)]


def test_vtk_curve(tmp_path):
    meshio = pytest.importorskip("meshio")
    export_surface(ours().isel(y=1, drop=True), tmp_path / "s.vtu")
    mesh = meshio.read(tmp_path / "s.vtu")
    assert mesh.cells[0].type == "line"
    assert len(mesh.cells[0].data) == 4


def test_import_and_export_by_command(tmp_path):
    study_csv(tmp_path / "s.csv", np.linspace(-1, 1, 5), np.linspace(-1, 1, 4), skip=(3,), nll=lambda x, y: 1 + x**2)
    out = tmp_path / "s.h5"
    result = invoke("import", tmp_path / "s.csv", "--out", out, "--weight-decay", 0.05)
    assert result.returncode == 0, result.stderr
    assert f"wrote {out}" in result.stdout
    before = out.read_bytes()
    assert invoke("import", tmp_path / "s.csv", "--out", out, "--weight-decay", 0.05).returncode == 0
    assert out.read_bytes() == before
    shown = invoke("show", out).stdout
    assert "19 of 20 done" in shown
    assert "imported from s.csv, how-do-vits-work CSV, sha256" in shown
    assert invoke("plot", out).returncode == 0
    assert (tmp_path / "s-surface.png").stat().st_size > 5000
    for suffix in ("csv", "npz"):
        assert invoke("export", out, "--out", tmp_path / "deep" / f"t.{suffix}").returncode == 0
    again = import_surface(tmp_path / "deep" / "t.csv")
    np.testing.assert_array_equal(again["loss"], ls.load(out)["surface"]["loss"])
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["t.csv", "t.npz"]


def test_mistakes(tmp_path):
    study_csv(tmp_path / "s.csv", [0.0, 1.0], [0.0, 1.0])
    li_h5(tmp_path / "li.h5", np.arange(2.0), np.arange(3.0))
    with h5py.File(tmp_path / "other.h5", "w") as f:
        f["weights"] = np.zeros(3)
    whole = (tmp_path / "li.h5").read_bytes()
    li_h5(tmp_path / "sizes.h5", np.arange(3.0))
    with h5py.File(tmp_path / "sizes.h5", "a") as f:
        f["ycoordinates"] = np.arange(2.0)
    texts = {
        "short.csv": "0,0,1,2,3\n", "header.csv": "x,y,error\n0,0,1\n", "empty.csv": "", "word.csv": "x,nll\n0,one\n",
        "ragged.csv": "x,nll\n0,1,2\n", "twice.csv": "x,nll\n0,1\n0,1\n", "nan.csv": "x,nll\nnan,1\n",
        "none.csv": "x,nll\n", "names.csv": "x,nll,a b\n0,1,2\n",
        "scattered.csv": "x,y,nll\n" + "".join(f"{i},{i},0\n" for i in range(30)),
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff\xfe\x00")
    ls.save(tmp_path / "ours.h5", surface=ours())
    ls.save(tmp_path / "other_group.h5", spectrum=xr.Dataset({"eigenvalue": ("rank", [1.0])}))
    out = tmp_path / "out.h5"
    for name, words in {
        "short.csv": "5 columns and no header", "header.csv": "no column nll", "empty.csv": "empty",
        "word.csv": "row 1 of the data is not 2 numbers: 0,one", "ragged.csv": "row 1", "twice.csv": "more than once",
        "nan.csv": "x is not a finite number", "none.csv": "no points", "names.csv": "a b", "scattered.csv": "grid",
        "cut.h5": "truncated", "picture.csv": "neither CSV", "other.h5": "weights", "ours.h5": "already",
        "absent.csv": "cannot read", "sizes.h5": "3 values for 6 points",
    }.items():  # fmt: skip
        refused(invoke("import", tmp_path / name, "--out", out), words)
    refused(invoke("import", tmp_path / "li.h5", "--out", out, "--weight-decay", 0.1), "no column l2")
    refused(invoke("import", tmp_path / "s.csv", "--out", out, "--weight-decay", -1), "weight_decay=-1")
    refused(invoke("import", tmp_path / "s.csv", "--out", tmp_path / "ours.h5"), "another surface")
    refused(invoke("import", tmp_path / "s.csv", "--out", tmp_path / "li.h5"), "not a results file")
    refused(invoke("export", tmp_path / "ours.h5", "--out", tmp_path / "s.png"), ".vtu, .vtk, .csv, .npz")
    refused(invoke("export", tmp_path / "ours.h5", "--out", tmp_path / "s.csv", "--group", "surfaces"), "surface?")
    refused(invoke("export", tmp_path / "ours.h5", "--out", tmp_path / "s.csv" / "t.csv"), "cannot write")
    no_surface = ("export", tmp_path / "other_group.h5", "--group", "spectrum", "--out")
    refused(invoke(*no_surface, tmp_path / "t.vtu"), "a surface")
    assert not out.exists()
    assert (tmp_path / "li.h5").read_bytes() == whole


def test_without_meshio_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "meshio", None)
    with pytest.raises(ls.UserError, match=r"landscape\[vtk\]"):
        export_surface(ours(), tmp_path / "s.vtu")
    assert list(tmp_path.iterdir()) == []
