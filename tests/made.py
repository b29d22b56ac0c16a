"""Results made by hand: of eigenvalues whose statistics are known, with the configuration that a file would state."""

import copy

import numpy as np
import xarray as xr

from landscape.analyses.summaries import summarize

OBJECTIVE = {"loss": "cross_entropy", "weight_decay": 0.0, "penalty": "l2", "dtype": "float32", "examples": 320,
             "data": {"name": "digits", "split": "train", "transform": "train", "seed": 0, "mean": [0.5]},
             "data_sha256": "1"}  # fmt: skip
E = np.random.default_rng(0).lognormal(3, 0.4, (20, 5)) * np.where(np.arange(100).reshape(20, 5) % 9, 1, -1)


def config(weights, seed=0, **settings):
    made = {**copy.deepcopy(OBJECTIVE), "weights_sha256": weights, "provenance": {"model": "vit_xs"}}
    made["data"]["seed"], made["data_sha256"] = seed, f"{seed}"
    return {"analysis": "spectrum", "k": 5, "which": "LM", "batch_size": 16, "objective": made, **settings}


def spectrum(e=E, weights="a", nll=None, **settings):
    nll = np.linspace(0.1, 0.3, len(e)) if nll is None else nll
    s = xr.Dataset({"eigenvalue": (("batch", "rank"), e), "converged": (("batch", "rank"), np.ones(e.shape, bool)),
                    "done": ("batch", np.ones(len(e), bool)), "nll": ("batch", nll)})  # fmt: skip
    return s.assign(summarize(s)).assign_attrs(config=config(weights, **settings))
