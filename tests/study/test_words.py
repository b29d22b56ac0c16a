"""Results in words: no error is told where none is known."""

import matplotlib
import numpy as np
import pytest
import xarray as xr

import landscape as ls
from landscape.objective.clusters import LEAST_UNITS
from landscape.study import drawing as draw
from landscape.study.words import describe, table

matplotlib.use("Agg")


@pytest.mark.parametrize("units", [LEAST_UNITS - 1, LEAST_UNITS])
def test_of_few_units_no_error_is_told(mlp, points, units):
    """Of few examples, folds and probes neither words nor pictures have "+- nan" or a band that is not there."""
    x, y = points[0]
    objective = ls.Objective(mlp, [(x[:units], y[:units])])
    evaluation = objective.evaluate()
    told = {
        "curve": ls.evaluate_surface(objective, ls.random_plane(mlp, dims=1), points=11),
        "trace": ls.hessian_trace(objective, products=units, estimator="hutchinson"),
        "density": ls.spectral_density(objective, probes=units, steps=4),
        "test": xr.Dataset(
            {
                name: getattr(evaluation, name)
                for name in ("nll", "nll_sem", "accuracy", "accuracy_sem", "penalty", "examples")
            }
        ),
    }
    for name, group in told.items():
        words = [describe(name, group)]
        for figure in draw.draw({name: group}).values() if name != "test" else ():
            for ax in figure.axes:
                words += [text.get_text() for text in ax.texts]
                words += [text.get_text() for text in ax.get_legend().get_texts()] if ax.get_legend() else []
        said = "\n".join(words)
        assert "nan" not in said
        assert ("+-" in words[0]) == (units >= LEAST_UNITS), words[0]
        if units < LEAST_UNITS:
            assert "standard error" not in said


def test_a_regression_has_no_accuracy_to_tell():
    test = xr.Dataset({"accuracy": np.nan, "accuracy_sem": np.nan, "examples": 20})
    assert describe("test", test).endswith("test accuracy -; of 20 examples")
    all_right = test.assign(accuracy=1.0, accuracy_sem=0.0)
    assert describe("test", all_right).endswith("test accuracy 100.0%; of 20 examples")


def test_parts_have_rows_of_their_own_in_tables(mlp, points):
    """Those of a spectrum and of a whole-data search side by side, under the columns that a whole network has."""
    objective = ls.Objective(mlp, points)
    groups = {
        "spectrum": ls.hessian_spectrum(objective, batch_size=3, k=2),
        "spectrum_per_layer": ls.hessian_spectrum(objective, batch_size=3, k=2, per="layer"),
        "top_ggn_per_layer": ls.hessian_top(objective, k=2, per="layer", kind="ggn"),
    }
    heading, whole, *parts = table({"net": groups}).split("\n")
    assert [line.split()[:2] for line in parts if line.startswith("net: ")] == [["net:", "0"], ["net:", "3"]]
    assert heading.count("  largest  ") == 1
    assert "ggn largest of the whole data" in heading
    assert whole.startswith("net ")
    for row, part in enumerate(("0", "3")):
        summary = groups["spectrum_per_layer"]["summary"].sel(part=part, statistic="largest").values
        e = groups["top_ggn_per_layer"]["eigenvalue"].sel(part=part).values
        assert f"{summary[0]:.3g} [" in parts[row]
        assert f"{e.max():.3g} [" in parts[row]
    described = describe("top_ggn_per_layer", groups["top_ggn_per_layer"])
    assert "0: largest of the whole data" in described
    assert "3: largest of the whole data" in described


def test_an_unfinished_surface_says_so_and_no_nan(mlp, points):
    objective = ls.Objective(mlp, points)
    plane = ls.random_plane(mlp)
    whole = ls.evaluate_surface(objective, plane, points=5, rays=0)
    for done in (0, 1, 3):
        unfinished = whole.copy(deep=True)
        left = np.arange(25).reshape(5, 5) >= done
        unfinished["done"].values[left] = False
        for name in ("nll", "nll_sem", "loss", "accuracy", "accuracy_sem"):
            unfinished[name].values[left] = np.nan
        told = describe("surface", unfinished)
        assert "nan" not in told, told
        assert "the centre is not computed yet" in told
        assert f"{done} of 25 done" in told
