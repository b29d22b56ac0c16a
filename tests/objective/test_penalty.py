"""The penalty of an objective: added where it is asked for and nowhere else, and named wherever it is."""

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import dense_hessian, invoke, refused

import landscape as ls
from landscape.objective.penalised import formula, in_curvature, share_of_variance
from landscape.study import drawing as draw
from landscape.study.words import describe

FEW = ("--samples", 64)


@pytest.fixture(scope="module")
def adamw(tmp_path_factory):
    """A short training by AdamW with decoupled decay, from the command line, and a checkpoint of every epoch."""
    folder = tmp_path_factory.mktemp("adamw")
    options = ("--model", "vit_xs(embed_dim=24, num_heads=2, depth=1)", "--data", "digits", "--epochs", 6, "--lr", 5e-3,
               "--warmup-epochs", 0, "--weight-decay", 0.5)  # fmt: skip
    made = invoke("train", *options, "--trajectory", folder / "epochs", "--out", folder / "w.safetensors", "--quiet")
    assert made.returncode == 0, made.stderr
    assert ls.load_checkpoint(folder / "w.safetensors")[1]["metadata"]["weight_decay"] == 0.5
    return folder


def run(*arguments):
    result = invoke(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_recipes_decay_is_no_part_of_any_loss(adamw, tmp_path):
    """The commands give what Python gives without a word on decay, to the digit, and none of it has a penalty."""
    checkpoint, out = adamw / "w.safetensors", tmp_path / "w.h5"
    run("surface", checkpoint, *FEW, "--points", 3, "--out", out)
    run("spectrum", checkpoint, *FEW, "--batches", 2, "--out", out)
    run("trace", checkpoint, *FEW, "--products", 6, "--out", out)
    by_command = ls.load(out)
    model, _ = ls.load_checkpoint(checkpoint)
    metadata = ls.load_checkpoint(checkpoint)[1]["metadata"]
    data = ls.load_data("digits", samples=64, mean=metadata["mean"], std=metadata["std"])
    objective = ls.Objective(model, data)
    by_python = {
        "surface": ls.evaluate_surface(objective, ls.random_plane(model), points=3),
        "spectrum": ls.hessian_spectrum(objective, batches=2),
        "trace": ls.hessian_trace(objective, products=6),
    }
    for name, group in by_python.items():
        for variable in group.data_vars:
            np.testing.assert_array_equal(by_command[name][variable], group[variable], err_msg=f"{name} {variable}")
    assert (by_command["surface"]["penalty"] == 0).all()
    np.testing.assert_array_equal(by_command["surface"]["loss"], by_command["surface"]["nll"])
    told = [line for line in run("show", out).splitlines() if "penalty" in line]
    assert told
    assert all("no penalty" in line for line in told)


def test_the_picture_of_a_training_falls_where_its_nll_falls(adamw, tmp_path):
    out = tmp_path / "w.h5"
    run("surface", adamw / "w.safetensors", *FEW, "--points", 9, "--directions", "pca", "--trajectory",
        adamw / "epochs", "--out", out)  # fmt: skip
    group = ls.load(out)["surface_pca"]
    ends = [group["trajectory"].sel(checkpoint=f"epoch{n}").values for n in (0, 6)]
    drawn = {q: [float(group[q].interp(x=at[0], y=at[1])) for at in ends] for q in ("nll", "loss")}
    assert drawn["nll"][1] < drawn["nll"][0] - 0.1
    assert drawn["loss"] == drawn["nll"]
    # with the recipe's decay taken for a penalty it would climb
    asked = tmp_path / "asked.h5"
    run("surface", adamw / "w.safetensors", *FEW, "--points", 9, "--directions", "pca", "--trajectory",
        adamw / "epochs", "--weight-decay", 0.5, "--out", asked)  # fmt: skip
    with_penalty = ls.load(asked)["surface_pca"]
    np.testing.assert_array_equal(with_penalty["nll"], group["nll"])
    loss = [float(with_penalty["loss"].interp(x=at[0], y=at[1])) for at in ends]
    assert loss[1] > loss[0]
    np.testing.assert_array_equal(with_penalty["measure"], group["measure"])
    levels = [draw.draw({"s": g})["s"].axes[0].collections[0].levels for g in (group, with_penalty)]
    np.testing.assert_array_equal(*levels)
    shown = run("show", asked)
    assert f"loss = nll + 0.5/2 sum ||p||^2, penalty: {share_of_variance(with_penalty):.0%} of the variance" in shown


def test_a_penalty_that_was_asked_for_is_in_the_curvature_and_named(adamw, tmp_path):
    checkpoint, out = adamw / "w.safetensors", tmp_path / "w.h5"
    few = (*FEW, "--weight-decay", 0.5, "--out", out)
    run("spectrum", checkpoint, *few, "--batches", 2)
    run("spectrum", checkpoint, *few, "--batches", 2, "--kind", "residual")
    run("top", checkpoint, *few, "--top", 2)
    run("trace", checkpoint, *few, "--products", 6)
    run("density", checkpoint, *few, "--probes", 2, "--steps", 4)
    run("series", checkpoint, *few, "--batches", 2)
    groups = ls.load(out)
    words = "with the penalty 0.5/2 sum ||p||^2, up to 0.5 of each eigenvalue"
    lines = {line.split(":")[0]: line for line in run("show", out).splitlines()}
    for name in ("spectrum", "top", "trace", "density", "series"):
        assert words in lines[name]
        figure = draw.draw({name: groups[name]})[name]
        assert any(words in text.get_text() for text in figure.axes[0].texts), name
    assert "penalty" not in lines["spectrum_residual"]
    n = sum(p.numel() for p in matrices(ls.load_checkpoint(checkpoint)[0]))
    assert f"{0.5 * n:.4g} of the trace" in lines["trace"]
    model, _ = ls.load_checkpoint(checkpoint)
    without = ls.hessian_trace(ls.Objective(model, ls.load_data("digits", samples=64)), products=6)
    added = float(groups["trace"]["trace"] - without["trace"])
    assert added == pytest.approx(float(groups["trace"]["penalty_trace"]), rel=0.2)


def matrices(model):
    skipped = model.no_weight_decay()
    return [p for name, p in model.named_parameters() if p.ndim >= 2 and name not in skipped]


@pytest.mark.parametrize("penalty", ["l2", "norm-sum"])
def test_the_trace_of_the_penalty_is_that_of_its_hessian(mlp, points, penalty):
    objective = ls.Objective(mlp, points, weight_decay=0.3, penalty=penalty, dtype=torch.float64)
    names = list(dict(objective.model.named_parameters()))

    def trace(theta):
        parts = theta.split([p.numel() for p in objective.model.parameters()])
        named = {k: t.view(p.shape) for (k, p), t in zip(objective.model.named_parameters(), parts, strict=True)}
        return objective.penalty.value(named)

    theta = torch.cat([p.detach().reshape(-1) for p in objective.model.parameters()])
    truth = torch.func.hessian(trace)(theta).trace().item()
    assert objective.penalty.trace(dict(objective.model.named_parameters()), names) == pytest.approx(truth, rel=1e-12)
    found = ls.hessian_trace(objective, products=12)
    assert float(found["penalty_trace"]) == objective.penalty.trace(dict(objective.model.named_parameters()), names)
    if penalty == "l2":
        assert np.trace(dense_hessian(objective)) - np.trace(
            dense_hessian(ls.Objective(mlp, points, dtype=torch.float64))
        ) == pytest.approx(truth)
    assert "penalty_trace" not in ls.hessian_trace(objective, products=12, kind="residual")


def test_a_stored_decay_is_a_fact_with_a_hint(adamw):
    shown = run("show", adamw / "w.safetensors")
    assert "weight_decay: 0.5 (of the optimiser; no analysis adds it" in shown
    assert "unless asked for a weight decay of 0.5" in shown


def test_a_form_without_a_lambda_is_refused(adamw, tmp_path):
    result = invoke("spectrum", adamw / "w.safetensors", "--penalty", "norm-sum", "--out", tmp_path / "w.h5")
    refused(result, "norm-sum' adds nothing without its lambda", "--weight-decay")


def test_results_stored_with_the_recipes_decay_stay_readable_and_say_so(adamw, tmp_path):
    """A test group of before has the decay in its settings: its numbers do not depend on it, so it goes on."""
    checkpoint, out = adamw / "w.safetensors", tmp_path / "w.h5"
    run("test", checkpoint, "--out", out)
    group = ls.load(out)["test"]
    group.attrs["config"]["objective"] |= {"weight_decay": 0.5, "penalty": "l2", "decay": "matrices"}
    ls.save(out, test=group)
    run("test", checkpoint, "--out", out)
    shown = next(line for line in run("show", out).splitlines() if line.startswith("test:"))
    assert "penalty" not in shown
    run("spectrum", checkpoint, *FEW, "--batches", 1, "--weight-decay", 0.5, "--out", out)
    refused(invoke("spectrum", checkpoint, *FEW, "--batches", 1, "--out", out), "--weight-decay: 0.5 there, 0 asked")


def test_words_for_penalties_of_every_form():
    def group(decay, penalty="l2", **more):
        config = {"objective": {"weight_decay": decay, "penalty": penalty}, **more}
        return xr.Dataset(attrs={"config": config})

    assert formula({}) == formula(group(0).attrs["config"]) == ""
    assert in_curvature(group(0.1, "norm-sum")) == "with the penalty 0.1 sum ||p||"
    assert in_curvature(group(0.1, kind="residual")) == ""
    series = xr.Dataset(attrs={"config": {"each": {c: group(d).attrs["config"] for c, d in (("a", 0.1), ("b", 0.3))}}})
    words = in_curvature(series)
    assert words == "with the penalty 0.1/2 sum ||p||^2 or 0.3/2 sum ||p||^2, up to 0.3 of each eigenvalue"
    assert words in describe("series", series)
