"""The page of whole examples runs from top to bottom: its files, its Python, its commands."""

import re
import shlex
import sys

import numpy as np
import pytest
from helpers import ROOT, invoke

PAGE = ROOT / "docs" / "tasks" / "yours.md"


def test_every_block_runs_and_command_and_python_agree(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    import landscape as ls

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names, files = {"__name__": "page"}, []
    for language, block in re.findall(r"^```(python|sh)\n(.*?)^```", PAGE.read_text(), re.M | re.S):
        if language == "sh":
            for line in block.strip().splitlines():
                done = invoke(*shlex.split(line)[1:])
                assert done.returncode == 0, f"{line}: {done.stderr}"
        elif file := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / file[1]).write_text(block)
            files.append(file[1].removesuffix(".py"))
        else:
            exec(compile(block, str(PAGE), "exec"), names)
    for name in files:
        sys.modules.pop(name, None)
    assert names["found"].units == 64 * 23
    stored = ls.load("pixels.h5")["spectrum"]["eigenvalue"].values
    np.testing.assert_allclose(stored, names["spectrum"]["eigenvalue"].values, rtol=1e-3)
    assert all(ls.load(f"{name}.h5") for name in ("mlp", "gpt", "pixels", "noisy"))
