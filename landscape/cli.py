"""argv -> calls: the only parser. A user's mistake ends in one line and exit status 2."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
import xarray as xr
from tqdm import tqdm

from landscape import plots, store
from landscape.analysis import (
    Subject,
    describe,
    draw_file,
    evaluate_test,
    into,
    open_subject,
    percent,
    save_pictures,
    table,
)
from landscape.checkpoints import builder, fitting_models, read_checkpoint, save_checkpoint
from landscape.data import load_data, open_source, seeded
from landscape.directions import random_plane
from landscape.errors import UserError
from landscape.quickstart import quickstart as run_quickstart
from landscape.spectrum import hessian_spectrum, spectral_density
from landscape.surface import evaluate_surface
from landscape.training import Recipe
from landscape.training import train as run_training

SAMPLES_AT_MOST = 5000
BATCHES_AT_MOST = 64
DENSITY_AT_MOST = 256

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Loss landscapes and Hessian spectra of neural networks.",
)

Checkpoint = Annotated[Path, typer.Argument(help="Weights: .pt, .pth, .th, .tar or .safetensors.")]
Model = Annotated[
    str | None,
    typer.Option(help="A name of landscape.models, timm:NAME, or file.py:function. [default: what the checkpoint names]"),
]
Data = Annotated[
    str | None,
    typer.Option(help="digits, torch/NAME, hfds/NAME-or-folder, or an image folder. [default: what the checkpoint names]"),
]
Out = Annotated[Path, typer.Option(help="The results file (HDF5); what it already has is kept, and gone on with.")]
Samples = Annotated[
    int | None,
    typer.Option(help=f"Frozen training examples. [default: all, up to {SAMPLES_AT_MOST}]", show_default=False),
]
Numbers = Annotated[str | None, typer.Option(help="Numbers with commas, one per channel. [default: the checkpoint's or the data set's]")]
Classes = Annotated[int | None, typer.Option(help="Number of classes. [default: read off the weights]")]
Size = Annotated[int | None, typer.Option(help="Side of the images. [default: read off the weights, or the data's]")]
Decay = Annotated[float | None, typer.Option(help="lambda of the penalty. [default: the checkpoint's, or 0]")]
Penalty = Annotated[str, typer.Option(help="l2: (lambda/2) sum ||p||^2. norm-sum: lambda sum ||p||.")]
Transform = Annotated[str, typer.Option(help="train: augmented as in training, drawn once. eval: as they are.")]
AutoAugment = Annotated[str | None, typer.Option(help="timm's notation, such as rand-m9-n2-mstd1.0.")]
Mix = Annotated[float | None, typer.Option(help="Of the training recipe; 0 for off. [default: the checkpoint's, or 0]")]
Root = Annotated[str | None, typer.Option(help="Where torch/ data sets are kept and downloaded to.")]
EvalBatch = Annotated[int, typer.Option(help="Examples per forward pass; does not change the numbers beyond rounding.")]
Seed = Annotated[int, typer.Option(help="Of every random draw.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... [default: cuda where there is one]")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, no report.")]
Points = Annotated[int, typer.Option(help="Points per axis of the surface.")]
Span = Annotated[float, typer.Option(help="The surface reaches from -SPAN to SPAN on both axes.")]
Normalize = Annotated[str, typer.Option(help="filter, layer, weight, column or none.")]
Top = Annotated[int, typer.Option(help="Eigenvalues per mini-batch.")]
Which = Annotated[str, typer.Option(help="LM, LA, SA or BE, as in scipy.sparse.linalg.eigsh.")]
BatchSize = Annotated[int, typer.Option(help="Examples per Hessian mini-batch.")]
Batches = Annotated[
    int | None, typer.Option(help=f"Mini-batches. [default: all full ones, up to {BATCHES_AT_MOST}]", show_default=False)
]
Tol = Annotated[float, typer.Option(help="A pair has converged at a residual of TOL * |eigenvalue|.")]
Probes = Annotated[int, typer.Option(help="Random probes of the density.")]
Steps = Annotated[int, typer.Option(help="Lanczos steps per probe.")]
DensitySamples = Annotated[
    int | None,
    typer.Option(help=f"Frozen examples for the density. [default: all, up to {DENSITY_AT_MOST}]", show_default=False),
]


class Run:
    """What the analysing commands share: the network, its data, and where to."""

    def __init__(
        self, checkpoint: Path, model: str | None, data: str | None, out: Path, *, samples: int | None, transform: str,
        mean: str | None, std: str | None, num_classes: int | None, image_size: int | None,
        weight_decay: float | None, penalty: str, auto_augment: str | None, mixup: float | None,
        cutmix: float | None, smoothing: float | None, root: str | None, eval_batch_size: int, seed: int,
        device: str | None, quiet: bool,
    ) -> None:  # fmt: skip
        if data is None:
            data = read_checkpoint(checkpoint).metadata.get("data")
        if data is None:
            raise UserError(f"{checkpoint} does not name the data it was trained on; say which with --data")
        recipe = {"auto_augment": auto_augment, "mixup": mixup, "cutmix": cutmix, "smoothing": smoothing}
        self.out, self.seed, self.quiet = out, seed, quiet
        self.samples, self.transform = samples, transform
        self.subject: Subject = open_subject(
            checkpoint, model, data, device=_device(device), seed=seed, eval_batch_size=eval_batch_size,
            num_classes=num_classes, image_size=image_size, mean=_numbers(mean, "--mean"), std=_numbers(std, "--std"),
            weight_decay=weight_decay, penalty=penalty, recipe=recipe, root=root, progress=not quiet,
        )  # fmt: skip

    def surface(self, points: int, span: float, normalize: str) -> xr.Dataset:
        objective = self.subject.objective(self._frozen(SAMPLES_AT_MOST))
        plane = random_plane(self.subject.model, normalize=normalize, seed=self.seed)
        return into(
            self.out,
            "surface",
            lambda stored, save: evaluate_surface(
                objective, plane, points=points, span=span, partial=stored, save=save, progress=not self.quiet
            ),
        )

    def spectrum(self, top: int, which: str, batch_size: int, batches: int | None, tol: float) -> xr.Dataset:
        at_most = batch_size * (batches or BATCHES_AT_MOST)
        objective = self.subject.objective(self._frozen(at_most if self.samples is None else SAMPLES_AT_MOST))
        if batches is None:
            batches = min(BATCHES_AT_MOST, max(1, objective.examples // batch_size))
        return into(
            self.out,
            "spectrum",
            lambda stored, save: hessian_spectrum(
                objective, k=top, which=which, batch_size=batch_size, batches=batches, tol=tol, seed=self.seed,
                partial=stored, save=save, progress=not self.quiet,
            ),
        )  # fmt: skip

    def density(self, probes: int, steps: int, samples: int | None) -> xr.Dataset:
        at_most = min(DENSITY_AT_MOST, self.samples or DENSITY_AT_MOST)
        data = self.subject.frozen(transform=self.transform, samples=samples, at_most=at_most)
        objective = self.subject.objective(data)
        return into(
            self.out,
            "density",
            lambda stored, save: spectral_density(
                objective, probes=probes, steps=steps, seed=self.seed, partial=stored, save=save,
                progress=not self.quiet,
            ),
        )  # fmt: skip

    def test(self) -> None:
        test = evaluate_test(self.subject)
        if test is None:
            self.say("no test split found: no test accuracy")
            return
        into(self.out, "test", lambda stored, save: test)
        self.say(f"test accuracy {percent(test)} ({int(test['examples'])} examples)")

    def report(self, *groups: str) -> None:
        """Say what was found, draw it, and say what was written."""
        held = store.load(self.out)
        for name in groups:
            if name in held:
                self.say(describe(name, held[name]))
        self.say(f"wrote {self.out}")
        for picture in draw_file(self.out):
            self.say(f"wrote {picture}")

    def say(self, text: str) -> None:
        if not self.quiet:
            tqdm.write(text, file=sys.stdout)

    def _frozen(self, at_most: int):  # type: ignore[no-untyped-def]
        return self.subject.frozen(transform=self.transform, samples=self.samples, at_most=at_most)


def _device(device: str | None) -> str:
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as e:
        known = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise UserError(f"--device {device} is not here; there is {', '.join(known)}") from e
    return device


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as e:
        raise UserError(f"{option} {text} is not numbers with commas, such as 0.485,0.456,0.406") from e
