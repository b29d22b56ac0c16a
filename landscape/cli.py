"""argv -> calls: the only parser. A user's mistake ends in one line and exit status 2."""

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
from typer.core import TyperGroup

from landscape import plots, store
from landscape.analysis import (
    describe,
    describe_file,
    draw_file,
    evaluate_test,
    into,
    open_subject,
    percent,
    save_pictures,
    table,
)
from landscape.checkpoints import builder, read_checkpoint, save_checkpoint
from landscape.data import FrozenData, input_settings, open_source, seeded
from landscape.density import spectral_density
from landscape.directions import random_plane
from landscape.errors import UserError
from landscape.quickstart import quickstart as run_quickstart
from landscape.spectrum import hessian_spectrum
from landscape.surface import evaluate_surface
from landscape.training import Recipe
from landscape.training import train as run_training

SAMPLES_AT_MOST = 5000
BATCHES_AT_MOST = 64
DENSITY_AT_MOST = 128


class Commands(TyperGroup):
    """Ends a user's mistake, and an interrupt, in one line."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as e:
            print(f"landscape: {' '.join(str(e).split())}", file=sys.stderr)
            raise typer.Exit(2) from e
        except KeyboardInterrupt as e:
            print("landscape: interrupted; the same command goes on from what was stored", file=sys.stderr)
            raise typer.Exit(130) from e


app = typer.Typer(
    cls=Commands,
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
        self.out, self.seed, self.quiet = out, seed, quiet
        self.samples, self.transform = samples, transform
        self.subject = open_subject(
            checkpoint,
            model,
            data,
            device=_device(device),
            seed=seed,
            eval_batch_size=eval_batch_size,
            num_classes=num_classes,
            image_size=image_size,
            mean=_numbers(mean, "--mean"),
            std=_numbers(std, "--std"),
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

    def _frozen(self, at_most: int) -> FrozenData:
        return self.subject.frozen(transform=self.transform, samples=self.samples, at_most=at_most)


def analysing(command: Callable[..., None]) -> Callable[..., None]:
    """A command of (run, its own options) as one of (the options of Run, its own), which is what typer reads."""
    shared = inspect.signature(Run, eval_str=True).parameters
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    required = [p for p in shared.values() if p.default is p.empty]
    optional = [p for p in shared.values() if p.default is not p.empty]
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in (*required, *own, *optional)]

    def wrapped(**options: Any) -> None:
        command(Run(**{name: options.pop(name) for name in shared}), **options)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


@app.command()
@analysing
def analyze(
    run: Run,
    points: Points = 51,
    span: Span = 1.0,
    normalize: Normalize = "filter",
    top: Top = 5,
    which: Which = "LM",
    batch_size: BatchSize = 16,
    batches: Batches = None,
    tol: Tol = 1e-2,
    probes: Probes = 10,
    steps: Steps = 80,
    density_samples: DensitySamples = None,
) -> None:
    """Surface, spectrum, density, test accuracy and their pictures, into one results file.

    Example: landscape analyze vit.safetensors --data digits --out vit.h5
    """
    run.test()
    run.surface(points, span, normalize)
    run.spectrum(top, which, batch_size, batches, tol)
    run.density(probes, steps, density_samples)
    run.report("surface", "spectrum", "density")
    run.say(table({run.out.stem: store.load(run.out)}))


@app.command()
@analysing
def surface(run: Run, points: Points = 51, span: Span = 1.0, normalize: Normalize = "filter") -> None:
    """The loss on a grid over two random normalised directions.

    Example: landscape surface vit.safetensors --data digits --out vit.h5 --points 21
    """
    run.surface(points, span, normalize)
    run.report("surface")


@app.command()
@analysing
def spectrum(
    run: Run,
    top: Top = 5,
    which: Which = "LM",
    batch_size: BatchSize = 16,
    batches: Batches = None,
    tol: Tol = 1e-2,
) -> None:
    """The top Hessian eigenvalues of each mini-batch, with NEP and APE.

    Example: landscape spectrum vit.safetensors --data digits --out vit.h5 --batches 32
    """
    run.spectrum(top, which, batch_size, batches, tol)
    run.report("spectrum")
    run.say(table({run.out.stem: store.load(run.out)}))


@app.command()
@analysing
def density(run: Run, probes: Probes = 10, steps: Steps = 80, density_samples: DensitySamples = None) -> None:
    """The spectral density of the Hessian, by stochastic Lanczos quadrature.

    Example: landscape density vit.safetensors --data digits --out vit.h5 --probes 4
    """
    run.density(probes, steps, density_samples)
    run.report("density")


@app.command()
def train(
    model: Annotated[str, typer.Option(help="A name of landscape.models, timm:NAME, or file.py:function.")],
    data: Annotated[str, typer.Option(help="digits, torch/NAME, hfds/NAME-or-folder, or an image folder.")],
    out: Annotated[Path, typer.Option(help="The checkpoint to write (.safetensors).")],
    epochs: Annotated[int, typer.Option(help="Passes over the training split.")] = 60,
    batch_size: Annotated[int, typer.Option(help="Examples per step.")] = 96,
    optimizer: Annotated[str, typer.Option(help="adamw, sgd, or another of timm's.")] = "adamw",
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    weight_decay: Annotated[float, typer.Option(help="Of the optimiser.")] = 0.05,
    warmup_epochs: Annotated[int, typer.Option(help="Epochs of linear warm-up; cosine after.")] = 5,
    clip: Annotated[float, typer.Option(help="Bound on the gradient's norm; 0 for none.")] = 5.0,
    auto_augment: AutoAugment = None,
    mixup: Annotated[float, typer.Option(help="alpha of mixup; 0 for off.")] = 0.0,
    cutmix: Annotated[float, typer.Option(help="alpha of cutmix; 0 for off.")] = 0.0,
    smoothing: Annotated[float, typer.Option(help="Label smoothing.")] = 0.0,
    mean: Numbers = None,
    std: Numbers = None,
    image_size: Size = None,
    root: Root = None,
    workers: Annotated[int, typer.Option(help="Processes that draw examples.")] = 0,
    seed: Seed = 0,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Train a network, and save it with all that an analysis needs to know of it.

    Example: landscape train --model vit_xs --data digits --out vit.safetensors
    """
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out} must end in .safetensors")
    recipe = Recipe(
        epochs=epochs, batch_size=batch_size, optimizer=optimizer, lr=lr, weight_decay=weight_decay,
        warmup_epochs=warmup_epochs, clip=clip or None, auto_augment=auto_augment, mixup=mixup, cutmix=cutmix,
        smoothing=smoothing, seed=seed,
    )  # fmt: skip
    chosen = _device(device)
    source = open_source(data, "train", root)
    settings = input_settings(source, image_size, None, _numbers(mean, "--mean"), _numbers(std, "--std"))
    build, _ = builder(model)
    with seeded(seed):
        network = build(
            num_classes=source.num_classes, image_size=settings.image_size, in_channels=settings.in_channels
        )
    trained = run_training(
        network, source, recipe, settings, device=chosen, workers=workers, progress=not quiet, label=model
    )
    save_checkpoint(out, trained.model, {"model": model, **trained.metadata})
    if not quiet:
        subject = open_subject(out, None, data, device=chosen, seed=seed, root=root, progress=True)
        test = evaluate_test(subject)
        found = f"test accuracy {percent(test)}" if test is not None else "no test split found"
        print(f"wrote {out}: training loss {trained.metadata['training_loss'][-1]:.4g}, {found}")


@app.command()
def plot(
    files: Annotated[list[Path], typer.Argument(help="Results files.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the pictures. [default: beside each file]")] = None,
    quiet: Quiet = False,
) -> None:
    """Draw results files; with several, their spectra in one picture too.

    Example: landscape plot resnet.h5 vit.h5 --out pictures
    """
    written = [picture for file in files for picture in draw_file(file, out)]
    if len(files) > 1:
        written += _overlaid(files, out or files[0].parent)
    for picture in written if not quiet else []:
        print(f"wrote {picture}")


def _overlaid(files: list[Path], folder: Path) -> list[Path]:
    spectra = {file.stem: groups["spectrum"] for file in files if "spectrum" in (groups := store.load(file))}
    return save_pictures({"spectra": plots.overlay(spectra)}, folder, "all") if spectra else []


@app.command()
def show(file: Annotated[Path, typer.Argument(help="A checkpoint or a results file.")]) -> None:
    """What a file holds, and where it came from.

    Example: landscape show vit.h5
    """
    print(describe_file(file))


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, results files and pictures.")] = Path("quickstart"),
    seed: Seed = 0,
    effort: Annotated[float, typer.Option(help="Scales epochs, grid and mini-batches; below 1 for a trial.")] = 1.0,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Train a ResNet, a ViT and an AlterNet on embedded digits, analyse all three, and compare them in one table.

    Example: landscape quickstart --out quickstart
    """
    say = print if not quiet else lambda text: None
    found = run_quickstart(out, seed=seed, effort=effort, device=_device(device), progress=not quiet, say=say)
    print(found)


def main() -> None:
    """The console script."""
    app()


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
