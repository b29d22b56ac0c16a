"""Loss and curvature along the path of a training, against what is known of them."""

import numpy as np
import pytest
import torch
from helpers import dense_hessian, invoke, raising, refused, unchanged
from torch import nn

import landscape as ls
from landscape.analyses.trajectory import Trajectory
from landscape.pictures import trajectory as picture


@pytest.fixture
def course(mlp, points):
    """The state dicts of five steps of gradient descent, and the loss of the last."""
    objective = ls.Objective(mlp, points, weight_decay=0.1, dtype=torch.float64)
    states, network = {}, objective.model
    for epoch in range(5):
        states[f"epoch{epoch}"] = {k: t.clone() for k, t in network.state_dict().items()}
        with torch.enable_grad():
            loss = nn.functional.cross_entropy(network(objective.x), objective.y)
            slopes = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for p, g in zip(network.parameters(), slopes, strict=True):
                p -= 0.5 * g
    return objective, states


def test_loss_and_curvature_are_those_of_each_checkpoint(mlp, course):
    objective, states = course
    held = {k: t.clone() for k, t in objective.model.state_dict().items()}
    with unchanged(mlp):
        result = ls.training_trajectory(objective, states, tol=1e-8)
    assert all(torch.equal(t, held[k]) for k, t in objective.model.state_dict().items())
    end = torch.cat([t.reshape(-1) for t in states["epoch4"].values()])
    for label, state in states.items():
        objective.model.load_state_dict(state)
        here, one, H = objective.evaluate(), result.sel(checkpoint=label), dense_hessian(objective)
        assert float(one["nll"]) == pytest.approx(here.nll, rel=1e-12)
        assert float(one["nll_sem"]) == pytest.approx(here.nll_sem, rel=1e-12)
        assert float(one["eigenvalue"]) == pytest.approx(np.linalg.eigvalsh(H)[-1], rel=1e-6)
        v = (end - torch.cat([t.reshape(-1) for t in state.values()])).numpy()
        if label != "epoch4":
            assert float(one["towards_end"]) == pytest.approx(v @ H @ v / (v @ v), rel=1e-6)
    assert result["converged"].all()
    assert np.isnan(result["towards_end"][-1])
    assert float(result["r"][0]) == 1
    assert (np.diff(result["nll"]) < 0).all()


def test_errors_over_examples_are_those_of_other_examples(mlp):
    """Of the largest eigenvalue: over 25 draws of 60 examples it scatters about as its standard error says."""
    g = torch.Generator().manual_seed(4)
    found = []
    for _ in range(25):
        x = torch.randn(60, 6, generator=g)
        objective = ls.Objective(mlp, [(x, (x[:, 0] > 0).long())], dtype=torch.float64)
        state = {k: t.double() for k, t in mlp.state_dict().items()}
        other = {k: t + 0.1 for k, t in state.items()}
        one = ls.training_trajectory(objective, {"a": state, "b": other}).isel(checkpoint=0)
        found.append([float(one[n]) for n in ("eigenvalue", "eigenvalue_sem", "towards_end", "towards_end_sem")])
    eigenvalue, its, curvature, of_it = np.array(found).T
    assert np.sqrt(np.mean(its**2)) == pytest.approx(eigenvalue.std(ddof=1), rel=0.5)
    assert np.sqrt(np.mean(of_it**2)) == pytest.approx(curvature.std(ddof=1), rel=0.5)


def test_cut_short_and_continued_and_without_curvature(course):
    objective, states = course
    whole = ls.training_trajectory(objective, states)
    part = ls.training_trajectory(objective, states, budget=0.0)
    assert int(part["done"].sum()) == 1
    assert ls.training_trajectory(objective, states, partial=part).identical(whole)
    bare = ls.training_trajectory(objective, states, max_products=0)
    assert np.isnan(bare["eigenvalue"]).all()
    np.testing.assert_array_equal(bare["nll"], whole["nll"])
    with pytest.raises(ls.UserError, match="made with other settings"):
        ls.training_trajectory(objective, dict(list(states.items())[:3]), partial=part)


def test_estimates_words_and_pictures(course):
    objective, states = course
    result = ls.training_trajectory(objective, states)
    rows = Trajectory().rows(result)
    assert list(rows) == ["", *states]
    (length,) = rows[""]
    assert length.value == pytest.approx(float(result["step"][1:].sum() / result["distance"][0]))
    assert {e.name for e in rows["epoch2"]} >= {"r", "NLL", "largest eigenvalue"}
    (drawn,) = picture.draw(result, "trajectory").values()
    assert drawn.axes[0].name == "polar"
    line = drawn.axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), result["r"])
    assert "all" not in picture.compare({"a": result, "b": result}, "trajectory")
    same = ls.training_trajectory(objective, {"a": states["epoch0"], "b": dict(states["epoch0"])})
    assert any("the same weights" in line for line in Trajectory().remarks(same))
    assert Trajectory().rows(same)[""] == []
    back = ls.training_trajectory(objective, {**states, "epoch9": states["epoch0"]})
    for closed in (same, back):
        assert np.isnan(closed["r"]).all()
        picture.draw(closed, "trajectory")


def test_the_private_copy_is_put_back_and_strangers_are_refused(course, points):
    objective, states = course
    objective.model = raising(objective.model, 2)
    before = {k: t.clone() for k, t in objective.model.state_dict().items()}
    with pytest.raises(RuntimeError, match="the network broke"):
        ls.training_trajectory(objective, states)
    assert all(torch.equal(t, before[k]) for k, t in objective.model.state_dict().items())
    with pytest.raises(ls.UserError, match="other is not a checkpoint of the same network"):
        ls.training_trajectory(objective, {**states, "other": {"w": torch.zeros(2)}})


def test_the_command_takes_the_folder_that_train_writes(tmp_path):
    folder, out = tmp_path / "epochs", tmp_path / "t.h5"
    made = invoke("train", "--model", "resnet8", "--data", "digits", "--epochs", 1, "--fraction", 0.2, "--trajectory",
                  folder, "--out", tmp_path / "r.safetensors", "--quiet")  # fmt: skip
    assert made.returncode == 0, made.stderr
    result = invoke("trajectory", folder, "--out", out, "--samples", 48, "--max-products", 20)
    assert result.returncode == 0, result.stderr
    assert "length of the path over its distance 1" in result.stdout
    assert (tmp_path / "t-trajectory.png").stat().st_size > 5000
    group = ls.load(out)["trajectory"]
    assert group["checkpoint"].values.tolist() == ["epoch0", "epoch1"]
    assert group["r"].values.tolist() == [1, 0]
    refused(invoke("trajectory", tmp_path / "none", "--out", out), "none")
