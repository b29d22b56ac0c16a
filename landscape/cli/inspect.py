"""The command that runs every analysis of the features of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from landscape.analyses.base import Analysis
from landscape.analyses.eigenvalues import Patterns
from landscape.analyses.fourier import Fourier
from landscape.analyses.lesion import Lesion
from landscape.analyses.robustness import Robustness
from landscape.analyses.similarity import Similarity
from landscape.analyses.test import Test
from landscape.analyses.variance import Variance
from landscape.cli.analyses import CHECKPOINT, report
from landscape.cli.options import RunSettings, default_of, options_of, settled
from landscape.cli.studies import USUAL_BUDGET
from landscape.runtime.settings import Settings
from landscape.study.subject import SubjectSettings


@dataclass(frozen=True, kw_only=True)
class Features(Settings):
    """Which features are analysed.

    Parameters
    ----------
    images
        The number of images of the test split for each analysis; by default that of each analysis.
    modules
        Names or patterns of the modules whose outputs are analysed; by default the network's blocks.
    """

    images: Annotated[int, Ge(8)] | None = None
    modules: Patterns | None = None

    def analyses(self) -> list[Analysis]:
        """The analyses in order, the quickest first."""
        asked = {"images": self.images, "modules": self.modules}
        return [
            Test(),
            *(
                cls.of({k: v for k, v in asked.items() if v is not None})
                for cls in (Fourier, Variance, Similarity, Lesion, Robustness)
            ),
        ]


def inspect(checkpoint: Path, *, own: Any, run: Any, subject: Any) -> None:
    """Calibration, frequencies, variance, similarity, lesions and robustness of a network, in one results file.

    Each analysis gets an equal share of the remaining --budget. Without --budget and --images the command ends within
    about ten minutes, and says what is left to compute.

    Example: landscape inspect vit.safetensors --data digits --out vit.h5
    """
    settings, features, runs = settled(SubjectSettings, subject), settled(Features, own), settled(RunSettings, run)
    if runs.budget is None and features.images is None:
        runs = replace(runs, budget=USUAL_BUDGET)
    report(features.analyses(), [checkpoint], settings, runs)


inspect.__annotations__ = {
    "checkpoint": CHECKPOINT,
    "own": options_of(Features),
    "run": options_of(RunSettings),
    "subject": options_of(SubjectSettings),
    "return": None,
}
inspect.__kwdefaults__ = {name: default_of(inspect, name) for name in ("own", "subject")}
