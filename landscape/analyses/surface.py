"""The loss on a grid over a plane or along a line: F(a, b) = L(theta + a d1 + b d2)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import xarray as xr
from annotated_types import Ge, Gt
from pydantic import FiniteFloat

from landscape.analyses.base import Analysis, Examples, Held, Subject, Values
from landscape.analyses.beside import checked, direction_curvatures, exact_penalty
from landscape.analyses.estimates import Estimate
from landscape.analyses.pilot import samples_for
from landscape.analyses.planes import Directions
from landscape.analyses.quantities import Quantities
from landscape.linalg.search import Search
from landscape.runtime.errors import UserError
from landscape.runtime.memory import refuse_beyond_memory
from landscape.store.units import Index, Work
from landscape.surfaces.grid import along, coarse_to_fine, grid, per_axis, ranges_of, strides
from landscape.surfaces.measures import measure
from landscape.surfaces.rays import RAY_VARIABLES, Point, search_width
from landscape.surfaces.refine import refine
from landscape.surfaces.remarks import remarks
from landscape.surfaces.topology import VARIABLES, counted, minima, with_minima

if TYPE_CHECKING:
    from landscape.objective.objective import Objective
    from landscape.planes.plane import Extent, Plane
    from landscape.planes.slice import Slice

AFTERWARDS = (
    "measure", "quantity", "bound", "trajectory", "off_plane", "explained", "checkpoint", *RAY_VARIABLES, "ray_angle",
    *VARIABLES,
)  # fmt: skip
USUAL_EXAMPLES = 5000
EIGENVECTOR_EXAMPLES = 256
LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Surface(Directions, Analysis):
    """The loss on a grid over two directions, or along one: random, eigenvectors, towards checkpoints, or from PCA.

    Example: landscape surface vit.safetensors --data digits --out vit.h5 --points 21

    Parameters
    ----------
    points
        Points per axis; or the numbers along x and y, such as 51,31.
    span
        From -SPAN to SPAN; or a range, such as -0.5,1.5; by default 1, or a range that holds the marked checkpoints.
    y_span
        A separate range for y.
    adaptive
        Compute points only where interpolation would be wrong by more than this NLL, or by more than its standard error
        over examples if that is larger; the rest is interpolated and marked.
    standard_error
        Take as many examples as the NLL needs to have this standard error in the central region.
    batchnorm
        stored: BatchNorm keeps the statistics of the training. recalibrated: they are gathered anew at each point from
        the frozen data.
    dtype
        float32; or bfloat16 for the network's products, the error of which is then measured.
    checks
        Points computed in both dtypes if dtype is bfloat16.
    gradient_norm
        Compute also the norm of the gradient at each point.
    eigenvalues
        Compute also the largest and the smallest eigenvalue of the Hessian at each point (Li et al. 2018, fig. 7).
    tol
        An eigenvalue has converged when its residual is at most tol * |eigenvalue|.
    max_products
        The most Hessian products at one point.
    rays
        The number of rays along which the width is searched, each by about 15 further evaluations; 0 for none.
    workers
        Points computed side by side, one thread each; by default as many as cores and memory allow.
    """

    name: ClassVar[str] = "surface"
    unit: ClassVar[str] = "point"
    formerly: ClassVar[Mapping[str, str]] = {"precision": "dtype"}

    points: Annotated[int, Ge(1)] | tuple[Annotated[int, Ge(1)], ...] = 51
    span: float | tuple[float | tuple[float, ...], ...] | None = None
    y_span: tuple[FiniteFloat, FiniteFloat] | None = None
    adaptive: Annotated[FiniteFloat, Gt(0)] | None = None
    standard_error: Annotated[FiniteFloat, Gt(0)] | None = None
    batchnorm: Literal["stored", "recalibrated"] = "stored"
    dtype: Literal["float32", "bfloat16"] = "float32"
    checks: Annotated[int, Ge(0)] = 9
    gradient_norm: bool = False
    eigenvalues: bool = False
    tol: Annotated[float, Ge(0)] = 1e-2
    max_products: Annotated[int, Ge(1)] = 100
    rays: Annotated[int, Ge(0)] = 8
    workers: Annotated[int, Ge(1)] | None = None

    def check(self) -> None:
        """`standard_error` chooses the examples, which eigenvectors fix."""
        super().check()
        if self.directions == "eigenvectors" and not self.towards and self.standard_error is not None:
            raise UserError(
                f"standard_error={self.standard_error:g} asks for other examples than the eigenvectors are of; "
                "give samples for both"
            )

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """The settings of a stored configuration, which says more of eigenvalues and BatchNorm than the settings do."""
        search, batchnorm = stored.get("eigenvalues"), stored.get("batchnorm", "stored")
        own = {k: v for k, v in stored.items() if k not in ("plane", "objective")}
        own["eigenvalues"] = bool(search)
        own["batchnorm"] = batchnorm if isinstance(batchnorm, str) else batchnorm[0]
        return super().of({**own, **(search if isinstance(search, Mapping) else {})})

    @property
    def variant(self) -> str:
        """What spans the plane."""
        return self.spanned_by

    def group_for(self, objective: Slice) -> str:
        """surface or curve, with what spans the plane if it is not random."""
        return _groups(objective.plane)[0]

    def beside(self, objective: Slice) -> Mapping[str, xr.Dataset]:
        """The plane, so that it can be used again."""
        return {_groups(objective.plane)[1]: objective.plane.to_dataset()}

    @property
    def examples(self) -> Examples:
        """5,000 unless the user says; over eigenvectors, those of the eigenvectors, 256 unless the user says."""
        eigenvectors = self.directions == "eigenvectors" and not self.towards
        usual = EIGENVECTOR_EXAMPLES if eigenvectors else USUAL_EXAMPLES
        return Examples(usual=usual, counted=self.standard_error is None)

    def prepare(self, subject: Subject, held: Held) -> Slice:
        """The loss over the plane, on as many examples as `standard_error` needs."""
        from landscape.planes.slice import Slice

        objective = subject.objective(self.examples)
        plane = self.plane(subject, objective, held)
        if self.standard_error is not None:
            span = self._span(plane)
            needed = samples_for(objective, plane, self.standard_error, span, batchnorm=self.batchnorm)
            objective = subject.objective(Examples(exactly=needed))
            said = f"{needed} examples meet a standard error of {self.standard_error:g} in the central region"
            if objective.examples < needed:
                said += f", of which the data set has {objective.examples}: the standard error will be larger"
            LOG.info(said)
        return Slice(objective, plane, self.batchnorm, self.dtype)

    def _span(self, plane: Plane) -> Extent:
        asked: Any = self.span
        span: Extent = asked if asked is not None else plane.reach(per_axis(self.points, plane.dims))
        if self.y_span is None:
            return span
        return ranges_of(span, 2)[0], self.y_span

    def _axes(self, plane: Plane) -> list[np.ndarray]:
        counts, ranges = per_axis(self.points, plane.dims), ranges_of(self._span(plane), plane.dims)
        marks = [[]] * plane.dims if plane.marks is None else plane.marks["trajectory"].values.T.tolist()
        return [grid(count, low, high, at) for count, (low, high), at in zip(counts, ranges, marks, strict=True)]

    def config(self, objective: Slice) -> dict[str, Any]:
        """What fixes the numbers, in the form that files have always had: counts and ranges of the axes, the plane."""
        plane, loss = objective.plane, objective.objective
        return {
            "analysis": self.name,
            "points": per_axis(self.points, plane.dims),
            "span": ranges_of(self._span(plane), plane.dims),
            "adaptive": self.adaptive,
            "batchnorm": "stored" if self.batchnorm == "stored" else [self.batchnorm, loss.batch_size],
            "precision": self.dtype,
            "eigenvalues": {"tol": self.tol, "max_products": self.max_products} if self.eigenvalues else None,
            "gradient_norm": self.gradient_norm,
            **objective.config(),
        }

    def empty(self, objective: Slice) -> xr.Dataset:
        """The result over (y, x) or (x). Raises UserError for a plane of other dimensions, or an invalid range."""
        plane, folds = objective.plane, objective.objective.folds
        if plane.dims not in (1, 2):
            raise UserError(f"a surface needs 1 or 2 directions, the plane has {plane.dims}")
        count = math.prod(per_axis(self.points, plane.dims))
        refuse_beyond_memory(8 * count * (folds + 12), f"a surface of {count} `points`")
        axes, names = self._axes(plane), ("x", "y")[: plane.dims]
        dims, shape = names[::-1], tuple(len(axis) for axis in reversed(axes))
        variables: dict[str, Any] = {
            name: (dims, np.full(shape, np.nan), {"long_name": text}) for name, text in self._quantities.labels.items()
        }
        flags = self._quantities.flags.items()
        variables |= {name: (dims, np.zeros(shape, bool), {"long_name": text}) for name, text in flags}
        about = {"long_name": "nll of a fold of the examples"}
        variables["nll_fold"] = (("fold", *dims), np.full((folds, *shape), np.nan), about)
        variables["done"] = (dims, np.zeros(shape, bool), {"long_name": "computed"})
        if self.adaptive is not None:
            variables["interpolated"] = (dims, np.zeros(shape, bool), {"long_name": "filled in from computed points"})
            variables["nll_error"] = (dims, np.zeros(shape), {"long_name": "estimated error of an interpolated nll"})
        coordinates = {
            axis: (axis, c, {"long_name": f"along d{i}"})
            for i, (axis, c) in enumerate(zip(names, axes, strict=True), 1)
        }
        return xr.Dataset(variables, coordinates)

    @property
    def _quantities(self) -> Quantities:
        search = Search(k=2, which="BE", tol=self.tol, max_products=self.max_products) if self.eigenvalues else None
        return Quantities(self.gradient_norm, search)

    def side_by_side(self, objective: Slice) -> int:
        """How many points at a time: one on a GPU, or with eigenvalues, whose products take all cores."""
        if self.workers is not None or self.eigenvalues:
            return self.workers or 1
        from landscape.planes.slice import worker_count

        return min(worker_count(objective.objective), math.prod(per_axis(self.points, objective.plane.dims)))

    def order(self, result: xr.Dataset) -> np.ndarray | None:
        """From coarse to fine, so that a grid cut short is complete on a coarser grid."""
        return coarse_to_fine(result["done"].shape)

    def arithmetic(self) -> AbstractContextManager[None]:
        """The process's settings for all points, entered here so that no worker changes them for another."""
        from landscape.runtime.arithmetic import exact_arithmetic, true_float32

        return exact_arithmetic() if self.gradient_norm or self.eigenvalues else true_float32()

    def ready(self, objective: Slice) -> tuple[Slice, list[np.ndarray]]:
        """The loss over the plane, and the axes."""
        return objective, self._axes(objective.plane)

    def compute(self, ready: tuple[Slice, list[np.ndarray]], unit: Index) -> Values:
        """What is asked for at one point."""
        objective, axes = ready
        coordinates = tuple(float(axis[i]) for axis, i in zip(axes, reversed(unit), strict=True))
        with objective.at(coordinates) as here:
            return self._quantities.values(here, objective.autocast)

    def fill(self, objective: Slice, result: xr.Dataset, work: Work) -> xr.Dataset:
        """Compute the grid, all of it or where it is needed; then what is computed beside it."""
        searched, result = result, result.drop_vars(AFTERWARDS, errors="ignore")
        if self.adaptive is None:
            self.visit(objective, result, work)
        else:
            refine(result, lambda only: self.visit(objective, result, work, only), self.adaptive)
            if not result["done"].all():
                return result
            exact_penalty(result, objective, self._axes(objective.plane))
        if objective.plane.marks is not None:
            result = result.merge(objective.plane.marks, combine_attrs="override")
        if not result["done"].all():
            return result
        if objective.plane.config.get("directions") == "eigenvectors" and "direction_curvature" not in result:
            result = result.assign(direction_curvatures(objective))
        if self.rays:
            result = self._with_rays(objective, result, searched, work)
        if self.dtype != "float32" and "checked_nll" not in result and self.checks:
            result = result.assign(checked(result, objective, self._axes(objective.plane), self.checks))
        return result

    def _with_rays(self, objective: Slice, result: xr.Dataset, searched: xr.Dataset, work: Work) -> xr.Dataset:
        def at(coordinates: Sequence[float]) -> Point:
            values = objective.evaluate(coordinates)
            return Point(values.nll, np.array(values.nll_fold))

        dims = result["done"].dims
        here, centre = dict.fromkeys(dims, 0.0), None
        computed = result["done"] & ~result.get("interpolated", xr.zeros_like(result["done"]))
        if all(0.0 in result[axis].values for axis in dims) and bool(computed.sel(here)):
            centre = Point(float(result["nll"].sel(here)), result["nll_fold"].sel(here).values)

        def save(rays: xr.Dataset) -> None:
            if work.save is not None:
                work.save(result.merge(rays, combine_attrs="override"))

        found = search_width(
            at, ranges_of(self._span(objective.plane), objective.plane.dims),
            centre or at((0.0,) * objective.plane.dims), rays=self.rays, workers=self.side_by_side(objective),
            partial=searched, work=work.saving(save),
        )  # fmt: skip
        return result.merge(found, combine_attrs="override")

    def finish(self, result: xr.Dataset) -> xr.Dataset:
        """The result with the measures and the minima of the NLL.

        For an unfinished grid they are those of the finest grid that is complete; there are none if none is.
        """
        whole = result if result["done"].values.all() else _whole_part(result)
        result = result.drop_vars(VARIABLES, errors="ignore")
        if whole is None:
            return result.drop_vars("measure", errors="ignore")
        return result.merge(measure(whole), combine_attrs="override").merge(minima(whole), combine_attrs="override")

    def estimates(self, result: xr.Dataset) -> list[Estimate]:
        """How many minima there are, from those beyond the error to those on the grid; and the SMAD."""
        found = with_minima(result)
        if "minimum_persistence" not in found or not found.sizes["minimum"]:
            return []
        beyond, inside = counted(found)
        folds = result.sizes.get("fold", 0)
        return [
            Estimate(
                name="minima", value=beyond, low=beyond, high=inside, n=folds, counts="folds of the examples",
                how="from those whose persistence is beyond its error, all at once, to all inside the grid",
                column=False,
            ),
            Estimate(
                name="saddle-minimum average distance", symbol="SMAD", value=float(found["smad"]),
                sem=float(found["smad_sem"]), n=folds, counts="folds of the examples",
                how="standard error by jackknife over folds of the examples", column=False,
            ),
        ]  # fmt: skip

    def check_result(self, result: xr.Dataset) -> None:
        """Raise UserError unless the NLL and `done` are over the grid, along coordinates that increase."""
        dims = result["nll"].dims
        if dims not in (("y", "x"), ("x",)) or result.get("done", result["nll"]).dims != dims:
            raise UserError(f"its nll is over {', '.join(map(str, dims))}, not over x, or over y and x")
        for axis in dims:
            if not (np.diff(result[axis].values) > 0).all():
                raise UserError(f"its coordinate {axis} does not increase")

    def remarks(self, result: xr.Dataset) -> list[str]:
        """The centre and the lowest point, what diverged or was filled in, and the measures."""
        return remarks(result)

    def _completed(self, stored: xr.Dataset | None, config: Mapping[str, Any]) -> xr.Dataset | None:
        if stored is None:
            return None
        there = stored.attrs.get("config", {})
        loss = {**config["objective"], **there.get("objective", {})}
        return stored.assign_attrs(config={**there, "objective": loss})


def _groups(plane: Plane) -> tuple[str, str]:
    """The groups of a surface or curve, and of the plane beside it."""
    directions = plane.config["directions"]
    suffix = "" if directions == "random" else f"_{directions}"
    return (f"surface{suffix}", f"plane{suffix}") if plane.dims == 2 else (f"curve{suffix}", f"plane_curve{suffix}")


def _whole_part(result: xr.Dataset) -> xr.Dataset | None:
    """The points of the finest coarser grid that are all done; None where none is."""
    done = result["done"].values
    for stride in strides(done.shape):
        kept = [along(n, stride) for n in done.shape]
        if done[np.ix_(*kept)].all():
            return result.isel(dict(zip(result["done"].dims, kept, strict=True)))
    return None


def evaluate_surface(objective: Objective, plane: Plane, **settings: Any) -> xr.Dataset:
    """F(a, b) = L(theta + a d1 + b d2) on a grid; along one direction F(a): `Surface(**settings)` over `plane`.

    Parameters
    ----------
    objective
        The loss.
    plane
        x runs along plane.directions[0], y along plane.directions[1].
    settings
        Those of `Surface` by name, but for those that make a plane; and partial, save, save_every, budget and progress,
        as for `hessian_spectrum`; the unit is a point.

    Returns
    -------
    xarray.Dataset
        With dims (y, x), or (x): nll, nll_sem and accuracy_sem (standard errors over examples), penalty, loss (nll +
        penalty), accuracy, done; nll_fold with a leading dim fold; measure, of the NLL, as
        `landscape.surfaces.measures.measure` has it; along ray what `landscape.surfaces.rays.search_width` has; over
        eigenvectors direction_curvature (axis), v^T H v of these examples, with direction_curvature_sem and
        direction_eigenvalue, that of the plane; what else was asked; and of an adaptive one interpolated and nll_error.
        A diverged point is inf or NaN and done; a point not computed is NaN and not done.

    Raises
    ------
    UserError
        For fewer than one point per axis, a range that is empty or not finite, or unknown settings.
    """
    from landscape.planes.slice import Slice

    asked: dict[str, Any] = {name: settings[name] for name in ("batchnorm", "dtype") if name in settings}
    Surface.asked(asked)
    return Surface.called(Slice(objective, plane, **asked), settings)
