"""What the analysing commands share: their options, and a run of each analysis into the results file."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import xarray as xr
from torch import Tensor
from tqdm import tqdm

from landscape import store
from landscape.analyses.density import spectral_density
from landscape.analyses.spectrum import hessian_spectrum
from landscape.analyses.surface import evaluate_surface, samples_for
from landscape.analyses.top import hessian_top
from landscape.analyses.trace import hessian_trace
from landscape.checkpoints.load import load_checkpoint
from landscape.checkpoints.read import SUFFIXES, read_checkpoint
from landscape.checkpoints.stated import stated
from landscape.data.frozen import FrozenData
from landscape.objective.objective import Objective
from landscape.pictures.files import draw_file
from landscape.planes.plane import Plane
from landscape.planes.random import random_plane
from landscape.planes.spanned import eigenvector_plane, plane_through
from landscape.runtime import processes
from landscape.runtime.devices import chosen_device
from landscape.runtime.errors import UserError
from landscape.study.files import _checkpoints_in, by_name, in_order
from landscape.study.run import evaluate_test, into
from landscape.study.subject import open_subject
from landscape.study.words import describe, percent

SAMPLES_AT_MOST = 5000


BATCHES_AT_MOST = 64


DENSITY_AT_MOST = 128


WHOLE_AT_MOST = 256


Checkpoint = Annotated[
    Path, typer.Argument(help="Weights: .safetensors, a torch file (.pt, .pth, .ckpt, ...) or a folder.")
]


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


Classes = Annotated[int | None, typer.Option(help="Number of classes. [default: read off the weights]", min=1)]


Size = Annotated[
    int | None, typer.Option(help="Side of the images. [default: read off the weights, or the data's]", min=1)
]


Decay = Annotated[
    float, typer.Option(help="lambda of a penalty to study with the loss; the recipe's is not taken over.")
]


Penalty = Annotated[str, typer.Option(help="l2: (lambda/2) sum ||p||^2. norm-sum: lambda sum ||p||.")]


Transform = Annotated[str, typer.Option(help="train: augmented as in training, drawn once. eval: as they are.")]


AutoAugment = Annotated[str | None, typer.Option(help="timm's notation, such as rand-m9-n2-mstd1.0; or none.")]


Mix = Annotated[float | None, typer.Option(help="Of the training recipe; 0 for off. [default: the checkpoint's, or 0]")]


Root = Annotated[str | None, typer.Option(help="Where torch/ data sets are kept and downloaded to.")]


EvalBatch = Annotated[int, typer.Option(help="Examples per forward pass; does not change the numbers beyond rounding.")]


Seed = Annotated[int, typer.Option(help="Of every random draw.", min=0)]


Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... [default: cuda where there is one]")]


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, no report.")]


Points = Annotated[str, typer.Option(help="Points per axis of the surface; or along x and y, as 51,31.")]


Span = Annotated[str, typer.Option(help="The surface reaches from -SPAN to SPAN; or a range, as -0.5,1.5.")]


Reach = Annotated[
    str | None,
    typer.Option(
        help="From -SPAN to SPAN; or a range, as -0.5,1.5. [default: 1, or what holds the marked checkpoints]",
        show_default=False,
    ),
]


Directions = Annotated[
    str,
    typer.Option(help="random, eigenvectors, pca (of --trajectory), or FILE.h5[:GROUP], a stored plane."),
]


Patterns = Annotated[
    list[str] | None,
    typer.Option(
        help="Only these parameters: names, their beginnings, or patterns. [default: all]", show_default=False
    ),
]


Excluded = Annotated[
    list[str] | None,
    typer.Option(help="Patterns that do not move. [default: position embeddings]", show_default=False),
]


Adaptive = Annotated[
    float | None,
    typer.Option(
        help="Compute the grid only where interpolation misses by more than this NLL, or than its standard error "
        "over examples where that is larger.",
        show_default=False,
    ),
]


Normalize = Annotated[str, typer.Option(help="filter, layer, weight, column or none.")]


Top = Annotated[int, typer.Option(help="Eigenvalues per mini-batch.")]


Which = Annotated[str, typer.Option(help="LM, LA, SA or BE, as in scipy.sparse.linalg.eigsh.")]


BatchSize = Annotated[int, typer.Option(help="Examples per Hessian mini-batch.", min=1)]


Batches = Annotated[
    int | None,
    typer.Option(help=f"Mini-batches. [default: all full ones, up to {BATCHES_AT_MOST}]", show_default=False, min=1),
]


Tol = Annotated[float, typer.Option(help="A pair has converged at a residual of TOL * |eigenvalue|.", min=0.0)]


Probes = Annotated[int, typer.Option(help="Random probes of the density.")]


Steps = Annotated[int, typer.Option(help="Lanczos steps per probe.")]


DensitySamples = Annotated[
    int | None,
    typer.Option(help=f"Frozen examples for the density. [default: all, up to {DENSITY_AT_MOST}]", show_default=False),
]


Kind = Annotated[str, typer.Option(help="hessian; ggn, its Gauss-Newton part; residual, the rest.")]


Per = Annotated[str | None, typer.Option(help="layer or stage: the spectrum of each one's parameters by itself.")]


SecondLook = Annotated[
    bool, typer.Option("--second-look", help="Search again beside what was found, for what the first start missed.")
]


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
        weight_decay: Decay = 0.0,
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
        processes.start()
        named = data is not None
        if data is None:
            data = stated(read_checkpoint(checkpoint).metadata, "data", checkpoint)
        if data is None:
            raise UserError(f"{checkpoint} does not name the data it was trained on; say which with --data")
        recipe = {"auto_augment": auto_augment, "mixup": mixup, "cutmix": cutmix, "smoothing": smoothing}
        self.checkpoint, self.out, self.seed, self.quiet = checkpoint, out, seed, quiet
        self.samples, self.transform = samples, transform
        if eval_batch_size < 1:
            raise UserError(f"--eval-batch-size {eval_batch_size} must be 1 or more")
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
            download=named,
            progress=not quiet,
        )

    def surface(self, plane: Plane, *, se: float | None = None, **settings: Any) -> str:
        """The surface over `plane`, and the plane, into groups of their own; the name of the first.

        Over eigenvectors it is of the examples that they were computed on, WHOLE_AT_MOST unless --samples says.
        """
        eigenvectors = plane.config["kind"] == "eigenvectors"  # drawn over the examples that they are of
        if eigenvectors and se is not None:
            raise UserError(
                f"--precision {se:g} asks for other examples than the eigenvectors are of; give --samples for both"
            )
        data = self._frozen(WHOLE_AT_MOST if eigenvectors else SAMPLES_AT_MOST)
        if se is not None:
            data = self._precise(plane, data, se, settings.get("span", 1.0), settings.get("batchnorm", "stored"))
        objective = self.subject.objective(data)
        group, beside = _names(plane.config["kind"], plane.dims)
        into(
            self.out,
            group,
            lambda stored, save: evaluate_surface(
                objective, plane, partial=stored, save=save, progress=not self.quiet, **settings
            ),
            **{beside: plane.to_dataset()},
        )
        return group

    def random_plane(self, **settings: Any) -> Plane:
        return random_plane(self.subject.model, seed=self.seed, **settings)

    def eigenvector_plane(self, **settings: Any) -> Plane:
        """Of the whole frozen data; taken from the results file where that has the very same."""
        objective = self.subject.objective(self._frozen(WHOLE_AT_MOST))
        _, name = _names("eigenvectors", settings["dims"])
        stored = store.stored(self.out, name)
        plane = eigenvector_plane(objective, seed=self.seed, stored=stored, **settings)
        return Plane(processes.from_first(plane.directions), processes.from_first(plane.config))

    def plane_through(self, others: Sequence[Path]) -> Plane:
        return plane_through(self.subject.model, self._states(others), label=self.checkpoint.stem)

    def trajectory(self, folder: Path) -> Mapping[str, Mapping[str, Tensor]]:
        """The checkpoints of a folder, in the order of the numbers in their names; each is read when asked for."""
        found = _checkpoints_in(folder)
        if not found:
            raise UserError(f"--trajectory {folder} is not a folder of checkpoints ({', '.join(SUFFIXES)})")
        return self._states(found)

    def stored_plane(self, file: Path) -> Plane:
        """The plane of a results file, FILE.h5, or one of several, FILE.h5:GROUP."""
        path, _, group = str(file).rpartition(":") if ":" in file.name else (str(file), "", "")
        planes = {name: data for name, data in store.load(path).items() if name.startswith("plane")}
        if not planes or (group and group not in planes) or (not group and len(planes) > 1):
            known = ", ".join(planes) or "none; make one with 'landscape surface'"
            raise UserError(f"--directions {file} should name one plane of the file, as FILE.h5:GROUP; it has {known}")
        return Plane.from_dataset(planes[group or next(iter(planes))], self.subject.model)

    def _states(self, paths: Sequence[Path]) -> Mapping[str, Mapping[str, Tensor]]:
        return LazyStates(by_name(paths), self._load)

    def _load(self, path: Path) -> Mapping[str, Tensor]:
        origin = self.subject.provenance
        return load_checkpoint(
            path, origin["model"], num_classes=origin["num_classes"], image_size=origin["image_size"],
            in_channels=origin["in_channels"],
        )[0].state_dict()  # fmt: skip

    def _precise(self, plane: Plane, pilot: FrozenData, se: float, span: Any, batchnorm: str) -> FrozenData:
        needed = samples_for(self.subject.objective(pilot), plane, se, span, batchnorm=batchnorm)
        data = self.subject.frozen(transform=self.transform, at_most=needed)
        have = sum(len(y) for _, y in data)
        short = "" if have >= needed else f", of which the data set has {have}: the standard error will be larger"
        self.say(f"{needed} examples meet a standard error of {se:g} in the central region{short}")
        return data

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

    def refuse_another_checkpoint(self) -> None:
        """Raises UserError where the results file has those of other weights: one file, one network."""
        for name, group in (store.load(self.out) if self.out.exists() else {}).items():
            origin = group.attrs.get("config", {}).get("objective", {}).get("provenance", {})
            if origin and origin.get("sha256") != self.subject.provenance["sha256"]:
                raise UserError(
                    f"{self.out} has the {name} of another checkpoint, {origin.get('file')}; write to another file"
                )

    def test(self) -> None:
        test = evaluate_test(self.subject, self.out)
        if test is None:
            self.say("no test split found: no test accuracy")
            return
        self.say(f"test accuracy {percent(test)} ({int(test['examples'])} examples)")

    def report(self, *groups: str) -> None:
        """Say what was found, draw it, and say what was written; under torchrun the first process does."""
        if processes.rank() != 0:
            return
        held = store.load(self.out)
        for name in groups:
            if name in held:
                self.say(describe(name, held[name]))
        self.say(f"wrote {self.out}")
        for picture in draw_file(self.out):
            self.say(f"wrote {picture}")

    def say(self, text: str) -> None:
        if not self.quiet and processes.rank() == 0:
            tqdm.write(text, file=sys.stdout)

    def _frozen(self, at_most: int) -> FrozenData:
        return self.subject.frozen(transform=self.transform, samples=self.samples, at_most=at_most)


class LazyStates(Mapping[str, Mapping[str, Tensor]]):
    """State dicts of checkpoints by label, each read when it is asked for: one is in memory at a time."""

    def __init__(self, paths: Mapping[str, Path], load: Callable[[Path], Mapping[str, Tensor]]) -> None:
        self.paths, self.load = paths, load

    def __getitem__(self, label: str) -> Mapping[str, Tensor]:
        return self.load(self.paths[label])

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)


def _names(kind: str, dims: int) -> tuple[str, str]:
    """The groups of a surface or curve, and of the plane beside it."""
    suffix = "" if kind == "random" else f"_{kind}"
    return (f"surface{suffix}", f"plane{suffix}") if dims == 2 else (f"curve{suffix}", f"plane_curve{suffix}")


def analysing(command: Callable[..., None]) -> Callable[..., None]:
    """A command of (run, its own options) as one of (the options of Run, its own), which is what typer reads.

    A command whose first parameter is `runs` takes several checkpoints, and gets a Run for each.
    """
    shared = dict(inspect.signature(Run, eval_str=True).parameters)
    first, *own = inspect.signature(command, eval_str=True).parameters.values()
    several = first.name == "runs"
    if several:
        many = Annotated[
            list[Path], typer.Argument(help="Weights, or a folder of them; by the numbers in their names.")
        ]
        shared["checkpoint"] = shared["checkpoint"].replace(name="checkpoint", annotation=many)
    required = [p for p in shared.values() if p.default is p.empty]
    optional = [p for p in shared.values() if p.default is not p.empty]
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in (*required, *own, *optional)]

    def wrapped(**options: Any) -> None:
        common = {name: options.pop(name) for name in shared}
        if several:
            command([Run(**{**common, "checkpoint": path}) for path in in_order(common["checkpoint"])], **options)
        else:
            run = Run(**common)
            run.refuse_another_checkpoint()
            command(run, **options)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """The numbers in "0.485,0.456,0.406". Raises UserError, naming the option, for what is none."""
    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.split(","))
        if not all(math.isfinite(value) for value in found):
            raise ValueError(text)
        return found
    except ValueError as e:
        raise UserError(f"{option} {text} is not numbers with commas, such as 0.485,0.456,0.406") from e
