"""From values to a density that ends where they end: a reflected kernel, and the cells of a quadrature's nodes."""

from __future__ import annotations

import numpy as np
import scipy

NARROWEST = 60  # a kernel is no narrower than the axis divided by this
MANY = 10.0  # a node that stands for more eigenvalues than this is a part of the bulk


def kernel_width(values: np.ndarray) -> float:
    """Silverman's rule with its robust spread, 0.9 min(sd, IQR / 1.34) n^(-1/5) (1986, eq. 3.31), and no more than a
    quarter of the range, so that what is reflected at one end does not reach the other.
    """
    spread = float(np.std(values, ddof=1))
    quartiles = float(np.subtract(*np.percentile(values, [75, 25]))) / 1.34
    width = 0.9 * (min(spread, quartiles) or spread) * len(values) ** -0.2
    return min(width, float(np.ptp(values)) / 4)


def reflected_density(values: np.ndarray, at: np.ndarray, width: float) -> np.ndarray:
    """The Gaussian kernel density of `values` on `at`, which lies between the smallest and the largest of them.

    What would spill over an end is reflected into the range, so that the integral over it is 1 (Silverman 1986, sec.
    2.10).
    """
    low, high = values.min(), values.max()
    mirrored = np.concatenate([values, 2 * low - values, 2 * high - values])
    return 3 * np.asarray(scipy.stats.gaussian_kde(mirrored, width / np.std(mirrored, ddof=1))(at))


def quadrature_cells(
    node: np.ndarray, weight: np.ndarray, *, parameters: int, widest: float, narrowest: float
) -> tuple[np.ndarray, np.ndarray]:
    """The weight of each node spread evenly over a cell.

    A cell reaches half-way to the node before and half-way to the node after, where a Gauss quadrature has the mass
    (Chebyshev-Markov-Stieltjes), but no further than `widest`. For a node that stands for at most MANY of the
    `parameters` eigenvalues, which lie at the node and not around it, it reaches no further than `narrowest`.

    node, weight: (nodes,), finite; the first cell starts at the lowest node, and the last ends at the highest.

    Returns edges (cells, 2) in the order of the nodes, where no cell reaches into another, and weights (cells,).
    """
    order = np.argsort(node)
    node, weight = node[order], weight[order]
    reach = np.where(parameters * weight > MANY, widest, narrowest)
    half = np.diff(node) / 2
    left = np.concatenate([[0.0], np.minimum(half, reach[1:])])
    right = np.concatenate([np.minimum(half, reach[:-1]), [0.0]])
    return np.stack([node - left, node + right], axis=1), weight
