"""What the analysing commands share: their options, and a run of each analysis into the results file."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
import xarray as xr
from tqdm import tqdm

from landscape import store
from landscape.analysis import describe, draw_file, evaluate_test, into, open_subject, percent
from landscape.checkpoints import read_checkpoint
from landscape.data import FrozenData
from landscape.density import hessian_trace, spectral_density
from landscape.directions import random_plane
from landscape.errors import UserError
from landscape.objective import Objective
from landscape.spectrum import hessian_spectrum, hessian_top
from landscape.surface import evaluate_surface

SAMPLES_AT_MOST = 5000
BATCHES_AT_MOST = 64
DENSITY_AT_MOST = 128
WHOLE_AT_MOST = 256

Checkpoint = Annotated[Path, typer.Argument(help="Weights: .pt, .pth, .th, .tar or .safetensors.")]
Model = Annotated[
    str | None,
    typer.Option(
        help="A name of landscape.models, timm:NAME, or file.py:function. [default: what the checkpoint names]"
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="digits, torch/NAME, hfds/NAME-or-folder, or an image folder. [default: what the checkpoint names]"
    ),
]
Out = Annotated[Path, typer.Option(help="The results file (HDF5); what it already has is kept, and gone on with.")]
Samples = Annotated[
    int | None,
    typer.Option(help=f"Frozen training examples. [default: all, up to {SAMPLES_AT_MOST}]", show_default=False),
]
Numbers = Annotated[
    str | None,
    typer.Option(help="Numbers with commas, one per channel. [default: the checkpoint's or the data set's]"),
]
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
    int | None,
    typer.Option(help=f"Mini-batches. [default: all full ones, up to {BATCHES_AT_MOST}]", show_default=False),
]
Tol = Annotated[float, typer.Option(help="A pair has converged at a residual of TOL * |eigenvalue|.")]
Probes = Annotated[int, typer.Option(help="Random probes of the density.")]
Steps = Annotated[int, typer.Option(help="Lanczos steps per probe.")]
DensitySamples = Annotated[
    int | None,
    typer.Option(help=f"Frozen examples for the density. [default: all, up to {DENSITY_AT_MOST}]", show_default=False),
]
Kind = Annotated[str, typer.Option(help="hessian; ggn, its Gauss-Newton part; residual, the rest.")]
Per = Annotated[str | None, typer.Option(help="layer or stage: the spectrum of each one's parameters by itself.")]
MaxProducts = Annotated[int, typer.Option(help="Hessian products at most; what has not converged is marked.")]
MaxBasis = Annotated[
    int | None,
    typer.Option(help="Vectors of the network's size held at once. [default: what 4 GiB hold]", show_default=False),
]
ChunkSize = Annotated[
    int | None,
    typer.Option(help="Examples differentiated at once: bounds the memory. [default: --eval-batch-size]"),
]


class Run:
    """What the analysing commands share; its arguments are their common options."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        out: Out,
        model: Model = None,
        data: Data = None,
        samples: Samples = None,
        transform: Transform = "train",
        mean: Numbers = None,
        std: Numbers = None,
        num_classes: Classes = None,
        image_size: Size = None,
        weight_decay: Decay = None,
        penalty: Penalty = "l2",
        auto_augment: AutoAugment = None,
        mixup: Mix = None,
        cutmix: Mix = None,
        smoothing: Mix = None,
        root: Root = None,
        eval_batch_size: EvalBatch = 256,
        seed: Seed = 0,
        device: Device = None,
        quiet: Quiet = False,
    ) -> None:
        if data is None:
            data = read_checkpoint(checkpoint).metadata.get("data")
        if data is None:
            raise UserError(f"{checkpoint} does not name the data it was trained on; say which with --data")
        recipe = {"auto_augment": auto_augment, "mixup": mixup, "cutmix": cutmix, "smoothing": smoothing}
        self.checkpoint, self.out, self.seed, self.quiet = checkpoint, out, seed, quiet
        self.samples, self.transform = samples, transform
        self.subject = open_subject(
            checkpoint,
            model,
            data,
            device=chosen_device(device),
            seed=seed,
            eval_batch_size=eval_batch_size,
            num_classes=num_classes,
            image_size=image_size,
            mean=numbers(mean, "--mean"),
            std=numbers(std, "--std"),
            weight_decay=weight_decay,
            penalty=penalty,
            recipe=recipe,
            root=root,
            progress=not quiet,
        )

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

    def minibatches(self, batch_size: int, batches: int | None) -> tuple[Objective, int]:
        """The objective that has them, and how many."""
        at_most = batch_size * (batches or BATCHES_AT_MOST)
        objective = self.subject.objective(self._frozen(at_most if self.samples is None else SAMPLES_AT_MOST))
        return objective, batches or min(BATCHES_AT_MOST, max(1, objective.examples // batch_size))

    def spectrum(self, batch_size: int, batches: int | None, *, group: str = "spectrum", **settings: Any) -> xr.Dataset:
        objective, batches = self.minibatches(batch_size, batches)
        return into(
            self.out,
            group,
            lambda stored, save: hessian_spectrum(
                objective, batch_size=batch_size, batches=batches, seed=self.seed,
                partial=stored, save=save, progress=not self.quiet, **settings,
            ),
        )  # fmt: skip

    def top(self, group: str, **settings: Any) -> xr.Dataset:
        objective = self.subject.objective(self._frozen(WHOLE_AT_MOST))
        return into(
            self.out,
            group,
            lambda stored, save: hessian_top(
                objective, seed=self.seed, partial=stored, save=save, progress=not self.quiet, **settings
            ),
        )

    def trace(self, group: str, **settings: Any) -> xr.Dataset:
        objective = self.subject.objective(self._frozen(WHOLE_AT_MOST))
        return into(
            self.out,
            group,
            lambda stored, save: hessian_trace(
                objective, seed=self.seed, partial=stored, save=save, progress=not self.quiet, **settings
            ),
        )

    def density(
        self, probes: int, steps: int, samples: int | None, *, group: str = "density", **settings: Any
    ) -> xr.Dataset:
        at_most = min(DENSITY_AT_MOST, self.samples or DENSITY_AT_MOST)
        data = self.subject.frozen(transform=self.transform, samples=samples, at_most=at_most)
        objective = self.subject.objective(data)
        return into(
            self.out,
            group,
            lambda stored, save: spectral_density(
                objective, probes=probes, steps=steps, seed=self.seed, partial=stored, save=save,
                progress=not self.quiet, **settings,
            ),
        )  # fmt: skip

    def test(self) -> None:
        test = evaluate_test(self.subject, self.out)
        if test is None:
            self.say("no test split found: no test accuracy")
            return
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

    def _frozen(self, at_most: int) -> FrozenData:
        return self.subject.frozen(transform=self.transform, samples=self.samples, at_most=at_most)


def analysing(command: Callable[..., None]) -> Callable[..., None]:
    """A command of (run, its own options) as one of (the options of Run, its own), which is what typer reads.

    A command whose first parameter is `runs` takes several checkpoints, and gets a Run for each.
    """
    shared = dict(inspect.signature(Run, eval_str=True).parameters)
    first, *own = inspect.signature(command, eval_str=True).parameters.values()
    several = first.name == "runs"
    if several:
        many = Annotated[list[Path], typer.Argument(help="Weights, in the order of the series.")]
        shared["checkpoint"] = shared["checkpoint"].replace(name="checkpoint", annotation=many)
    required = [p for p in shared.values() if p.default is p.empty]
    optional = [p for p in shared.values() if p.default is not p.empty]
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in (*required, *own, *optional)]

    def wrapped(**options: Any) -> None:
        common = {name: options.pop(name) for name in shared}
        if several:
            command([Run(**{**common, "checkpoint": path}) for path in common["checkpoint"]], **options)
        else:
            command(Run(**common), **options)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


def chosen_device(device: str | None) -> str:
    """The device asked for, or a GPU where there is one. Raises UserError for one that is not here."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as e:
        known = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise UserError(f"--device {device} is not here; there is {', '.join(known)}") from e
    return device


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """The numbers in "0.485,0.456,0.406". Raises UserError, naming the option, for what is none."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as e:
        raise UserError(f"{option} {text} is not numbers with commas, such as 0.485,0.456,0.406") from e
