"""The minima of a surface, how their basins merge as a level rises, and which are more than statistical error."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import stdtrit

from landscape.objective.clusters import LEAST_UNITS, jackknife_sem

MOST_POINTS = 1_000_000  # larger grids are not searched for minima, which would take a minute
CONFIDENCE = 0.95  # that no minimum beyond the error is due to the choice of examples
VARIABLES = (
    "minimum_at", "minimum_nll", "minimum_saddle_at", "minimum_saddle", "minimum_parent", "minimum_persistence",
    "minimum_persistence_sem", "minimum_beyond_error", "minimum_at_edge", "smad", "smad_sem",
)  # fmt: skip


@dataclass(frozen=True)
class MergeTree:
    """The minima of heights on a grid, and where the regions around them meet as a level rises.

    Points are neighbours along the axes and the diagonals. When two regions meet, the one with the higher minimum ends
    and is merged into the other (the elder rule). Points of equal height are taken in the order of the grid.

    Attributes
    ----------
    minimum
        The points (M,) of the minima, as places in the flattened grid, the lowest first.
    saddle
        Where the region of each minimum ends, (M,); -1 for the lowest, and for one that walls separate for good.
    parent
        The minimum into whose region it is merged there, (M,), by its place in `minimum`; -1 likewise.
    first
        The saddle at which the region of each first meets another, whichever of the two ends there, (M,); -1 for none.
    """

    minimum: np.ndarray
    saddle: np.ndarray
    parent: np.ndarray
    first: np.ndarray


def merge_tree(z: np.ndarray) -> MergeTree:
    """The merge tree of heights, by union-find over the points in ascending order.

    Points that are not finite are walls. A minimum whose region ends at its own height, as on a plateau, does not
    count.

    z: the heights, of one or two dimensions.
    """
    walled = np.pad(np.where(np.isfinite(z), z, np.inf), 1, constant_values=np.inf)  # no point is at the edge
    order = np.argsort(walled.ravel(), kind="stable")[: int(np.isfinite(z).sum())].tolist()
    heights: list[float] = walled.ravel().tolist()
    strides = [int(np.prod(walled.shape[k + 1 :])) for k in range(z.ndim)]
    steps = [int(np.dot(s, strides)) for s in product((-1, 0, 1), repeat=z.ndim) if any(s)]
    root, age = [-1] * len(heights), [0] * len(heights)
    ends: dict[int, tuple[int, int]] = {}
    first: dict[int, int] = {}

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for rank, i in enumerate(order):
        root[i], age[i] = i, rank
        for step in steps:
            if root[i + step] < 0:
                continue
            elder, younger = find(i), find(i + step)
            if younger == elder:
                continue
            if age[younger] < age[elder]:
                elder, younger = younger, elder
            root[younger] = elder
            if heights[younger] < heights[i]:
                ends[younger] = (i, elder)
                first.setdefault(younger, i)
                first.setdefault(elder, i)
    kept = [i for i in order if root[i] == i or i in ends]
    place = {m: k for k, m in enumerate(kept)}

    def within(points: list[int]) -> np.ndarray:
        """The same points as places in the grid without its wall."""
        found = np.array(points, np.int64)
        at = np.stack(np.unravel_index(np.maximum(found, 0), walled.shape)) - 1
        inside = np.ravel_multi_index(tuple(np.maximum(at, 0)), z.shape) if z.size else found
        return np.where(found >= 0, inside, -1)

    return MergeTree(
        within(kept),
        within([ends.get(m, (-1, -1))[0] for m in kept]),
        np.array([place.get(ends.get(m, (-1, -1))[1], -1) for m in kept], np.int64),
        within([first.get(m, -1) for m in kept]),
    )


def minima(surface: xr.Dataset) -> xr.Dataset:
    """The minima of the NLL of a `surface` group, of one or two dimensions, with their merge tree.

    The persistence of a minimum is the height, above it, of the saddle at which its region is merged into that of a
    deeper minimum; for the lowest it is infinite. Its standard error is by delete-one-fold jackknife, with these two
    points fixed. A minimum is beyond the error if its persistence is larger than its standard error times Student's
    quantile, corrected for the number of minima (Bonferroni): with a confidence of 95 %, no such minimum is due to the
    choice of examples.

    The SMAD is the mean over the minima of the height, above each, of the saddle at which its region first meets
    another, and 0 for a single minimum (Saddle-Minimum Average Distance, Chen et al., arXiv:2602.07135, as Landscaper
    1.3.1 computes it without weights, on the edges of the merge tree). The larger it is, the more rugged the surface;
    minima within the error count too.

    Parameters
    ----------
    surface
        The group.

    Returns
    -------
    xarray.Dataset
        Along `minimum`, the lowest first: minimum_at and minimum_saddle_at (minimum, axis), x first; minimum_nll;
        minimum_saddle, the NLL there; minimum_parent, the place of the minimum that it is merged into, -1 for none;
        minimum_persistence and minimum_persistence_sem, NaN with fewer than 8 folds; minimum_beyond_error; and
        minimum_at_edge, for a minimum at the edge of the grid, beyond which the NLL may go on falling. Besides, smad
        and smad_sem.
    """
    dims: list[str] = [axis for axis in ("y", "x") if axis in surface["nll"].dims]
    z = surface["nll"].transpose(*dims).values.astype(float)
    z = np.where(surface["done"].transpose(*dims).values & np.isfinite(z), z, np.inf)
    tree = merge_tree(z)
    merged = tree.saddle >= 0
    rise = np.full(len(tree.minimum), np.inf)
    rise[merged] = z.flat[tree.saddle[merged]] - z.flat[tree.minimum[merged]]
    met = tree.first >= 0
    of_tree = np.zeros(len(tree.minimum))
    of_tree[met] = z.flat[tree.first[met]] - z.flat[tree.minimum[met]]
    sem, smad_sem, folds = np.full(len(rise), np.nan), np.nan, 0
    if "nll_fold" in surface and surface.sizes["fold"] >= LEAST_UNITS:
        each = surface["nll_fold"].transpose("fold", *dims).values.astype(float).reshape(surface.sizes["fold"], -1)
        folds = len(each)
        with np.errstate(invalid="ignore", over="ignore"):
            rest = (each.sum(axis=0) - each) / (folds - 1)
        sem[merged] = jackknife_sem(rest[:, tree.saddle[merged]] - rest[:, tree.minimum[merged]])
        if met.any():
            smad_sem = float(jackknife_sem((rest[:, tree.first[met]] - rest[:, tree.minimum[met]]).mean(axis=1)))
    beyond = ~merged
    if merged.any() and folds:
        with np.errstate(invalid="ignore"):
            beyond = beyond | (rise > sem * -stdtrit(folds - 1, (1 - CONFIDENCE) / merged.sum())) & (sem > 0)
    smad = float(of_tree[met].mean()) if met.any() else (0.0 if len(rise) else np.nan)
    return _as_dataset(surface, dims, z, tree, rise, sem, beyond).assign(
        smad=((), smad, {"long_name": "mean height of the first saddle above a minimum"}),
        smad_sem=((), smad_sem if smad_sem > 0 else np.nan, {"long_name": "standard error of smad over examples"}),
    )


def _as_dataset(
    surface: xr.Dataset, dims: list[str], z: np.ndarray, tree: MergeTree, rise: np.ndarray, sem: np.ndarray,
    beyond: np.ndarray,
) -> xr.Dataset:  # fmt: skip
    axes = [surface[axis].values.astype(float) for axis in dims]

    def at(points: np.ndarray) -> np.ndarray:
        places = np.unravel_index(np.maximum(points, 0), z.shape)
        found = np.stack([axis[i] for axis, i in zip(axes, places, strict=True)], axis=1)[:, ::-1]
        return np.where(points[:, None] >= 0, found, np.nan)

    places = np.stack(np.unravel_index(tree.minimum, z.shape), axis=1).reshape(-1, z.ndim)
    edge = ((places == 0) | (places == np.array(z.shape) - 1)).any(axis=1)
    variables: dict[str, Any] = {
        "minimum_at": (("minimum", "axis"), at(tree.minimum), {"long_name": "coordinates of the minima"}),
        "minimum_nll": ("minimum", z.flat[tree.minimum], {"long_name": "nll of the minima"}),
        "minimum_saddle_at": (("minimum", "axis"), at(tree.saddle), {"long_name": "where their regions are merged"}),
        "minimum_saddle": ("minimum", z.flat[tree.minimum] + rise, {"long_name": "nll there"}),
        "minimum_parent": ("minimum", tree.parent, {"long_name": "the minimum that it is merged into"}),
        "minimum_persistence": ("minimum", rise, {"long_name": "height of the saddle above the minimum"}),
        "minimum_persistence_sem": ("minimum", sem, {"long_name": "standard error of minimum_persistence"}),
        "minimum_beyond_error": ("minimum", beyond, {"long_name": "persistence beyond the error at 95 %"}),
        "minimum_at_edge": ("minimum", edge, {"long_name": "at the edge of the grid"}),
    }
    return xr.Dataset(variables)


def with_minima(surface: xr.Dataset) -> xr.Dataset:
    """A dataset with the minima of a surface: the surface itself if they are stored, or else the minima of its NLL.

    It is empty if the NLL has holes or is not over a grid, or if the grid has more than MOST_POINTS points.
    """
    if "minimum_persistence" in surface:
        return surface
    if surface.get("nll", xr.DataArray(0.0)).size > MOST_POINTS:
        return xr.Dataset()
    if "nll" not in surface or not {"x"} <= set(surface["nll"].dims) <= {"x", "y"} or "done" not in surface:
        return xr.Dataset()
    if not surface["done"].all():
        return xr.Dataset()
    return minima(surface)


def counted(found: xr.Dataset) -> tuple[int, int]:
    """How many of the minima inside the grid are beyond the error, and how many minima are inside."""
    inside = ~found["minimum_at_edge"].values.astype(bool)
    return int((found["minimum_beyond_error"].values.astype(bool) & inside).sum()), int(inside.sum())


def describe_minima(surface: xr.Dataset) -> list[str]:
    """How many minima are inside the grid, how many of them are beyond the error, and the SMAD, in words."""
    found = with_minima(surface)
    if "minimum_persistence" not in found or not found.sizes["minimum"]:
        return []
    beyond, inside = counted(found)
    edge = found.sizes["minimum"] - inside
    at_edge = f" ({edge} more at its edge)" if edge else ""
    many = f"{inside or 'no'} {'minimum' if inside == 1 else 'minima'} inside the grid"
    if found.sizes["minimum"] == 1:
        return [f"{many}{at_edge}"]
    known = bool(found["minimum_persistence_sem"].notnull().any())
    sem = float(found["smad_sem"])
    return [
        f"{beyond} of {many} beyond the error{at_edge}" if known and inside else f"{many}{at_edge}",
        f"SMAD {float(found['smad']):.3g}" + (f" +- {sem:.2g}" if np.isfinite(sem) else ""),
    ]
