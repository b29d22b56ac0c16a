"""The whole flow on embedded data: train a ResNet, a ViT and an AlterNet on the digits, analyse each, compare them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from landscape import store
from landscape.analyses.density import spectral_density
from landscape.analyses.spectrum import hessian_spectrum
from landscape.analyses.surface import evaluate_surface
from landscape.checkpoints.read import save_checkpoint
from landscape.data.sources import open_source
from landscape.data.transforms import input_settings
from landscape.models import create_model
from landscape.pictures import draw
from landscape.pictures.files import draw_file, save_pictures
from landscape.planes.random import random_plane
from landscape.runtime.random import seeded
from landscape.study.run import evaluate_test, into
from landscape.study.subject import open_subject
from landscape.study.words import table
from landscape.training.recipe import Recipe
from landscape.training.train import train

RECIPES = {
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
    Started again on the same folder, it goes on where it stopped.
    """
    out = Path(out)
    results = {}
    for name, recipe in RECIPES.items():
        checkpoint = out / f"{name}.safetensors"
        if not checkpoint.exists():
            _train(name, recipe, checkpoint, seed, effort, device, progress)
        results[name] = out / f"{name}.h5"
        _analyse(checkpoint, results[name], seed, effort, device, progress)
        for picture in draw_file(results[name]):
            say(f"wrote {picture}")
    groups = {name: store.load(path) for name, path in results.items()}
    spectra = {name: g["spectrum"] for name, g in groups.items()}
    for picture in save_pictures({"spectra": draw.overlay(spectra)}, out, "all"):
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
    subject = open_subject(checkpoint, None, "digits", device=device, seed=seed)
    evaluate_test(subject, out)
    batches = max(2, round(32 * effort))
    surface_objective = subject.objective(subject.frozen(samples=16 * batches))
    plane = random_plane(subject.model, seed=seed)
    into(
        out,
        "surface",
        lambda stored, save: evaluate_surface(
            surface_objective,
            plane,
            points=2 * round(10 * effort**0.5) + 1,
            partial=stored,
            save=save,
            progress=progress,
        ),
    )
    into(
        out,
        "spectrum",
        lambda stored, save: hessian_spectrum(
            surface_objective, batches=batches, seed=seed, partial=stored, save=save, progress=progress
        ),
    )
    density_objective = subject.objective(subject.frozen(samples=max(16, round(128 * effort))))
    into(
        out,
        "density",
        lambda stored, save: spectral_density(
            density_objective,
            probes=max(2, round(4 * effort)),
            steps=40,
            seed=seed,
            partial=stored,
            save=save,
            progress=progress,
        ),
    )
