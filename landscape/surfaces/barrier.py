"""How far the loss rises along a path between two networks."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.special import stdtrit

from landscape.objective.clusters import LEAST_UNITS, jackknife_sem

CONFIDENCE = 0.95


def barrier(path: xr.Dataset) -> tuple[float, float, float, float]:
    """The largest rise of the loss along a path above the straight line between the losses at its ends.

    This is max_t L(phi(t)) - (1 - t) L(phi(0)) - t L(phi(1)) over the points of the path, and 0 if it is nowhere above
    (Entezari et al. 2022, arXiv:2110.06296, eq. 1).

    The interval is of 95 %. Its ends are the largest, over t, of the lower and of the upper ends of Student's intervals
    at each t, cut at 0. The upper ends need only hold at the t where the true rise is largest, the lower ones at all
    points together (Bonferroni). Both ends are 0 if the loss is below the line by more than its error at every point
    between the ends of the path.

    Parameters
    ----------
    path
        nll (t), nll_fold (fold, t) for up to 20 folds of the examples, and done (t).

    Returns
    -------
    tuple of float
        The estimate; its standard error by delete-one-fold jackknife, NaN if the estimate is 0; and the low and high
        end of the interval. All are NaN if a point is not computed or if the loss at an end is not finite. The estimate
        is inf if another point diverged. The error and the interval are NaN with fewer than 8 folds, or if no fold
        differs along the path.
    """
    t, z = path["t"].values.astype(float), path["nll"].values.astype(float)
    nothing = (np.nan,) * 4
    if not path["done"].values.all() or not np.isfinite(z[[0, -1]]).all():
        return nothing
    z = np.where(np.isfinite(z), z, np.inf)
    above = z - ((1 - t) * z[0] + t * z[-1])
    top = max(float(above.max()), 0.0)
    folds = path["nll_fold"].transpose("fold", "t").values.astype(float)
    if not np.isfinite(top) or len(folds) < LEAST_UNITS or not np.isfinite(folds).all():
        return top, np.nan, np.nan, np.nan
    rest = (folds.sum(axis=0) - folds) / (len(folds) - 1)
    rises = rest - ((1 - t) * rest[:, :1] + t * rest[:, -1:])
    at_each = jackknife_sem(rises)
    if not at_each.max() > 0:
        return top, np.nan, np.nan, np.nan
    tail, inside = (1 - CONFIDENCE) / 2, max(len(t) - 2, 1)
    up, down = (-float(stdtrit(len(folds) - 1, level)) * at_each for level in (tail, tail / inside))
    sem = float(jackknife_sem(np.maximum(rises.max(axis=1), 0)))
    low, high = (max(float(end.max()), 0.0) for end in (above - down, above + up))
    return top, sem if top > 0 and sem > 0 else np.nan, low, high
