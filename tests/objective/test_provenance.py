"""Where weights came from in one's own words is kept, and whatever reads results takes it."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import invoke

import landscape as ls
from landscape.objective.provenance import of_ones_own

OWN = [
    {"who": "me", "lr": np.float32(0.25), "when": object},
    {"model": 3, "file": Path("x.pt"), "parameters": "many", "metadata": "none", "sha256": None},
    {"model": None, "parameters": True, "metadata": {"weight_decay": "little"}, 7: {"a": (1, 2)}},
]


@pytest.mark.parametrize("own", OWN)
def test_a_provenance_of_ones_own_is_stored_shown_and_reported(mlp, points, tmp_path, own):
    objective = ls.Objective(mlp, points, provenance=own)
    assert json.loads(json.dumps(objective.provenance, allow_nan=False)) == objective.provenance
    path = tmp_path / "x.h5"
    ls.save(path, trace=ls.hessian_trace(objective, products=12, estimator="hutchinson"))
    stored = ls.load(path)["trace"].attrs["config"]["objective"]["provenance"]
    assert stored == objective.provenance
    other, page = tmp_path / "y.h5", tmp_path / "p.html"
    other.write_bytes(path.read_bytes())
    for command in (("show", path), ("show", path, other), ("report", path, "--out", page)):
        result = invoke(*command)
        assert result.returncode == 0, result.stderr
        assert "left alone" not in result.stderr


def test_nothing_of_it_is_lost():
    kept = of_ones_own(OWN[1])
    assert kept == {"model": "3", "file": "x.pt", "own_parameters": "many", "own_metadata": "none"}
    assert of_ones_own(OWN[0])["lr"] == 0.25
    whole = {"model": "resnet8", "parameters": 5, "metadata": {}, "sha256": "ab"}
    assert of_ones_own(whole) == whole


def test_what_is_no_mapping_is_refused(mlp, points):
    with pytest.raises(ls.UserError, match="provenance='my run' is no mapping"):
        ls.Objective(mlp, points, provenance="my run")
