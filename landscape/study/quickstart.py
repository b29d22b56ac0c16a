"""The whole flow on embedded data: train a ResNet, a ViT and an AlterNet on the digits, analyse each, compare them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from landscape.analyses.base import Analysis
from landscape.analyses.density import Density
from landscape.analyses.spectrum import Spectrum
from landscape.analyses.surface import Surface
from landscape.analyses.test import Test
from landscape.checkpoints.read import save_checkpoint
from landscape.data.sources import open_source
from landscape.data.transforms import input_settings
from landscape.models import create_model
from landscape.pictures.files import save_pictures
from landscape.runtime.random import seeded
from landscape.study.drawing import compare, draw_file
from landscape.study.reading import load
from landscape.study.subject import Subject, SubjectSettings
from landscape.study.words import table
from landscape.training.recipe import Recipe
from landscape.training.train import train

NETWORKS = {
    "resnet8": Recipe(epochs=20, lr=2e-3, warmup_epochs=2),
    "vit_xs": Recipe(epochs=60, lr=3e-3, warmup_epochs=10),
    "alternet_xs": Recipe(epochs=20, lr=2e-3, warmup_epochs=2),
}


def quickstart(
    out: str | Path,
    *,
    seed: int = 0,
    effort: float = 1.0,
    device: str = "cpu",
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> str:
    """Write, per network, NAME.safetensors, NAME.h5 and its pictures into `out`, and spectra.png; return the table.

    effort: scales epochs, grid, mini-batches and probes, for a trial run. The same seed gives the same numbers.
    Started again on the same folder, it continues where it stopped.
    """
    out = Path(out)
    results = {}
    for name, recipe in NETWORKS.items():
        checkpoint = out / f"{name}.safetensors"
        if not checkpoint.exists():
            _train(name, recipe, checkpoint, seed, effort, device, progress)
        results[name] = out / f"{name}.h5"
        _analyse(checkpoint, results[name], seed, effort, device, progress)
        for picture in draw_file(results[name]):
            say(f"wrote {picture}")
    groups = {name: load(path) for name, path in results.items()}
    spectra = {name: {"spectrum": held["spectrum"]} for name, held in groups.items()}
    for picture in save_pictures(compare(spectra), out, "all"):
        say(f"wrote {picture}")
    return table(groups)


def _train(name: str, recipe: Recipe, path: Path, seed: int, effort: float, device: str, progress: bool) -> None:
    recipe = Recipe(**{**recipe.asdict(), "epochs": max(1, round(effort * recipe.epochs)), "seed": seed})
    source = open_source("digits")
    settings = input_settings(source)
    with seeded(seed):
        model = create_model(name, source.num_classes, settings.image_size, settings.in_channels)
    state = path.with_name(path.name + ".training")
    trained = train(model, source, recipe, settings, device=device, state=state, progress=progress, label=name)
    save_checkpoint(path, trained.model, {"model": name, **trained.metadata})
    state.unlink(missing_ok=True)


def _analyse(checkpoint: Path, out: Path, seed: int, effort: float, device: str, progress: bool) -> None:
    batches = max(2, round(32 * effort))
    subject = Subject(
        checkpoint, SubjectSettings(data="digits", device=device, seed=seed, samples=16 * batches), progress=progress
    )
    analyses: list[Analysis] = [
        Test(),
        Surface(points=2 * round(10 * effort**0.5) + 1, span=1.0, seed=seed),
        Spectrum(batches=batches, seed=seed),
        Density(probes=max(2, round(4 * effort)), steps=40, seed=seed, density_samples=max(16, round(128 * effort))),
    ]
    for analysis in analyses:
        subject.run(analysis, out, progress=progress)
