import pickle

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import landscape as ls


@pytest.fixture
def group():
    values = np.array([[0.0, np.nan], [np.inf, -1e300], [2, 3]])
    return xr.Dataset(
        {"loss": (("y", "x"), values), "done": (("y", "x"), values == values)},
        {"x": [0.0, 1.0], "y": [0.0, 1.0, 2.0]},
        {"config": {"points": [2, 3], "seed": None, "deep": {"a": 1.5}}, "seed": 0},
    )


def test_round_trip(tmp_path, group):
    ls.save(tmp_path / "a.h5", surface=group)
    back = ls.load(tmp_path / "a.h5")
    assert list(back) == ["surface"]
    assert back["surface"].drop_attrs().identical(group.drop_attrs())
    assert back["surface"].attrs["config"] == group.attrs["config"]
    assert "torch" in back["surface"].attrs["software"]


def test_what_is_loaded_goes_to_other_processes(tmp_path, group):
    ls.save(tmp_path / "a.h5", surface=group)
    back = ls.load(tmp_path / "a.h5")["surface"]
    assert pickle.loads(pickle.dumps(back)).identical(back)


@settings(deadline=None, max_examples=20)
@given(arrays(np.float64, (2, 3), elements=st.floats()))
def test_every_float_survives(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("floats") / "a.h5"
    ls.save(path, g=xr.Dataset({"v": (("a", "b"), values)}))
    np.testing.assert_array_equal(ls.load(path)["g"]["v"].values, values)


def test_other_readers_see_the_same(tmp_path, group):
    """A variable named like one of its dimensions (node) too, for xarray and for plain h5py."""
    density = xr.Dataset({"node": (("probe", "node"), np.arange(6.0).reshape(2, 3))}, {"probe": [0, 1]})
    ls.save(tmp_path / "a.h5", surface=group, density=density)
    with h5py.File(tmp_path / "a.h5") as f:
        np.testing.assert_array_equal(f["surface/loss"][:], group["loss"])
        np.testing.assert_array_equal(f["density/node"][:], density["node"])
    with xr.open_dataset(tmp_path / "a.h5", group="density", engine="h5netcdf") as found:
        assert found["node"].dims == ("probe", "node")
        np.testing.assert_array_equal(found["node"], density["node"])


def test_other_groups_are_kept_and_order_does_not_matter(tmp_path, group):
    ls.save(tmp_path / "a.h5", b=group)
    ls.save(tmp_path / "a.h5", a=group)
    ls.save(tmp_path / "c.h5", a=group, b=group)
    assert list(ls.load(tmp_path / "a.h5")) == ["a", "b"]
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "c.h5").read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".part"] == []


def test_files_that_are_not_ours(tmp_path, group):
    with pytest.raises(ls.UserError, match="no such"):
        ls.load(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(ls.UserError, match="not a readable"):
        ls.load(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as f:
        f["loss"] = np.zeros(3)
    with pytest.raises(ls.UserError, match="not a results file"):
        ls.load(tmp_path / "other.h5")
    ls.save(tmp_path / "a.h5", surface=group)
    whole = (tmp_path / "a.h5").read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        (tmp_path / "cut.h5").write_bytes(whole[:length])
        with pytest.raises(ls.UserError, match="not a readable"):
            ls.load(tmp_path / "cut.h5")


def test_what_is_not_ours_is_not_overwritten(tmp_path, group):
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(ls.UserError):
        ls.save(tmp_path / "text.h5", surface=group)
    assert (tmp_path / "text.h5").read_text() == "hello"


def test_a_folder_that_cannot_be_written(tmp_path, group):
    (tmp_path / "file").write_text("")
    with pytest.raises(ls.UserError, match="cannot write"):
        ls.save(tmp_path / "file" / "a.h5", surface=group)
