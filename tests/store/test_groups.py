"""Of a results file some is damaged, false or another's: the good groups serve, the rest is named and kept."""

import json

import h5py
import numpy as np
import pytest
import xarray as xr
from helpers import invoke
from hypothesis import given, settings
from hypothesis import strategies as st

import landscape as ls
from landscape.store.file import read_contents
from landscape.store.groups import digests


@pytest.fixture
def path(tmp_path):
    """A file of two groups, one of which has everything that a group may have."""
    node = np.arange(6.0).reshape(2, 3)
    good = xr.Dataset({"v": ("n", np.arange(5.0) + 0.5)}, attrs={"config": {"analysis": "other"}})
    full = xr.Dataset(
        {"node": (("probe", "node"), node), "flag": ("probe", [True, False]), "count": ("part", [1, 2]),
         "done": ("part", [True, False])},
        {"probe": [0, 1], "part": ["a", "b"]}, {"config": {"analysis": "more", "deep": {"a": [1, None]}}},
    )  # fmt: skip
    ls.save(tmp_path / "a.h5", good=good, full=full)
    return tmp_path / "a.h5"


def changed_value(f):
    f["full/node"][0, 1] = 7.0


def changed_text(f):
    f["full/part"][0] = "c"


def changed_flag(f):
    f["full/done"][1] = 1


def changed_config(f):
    f["full"].attrs["config"] = json.dumps({"analysis": "more", "deep": {"a": [2, None]}})


def removed(f):
    del f["full/count"]


def another_type(f):
    del f["full/count"]
    f["full/count"] = np.array([1.0, 2.0])
    f["full/count"].dims[0].attach_scale(f["full/part"])


def another_shape(f):
    del f["full/count"]
    f["full/count"] = np.arange(3)


def replaced_by_data(f):
    del f["full"]
    f["full"] = np.arange(3)


@pytest.mark.parametrize(
    ("damage", "named"),
    [(changed_value, "node"), (changed_text, "part"), (changed_flag, "done"), (changed_config, "config"),
     (removed, "count"), (another_type, "count"), (another_shape, "count")],
)  # fmt: skip
def test_what_is_not_as_it_was_written_is_named_and_left_alone(path, damage, named, capfd):
    with h5py.File(path, "a") as f:
        damage(f)
    found = read_contents(path)
    assert list(found.groups) == ["good"]
    assert named in found.bad["full"]
    assert list(ls.load(path)) == ["good"]
    assert f"{path}: the group full is left alone: it is not as it was written ({named}" in capfd.readouterr().err
    ls.save(path, new=xr.Dataset({"v": 1.0}))
    assert set(read_contents(path).groups) == {"good", "new"}
    assert read_contents(path).bad == found.bad, "it is kept as it is"
    with h5py.File(path, "a") as f:
        del f["full"].attrs["digests"]
    assert "full" in ls.load(path), "who trusts it reads it"


def test_a_flipped_bit_of_the_numbers_is_found_wherever_it_is(path):
    whole, expected = path.read_bytes(), ls.load(path)["good"]["v"].values
    at = whole.index(expected.tobytes())
    for bit in range(8 * expected.nbytes):
        flipped = bytearray(whole)
        flipped[at + bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert read_contents(path).bad["good"].startswith("it is not as it was written (v)")


@settings(max_examples=15)
@given(st.lists(st.floats(width=32), min_size=1, max_size=4), st.sampled_from(["<f4", ">f4", "f8", "c8"]),
       st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3), min_size=1))  # fmt: skip
def test_digests_survive_the_file(tmp_path_factory, numbers, dtype, texts):
    attrs = {"config": {"k": [1, None, 0.1]}, "seed": 3, "share": 0.1, "text": "[1", "array": np.arange(2), "one": [1]}
    group = xr.Dataset(
        {"numbers": ("n", np.array(numbers, dtype)), "texts": ("t", np.array(texts, object)), "whole": 3, "yes": True},
        {"label": ("t", np.array([f"{i}: {t}" for i, t in enumerate(texts)], object))},
        attrs,
    )
    path = tmp_path_factory.mktemp("digests") / "a.h5"
    ls.save(path, group=group)
    ls.save(path, other=group)
    assert not read_contents(path).bad
    assert digests(ls.load(path)["group"]) == digests(ls.load(path)["other"])


def test_files_from_before_digests_are_read_and_get_them(path):
    with h5py.File(path, "a") as f:
        for name in ("good", "full"):
            del f[name].attrs["digests"]
    assert set(ls.load(path)) == {"good", "full"}
    ls.save(path)
    with h5py.File(path) as f:
        assert set(json.loads(f["full"].attrs["digests"])) >= {
            "@config",
            "node",
            "flag",
            "count",
            "done",
            "probe",
            "part",
        }


MISLABELLED = {
    "done of the type int64": {"done": ("n", [0, 1])},
    "a value of its coordinate n more than once": {"n": ("n", [1.0, 1.0])},
    "a value of its coordinate t more than once": {"t": ("t", ["a", "a"])},
    "a coordinate n that is not finite": {"n": ("n", [np.nan, 1.0])},
}


@pytest.mark.parametrize("words", MISLABELLED)
def test_groups_that_no_analysis_labels_so(tmp_path, words):
    ls.save(tmp_path / "a.h5", group=xr.Dataset(MISLABELLED[words]), good=xr.Dataset({"v": 1.0}))
    assert read_contents(tmp_path / "a.h5").bad == {
        "group": f"it has {words}" + ", not true or false" * ("done" in words)
    }


@pytest.mark.parametrize(
    ("config", "at"),
    [
        (["a"], "config"), ({"analysis": 3}, "config.analysis"), ({"objective": 3}, "config.objective"),
        ({"objective": {"weight_decay": "much"}}, "config.objective.weight_decay"),
        ({"objective": {"provenance": {"sha256": 5}}}, "config.objective.provenance.sha256"),
        ({"objective": {"data": {"fraction": "all"}}}, "config.objective.data.fraction"),
        ({"plane": 1}, "config.plane"),
    ],
)  # fmt: skip
def test_a_configuration_of_other_types(tmp_path, config, at):
    ls.save(tmp_path / "a.h5", group=xr.Dataset({"v": 1.0}, attrs={"config": config}))
    assert f"has {at} that should be" in read_contents(tmp_path / "a.h5").bad["group"]


@pytest.mark.parametrize("software", ["torch", {"torch": 2}])
def test_versions_of_other_types(tmp_path, software):
    """Of which `show` and the report make a line."""
    ls.save(tmp_path / "a.h5", group=xr.Dataset({"v": 1.0}, attrs={"software": software}))
    assert "has software" in read_contents(tmp_path / "a.h5").bad["group"]
    assert invoke("show", tmp_path / "a.h5").returncode == 0


def zeros(f):
    f["full"].create_dataset("zeros", (1 << 28,), "f8", compression="gzip", chunks=(1 << 20,))


def one_text_many_times(f):
    f["full"].create_dataset("texts", (1 << 20,), h5py.string_dtype(), compression="gzip", chunks=(1 << 16,))


def long_texts(f):
    space = f["full"].create_dataset("texts", (3000,), h5py.string_dtype())
    space[:] = ["x" * 100_000] * 3000


def many_groups(f):
    for i in range(6):
        f.create_group(f"zeros{i}").create_dataset("zeros", (1 << 23,), "f8", compression="gzip", chunks=(1 << 20,))


@pytest.mark.parametrize("bomb", [zeros, one_text_many_times, many_groups])
def test_what_unpacks_to_far_more_than_the_file_is_not_unpacked(path, bomb):
    with h5py.File(path, "a") as f:
        bomb(f)
    assert path.stat().st_size < 1 << 20
    found = read_contents(path)
    assert "good" in found.groups
    assert sum(group.nbytes for group in found.groups.values()) <= 256 << 20
    assert any("unpacks to over 256 MB" in why or "1,048,576 texts" in why for why in found.bad.values())


def test_a_surface_of_others_that_unpacks_to_far_more_is_not_imported(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as f:
        for name in ("xcoordinates", "train_loss"):
            f.create_dataset(name, (1 << 28,), "f8", compression="gzip", chunks=(1 << 20,))
    with pytest.raises(ls.UserError, match="far more than it has"):
        ls.import_surface(tmp_path / "a.h5")


def test_what_others_put_into_the_file_is_kept(path):
    """Of the root and of a group that is written anew: attributes, data sets without dims, groups with labels."""
    with h5py.File(path, "a") as f:
        f.attrs["note"] = "mine"
        f["mine"] = np.arange(4)
        f["full/mine"] = np.arange(5)
        f["full"].attrs["note"] = "also mine"
        scale = f.create_dataset("full/sub/scale", data=[1.0, 2.0])
        scale.make_scale("scale")
        f["full/sub/labelled"] = np.zeros(2)
        f["full/sub/labelled"].dims[0].attach_scale(scale)
        f["theirs/deep/v"] = np.ones(2)
    full = ls.load(path)["full"]
    assert "mine" not in full
    for _ in range(2):
        ls.save(path, full=full, good=xr.Dataset({"v": 2.0}))
    with h5py.File(path) as f:
        assert f.attrs["note"] == "mine"
        assert f["full"].attrs["note"] == "also mine"
        np.testing.assert_array_equal(f["mine"], np.arange(4))
        np.testing.assert_array_equal(f["full/mine"], np.arange(5))
        np.testing.assert_array_equal(f["full/sub/labelled"].dims[0][0], [1.0, 2.0])
        np.testing.assert_array_equal(f["theirs/deep/v"], np.ones(2))
    assert float(ls.load(path)["good"]["v"]) == 2
    assert "theirs" not in read_contents(path).bad


def test_a_read_only_file_is_refused_to_the_superuser_too(path):
    path.chmod(0o444)
    before = path.read_bytes()
    with pytest.raises(ls.UserError, match="is read-only; make it writable"):
        ls.save(path, v=xr.Dataset({"v": 1.0}))
    assert path.read_bytes() == before
