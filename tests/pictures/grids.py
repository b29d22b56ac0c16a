"""Groups of surfaces made up of heights, and what is read off their pictures."""

import numpy as np
import xarray as xr


def surface(z, x=None, y=None, **config):
    """A whole group of z (y, x) or (x,): with errors, folds and accuracy."""
    z = np.asarray(z, float)
    dims = ("y", "x")[-z.ndim :]
    coordinates = {"x": np.linspace(-1, 1, z.shape[-1]) if x is None else x}
    if z.ndim == 2:
        coordinates["y"] = np.linspace(-1, 1, z.shape[0]) if y is None else y
    folds = np.stack([1 + (z - 1) * share for share in np.linspace(0.98, 1.02, 9)])
    return xr.Dataset(
        {
            "nll": (dims, z, {"long_name": "negative log-likelihood"}), "nll_sem": (dims, 0.1 * np.abs(z)),
            "penalty": (dims, np.full(z.shape, 0.5)), "loss": (dims, z + 0.5, {"long_name": "nll + penalty"}),
            "accuracy": (dims, np.where(np.isfinite(z), 0.5, np.nan)), "done": (dims, np.ones(z.shape, bool)),
            "accuracy_sem": (dims, np.full(z.shape, 0.02)), "nll_fold": (("fold", *dims), folds),
        },
        coordinates,
        {"config": {"analysis": "surface", "objective": {"examples": 100}, **config}},
    )  # fmt: skip


X, Y = np.linspace(-0.5, 1.5, 9), np.linspace(0, 1, 5)


bowl = np.add.outer(2 * Y**2, X**2) + 0.1


line = 1 + (X - 0.3) ** 2


def texts(ax):
    return "\n".join(t.get_text() for t in ax.texts)
