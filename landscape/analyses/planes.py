"""The plane that a surface lies over, made from settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le

from landscape.analyses.base import Held, Subject
from landscape.analyses.eigenvalues import Patterns
from landscape.linalg.search import Which
from landscape.runtime.errors import UserError
from landscape.runtime.progress import bar
from landscape.runtime.settings import Settings

if TYPE_CHECKING:
    from landscape.objective.objective import Objective
    from landscape.objective.parameters import Direction
    from landscape.planes.plane import Plane

DIRECTIONS = ("random", "eigenvectors", "pca")


@dataclass(frozen=True, kw_only=True)
class Directions(Settings):
    """How the directions are chosen.

    Parameters
    ----------
    directions
        random; eigenvectors of the Hessian; pca of the trajectory; or FILE.h5[:GROUP] for a stored plane.
    dims
        2 for a surface, 1 for a curve along one direction.
    normalize
        How random directions are normalised to the weights: by filter, layer, weight or column; or none.
    orthogonal
        Make random directions orthogonal to each other.
    biases
        Move biases and norms too, which random directions otherwise leave alone.
    parameters
        The parameters that move: names, their beginnings, or patterns; by default all.
    exclude
        Patterns for the names of parameters that do not move; by default position embeddings.
    which
        Which eigenvectors: BE one from each end, LA top, SA most negative, LM largest magnitude.
    towards
        Other checkpoints to point to: one for a line, two for a plane.
    trajectory
        A folder of checkpoints, for pca or to be marked in the plane.
    seed
        The seed of the draws.
    """

    directions: str = "random"
    dims: Annotated[int, Ge(1), Le(2)] = 2
    normalize: Literal["filter", "layer", "weight", "column", "none"] = "filter"
    orthogonal: bool = False
    biases: bool = False
    parameters: Patterns | None = None
    exclude: Patterns | None = None
    which: Which = "BE"
    towards: tuple[Path, ...] | None = None
    trajectory: Path | None = None
    seed: Annotated[int, Ge(0)] = 0

    def check(self) -> None:
        """A PCA needs a trajectory."""
        if self.directions == "pca" and self.trajectory is None:
            raise UserError("directions=pca needs the checkpoints of a training; give their folder as `trajectory`")

    @property
    def spanned_by(self) -> str:
        """What names the plane in a results file; "" for random directions and for stored planes, which have a name."""
        if self.towards:
            return "interpolation" if len(self.towards) == 1 else "checkpoints"
        return self.directions if self.directions in DIRECTIONS[1:] else ""

    def plane(self, subject: Subject, objective: Objective, held: Held) -> Plane:
        """The plane of the subject's network; eigenvectors are those of `objective`, taken from `held` if it has them.

        Raises
        ------
        UserError
            As the functions of `landscape.planes` do.
        """
        from landscape.planes.random import POSITION_EMBEDDINGS, random_plane
        from landscape.planes.spanned import pca_plane, plane_through, with_trajectory

        path = None if self.trajectory is None else subject.trajectory(self.trajectory)
        if self.towards:
            found = plane_through(subject.model, subject.states(self.towards), label=subject.label)
        elif self.directions == "random":
            found = random_plane(
                subject.model, normalize=self.normalize, seed=self.seed, dims=self.dims, biases=self.biases,
                orthogonal=self.orthogonal, parameters=self.parameters,
                exclude=POSITION_EMBEDDINGS if self.exclude is None else self.exclude,
            )  # fmt: skip
        elif self.directions == "eigenvectors":
            found = self._eigenvectors(objective, held)
        elif self.directions == "pca":
            assert path is not None
            return pca_plane(subject.model, path, dims=self.dims, ignore_biases=not self.biases)
        else:
            found = subject.stored_plane(Path(self.directions))
        return found if path is None else with_trajectory(found, subject.model, path)

    def _eigenvectors(self, objective: Objective, held: Held) -> Plane:
        """The eigenvectors, found by the first process, whose state may be continued; the others wait for it."""
        from landscape.planes.plane import Plane
        from landscape.planes.spanned import EIGENVECTORS, eigenvector_plane
        from landscape.runtime import processes

        group = "plane_eigenvectors" if self.dims == 2 else "plane_curve_eigenvectors"
        directions: tuple[Direction, ...] = ()
        config: dict[str, Any] = {}
        if processes.rank() == 0:
            search, work = replace(EIGENVECTORS, which=self.which, k=self.dims), held.work_on(group)
            steps = bar(shown=work.progress, desc="eigenvectors", unit="product", total=search.max_products)
            with steps, work.counted_by(steps.update):
                plane = eigenvector_plane(
                    objective, search, parameters=self.parameters, seed=self.seed, stored=held.get(group), work=work
                )
            directions = tuple({name: t.cpu() for name, t in d.items()} for d in plane.directions)
            config = plane.config
        directions, config = processes.from_first((directions, config))
        like = dict(objective.model.named_parameters())
        return Plane(tuple({name: t.to(like[name]) for name, t in d.items()} for d in directions), config)
