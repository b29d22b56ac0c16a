"""Notebooks are executed by nbmake: the quick ones with every run of the tests, the others with `-m documentation`."""

import os
import sys
from pathlib import Path

import pytest

QUICK = ("inside", "own_analysis")
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # `!landscape`


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes longer."""
    for item in items:
        if item.path.suffix == ".ipynb" and item.path.stem not in QUICK:
            item.add_marker(pytest.mark.documentation)
