"""Results side by side: in what their settings differ is said, and what keeps them from being compared, on top."""

import copy

import matplotlib
import numpy as np
import pytest
import xarray as xr
from helpers import invoke

import landscape as ls
from landscape.analyses.summaries import summarize
from landscape.store.comparable import caution, differences, distinctions
from landscape.study import drawing as draw

matplotlib.use("Agg")

DATA = {"name": "digits", "split": "train", "transform": "train", "fraction": [1.0, 0], "mixup": 0.0, "seed": 0}
OBJECTIVE = {"loss": "cross_entropy", "weight_decay": 0.0, "penalty": "l2", "dtype": "float32", "examples": 64,
             "data": DATA, "data_sha256": "1", "weights_sha256": "a", "provenance": {"model": "vit"}}  # fmt: skip
SPECTRUM = {"analysis": "spectrum", "k": 5, "which": "LM", "batch_size": 16, "batches": 8, "kind": "hessian",
            "method": "lanczos", "tol": 0.01, "max_products": 200, "seed": 0, "objective": OBJECTIVE}  # fmt: skip
SURFACE = {"analysis": "surface", "plane": {"directions": "random", "normalize": "filter", "seed": 0, "sha256": "x"},
           "batchnorm": "stored", "precision": "float32", "objective": OBJECTIVE}  # fmt: skip


def changed(config, objective=None, data=None, **settings):
    config = copy.deepcopy(config) | settings
    config["objective"] |= objective or {}
    config["objective"]["data"] |= data or {}
    return config


def spectrum(batches=8, **changes):
    e = np.random.default_rng(0).normal(2, 3, (batches, 5))
    s = xr.Dataset({"eigenvalue": (("batch", "rank"), e), "converged": (("batch", "rank"), np.ones(e.shape, bool)),
                    "products": ("batch", np.full(batches, 9)), "done": ("batch", np.ones(batches, bool))})  # fmt: skip
    return s.merge(summarize(s)).assign_attrs(config=changed(SPECTRUM, batches=batches, **changes))


def surface(points=5, span=1.0, **changes):
    x = np.linspace(-span, span, points)
    z = np.add.outer(x**2, x**2)
    variables = {name: (("y", "x"), z, {"long_name": name}) for name in ("loss", "nll")}
    done = (("y", "x"), np.ones(z.shape, bool))
    return xr.Dataset({**variables, "done": done}, {"x": x, "y": x}, {"config": changed(SURFACE, **changes)})


def texts(figure):
    shown = [text.get_text() for ax in figure.axes for text in ax.texts]
    shown += [ax.get_title() for ax in figure.axes] + [figure.get_suptitle()]
    for legend in [*filter(None, (ax.get_legend() for ax in figure.axes)), *figure.legends]:
        shown += [text.get_text() for text in legend.get_texts()]
    return [" ".join(text.split()) for text in shown]


def test_networks_draws_and_where_files_lay_are_no_difference():
    other = spectrum(objective={"weights_sha256": "b", "provenance": {"model": "resnet"}, "data_sha256": "2"},
                     data={"seed": 1, "mean": [0.5], "image_size": 224}, max_products=400, seed=3)  # fmt: skip
    assert differences({"a": spectrum(), "b": other}) == []


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (spectrum(k=1), "k = 5 / k = 1"),
        (spectrum(which="LA"), "LM / LA"),
        (spectrum(batch_size=2), "batch size 16 / batch size 2"),
        (spectrum(kind="ggn"), "Hessian / Gauss-Newton matrix"),
        (spectrum(method="pyhessian"), "Lanczos / PyHessian"),
        (spectrum(per="layer"), "whole / per layer"),
        (spectrum(parameters=["head*"]), "all parameters / only head*"),
        (spectrum(objective={"weight_decay": 0.05}), "no penalty / penalty 0.05"),
        (spectrum(objective={"loss": "mse"}), "cross_entropy / mse"),
        (spectrum(objective={"data_sha256": "2"}, data={"name": "cifar10"}), "digits, train / cifar10, train"),
        (spectrum(objective={"data_sha256": "2"}, data={"mixup": 0.8}), "train transform / train transform, mixup 0.8"),
    ],
)  # fmt: skip
def test_what_makes_numbers_of_different_quantities_is_decisive(other, words):
    (difference,) = differences({"a": spectrum(), "b": other})
    assert difference.decisive
    assert caution([difference]) == f"not comparable: {words}"


def test_amounts_are_told_apart_and_compared_all_the_same():
    cut = spectrum(12, objective={"examples": 200, "data_sha256": "2"}, data={"fraction": [0.1, 0]}, tol=0.001)
    cut["done"][4:] = False
    found = differences({"a": spectrum(), "b": cut})
    assert caution(found) == ""
    assert distinctions(found, "a") == ["all training data", "8 mini-batches", "tol 0.01"]
    assert distinctions(found, "b") == ["10 % of the training data", "4 of 12 mini-batches", "tol 0.001"]


def test_what_one_file_does_not_state_is_said():
    bare = surface().assign_attrs(config={"analysis": "surface"})
    found = differences({"a": surface(), "b": bare}, quantity="nll")
    assert caution(found) == "not comparable: directions, loss, data, transform not stated of all"
    assert distinctions(found, "b")[-1] == "directions, loss, data, transform, examples not stated"


def test_a_surface_of_the_nll_has_no_penalty():
    pair = {"a": surface(), "b": surface(objective={"weight_decay": 0.05})}
    assert caution(differences(pair, quantity="loss")) == "not comparable: no penalty / penalty 0.05"
    assert differences(pair, quantity="nll") == []


def test_spectra_of_one_kind_are_titled_and_spectra_of_several_are_labelled():
    mixed = {"a": spectrum(8), "b": spectrum(12, batch_size=2, which="LA"), "c": spectrum(8)}
    shown = texts(draw.compare({name: {"spectrum": one} for name, one in mixed.items()})["spectra"])
    assert "top 5 Hessian eigenvalues of mini-batches" in shown
    assert any("not comparable: LM / LA; batch size 16 / batch size 2" in text for text in shown)
    for name, words in (("a", "LM, batch size 16, 8 mini-batches"), ("b", "LA, batch size 2, 12 mini-batches")):
        assert any(text.startswith(f"{name}: ") and text.endswith(words) for text in shown)
    alike = texts(draw.compare({name: {"spectrum": spectrum(n)} for name, n in (("a", 8), ("b", 12))})["spectra"])
    assert "top 5 (LM) Hessian eigenvalues of mini-batches of 16" in alike
    assert not any("not comparable" in text for text in alike)
    assert any(text.endswith("12 mini-batches") for text in alike)
    same = texts(draw.compare({name: {"spectrum": spectrum()} for name in "ab"})["spectra"])
    assert "top 5 (LM) Hessian eigenvalues of 8 mini-batches of 16" in same


def test_surfaces_side_by_side_say_their_ranges_normalisation_and_examples():
    layer = SURFACE["plane"] | {"normalize": "layer"}
    pair = {"a": surface(), "b": surface(7, 0.5, plane=layer, objective={"examples": 640})}
    figures = draw.compare({name: {"surface": one} for name, one in pair.items()})
    for kind in ("surfaces", "surfaces_3d"):
        shown = texts(figures[kind])
        assert ("not comparable: filter-normalised random directions / layer-normalised random directions; "
                "from -1 to 1 / from -0.5 to 0.5") in shown  # fmt: skip
        title = next(text for text in shown if text.startswith("b, lowest"))
        for words in ("layer-normalised", "from -0.5 to 0.5", "640 examples", "7 x 7 points"):
            assert words in title
    shown = texts(draw.compare({name: {"surface": surface()} for name in "ab"})["surfaces"])
    assert not any("comparable" in text for text in shown)


def test_series_say_what_keeps_them_from_being_compared():
    def series(**changes):
        spectra = [spectrum(**changes).assign(nll=("batch", np.full(8, loss))) for loss in (2.0, 1.0)]
        joined = xr.concat(spectra, "checkpoint").assign_coords(checkpoint=["1", "9"])
        return joined.assign_attrs(config={**spectra[0].attrs["config"], "analysis": "series"})

    figure = draw.compare({"a": {"series": series()}, "b": {"series": series(kind="ggn")}})["series"]
    assert "not comparable: Hessian / Gauss-Newton matrix" in texts(figure)
    assert "b, Gauss-Newton matrix" in texts(figure)


def test_the_command_draws_each_file_and_says_what_cannot_be_compared(tmp_path):
    for name, size in (("a", 16), ("b", 2)):
        ls.save(tmp_path / f"{name}.h5", spectrum=spectrum(batch_size=size))
    result = invoke("plot", tmp_path / "a.h5", tmp_path / "b.h5", "--out", tmp_path)
    assert result.returncode == 0
    assert result.stderr.strip() == "spectrum: not comparable: batch size 16 / batch size 2"
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {"a-spectrum.png", "b-spectrum.png", "all-spectra.png"}
