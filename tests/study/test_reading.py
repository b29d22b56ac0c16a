"""Results of every analysis of the catalogue from a stranger: whatever is wrong with one is said in a line."""

import h5py
import numpy as np
import pytest
import xarray as xr
from helpers import ROOT, invoke, refused

import landscape as ls
from landscape.study.reading import contents

STORED = ROOT / "results" / "study" / "vit_1.0.h5"


@pytest.fixture
def several(tmp_path):
    """A file of four analyses, one of which is no analysis's."""
    x = np.linspace(-1, 1, 5)
    z = np.add.outer(x**2, x**2)
    grid = {name: (("y", "x"), z) for name in ("nll", "loss", "penalty", "accuracy")}
    surface = xr.Dataset({**grid, "done": (("y", "x"), z >= 0)}, {"x": x, "y": x}, {"config": {"analysis": "surface"}})
    weight = np.full((2, 4), 0.25)
    density = xr.Dataset(
        {"node": (("probe", "node"), np.arange(8.0).reshape(2, 4)), "weight": (("probe", "node"), weight),
         "done": ("probe", [True, True])}, {"probe": [0, 1]}, {"config": {"analysis": "density", "parameters": 10}},
    )  # fmt: skip
    path = tmp_path / "a.h5"
    ls.save(path, surface=surface, density=density, note=xr.Dataset({"v": 1.0}), **ls.load(STORED))
    return path


def test_good_groups_are_good(several):
    assert not contents(several).bad
    assert set(contents(several).groups) == {"surface", "density", "note", "spectrum", "test"}


WRONG = {
    "shares that sum to 1": lambda g: {"density": g["density"].assign(weight=2 * g["density"]["weight"])},
    "coordinate x does not increase": lambda g: {"surface": g["surface"].isel(x=slice(None, None, -1))},
    "nll is over x, y": lambda g: {"surface": g["surface"].transpose()},
    "No variable named 'eigenvalue'": lambda g: {"spectrum": g["spectrum"].drop_vars("eigenvalue")},
    "k=-1 must be 1 or more": lambda g: {"spectrum": with_setting(g["spectrum"], k=-1)},
    "which=['LM'] is not one of": lambda g: {"spectrum": with_setting(g["spectrum"], which=["LM"])},
    "only": lambda g: {"test": g["test"].assign(accuracy=("n", [0.1, 0.2]))},
}


def with_setting(group, **settings):
    return group.assign_attrs(config={**group.attrs["config"], **settings})


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_group_is_named_and_the_others_serve(several, tmp_path, words, capfd):
    """The digests hold: who forges results forges these too."""
    wrong = WRONG[words](ls.load(several))
    (name,) = wrong
    ls.save(several, **wrong)
    found = contents(several)
    assert set(found.groups) == {"surface", "density", "note", "spectrum", "test"} - {name}
    shown = invoke("show", several)
    assert shown.returncode == 0
    assert "\nspectrum: " in shown.stdout or name == "spectrum"
    assert words in found.bad[name]
    drawn = invoke("plot", several, "--out", tmp_path)
    assert drawn.returncode == 0
    assert not list(tmp_path.glob(f"a-{name}*.png"))
    other = "density" if name != "density" else "surface"
    assert list(tmp_path.glob(f"a-{other}*.png"))
    exported = invoke("export", several, "--out", tmp_path / "s.csv")
    if name == "surface":
        refused(exported, "its surface cannot be exported", words)
    else:
        assert exported.returncode == 0


def test_damage_of_results_of_old_is_found_where_they_are_continued(trained, tmp_path):
    """Files without digests: what is continued must be of the form of a new result."""
    out = tmp_path / "a.h5"
    arguments = ("spectrum", trained, "--batches", 2, "--out", out, "-q")
    assert invoke(*arguments).returncode == 0
    whole = ls.load(out)["spectrum"]
    for wrong in (
        whole.assign(eigenvalue=whole["eigenvalue"].transpose()),
        whole.assign(products=whole["products"].astype(str)),
        whole.isel(batch=slice(1)),
        whole.assign_coords(batch=[3, 4]),
        whole.drop_vars("done"),
    ):
        ls.save(out, spectrum=wrong)
        with h5py.File(out, "a") as f:
            del f["spectrum"].attrs["digests"]
        refused(invoke(*arguments), "write to another file")


def test_a_damaged_group_is_not_continued(trained, tmp_path):
    out = tmp_path / "a.h5"
    arguments = ("spectrum", trained, "--batches", 2, "--out", out, "-q")
    assert invoke(*arguments).returncode == 0
    with h5py.File(out, "a") as f:
        f["spectrum/eigenvalue"][0, 0] = 5.0
    before = out.read_bytes()
    refused(invoke(*arguments), "its spectrum cannot be continued", "(eigenvalue)", "write to another file")
    assert out.read_bytes() == before
