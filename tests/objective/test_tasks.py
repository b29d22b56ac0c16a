"""Tasks of the library against written-out losses and dense matrices, and against the networks that they are for."""

import math

import numpy as np
import pytest
import torch
from helpers import dense, in_full, unchanged
from torch import nn
from torch.distributions import Normal
from torch.func import functional_call, grad, jvp
from torch.nn import functional as F

import landscape as ls
from landscape.curvature.operators import Curvature

KINDS = ("hessian", "ggn", "residual")
EXACT = {"rtol": 0, "atol": 1e-10}


def matches_in_full(objective, outputs, loss):
    """H, G and H - G, whole and by chunks, beside those by torch.func of theta -> loss(outputs(network, theta))."""
    truth = dense(objective, lambda theta: outputs(lambda x: functional_call(objective.model, theta, (x,))), loss)
    for kind in KINDS:
        for chunk_size in (None, 3):
            found = in_full(Curvature(objective, kind=kind, chunk_size=chunk_size))
            torch.testing.assert_close(found, truth[kind], **EXACT)
    return truth


def test_regression():
    """The mean squared error; its Gauss-Newton matrix 2 / (n d) J^T J of a linear network is the whole Hessian."""
    torch.manual_seed(0)
    x, y = torch.randn(12, 4), torch.randn(12, 3)
    model = nn.Sequential(nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, 3))
    with unchanged(model):
        objective = ls.Objective(model, [(x[:5], y[:5]), (x[5:], y[5:])], task=ls.Regression(), dtype=torch.float64)
    assert objective.evaluate().nll == pytest.approx(F.mse_loss(model(x), y).item(), rel=1e-6)
    assert math.isnan(objective.evaluate().accuracy)
    truth = matches_in_full(objective, lambda net: net(objective.x), lambda f: F.mse_loss(f, objective.y))
    assert truth["residual"].abs().max() > 1e-3
    linear = ls.Objective(nn.Linear(4, 3, bias=False), [(x, y)], task=ls.Regression(), dtype=torch.float64)
    moments = torch.kron(torch.eye(3, dtype=torch.float64), (x.T @ x).double() * 2 / (12 * 3))
    torch.testing.assert_close(in_full(Curvature(linear)), moments, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(in_full(Curvature(linear, kind="residual")), 0 * moments, **EXACT)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.mean, self.log_variance = nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        h = torch.tanh(self.hidden(x))
        return self.mean(h), self.log_variance(h)


def test_regression_with_a_variance_is_the_density_of_a_normal_distribution():
    torch.manual_seed(0)
    x, y = torch.randn(10, 3), torch.randn(10, 2)
    objective = ls.Objective(TwoHeads(), [(x, y)], task=ls.GaussianRegression(), dtype=torch.float64)
    mean, s = objective.model(x.double())
    density = Normal(mean, (s / 2).exp()).log_prob(y.double())
    assert objective.evaluate().nll == pytest.approx(-density.mean().item(), rel=1e-12)
    matches_in_full(
        objective,
        lambda net: net(objective.x),
        lambda f: -Normal(f[0], (f[1] / 2).exp(), validate_args=False).log_prob(objective.y).mean(),
    )


def test_several_labels():
    torch.manual_seed(0)
    x, y = torch.randn(9, 4), (torch.rand(9, 3) > 0.5).float()
    objective = ls.Objective(nn.Linear(4, 3), [(x, y)], task=ls.MultiLabel(), dtype=torch.float64)
    logits = objective.model(x.double())
    found = objective.evaluate()
    assert found.nll == pytest.approx(F.binary_cross_entropy_with_logits(logits, y.double()).item(), rel=1e-12)
    assert found.accuracy == ((logits > 0) == (y > 0)).all(1).double().mean()
    matches_in_full(
        objective, lambda net: net(objective.x), lambda f: F.binary_cross_entropy_with_logits(f, objective.y)
    )
    with pytest.raises(ls.UserError, match="labels go from 0 to 2"):
        ls.Objective(nn.Linear(4, 3), [(x, 2 * y)], task=ls.MultiLabel())


class Out(nn.Module):
    """A dict, as torchvision's networks return it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, x):
        return {"out": self.conv(x.tanh()).tanh(), "aux": x}


def test_pixels():
    """Those of the border count for nothing; errors are by image, of whatever number of pixels."""
    torch.manual_seed(0)
    x, y = torch.randn(10, 2, 4, 5), torch.randint(0, 3, (10, 4, 5))
    y[:, 0], y[4] = 255, 255
    objective = ls.Objective(Out(), [(x, y)], task=ls.Segmentation(), dtype=torch.float64)
    logits = objective.model(x.double())["out"]
    losses = F.cross_entropy(logits, y, reduction="none", ignore_index=255).detach().numpy()
    found = objective.evaluate()
    assert (found.units, found.examples) == (9 * 15, 10)
    assert found.nll == pytest.approx(losses.sum() / 135, rel=1e-12)
    by_image = np.delete(losses.sum((1, 2)) - found.nll * 15, 4)
    assert found.nll_sem == pytest.approx(math.sqrt((by_image**2).sum() * 10 / 9) / 135, rel=0.1)
    counted = (y != 255).numpy()
    assert found.accuracy == pytest.approx((logits.argmax(1) == y).numpy()[counted].mean())
    matches_in_full(
        objective,
        lambda net: net(objective.x)["out"],
        lambda f: F.cross_entropy(f, objective.y, ignore_index=255),
    )


@pytest.mark.parametrize(
    ("task", "y", "words"),
    [
        (
            ls.Regression(),
            torch.zeros(6),
            "the labels have shape () per example and type float32, the outputs shape (3,)",
        ),
        (ls.Regression(), torch.zeros(6, 3, dtype=torch.long), "type int64"),
        (ls.GaussianRegression(), torch.zeros(6, 3), "not a pair (mean, log variance)"),
        (ls.Segmentation(), torch.zeros(6, 2, dtype=torch.long), "give a class for each of the pixels"),
        (ls.Segmentation(), torch.full((6,), 3), "label 3 is out of range for 3 classes"),
        (ls.NextToken(), torch.zeros(6, dtype=torch.long), "not a dict with input_ids"),
    ],
)
def test_what_does_not_fit_a_task_is_refused_in_a_line(task, y, words):
    with pytest.raises(ls.UserError) as e:
        ls.Objective(nn.Linear(4, 3), [(torch.randn(6, 4), y)], task=task)
    assert words in str(e.value)
    assert "\n" not in str(e.value)


def language_model(family):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    if family == "gpt2":
        config = transformers.GPT2Config(vocab_size=11, n_embd=8, n_layer=2, n_head=2, n_positions=12)
        return transformers.GPT2LMHeadModel(config), ls.NextToken()
    more = {"intermediate_size": 16, "max_position_embeddings": 12}
    if family == "llama":
        config = transformers.LlamaConfig(**sizes, **more, num_key_value_heads=1)
        return transformers.LlamaForCausalLM(config), ls.NextToken()
    return transformers.BertForMaskedLM(transformers.BertConfig(**sizes, **more)), ls.NextToken(shifted=False)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_language_models(family):
    """The loss is that of transformers itself, and the products those of the Hessian by torch.func."""
    model, task = language_model(family)
    model.eval()
    g = torch.Generator().manual_seed(0)
    ids, mask = torch.randint(1, 11, (5, 7), generator=g), torch.ones(5, 7, dtype=torch.long)  # 0 is BERT's padding
    mask[3, 4:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    if family == "bert":
        labels = labels.masked_fill(torch.rand(5, 7, generator=g) < 0.6, -100)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    with unchanged(model):
        objective = ls.Objective(model, [batch], task=task, dtype=torch.float64)
        found = objective.evaluate()
    own = objective.model(**batch).loss
    assert found.nll == pytest.approx(own.item(), rel=1e-6), "theirs is in float32"
    assert found.units == int((labels[:, 1:] != -100).sum() if task.shifted else (labels != -100).sum())
    if family != "bert":  # without labels they are the tokens themselves
        bare = {k: v for k, v in batch.items() if k != "labels"}
        assert ls.Objective(model, [bare], task=task, dtype=torch.float64).evaluate().nll == found.nll
    theta = {name: p.detach() for name, p in objective.model.named_parameters()}
    named = {name: torch.randn(p.shape, generator=g, dtype=torch.float64) for name, p in theta.items()}
    v = torch.cat([t.reshape(-1) for t in named.values()])
    inputs = {k: t for k, t in batch.items() if k != "labels"}

    def loss(theta):
        logits = functional_call(objective.model, theta, (), inputs).logits
        if task.shifted:
            return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        product = jvp(grad(loss), (theta,), (named,))[1]
    truth = torch.cat([product[name].reshape(-1) for name in theta])
    near = 1e-7 if family == "llama" else 1e-8  # Llama's norms are in float32 whatever the weights are in
    torch.testing.assert_close(Curvature(objective)(v), truth, rtol=0, atol=near * float(truth.abs().max()))
    spectrum = ls.hessian_spectrum(ls.Objective(model, [batch], task=task), k=2, batch_size=5)
    assert spectrum["converged"].all()
