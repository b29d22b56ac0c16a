"""What is built has every module and the types, from wherever it is built: landscape/models is a link to models/, which
not every copy of the project has.
"""

import configparser
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest
from helpers import ROOT

import landscape

BUILD = "import sys; from setuptools import build_meta; print(build_meta.{}(sys.argv[1]))"
MODULES = {
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "landscape").rglob("*")
    if path.suffix in (".py", ".pyi", ".toml")
}
NETWORKS = {f"landscape/models/{path.name}" for path in (ROOT / "models").iterdir() if path.suffix in (".py", ".pyi")}
STUB = "landscape/runtime/stub.pyi"  # in the copies that are built, whether or not the project has a stub
PAGE = {path.relative_to(ROOT).as_posix() for path in (ROOT / "landscape" / "study" / "page").iterdir()}
WHOLE = MODULES | NETWORKS | PAGE | {STUB, "landscape/py.typed"}


def source(folder: Path) -> Path:
    """A copy of what is built, without the link."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".*", "*.egg-info", "generated")
    for name in ("landscape", "models", "tests", "benchmarks", "docs", "notebooks", "results"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, folder)
    link = folder / "landscape" / "models"
    if link.is_symlink() or link.is_file():
        link.unlink()
    (folder / STUB).touch()
    return folder


def build(folder: Path, what: str) -> Path:
    out = folder / "dist"
    run = subprocess.run(
        [sys.executable, "-c", BUILD.format(what), str(out)], cwd=folder, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return out / run.stdout.split()[-1]


def wheel_of(folder: Path) -> set[str]:
    with zipfile.ZipFile(build(folder, "build_wheel")) as wheel:
        return {name for name in wheel.namelist() if name.startswith("landscape/")}


@pytest.mark.parametrize("copy", ["clone", "zip", "without link"])
def test_a_wheel_is_whole_from_any_copy(copy, tmp_path):
    folder = source(tmp_path)
    link = folder / "landscape" / "models"
    if copy == "clone":
        link.symlink_to("../models")
    elif copy == "zip":  # a zip of a repository holds a link as a file that names its target
        link.write_text("../models")
    assert wheel_of(folder) == WHOLE


@pytest.mark.parametrize("linked", [True, False])
def test_an_sdist_has_its_tests_and_builds_the_same_wheel(linked, tmp_path):
    (folder := tmp_path / "source").mkdir()
    source(folder)
    if linked:
        (folder / "landscape" / "models").symlink_to("../models")
    with tarfile.open(build(folder, "build_sdist")) as sdist:
        sdist.extractall(tmp_path / "sdist", filter="data")
    (unpacked,) = (tmp_path / "sdist").iterdir()
    names = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    needed = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "results").rglob("*.h5"), *(ROOT / "docs").glob("*.*")]
    needed += (ROOT / "notebooks").glob("*.ipynb")
    needed += [path for path in (ROOT / "tests").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    documents = {
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "CITATION.cff",
        "LICENSE",
        "setup.cfg",
        "pyproject.toml",
    }
    assert documents | {path.relative_to(ROOT).as_posix() for path in needed} <= names
    assert not {name for name in names if name.startswith("landscape/models/")}, "the networks are there twice"
    assert wheel_of(unpacked) == WHOLE


def test_the_version_stands_in_the_package_alone(tmp_path):
    wheel = build(source(tmp_path), "build_wheel")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    (info,) = (tmp_path / "unpacked").glob("*.dist-info")
    built: Distribution = PathDistribution(info)
    assert built.version == landscape.__version__
    for name in ("setup.cfg", "pyproject.toml", "CITATION.cff"):
        assert landscape.__version__ not in (ROOT / name).read_text()


def test_what_the_extras_need_stands_in_one_place():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    named = [line for extra in setup["options.extras_require"].values() for line in extra.split("\n") if line]
    assert len(named) == len(set(named))
    assert "landscape[test]" in setup["options.extras_require"]["dev"].split()
