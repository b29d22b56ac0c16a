"""Recipes: their settings, what overrides them, and the learning rates that follow."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import invoke
from torch import nn

import landscape as ls
from landscape.checkpoints.read import read_checkpoint
from landscape.training.optimizers import optimizer_of
from landscape.training.recipe import RECIPES, Recipe, recipe
from landscape.training.train import train


def test_the_studys_recipes():
    strong, weak = RECIPES["strong"], RECIPES["weak"]
    assert (strong.optimizer, strong.lr, strong.batch_size, strong.epochs) == ("adamw", 1.25e-4, 96, 300)
    assert (strong.mixup, strong.cutmix, strong.smoothing, strong.drop_path, strong.clip) == (1.0, 0.8, 0.1, 0.1, 5)
    assert recipe("weak", lr=None, epochs=3).lr == weak.lr == 0.1
    assert recipe("strong", clip=0).clip is None
    assert recipe("strong", auto_augment="none").auto_augment is None
    for bad, words in (
        ({"name": "stong"}, "strong"),
        ({"dtype": "float8"}, "bfloat16"),
        ({"fraction": 2.0}, "at most 1"),
    ):
        with pytest.raises(ls.UserError, match=words):
            recipe(**bad)


def test_the_weak_recipe_is_torch_s_sgd_by_torch_s_steps():
    """Momentum 0.9 without Nesterov's, 5e-4 on the matrices, and the rate of every epoch."""
    network = ls.create_model("resnet8")
    ours, schedule = optimizer_of(network, RECIPES["weak"])
    theirs = torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    steps = torch.optim.lr_scheduler.MultiStepLR(theirs, [60, 120, 160], 0.2)
    for epoch in range(200):
        schedule.step(epoch)
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])
        theirs.step()
        steps.step()
    assert type(ours) is torch.optim.SGD
    for group in ours.param_groups:
        assert all(group[k] == theirs.param_groups[0][k] for k in ("momentum", "dampening", "nesterov", "maximize"))
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] == 5e-4}
    nesterov, _ = optimizer_of(network, recipe("weak", optimizer="nesterov"))
    assert nesterov.param_groups[0]["nesterov"]


def test_a_warm_up_does_not_move_the_milestones():
    optimizer, schedule = optimizer_of(ls.create_model("resnet8"), recipe("weak", epochs=20, warmup_epochs=3))
    rates = []
    for epoch in range(20):
        schedule.step(epoch)
        rates.append(optimizer.param_groups[0]["lr"])
    rise = np.linspace(0.001, 0.1, 4)
    np.testing.assert_allclose(rates, [*rise, *[0.1] * 2, *[0.02] * 6, *[0.004] * 4, *[0.0008] * 4])


def test_the_cosine_ends_near_0_however_short(digits):
    model = ls.create_model("resnet8", 10, 8, 1)
    rates = train(model, digits, Recipe(epochs=10, fraction=0.05)).metadata["training_lr"]
    assert max(rates) == pytest.approx(2e-3)
    assert rates[-1] < 0.1 * max(rates)


def test_steps_fall_at_the_milestones(digits):
    model = ls.create_model("resnet8", 10, 8, 1)
    settings = recipe("weak", epochs=6, fraction=0.05, lr=0.01)
    trained = train(model, digits, replace(settings, milestones=(1 / 3, 2 / 3)))
    np.testing.assert_allclose(trained.metadata["training_lr"], 0.01 * np.array([1, 1, 0.2, 0.2, 0.04, 0.04]))


def test_every_setting_can_be_overridden_on_the_command_line(tmp_path):
    """And reaches the file that the training writes."""
    other = {
        "epochs": 2, "batch_size": 20, "optimizer": "sgd", "lr": 0.01, "momentum": 0.5, "weight_decay": 0.01,
        "schedule": "steps", "milestones": [0.5], "gamma": 0.1, "warmup_epochs": 0, "clip": 2.0,
        "auto_augment": "rand-m3-n1", "mixup": 0.3, "cutmix": 0.2, "smoothing": 0.2, "drop_path": 0.05, "sam": 0.01,
        "dtype": "bfloat16", "fraction": 0.05, "seed": 3,
    }  # fmt: skip
    assert other.keys() == RECIPES["strong"].asdict().keys()
    strong = RECIPES["strong"].asdict()
    assert all(other[k] != v for k, v in strong.items())
    written = {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in other.items()}
    options = [word for k, v in written.items() for word in (f"--{k.replace('_', '-')}", v)]
    out = tmp_path / "w.safetensors"
    made = invoke("train", "--model", "resnet8", "--data", "digits", "--recipe", "strong", *options, "--out", out)
    assert made.returncode == 0, made.stderr
    metadata = read_checkpoint(out).metadata
    assert {k: metadata[k] for k in other} == other
    np.testing.assert_allclose(metadata["training_lr"], [0.01, 0.001])


@pytest.mark.parametrize(("options", "rate"), [((), 0.2), (("--drop-path", 0.05), 0.05), (("--drop-path", 0), 0.0)])
def test_stochastic_depth_stated_with_the_network_goes_before_the_recipe(tmp_path, options, rate):
    out, model = tmp_path / "w.safetensors", "vit_xs(depth=2, drop_path_rate=0.2)"
    few = ("--recipe", "strong", "--epochs", 1, "--fraction", 0.02, "--quiet", "--out", out)
    assert invoke("train", "--model", model, "--data", "digits", *few, *options).returncode == 0
    metadata = read_checkpoint(out).metadata
    assert (metadata["model"], metadata["drop_path"]) == (model, rate)
