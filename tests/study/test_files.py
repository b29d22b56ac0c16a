"""Several files whose names are alike: told apart, or refused where one is given twice; none is dropped or replaced."""

import shutil
from pathlib import Path

import pytest
from helpers import invoke, refused

import landscape as ls
from landscape.study.files import by_name, labelled


def test_names_are_as_short_as_tells_them_apart():
    paths = [Path(p) for p in ("a.h5", "b.h5", "r.h5", "r.hdf5", "one/c.h5", "two/c.h5")]
    assert list(by_name(paths)) == ["a", "b", "r.h5", "r.hdf5", "one/c", "two/c"]
    assert list(by_name([Path(), Path("..")])) == [".", ".."], "which are no files: whoever reads them says so"
    with pytest.raises(ls.UserError, match="two files are called A"):
        labelled(["a.h5=A", "b.h5=A"])


def test_a_file_that_is_given_twice_is_refused(tmp_path):
    """Before it is read."""
    file, link = tmp_path / "a.pt", tmp_path / "b.pt"
    file.write_bytes(b"weights")
    link.symlink_to(file)
    refused(invoke("series", file, file, "--out", tmp_path / "s.h5"), "is given twice")
    refused(invoke("show", file, link), "is given twice")


def test_files_of_one_name_are_all_shown_and_drawn(mlp, points, tmp_path):
    """In one folder with other endings, or in folders of their own."""
    (tmp_path / "other").mkdir()
    paths = [tmp_path / name for name in ("r.h5", "r.hdf5", "other/r.h5")]
    ls.save(paths[0], spectrum=ls.hessian_spectrum(ls.Objective(mlp, points), k=2, batch_size=5, batches=2))
    for path in paths[1:]:
        shutil.copyfile(paths[0], path)
    shown = invoke("show", *paths)
    assert all(f"\n{label} " in shown.stdout for label in labelled(paths)), shown.stdout
    drawn = invoke("plot", *paths, "--out", tmp_path / "pictures")
    assert drawn.returncode == 0, drawn.stderr
    places = drawn.stdout.split("wrote ")[1:]
    assert len(places) == len(set(places)) == len(list((tmp_path / "pictures").iterdir())) >= 3
