"""What `import landscape as ls` gives is documented so that tools read it: NumPy style, no parameter left out."""

import ast
import doctest
import importlib
import inspect
import subprocess
import sys

import pytest
from docstring_parser import DocstringStyle, parse
from helpers import ROOT

import landscape as ls
from landscape.cli.options import explained

STUB = ast.parse((ROOT / "landscape" / "__init__.pyi").read_text())
PUBLIC = sorted(str(a.asname) for n in STUB.body if isinstance(n, ast.ImportFrom) for a in n.names)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_parameter_of_what_is_public_is_documented(name):
    found = getattr(ls, name)
    if inspect.isclass(found):
        said = set(explained(found))
    else:
        doc = parse(inspect.getdoc(found) or "", DocstringStyle.NUMPYDOC)
        said = {part.strip("* ") for entry in doc.params for part in entry.arg_name.split(",")}
    if inspect.isclass(found) and issubclass(found, Exception):
        return
    asked = set(inspect.signature(found).parameters)
    assert asked <= said, f"{name} does not document {', '.join(sorted(asked - said))}"


EXAMPLES = sorted(
    p for p in (ROOT / "landscape").rglob("*.py") if ">>> " in p.read_text() and p.parent.name != "models"
)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_in_docstrings_give_what_they_say(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert doctest.testmod(module).failed == 0


USER = """
from pathlib import Path

import torch

import landscape as ls


def flattest(paths: list[Path]) -> dict[str, float]:
    found: dict[str, float] = {}
    for path in paths:
        model, provenance = ls.load_checkpoint(path)
        data = ls.load_data("digits", samples=64)
        objective = ls.Objective(model, data, weight_decay=1e-4, dtype=torch.float64, provenance=provenance)
        surface = ls.evaluate_surface(objective, ls.random_plane(model), points=5)
        spectrum = ls.hessian_spectrum(objective, k=5)
        ls.save(path.with_suffix(".h5"), surface=surface, spectrum=spectrum)
        estimates: list[ls.Estimate] = ls.open(path, data="digits").run(ls.Spectrum(k=5)).estimates
        found[ls.open(path).label] = estimates[0].value
    return found


class Mine(ls.Task):
    def losses(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (outputs - y).square().sum(1)
"""


def test_a_users_file_passes_a_strict_type_checker(tmp_path):
    """By the types that come with the package; those of what it stands on are taken as they come."""
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(USER)
    beneath = ",".join(
        f"{name}.*" for name in ("torch", "torchvision", "timm", "numpy", "scipy", "xarray", "matplotlib")
    )
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nstrict = true\nignore_missing_imports = true\nfollow_imports = silent\n"
        f"[mypy-{beneath}]\nfollow_imports = skip\n"
    )
    mypy = [sys.executable, "-m", "mypy", "--config-file", tmp_path / "mypy.ini", "--cache-dir", tmp_path / "cache"]
    done = subprocess.run([*mypy, tmp_path / "user.py"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout
