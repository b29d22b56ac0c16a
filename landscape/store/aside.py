"""The state of a unit under way, in a file beside the results file.

A killed run thus loses about half a minute of a unit that takes hours. The file is a zip of plain arrays (.npz), not
compressed, each with its checksum; it is written whole and renamed into its place. It is used only if it is whole and
of the very same configuration, and is removed once the unit is stored.
"""

from __future__ import annotations

import json
import logging
import math
import time
import zipfile
from collections.abc import Callable, Mapping
from glob import escape
from operator import lt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.runtime.files import replacing, say_once, sweep

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
ENDING = "unfinished"
SHARE = 5  # the time between two writes is at least this many times the time that a write takes
WHOLE = np.array(True)  # `done` of a group with a single unit
LOG = logging.getLogger(__name__)


class Aside:
    """Keeps the state of one unit, as a `landscape.linalg.stages.Keeper`.

    Parameters
    ----------
    path
        The file; None to keep nothing, and only to stop in time.
    config
        What the state belongs to; a state of anything else is not continued.
    every
        The least number of seconds between two writes, which take at most a fifth of the time.
    late
        Whether the unit is to stop.
    """

    def __init__(self, path: Path | None, config: Mapping[str, Any], every: float, late: Callable[[], bool]) -> None:
        self.path, self._late, self._every = path, late, every
        self._config = json.dumps({"format": FORMAT, **config}, sort_keys=True)
        self._last, self._took = time.monotonic(), 0.0

    def kept(self) -> Mapping[str, np.ndarray] | None:
        """The stored state, read array by array, or None; says so if there is one that cannot be used."""
        if self.path is None:
            return None
        sweep(self.path)  # a run killed while writing leaves a partial file, perhaps of gigabytes
        if not self.path.exists():
            return None
        try:
            _check(self.path)
            state: Mapping[str, np.ndarray] = np.load(self.path, allow_pickle=False)
            if str(state["config"]) == self._config:
                LOG.info("continuing from %s", self.path)
                return state
            why = "is of another configuration"
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as e:
            why = f"is damaged ({e})"
        self._pass_over(why)
        return None

    def unusable(self) -> None:
        """Say that what `kept` returned is not used."""
        self._pass_over("does not fit")

    def due(self) -> bool:
        """Whether it is time to keep the state again."""
        return self.path is not None and time.monotonic() - self._last > max(self._every, SHARE * self._took)

    def keep(self, state: Mapping[str, np.ndarray | Tensor]) -> None:
        """Write the state in place of the previous one. If that fails, say so and keep no more states."""
        if self.path is None:
            return
        began = time.monotonic()
        try:
            with replacing(self.path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as file:
                for name, value in {"config": np.array(self._config), **state}.items():
                    array = value if isinstance(value, np.ndarray) else value.detach().cpu().numpy()
                    with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
        except OSError as e:
            say_once(f"cannot write {self.path} ({e.strerror or e}); if this run is killed, the search begins anew")
            self.path = None
        self._last = time.monotonic()
        self._took = self._last - began

    def stop(self) -> bool:
        """Whether the unit is to stop."""
        return self._late()

    def _pass_over(self, why: str) -> None:
        say_once(f"{self.path} {why}; it is passed over, and the search begins anew")


def beside(path: Path, group: str, unit: tuple[int, ...] = ()) -> Path:
    """The file for the state of a unit of a group, beside the results file at `path`."""
    return path.with_name(".".join([path.name, group, *map(str, unit), ENDING]))


def forget(path: Path, group: str, done: np.ndarray = WHOLE) -> None:
    """Remove the states of those units of a group that are done, now that they are stored.

    done: which units are; by default the single unit of a group without others.
    """
    beginning = f"{path.name}.{group}."
    for file in path.parent.glob(f"{escape(beginning)}*{ENDING}"):
        numbers = file.name.removeprefix(beginning).removesuffix(ENDING).split(".")[:-1]
        unit = tuple(int(number) for number in numbers if number.isdigit())
        if len(unit) == len(numbers) == done.ndim and all(map(lt, unit, done.shape)) and done[unit]:
            file.unlink(missing_ok=True)


def _check(path: Path) -> None:
    """Raise ValueError or BadZipFile unless the file is whole arrays of numbers and text, no larger than itself."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as file:
        for info in file.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
                raise ValueError(f"{info.filename} is compressed")
            with file.open(info) as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(member)
                if dtype.hasobject or math.prod(shape) * dtype.itemsize > info.file_size:
                    raise ValueError(f"{info.filename} says that it is larger than it is")
        if (broken := file.testzip()) is not None:
            raise ValueError(f"{broken} has another checksum")
