"""The smallest study, on bundled data: a ResNet, a ViT and an AlterNet trained on digits, analysed and compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from landscape.pictures.files import save_pictures
from landscape.study.cells import Places, Running, carry_out_cell
from landscape.study.declared import Cell, Study
from landscape.study.drawing import compare, draw_file
from landscape.study.outcome import found
from landscape.study.study_page import write_page
from landscape.study.toml import read_study
from landscape.study.words import table

NAME = "quickstart"


@dataclass(frozen=True)
class Beside(Places):
    """Places for one training per network, whose files lie beside each other under the network's name."""

    def results(self, cell: Cell) -> Path:
        """NAME.h5."""
        return self.folder / f"{cell.network}.h5"

    def checkpoint(self, cell: Cell) -> Path:
        """NAME.safetensors."""
        return self.folder / f"{cell.network}.safetensors"


def quickstart(
    out: str | Path,
    *,
    seed: int = 0,
    effort: float = 1.0,
    device: str | None = None,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> str:
    """Write NAME.safetensors, NAME.h5 and pictures for each network, all-spectra.png and page.html; return the table.

    All goes into `out`. effort: scales epochs, grid, mini-batches and probes, for a trial run. device: by default a GPU
    if there is one. The same seed gives the same numbers. Started again on the same folder, it continues where it
    stopped.
    """
    from landscape.runtime.devices import chosen_device

    device = chosen_device(device)
    study, places = scaled(read_study(NAME), seed, effort), Beside(Path(out))
    for cell in study.cells():
        carry_out_cell(study, cell, places, Running(device, progress=progress))
        for picture in draw_file(places.results(cell)):
            say(f"wrote {picture}")
    has = found(study, places)
    groups = {cell.network: held for cell, held in has.files.items()}
    spectra = {name: {"spectrum": held["spectrum"]} for name, held in groups.items()}
    for picture in save_pictures(compare(spectra), places.folder, "all"):
        say(f"wrote {picture}")
    say(f"wrote {write_page(has, places.folder / 'page.html', NAME)}")
    return table(groups)


def scaled(study: Study, seed: int, effort: float) -> Study:
    """The study with this seed for every draw, and with everything scaled by `effort`."""
    batches = max(2, round(32 * effort))
    of: dict[str, dict[str, Any]] = {
        "surface": {"points": 2 * round(10 * effort**0.5) + 1, "seed": seed},
        "spectrum": {"batches": batches, "seed": seed},
        "density": {"probes": max(2, round(4 * effort)), "density_samples": max(16, round(128 * effort)), "seed": seed},
    }
    return replace(
        study,
        seeds=(seed,),
        subject=replace(study.subject, seed=seed, samples=16 * batches),
        recipes={n: replace(r, epochs=max(1, round(effort * r.epochs))) for n, r in study.recipes.items()},
        analyses={name: replace(analysis, **of.get(name, {})) for name, analysis in study.analyses.items()},
    )
