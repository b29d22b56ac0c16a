"""Labelled arrays are read as xarray reads them through h5netcdf."""

import h5py
import numpy as np
import pytest
import xarray as xr

from landscape.store.arrays import attributes, labelled

GROUP = xr.Dataset(
    {
        "value": (
            ("row", "part"),
            [[1.0, np.nan], [np.inf, -2.0]],
            {"long_name": "a value", "least_n": 8, "ends": [1, 2]},
        ),
        "single": (("row", "step"), np.ones((2, 3), np.float32)),  # a dimension without a coordinate
        "done": ("row", [True, False]),
        "count": ((), 7),
        "word": ("part", ["é", "longer"]),
    },
    {"row": [3, 4], "part": ["conv", "fc"], "place": ("part", [0.5, 1.5])},
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.h5"
    GROUP.to_netcdf(path, group="g", engine="h5netcdf")
    return path


def test_as_xarray_reads_them(file):
    with xr.open_dataset(file, group="g", engine="h5netcdf") as opened, h5py.File(file) as f:
        own, theirs = labelled(f["g"], None), opened.load()
        xr.testing.assert_identical(own, theirs)
        xr.testing.assert_identical(own, GROUP)
        assert {k: v.dtype for k, v in own.variables.items()} == {k: v.dtype for k, v in theirs.variables.items()}
    own["done"][1] = True  # in memory, to be written to
    own["word"][0] = "new"


def test_a_variable_without_a_digest_is_left_out(file):
    with h5py.File(file) as f:
        assert set(labelled(f["g"], {"count": "", "row": ""}).variables) == {"count", "row"}


def test_what_other_programs_write_is_read(file):
    with h5py.File(file, "a") as f:
        f["g"]["unlabelled"] = np.ones((3, 2))
        f["g"].attrs.update({"none": h5py.Empty("f4"), "bytes": np.bytes_(b"text"), "texts": ["a", "b"], "one": [1.5]})
        assert labelled(f["g"], None)["unlabelled"].dims == ("unnamed_3", "unnamed_2")
        found = attributes(f["g"])
        assert (found["bytes"], found["texts"], found["one"], found["none"].size) == ("text", ["a", "b"], 1.5, 0)
