"""Centred kernel alignment of Gram matrices, without bias."""

from __future__ import annotations

import numpy as np

from landscape.analyses.blockwise import Means

LEAST_IMAGES = 4  # the fewest for which the unbiased estimator exists


def hsic(gram: np.ndarray) -> np.ndarray:
    """HSIC_1 of all pairs of Gram matrices, gram (blocks, n, n) to (blocks, blocks).

    With K~, L~ the matrices with zeros on their diagonals (Song et al. 2012, eq. 5): [tr(K~ L~)
    + (1^T K~ 1) (1^T L~ 1) / ((n - 1) (n - 2)) - 2 / (n - 2) 1^T K~ L~ 1] / (n (n - 3)), which is unbiased for every
    n. NaN for fewer than 4 images.
    """
    blocks, n = gram.shape[:2]
    if n < LEAST_IMAGES:
        return np.full((blocks, blocks), np.nan)
    bare = gram.copy()
    bare[:, np.arange(n), np.arange(n)] = 0
    rows = bare.sum(axis=2)
    flat, total = bare.reshape(blocks, -1), rows.sum(axis=1)
    return (flat @ flat.T + np.outer(total, total) / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows @ rows.T) / (n * (n - 3))


def averaged(gram: np.ndarray, starts: np.ndarray) -> Means:
    """CKA from HSIC averaged over mini-batches, gram (block, batch, image, other): of all of them, and without each."""
    each = []
    for i, start in enumerate(starts):
        here = gram[:, i, :, start : start + gram.shape[2]]
        size = here.shape[2]  # the last mini-batch may be smaller
        each.append(hsic(here[:, :size]))
    h = np.array(each).reshape(len(each), len(gram), len(gram))
    if not len(h):
        return Means(np.full((len(gram), len(gram)), np.nan), h)
    with np.errstate(invalid="ignore", divide="ignore"):
        rest = [alignment(part) for part in (h.sum(axis=0) - h) / (len(h) - 1)]
    return Means(alignment(h.mean(axis=0)), np.array(rest))


def alignment(h: np.ndarray) -> np.ndarray:
    """CKA of all pairs of blocks from their HSIC (blocks, blocks): HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)).

    NaN where the HSIC of a block with itself is not above 0, as it is for constant features.
    """
    own = np.where(np.diagonal(h) > 0, np.diagonal(h), np.nan)
    return h / np.sqrt(np.outer(own, own))
