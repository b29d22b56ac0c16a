"""Commands of several steps: all main analyses of a checkpoint, and the quickstart on bundled data."""

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
    """The settings of a surface, a spectrum and a density that are computed together.

    Parameters
    ----------
    points
        Points per axis of the surface; or the numbers along x and y, such as 51,31.
    span
        The surface reaches from -SPAN to SPAN; or a range, such as -0.5,1.5.
    normalize
        How directions are normalised to the weights: by filter, layer, weight or column; or none.
    adaptive
        Compute points only where interpolation would be wrong by more than this NLL, or by more than its standard error
        over examples if that is larger.
    rays
        The number of rays along which the width of the surface is searched; 0 for none.
    k
        Eigenvalues per mini-batch.
    which
        LM largest magnitude, LA largest, SA smallest, BE from both ends.
    batch_size
        Examples per mini-batch of the spectrum.
    batches
        Mini-batches of the spectrum; by default all full ones, but at most 64.
    tol
        An eigenvalue has converged when its residual is at most tol * |eigenvalue|.
    probes
        Random probes for the density.
    steps
        Lanczos steps for each probe.
    density_samples
        Frozen examples for the density; by default all, but at most 128.
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
        """The analyses in order, the quickest first."""
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
    """Compute test accuracy, surface, spectrum and density into one results file, and draw their pictures.

    Without --budget, --samples and any option of an analysis it ends within about ten minutes, and says what is left
    to compute.

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
    """Where the quickstart writes, and how much it computes.

    Parameters
    ----------
    out
        The folder for checkpoints, results files and pictures.
    seed
        The seed of every random draw.
    effort
        Scales epochs, grid and mini-batches; below 1 for a trial.
    device
        cpu, cuda, cuda:1, ...; by default a GPU if there is one.
    quiet
        Show no progress bars.
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
