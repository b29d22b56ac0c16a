"""Commands of several steps: a checkpoint analysed whole, and the whole flow on embedded data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import FiniteFloat

from landscape.analyses.base import Analysis
from landscape.analyses.density import Density
from landscape.analyses.spectrum import Spectrum
from landscape.analyses.surface import Surface
from landscape.analyses.test import Test
from landscape.cli.analyses import CHECKPOINT, report
from landscape.cli.options import RunSettings, default_of, options_of, settled
from landscape.linalg.search import Which
from landscape.runtime.settings import Settings
from landscape.runtime.visible import say
from landscape.study.subject import SubjectSettings

USUAL_BUDGET = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Whole(Settings):
    """What of a surface, a spectrum and a density is chosen where all are computed.

    Parameters
    ----------
    points
        Points per axis of the surface; or along x and y, as 51,31.
    span
        The surface reaches from -SPAN to SPAN; or a range, as -0.5,1.5.
    normalize
        Directions are normalised to the weights by filter, layer, weight, column or none.
    adaptive
        Compute the surface only where interpolation misses by more than this NLL, or than its standard error over
        examples where that is larger.
    rays
        Along how many rays the surface's width is searched; 0 for none.
    k
        Eigenvalues per mini-batch.
    which
        LM largest magnitude, LA largest, SA smallest, BE from both ends.
    batch_size
        Examples per mini-batch of the spectrum.
    batches
        Mini-batches of the spectrum; by default all full ones, of 64 at most.
    tol
        A pair has converged at a residual of tol * |eigenvalue|.
    probes
        Random probes of the density.
    steps
        Lanczos steps of each.
    density_samples
        Frozen examples for the density; by default all, of 128 at most.
    """

    points: Annotated[int, Ge(1)] | tuple[Annotated[int, Ge(1)], ...] = 51
    span: float | tuple[float, ...] = 1.0
    normalize: Literal["filter", "layer", "weight", "column", "none"] = "filter"
    adaptive: Annotated[FiniteFloat, Gt(0)] | None = None
    rays: Annotated[int, Ge(0)] = 8
    k: Annotated[int, Ge(1)] = 5
    which: Which = "LM"
    batch_size: Annotated[int, Ge(1)] = 16
    batches: Annotated[int, Ge(1)] | None = None
    tol: Annotated[float, Ge(0)] = 1e-2
    probes: Annotated[int, Ge(1)] = 10
    steps: Annotated[int, Ge(1)] = 80
    density_samples: Annotated[int, Ge(1)] | None = None

    def analyses(self, seed: int) -> list[Analysis]:
        """One after another, those that answer first at the front."""
        return [
            Test(),
            Surface(
                points=self.points, span=self.span, normalize=self.normalize, adaptive=self.adaptive, rays=self.rays,
                seed=seed,
            ),
            Spectrum(
                k=self.k, which=self.which, batch_size=self.batch_size, batches=self.batches, tol=self.tol, seed=seed
            ),
            Density(probes=self.probes, steps=self.steps, density_samples=self.density_samples, seed=seed),
        ]  # fmt: skip


def analyze(checkpoint: Path, *, own: Any, run: Any, subject: Any) -> None:
    """Test accuracy, surface, spectrum, density and their pictures, into one results file.

    Where no amount and no --budget is asked for, it ends within about ten minutes, and says what is left to compute.

    Example: landscape analyze vit.safetensors --data digits --out vit.h5
    """
    settings, whole, runs = settled(SubjectSettings, subject), settled(Whole, own), settled(RunSettings, run)
    if runs.budget is None and whole == Whole() and settings.samples is None:
        runs = replace(runs, budget=USUAL_BUDGET)
    report(whole.analyses(settings.seed), [checkpoint], settings, runs)


analyze.__annotations__ = {
    "checkpoint": CHECKPOINT,
    "own": options_of(Whole),
    "run": options_of(RunSettings),
    "subject": options_of(SubjectSettings),
    "return": None,
}
analyze.__kwdefaults__ = {name: default_of(analyze, name) for name in ("own", "subject")}


@dataclass(frozen=True, kw_only=True)
class Quickstart(Settings):
    """Where the quickstart goes, and how far.

    Parameters
    ----------
    out
        Folder for checkpoints, results files and pictures.
    seed
        Of every random draw.
    effort
        Scales epochs, grid and mini-batches; below 1 for a trial.
    device
        cpu, cuda, cuda:1, ...; by default a GPU where there is one.
    quiet
        No progress bars.
    """

    out: Path = Path("quickstart")
    seed: Annotated[int, Ge(0)] = 0
    effort: Annotated[float, Gt(0), Le(100)] = 1.0
    device: str | None = None
    quiet: bool = False


def quickstart(*, own: Any) -> None:
    """Train a ResNet, a ViT and an AlterNet on embedded digits, analyse all three, and compare them in one table.

    Example: landscape quickstart --out quickstart
    """
    from landscape.runtime.devices import chosen_device
    from landscape.study.quickstart import quickstart as run_quickstart

    asked = settled(Quickstart, own)

    def told(text: str) -> None:
        if not asked.quiet:
            say(text)

    device = chosen_device(asked.device)
    say(
        run_quickstart(
            asked.out, seed=asked.seed, effort=asked.effort, device=device, progress=not asked.quiet, say=told
        )
    )


quickstart.__annotations__ = {"own": options_of(Quickstart), "return": None}
quickstart.__kwdefaults__ = {"own": default_of(quickstart, "own")}
