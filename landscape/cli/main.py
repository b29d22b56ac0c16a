"""argv -> calls: the only parser. A user's mistake ends in one line and exit status 2."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn
from typer.core import TyperGroup

from landscape import store
from landscape.analyses.series import hessian_series
from landscape.checkpoints.build import builder, split_settings
from landscape.checkpoints.read import is_checkpoint, read_checkpoint, save_checkpoint
from landscape.cli.commands import (
    Adaptive,
    AutoAugment,
    Batches,
    BatchSize,
    ChunkSize,
    DensitySamples,
    Device,
    Directions,
    Excluded,
    Kind,
    MaxBasis,
    MaxProducts,
    Normalize,
    Numbers,
    Patterns,
    Per,
    Points,
    Probes,
    Quiet,
    Reach,
    Root,
    Run,
    SecondLook,
    Seed,
    Size,
    Span,
    Steps,
    Tol,
    Top,
    Which,
    analysing,
    numbers,
)
from landscape.data.sources import open_source
from landscape.data.transforms import input_settings
from landscape.pictures import draw
from landscape.pictures.files import draw_file, save_pictures
from landscape.planes.plane import Extent
from landscape.planes.spanned import pca_plane, with_trajectory
from landscape.runtime import processes
from landscape.runtime.devices import chosen_device
from landscape.runtime.errors import UserError, a_few, near_matches
from landscape.runtime.files import alone
from landscape.runtime.random import seeded
from landscape.study.files import by_name
from landscape.study.quickstart import quickstart as run_quickstart
from landscape.study.run import evaluate_test, into
from landscape.study.subject import open_subject
from landscape.study.words import describe, describe_file, percent, table
from landscape.surfaces.exports import export_surface
from landscape.surfaces.imports import import_surface
from landscape.surfaces.measures import measure
from landscape.training.recipe import recipe as named_recipe
from landscape.training.train import described
from landscape.training.train import train as run_training


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


@app.command()
@analysing
def analyze(
    run: Run,
    points: Points = "51",
    span: Span = "1.0",
    normalize: Normalize = "filter",
    adaptive: Adaptive = None,
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
    run.surface(
        run.random_plane(normalize=normalize), points=_counts(points), span=_range(span, "--span"), adaptive=adaptive
    )
    run.spectrum(batch_size, batches, k=top, which=which, tol=tol)
    run.density(probes, steps, density_samples)
    run.report("surface", "spectrum", "density")
    run.say(table({run.out.stem: store.load(run.out)}))


@app.command()
@analysing
def surface(
    run: Run,
    points: Points = "51",
    span: Reach = None,
    y_span: Annotated[str | None, typer.Option(help="A range of its own for y. [default: that of --span]")] = None,
    directions: Directions = "random",
    dims: Annotated[int, typer.Option(help="2 for a surface, 1 for a curve along one direction.")] = 2,
    normalize: Normalize = "filter",
    orthogonal: Annotated[
        bool, typer.Option("--orthogonal", help="Random directions orthogonal to each other.")
    ] = False,
    biases: Annotated[bool, typer.Option("--biases", help="Move biases and norms too.")] = False,
    parameters: Patterns = None,
    exclude: Excluded = None,
    which: Annotated[str, typer.Option(help="Eigenvectors: BE one of each end, LA top, SA most negative.")] = "BE",
    towards: Annotated[
        list[Path] | None, typer.Option(help="Another checkpoint: one for a line, two for a plane.")
    ] = None,
    trajectory: Annotated[Path | None, typer.Option(help="Folder of checkpoints, for pca or to be marked.")] = None,
    adaptive: Adaptive = None,
    precision: Annotated[float | None, typer.Option(help="As many examples as this standard error needs.")] = None,
    batchnorm: Annotated[str, typer.Option(help="stored, or recalibrated at each point.")] = "stored",
    dtype: Annotated[str, typer.Option(help="float32, or bfloat16 with its error measured.")] = "float32",
    gradient_norm: Annotated[bool, typer.Option("--gradient-norm", help="Also the gradient's norm.")] = False,
    eigenvalues: Annotated[
        bool, typer.Option("--eigenvalues", help="Also the Hessian's extremes, point by point.")
    ] = False,
    rays: Annotated[
        int, typer.Option(help="Along how many the width is searched, about 15 evaluations each; 0 for none.")
    ] = 8,
) -> None:
    """The loss on a grid over two directions, or along one: random, eigenvectors, towards checkpoints, or PCA.

    Example: landscape surface vit.safetensors --data digits --out vit.h5 --points 21
    """
    if towards:
        plane = run.plane_through(towards)
    elif directions == "random":
        plane = run.random_plane(
            normalize=normalize, dims=dims, orthogonal=orthogonal, biases=biases, parameters=parameters,
            **({} if exclude is None else {"exclude": exclude}),
        )  # fmt: skip
    elif directions == "eigenvectors":
        plane = run.eigenvector_plane(which=which, dims=dims, parameters=parameters)
    elif directions == "pca":
        if trajectory is None:
            raise UserError("--directions pca needs the checkpoints of a training: --trajectory FOLDER")
        plane = pca_plane(run.subject.model, run.trajectory(trajectory), dims=dims, ignore_biases=not biases)
    else:
        plane = run.stored_plane(Path(directions))
    if trajectory is not None and directions != "pca":
        plane = with_trajectory(plane, run.subject.model, run.trajectory(trajectory))
    counts = _counts(points)
    reach = _range(span, "--span") if span is not None else plane.reach(counts)
    if y_span is not None:
        reach = (_two(reach), _two(_range(y_span, "--y-span")))
    group = run.surface(
        plane, points=counts, span=reach, se=precision, adaptive=adaptive, batchnorm=batchnorm,
        dtype=dtype, gradient_norm=gradient_norm, eigenvalues=eigenvalues, rays=rays,
    )  # fmt: skip
    run.report(group)


def _counts(points: str) -> int | tuple[int, ...]:
    """51, or 51,31 as (51, 31)."""
    counts = [int(c) if c == int(c) else 0 for c in numbers(points, "--points") or ()]
    return counts[0] if len(counts) == 1 else tuple(counts)


def _range(span: str, option: str) -> Extent:
    values = numbers(span, option) or ()
    return values[0] if len(values) == 1 else values


def _two(span: Extent) -> Any:
    """One axis's range of a span: the first axis's, where it has one for each."""
    if isinstance(span, (int, float)):
        return (-span, span)
    return span[0] if isinstance(span[0], Sequence) else span


@app.command()
@analysing
def test(run: Run) -> None:
    """Accuracy and NLL on the test split, with standard errors.

    Example: landscape test vit.safetensors --data digits --out vit.h5
    """
    run.test()
    run.report()


@app.command()
@analysing
def spectrum(
    run: Run,
    top: Top = 5,
    which: Which = "LM",
    batch_size: BatchSize = 16,
    batches: Batches = None,
    tol: Tol = 1e-2,
    max_products: MaxProducts = 200,
    second_look: SecondLook = False,
    kind: Kind = "hessian",
    per: Per = None,
    split: Annotated[bool, typer.Option(help="Also each eigenvalue's Gauss-Newton share.")] = False,
    method: Annotated[str, typer.Option(help="lanczos, or pyhessian to run PyHessian on the same.")] = "lanczos",
) -> None:
    """The top Hessian eigenvalues of each mini-batch, with NEP and APE; by layer or stage with --per.

    Example: landscape spectrum vit.safetensors --data digits --out vit.h5 --batches 32
    """
    group = _group("spectrum", kind, per, method)
    run.spectrum(
        batch_size, batches, group=group, k=top, which=which, tol=tol, max_products=max_products, kind=kind, per=per,
        split=split, method=method, second_look=second_look,
    )  # fmt: skip
    run.report(group)
    if group == "spectrum":
        run.say(table({run.out.stem: store.load(run.out)}))


@app.command()
@analysing
def top(
    run: Run,
    top: Annotated[int, typer.Option(help="Eigenvalues.")] = 10,
    which: Which = "LM",
    tol: Tol = 1e-3,
    max_products: MaxProducts = 400,
    second_look: SecondLook = False,
    max_basis: MaxBasis = None,
    chunk_size: ChunkSize = None,
    kind: Kind = "hessian",
    per: Per = None,
) -> None:
    """The top Hessian eigenvalues of the whole frozen data (--samples, 256 unless said), each with its true residual.

    Example: landscape top vit.safetensors --data digits --out vit.h5 --which BE
    """
    group = _group("top", kind, per)
    run.top(
        group, k=top, which=which, tol=tol, max_products=max_products, max_basis=max_basis, chunk_size=chunk_size,
        kind=kind, per=per, second_look=second_look,
    )  # fmt: skip
    run.report(group)


@app.command()
@analysing
def density(
    run: Run,
    probes: Probes = 10,
    steps: Steps = 80,
    density_samples: DensitySamples = None,
    kind: Kind = "hessian",
    chunk_size: ChunkSize = None,
) -> None:
    """The spectral density of the Hessian, by stochastic Lanczos quadrature.

    Example: landscape density vit.safetensors --data digits --out vit.h5 --probes 4
    """
    group = _group("density", kind)
    run.density(probes, steps, density_samples, group=group, kind=kind, chunk_size=chunk_size)
    run.report(group)


@app.command()
@analysing
def trace(
    run: Run,
    products: Annotated[int, typer.Option(help="Hessian products to spend.")] = 60,
    estimator: Annotated[str, typer.Option(help="hutch++, or hutchinson for a spectrum without outliers.")] = "hutch++",
    kind: Kind = "hessian",
    chunk_size: ChunkSize = None,
) -> None:
    """Trace and Frobenius norm of the Hessian on the whole frozen data (--samples, 256 unless said), with errors.

    Example: landscape trace vit.safetensors --data digits --out vit.h5
    """
    group = _group("trace", kind)
    run.trace(group, products=products, estimator=estimator, kind=kind, chunk_size=chunk_size)
    run.report(group)


@app.command()
@analysing
def series(
    runs: list[Run],
    top: Top = 5,
    which: Which = "LM",
    batch_size: BatchSize = 16,
    batches: Batches = None,
    tol: Tol = 1e-2,
) -> None:
    """The per-mini-batch spectrum over a series of checkpoints, such as those of one training.

    Example: landscape series epochs/ --data digits --out series.h5 --batches 16
    """
    labels = by_name([run.checkpoint for run in runs])
    pairs = {label: run.minibatches(batch_size, batches) for label, run in zip(labels, runs, strict=True)}
    counts = [count for _, count in pairs.values()]
    last = runs[-1]
    into(
        last.out,
        "series",
        lambda stored, save: hessian_series(
            {label: objective for label, (objective, _) in pairs.items()}, k=top, which=which, batch_size=batch_size,
            batches=min(counts), tol=tol, seed=last.seed, partial=stored, save=save, progress=not last.quiet,
        ),
    )  # fmt: skip
    last.report("series")


def _group(analysis: str, kind: str, per: str | None = None, method: str = "lanczos") -> str:
    """Where a results file keeps an analysis: each variant beside the others, not in their place."""
    variant = [kind if kind != "hessian" else "", method if method != "lanczos" else "", f"per_{per}" if per else ""]
    return "_".join([analysis, *filter(None, variant)])


@app.command()
def train(
    model: Annotated[str, typer.Option(help="A name of landscape.models, timm:NAME, or file.py:function.")],
    data: Annotated[str, typer.Option(help="digits, torch/NAME, hfds/NAME-or-folder, or an image folder.")],
    out: Annotated[Path, typer.Option(help="The checkpoint to write (.safetensors).")],
    recipe: Annotated[
        str, typer.Option(help="plain, or the study's: strong or weak. The rest overrides it.")
    ] = "plain",
    epochs: Annotated[int | None, typer.Option(help="Passes over the training split.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples per step, of all processes.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw, sgd, nesterov, or another of timm's.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    momentum: Annotated[float | None, typer.Option(help="Of sgd.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of the optimiser.")] = None,
    schedule: Annotated[str | None, typer.Option(help="cosine or steps.")] = None,
    milestones: Annotated[str | None, typer.Option(help="Of steps: shares of the epochs, as 0.3,0.6,0.8.")] = None,
    gamma: Annotated[float | None, typer.Option(help="Of steps: the rate is multiplied by it at each.")] = None,
    warmup_epochs: Annotated[int | None, typer.Option(help="Epochs of linear warm-up.")] = None,
    clip: Annotated[float | None, typer.Option(help="Bound on the gradient's norm; 0 for none.")] = None,
    auto_augment: AutoAugment = None,
    mixup: Annotated[float | None, typer.Option(help="alpha of mixup; 0 for off.")] = None,
    cutmix: Annotated[float | None, typer.Option(help="alpha of cutmix; 0 for off.")] = None,
    smoothing: Annotated[float | None, typer.Option(help="Label smoothing.")] = None,
    drop_path: Annotated[float | None, typer.Option(help="Rate of stochastic depth.")] = None,
    sam: Annotated[float | None, typer.Option(help="rho of sharpness-aware minimisation; 0 for off.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bfloat16.")] = None,
    fraction: Annotated[float | None, typer.Option(help="Of the training examples, the same of each class.")] = None,
    trajectory: Annotated[Path | None, typer.Option(help="Folder for a checkpoint of every epoch.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the network of another training that --out has.")
    ] = False,
    mean: Numbers = None,
    std: Numbers = None,
    image_size: Size = None,
    root: Root = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that draw examples. [default: 0; beside a GPU one per core]", min=0)
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Train a network, and save it with all that an analysis needs to know of it; started again, it goes on.

    Example: landscape train --model vit_xs --data digits --out vit.safetensors
    """
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out} must end in .safetensors")
    stated = None if ".py:" in model else split_settings(model)[1].get("drop_path_rate")
    settled = named_recipe(
        recipe, epochs=epochs, batch_size=batch_size, optimizer=optimizer, lr=lr, momentum=momentum,
        weight_decay=weight_decay, schedule=schedule, milestones=numbers(milestones, "--milestones"), gamma=gamma,
        warmup_epochs=warmup_epochs, clip=clip, auto_augment=auto_augment, mixup=mixup, cutmix=cutmix,
        smoothing=smoothing, drop_path=stated if drop_path is None else drop_path, sam=sam, precision=precision,
        fraction=fraction, seed=seed,
    )  # fmt: skip
    processes.start()
    chosen = chosen_device(device)
    source = open_source(data, "train", root)
    inputs = input_settings(source, image_size, None, numbers(mean, "--mean"), numbers(std, "--std"))
    build, name = builder(model, {"drop_path_rate": settled.drop_path} if settled.drop_path or stated else None)
    with seeded(seed):
        try:
            network = build(
                num_classes=source.num_classes, image_size=inputs.image_size, in_channels=inputs.in_channels
            )
        except (TypeError, UserError) as e:
            hint = "; --drop-path 0 asks for none" if settled.drop_path else ""
            raise UserError(f"cannot make {model}: {' '.join(str(e).split())}{hint}") from e

    named = {"model": model, "recipe": recipe, **described(source, settled, inputs)}
    first = processes.rank() == 0
    with alone(out, "training") if first else nullcontext():
        state = out.with_name(out.name + ".training")
        if processes.from_first(first and not overwrite and _finished(out, named, settled.epochs)):
            if first:
                state.unlink(missing_ok=True)
                if not quiet:
                    print(f"{out} has this training, finished; nothing to do")
            return

        def keep(epoch: int, now: nn.Module) -> None:
            assert trajectory is not None
            width = len(str(settled.epochs))  # of one width, for whatever sorts them by name
            place = trajectory / f"epoch{epoch:0{width}d}.safetensors"
            if not overwrite and place.exists() and read_checkpoint(place).metadata != json.loads(json.dumps(named)):
                raise UserError(
                    f"{place} is of another training; choose another --trajectory, or replace it with --overwrite"
                )
            save_checkpoint(place, now, named)

        trained = run_training(
            network, source, settled, inputs, device=chosen, workers=workers, state=state,
            each_epoch=keep if trajectory is not None else None, progress=not quiet, label=name,
        )  # fmt: skip
        if not first:
            return
        save_checkpoint(out, trained.model, {**named, **trained.metadata})
        state.unlink(missing_ok=True)
    if not quiet:
        subject = open_subject(out, model, data, device=chosen, seed=seed, root=root, progress=True)
        test = evaluate_test(subject)
        found = f"test accuracy {percent(test)}" if test is not None else "no test split found"
        print(f"wrote {out}: training loss {trained.metadata['training_loss'][-1]:.4g}, {found}")


def _finished(out: Path, named: Mapping[str, Any], epochs: int) -> bool:
    """Whether `out` has the network of the very training that is asked for, False where nothing is there.

    Raises UserError where it has another.
    """
    if not out.exists():
        return False
    metadata = read_checkpoint(out).metadata
    losses = metadata.get("training_loss")
    asked = json.loads(json.dumps(named))  # as it was written
    differing = [f"{k}: {metadata.get(k)} there, {v} asked" for k, v in asked.items() if metadata.get(k) != v]
    if not differing and isinstance(losses, list) and len(losses) == epochs:
        return True
    why = a_few(differing) or "not by this command"
    raise UserError(f"{out} has another network ({why}); choose another place, or replace it with --overwrite")


@app.command()
def plot(
    files: Annotated[list[Path], typer.Argument(help="Results files.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the pictures. [default: beside each file]")] = None,
    quantity: Annotated[str, typer.Option(help="Of surfaces: nll, loss, accuracy, or another they have.")] = "nll",
    quiet: Quiet = False,
) -> None:
    """Draw results files; with several, also their spectra in one picture, NEP and APE of their series,
    and their surfaces on one scale.

    Example: landscape plot resnet.h5 vit.h5 --out pictures
    """
    named = by_name(files)
    written = [
        picture
        for name, file in named.items()
        for picture in draw_file(file, out, quantity=quantity, stem=name.strip("/.").replace("/", "_"))
    ]
    if len(files) > 1:
        groups = {name: store.load(file) for name, file in named.items()}
        written += save_pictures(draw.compare(groups, quantity=quantity), out or files[0].parent, "all")
        for line in draw.cautions(groups, quantity=quantity):
            print(line, file=sys.stderr)
    for picture in written if not quiet else []:
        print(f"wrote {picture}")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="The reference study's CSV, a CSV with a header, or Li et al.'s HDF5.")],
    out: Annotated[Path, typer.Option(help="The results file (.h5) to write; its other analyses are kept.")],
    weight_decay: Annotated[
        float | None, typer.Option(help="lambda of the study's penalty, lambda * sum of norms. [default: no penalty]")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """A surface computed by other software, into a results file.

    Example: landscape import cifar100_vit_ti_losslandscape.csv --out vit.h5 --weight-decay 0.05
    """
    imported = import_surface(file, weight_decay=weight_decay)
    imported = imported.merge(measure(imported), combine_attrs="override")
    stored = store.stored(out, "surface")
    if stored is not None and stored.attrs.get("config") != imported.attrs["config"]:
        raise UserError(f"{out} has another surface already; choose another place with --out")
    store.save(out, surface=imported)
    if not quiet:
        print(f"wrote {out}\n{describe('surface', imported)}")


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="A results file.")],
    out: Annotated[Path, typer.Option(help="What to write: .vtu or .vtk for ParaView, .csv, .npz.")],
    group: Annotated[str, typer.Option(help="Which of its surfaces.")] = "surface",
    quantity: Annotated[str, typer.Option(help="ParaView's relief: nll, loss, accuracy, or another.")] = "nll",
    quiet: Quiet = False,
) -> None:
    """A surface of a results file, for other software.

    Example: landscape export vit.h5 --out vit.vtu
    """
    groups = store.load(file)
    if group not in groups:
        raise UserError(f"{file} has no group {group!r}; {near_matches(group, groups)}")
    export_surface(groups[group], out, quantity=quantity)
    if not quiet:
        print(f"wrote {out}")


@app.command()
def show(files: Annotated[list[Path], typer.Argument(help="Checkpoints or results files.")]) -> None:
    """What a file holds, and where it came from; of several results files, one table.

    Example: landscape show vit.h5
    """
    results = [file for file in files if not is_checkpoint(file)]
    if len(results) > 1:
        print(table({name: store.load(file) for name, file in by_name(results).items()}))
        files = [file for file in files if file not in results]
    for file in files:
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
    found = run_quickstart(out, seed=seed, effort=effort, device=chosen_device(device), progress=not quiet, say=say)
    print(found)


def main() -> None:
    """The console script."""
    app()
