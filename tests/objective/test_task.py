"""Tasks of one class each, against written-out losses: regression with a variance, tokens in dicts, pixels."""

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from helpers import dense, in_full, unchanged
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

import landscape as ls
from landscape.curvature.jackknife import FoldedCurvature, gradient_norm
from landscape.curvature.lockstep import MiniBatchCurvatures
from landscape.curvature.minibatches import minibatch_eigenpairs
from landscape.curvature.operators import Curvature
from landscape.curvature.pyhessian import pyhessian_eigenpairs
from landscape.linalg.search import Search
from landscape.objective.clusters import fold_of
from landscape.objective.folding import FoldedConv2d
from landscape.objective.nests import stacked
from landscape.objective.parameters import fingerprint

KINDS = ["hessian", "ggn", "residual"]
EXACT = {"rtol": 0, "atol": 1e-10}


@dataclass(frozen=True)
class Gaussian(ls.Task):
    """Regression with a variance of its own for each example: the network returns (mean, log variance, features)."""

    least: float = 1e-3

    def __post_init__(self):
        if not self.least > 0:
            raise ls.UserError(f"least={self.least} must be above 0")

    def losses(self, outputs, y):
        mean, log_variance, _ = outputs
        return 0.5 * (log_variance + (y - mean).square() / (log_variance.exp() + self.least)).sum(1)


@dataclass(frozen=True)
class Tokens(ls.Task):
    """The class of each token of a text, from dict batches; labels of -100 are ignored."""

    ignored: int = -100

    def pair(self, batch):
        return {name: t for name, t in batch.items() if name != "labels"}, batch["labels"]

    def outputs(self, network, x):
        return network(**x)["logits"]

    def losses(self, outputs, y):
        return F.cross_entropy(outputs.movedim(-1, 1), y, reduction="none", ignore_index=self.ignored)

    def units(self, y):
        return y != self.ignored

    def hits(self, outputs, y):
        return outputs.argmax(-1) == y


@dataclass(frozen=True)
class Pixels(ls.Task):
    """The class of each pixel, of logits (n, classes, h, w) and labels (n, h, w); 255 is no class, and has a loss."""

    void: ClassVar[int] = 255

    def outputs(self, network, x):
        return network(x["image"])

    def losses(self, outputs, y):
        return F.cross_entropy(outputs, y * self.units(y), reduction="none")

    def units(self, y):
        return y != self.void


class MeanAndVariance(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.mean, self.variance = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        h = torch.tanh(self.hidden(x))
        return self.mean(h), self.variance(h), h


class Tagger(nn.Module):
    """Each token from its embedding and the mean over the text's tokens, those of the padding left out."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 3), nn.Linear(6, 4)

    def forward(self, input_ids, attention_mask):
        e = self.embedding(input_ids)
        mask = attention_mask[..., None]
        mean = (e * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
        return {"logits": self.head(torch.cat([e, mean.expand_as(e)], -1).tanh()), "cache": None}


class Texts:
    """Texts of several lengths, padded batch by batch."""

    def __init__(self, texts, labels, batch_size, clusters=None):
        self.texts, self.labels, self.batch_size, self.clusters = texts, labels, batch_size, clusters

    def __iter__(self):
        for i in range(0, len(self.texts), self.batch_size):
            yield padded(self.texts[i : i + self.batch_size], self.labels[i : i + self.batch_size])


def padded(texts, labels):
    def pad(parts, value):
        return nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=value)

    mask = pad([torch.ones(len(t)) for t in texts], 0)
    return {"input_ids": pad(texts, 0), "attention_mask": mask, "labels": pad(labels, -100)}


@pytest.fixture
def texts():
    """24 texts of 2 to 9 tokens, short ones first; some labels are ignored, and all of one text's."""
    g = torch.Generator().manual_seed(0)
    lengths = sorted(torch.randint(2, 10, (24,), generator=g).tolist())
    texts = [torch.randint(0, 7, (n,), generator=g) for n in lengths]
    labels = [torch.randint(0, 4, (n,), generator=g) for n in lengths]
    for label in labels[::3]:
        label[0] = -100
    labels[5][:] = -100
    return texts, labels


@pytest.fixture
def tagger():
    torch.manual_seed(0)
    return Tagger()


@pytest.fixture
def objective(tagger, texts):
    return ls.Objective(tagger, Texts(*texts, 24), task=Tokens(), dtype=torch.float64)


def tokens_of(objective):
    """The network's outputs and the loss of each token that counts, written out."""
    x, y = objective.x, objective.y

    def outputs(theta):
        return functional_call(objective.model, theta, (), x)["logits"][y != -100]

    return outputs, lambda logits: F.cross_entropy(logits, y[y != -100])


def test_classification_is_cross_entropy_to_the_bit(mlp, points):
    """NLL, gradient, and products of H and G in float32, beside the same derivatives of the written-out loss."""
    x, y = (torch.cat(t) for t in zip(*points, strict=True))
    objective = ls.Objective(mlp, [(x, y)])
    model = copy.deepcopy(mlp).eval()
    model.zero_grad()
    parameters = list(model.parameters())
    losses = F.cross_entropy(model(x), y, reduction="none")
    found = objective.evaluate()
    assert found.nll == losses.detach().double().numpy().mean()
    assert found.accuracy == (model(x).argmax(1) == y).double().mean()
    assert found.units == found.examples == 50
    loss = losses.sum() * (1 / 50)
    gradient = torch.autograd.grad(loss, parameters, create_graph=True)
    v = torch.randn(65, generator=torch.Generator().manual_seed(0))
    parts = [part.view(p.shape) for part, p in zip(v.split([p.numel() for p in parameters]), parameters, strict=True)]
    product = torch.autograd.grad(gradient, parameters, parts)
    H = Curvature(objective)
    assert torch.equal(H.gradient(), torch.cat([g.reshape(-1) for g in gradient]))
    assert torch.equal(H(v), torch.cat([p.reshape(-1) for p in product]))
    x0, y0 = objective.minibatches(16)[1]
    assert torch.equal(objective.nll_sum(x0, y0), losses[16:32].sum())
    config = objective.config()
    assert config["loss"] == "cross_entropy"
    assert config["data_sha256"] == fingerprint({"x": x, "y": y})
    assert ls.Objective(mlp, [(x, y)], task=ls.Classification()).config() == config


def test_regression_with_a_variance():
    """Outputs that are a tuple: two parts are curved in the Gauss-Newton matrix, the third the loss does not use."""
    torch.manual_seed(0)
    x, y = torch.randn(30, 3), torch.randn(30, 2)
    model, task = MeanAndVariance(), Gaussian(least=0.1)
    with unchanged(model):
        objective = ls.Objective(model, [(x[:20], y[:20]), (x[20:], y[20:])], task=task, dtype=torch.float64)
        found = objective.evaluate()
    mean, log_variance, _ = model.double()(x.double())
    losses = 0.5 * (log_variance + (y - mean).square() / (log_variance.exp() + 0.1)).sum(1)
    assert found.nll == pytest.approx(losses.mean().item(), rel=1e-12)
    assert found.nll_sem == pytest.approx(losses.std().item() / math.sqrt(30), rel=1e-12)
    assert math.isnan(found.accuracy)
    assert objective.config()["task"] == {"name": "Gaussian", "least": 0.1}
    truth = dense(
        objective,
        lambda theta: functional_call(objective.model, theta, (objective.x,)),
        lambda f: task.losses(f, objective.y).mean(),
    )
    for kind in KINDS:
        torch.testing.assert_close(in_full(Curvature(objective, kind=kind)), truth[kind], **EXACT)
        torch.testing.assert_close(in_full(Curvature(objective, kind=kind, chunk_size=7)), truth[kind], **EXACT)
    assert truth["residual"].abs().max() > 1e-2
    together = MiniBatchCurvatures(objective, *stacked(objective.minibatches(10)), kind="ggn")
    V = torch.randn(3, size(objective), dtype=torch.float64)
    one_by_one = [Curvature(objective, *b, kind="ggn")(v) for b, v in zip(objective.minibatches(10), V, strict=True)]
    torch.testing.assert_close(together(V, range(3)), torch.stack(one_by_one), **EXACT)
    assert together.vectorised
    with pytest.raises(ls.UserError, match="least=-1"):
        Gaussian(-1)


def size(objective):
    return sum(p.numel() for p in objective.model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_products_over_tokens(objective, kind):
    truth = dense(objective, *tokens_of(objective))[kind]
    torch.testing.assert_close(in_full(Curvature(objective, kind=kind)), truth, **EXACT)
    torch.testing.assert_close(in_full(Curvature(objective, kind=kind, chunk_size=5)), truth, **EXACT)
    batches = objective.minibatches(8)
    V = torch.randn(3, len(truth), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one_by_one = torch.stack([Curvature(objective, *b, kind=kind)(v) for b, v in zip(batches, V, strict=True)])
    together = MiniBatchCurvatures(objective, *stacked(batches), kind=kind)
    torch.testing.assert_close(together(V, range(3)), one_by_one, **EXACT)
    assert together.vectorised
    units = torch.tensor([objective.units_in(y) for _, y in batches], dtype=torch.float64)
    assert units.sum() == objective.units
    assert len(set(units.tolist())) > 1
    weighted = torch.einsum("g,gn->n", units / units.sum(), together(V[:1].expand(3, -1), range(3)))
    torch.testing.assert_close(weighted, truth @ V[0], **EXACT)


def test_the_error_over_tokens_is_clustered_by_text(tagger, texts):
    """C / (C - 1) sum_c (t_c - n_c mean)^2 / N^2; a text without a token that counts is no cluster."""
    objective = ls.Objective(tagger, Texts(*texts, 24), task=Tokens(), dtype=torch.float64)
    found = objective.evaluate()
    assert found.examples == 24
    assert found.units == objective.units == sum(int((y != -100).sum()) for y in texts[1])
    for clusters in (np.arange(24), np.arange(24) // 2):
        given = Texts(*texts, 24, torch.tensor(clusters))
        clustered = ls.Objective(tagger, given, task=Tokens(), dtype=torch.float64).evaluate()
        totals, hits, counts = np.zeros(24), np.zeros(24), np.zeros(24)
        for c, text, label in zip(clusters, *texts, strict=True):
            logits = objective.model(text[None], torch.ones(1, len(text), dtype=torch.float64))["logits"][0]
            kept = label != -100
            totals[c] += F.cross_entropy(logits[kept], label[kept], reduction="sum").item()
            hits[c] += (logits.argmax(1) == label)[kept].sum().item()
            counts[c] += kept.sum().item()
        C, N = (counts > 0).sum(), counts.sum()
        for value, sem, each in (
            (clustered.nll, clustered.nll_sem, totals),
            (clustered.accuracy, clustered.accuracy_sem, hits),
        ):
            mean = each.sum() / N
            assert value == pytest.approx(mean, rel=1e-12)
            assert sem == pytest.approx(math.sqrt(C / (C - 1) * ((each - counts * mean) ** 2).sum()) / N, rel=1e-12)
        assert sum(counts == 0) == (1 if clusters.max() == 23 else 12)
    held = np.bincount(objective.fold, weights=objective.units_of_example)
    assert (held > 0).all()
    assert np.average(found.nll_fold, weights=held) == pytest.approx(found.nll, rel=1e-12)


@pytest.mark.parametrize("batch_size", [1, 5, 7])
def test_any_split_into_batches_gives_the_same(tagger, texts, objective, batch_size):
    """Batches of their own lengths, which do not join."""
    split = ls.Objective(tagger, Texts(*texts, batch_size), task=Tokens(), dtype=torch.float64)
    assert len(split.batches) == -(-24 // batch_size)
    assert len({x["input_ids"].shape[1] for x, _ in split.batches}) > 1
    one, other = split.evaluate(), objective.evaluate()
    for name in ("nll", "nll_sem", "accuracy", "accuracy_sem", "units", "examples", "nll_fold"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-12)
    V = torch.randn(2, size(objective), dtype=torch.float64)
    for kind in KINDS:
        for chunk_size in (None, 3):
            H = Curvature(split, kind=kind, chunk_size=chunk_size)
            torch.testing.assert_close(H(V), Curvature(objective, kind=kind)(V), **EXACT)
    torch.testing.assert_close(H.gradient(), Curvature(objective).gradient(), **EXACT)
    assert gradient_norm(split) == pytest.approx(gradient_norm(objective), rel=1e-9)
    assert gradient_norm(split)[0] == pytest.approx(H.gradient().norm().item(), rel=1e-9)
    some = np.array([0, 4, 5, 11, 20])
    chosen = [[part[i] for i in some] for part in texts]
    those = ls.Objective(tagger, Texts(*chosen, 5), task=Tokens(), dtype=torch.float64)
    for chunk_size in (None, 2):
        H = Curvature(split, examples=some, chunk_size=chunk_size)
        torch.testing.assert_close(H(V), Curvature(those)(V), **EXACT)
    moments = [FoldedCurvature(o).with_moments(V[0])[1] for o in (split, objective)]
    np.testing.assert_allclose(moments[0].first_without, moments[1].first_without, rtol=1e-9, atol=1e-12)
    with pytest.raises(ls.UserError, match=r"batches differ in shape and cannot be joined; .* pad all of them alike"):
        _ = split.x


def test_a_fold_left_out_is_the_objective_without_its_texts(tagger, texts, objective):
    H = FoldedCurvature(objective)
    v = torch.randn(H.n, dtype=torch.float64)
    moments = H.with_moments(v)[1]
    fold = fold_of(np.arange(24), 10, objective.units_of_example)
    assert H.folds == 10
    assert np.bincount(fold, weights=objective.units_of_example).max() <= objective.units / 10 + 9
    for f in range(H.folds):
        kept = [[part[i] for i in range(24) if fold[i] != f] for part in texts]
        rest = ls.Objective(tagger, Texts(*kept, 24), task=Tokens(), dtype=torch.float64)
        assert moments.first_without[f] == pytest.approx(float(v @ Curvature(rest)(v)), rel=1e-9)


def test_mini_batches_of_texts_that_are_padded_batch_by_batch(tagger, texts):
    """Cut from batches of one shape; where one would mix shapes, refused. Those of several shapes go one by one."""
    objective = ls.Objective(tagger, Texts(*texts, 6), task=Tokens(), dtype=torch.float64)
    batches = objective.minibatches(3)
    assert len(batches) == 8
    assert len({y.shape[1] for _, y in batches}) > 1
    found = minibatch_eigenpairs(objective, dict(enumerate(batches)), Search(k=2, tol=1e-8))
    for (x, y), pairs in zip(batches, found, strict=True):
        values = torch.linalg.eigvalsh(in_full(Curvature(objective, x, y)))
        largest = values[values.abs().argsort(descending=True)[:2]].numpy()
        np.testing.assert_allclose(pairs.values, largest, rtol=1e-6)
    refusal = (
        r"mini-batch 1 of 4 examples would hold examples of two batches that differ in shape; take mini-batches of 6"
    )
    with pytest.raises(ls.UserError, match=refusal):
        objective.minibatches(4)
    odd = ls.Objective(tagger, Texts(*texts, 7, torch.arange(24) // 2), task=Tokens(), dtype=torch.float64)
    with pytest.raises(
        ls.UserError, match=r"separate examples 2 and 3, .* freeze batches that consist of whole mini-batches"
    ):
        odd.minibatches(3)
    with pytest.raises(ls.UserError, match=r"no unit of mini-batch 5 of 1 examples counts"):
        objective.minibatches(1)
    with pytest.raises(ls.UserError, match=r"no unit of a mini-batch counts"):
        Curvature(objective, *objective.data.cut(5, 6))


def test_every_analysis_takes_texts(tagger, texts):
    with unchanged(tagger):
        objective = ls.Objective(tagger, Texts(*texts, 6), weight_decay=0.01, task=Tokens(), dtype=torch.float64)
        surface = ls.evaluate_surface(objective, ls.random_plane(tagger, seed=0), points=3, gradient_norm=True, rays=2)
        spectrum = ls.hessian_spectrum(objective, k=2, batch_size=3, batches=4, ggn_part=True, tol=1e-6)
        top = ls.hessian_top(objective, k=2, tol=1e-8)
        trace = ls.hessian_trace(objective, products=60)
        ls.spectral_density(objective, probes=2, steps=5)
    assert float(surface["nll"].sel(x=0, y=0)) == objective.evaluate().nll
    assert surface["done"].all()
    for i, (x, y) in enumerate(objective.minibatches(3, 4)):
        logits = objective.model(**x)["logits"][y != -100]
        assert float(spectrum["nll"][i]) == pytest.approx(F.cross_entropy(logits, y[y != -100]).item(), rel=1e-12)
    H = in_full(Curvature(objective))
    values = torch.linalg.eigvalsh(H)
    np.testing.assert_allclose(top["eigenvalue"], values[values.abs().argsort(descending=True)[:2]], rtol=1e-6)
    assert abs(float(trace["trace"]) - H.trace().item()) < 4 * float(trace["trace_sem_probes"])


def test_pyhessian_takes_texts(objective):
    pytest.importorskip("pyhessian")
    x, y = objective.minibatches(12)[0]
    found = pyhessian_eigenpairs(objective, x, y, 1, iterations=2000, tol=1e-9)
    largest = torch.linalg.eigvalsh(in_full(Curvature(objective, x, y))).abs().max().item()
    assert abs(found.values[0]) == pytest.approx(largest, rel=1e-4)


def test_pixels_through_a_folded_network_of_images_in_dicts():
    """Images of two sizes; what is no class has a loss that must not count, nor be differentiated."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 3, 1))
    images = [torch.randn(n, 2, s, s) for n, s in ((4, 6), (2, 6), (6, 4))]
    model(images[0])
    model.eval()
    labels = [torch.randint(0, 3, (len(x), *x.shape[2:])) for x in images]
    for label in labels:
        label[:, 0, :2] = 255
    data = [({"image": x}, y) for x, y in zip(images, labels, strict=True)]
    with unchanged(model):
        objective = ls.Objective(model, data, task=Pixels())
        surface = ls.evaluate_surface(objective, ls.random_plane(model, seed=0), points=3, batchnorm="recalibrated")
    assert isinstance(objective.model[0], FoldedConv2d)
    assert all(x["image"].is_contiguous(memory_format=torch.channels_last) for x, _ in objective.batches)
    assert [len(y) for _, y in objective.batches] == [4, 2, 6]
    assert objective.units == 6 * 34 + 6 * 14

    def nll(network):
        pairs = zip(images, labels, strict=True)
        losses = [F.cross_entropy(network(x), y, ignore_index=255, reduction="sum") for x, y in pairs]
        return sum(losses) / objective.units

    assert objective.evaluate().nll == pytest.approx(nll(model).item(), rel=1e-5)
    sums = sum(objective.nll_sum(*batch) for batch in objective.batches)
    assert sums.item() / objective.units == pytest.approx(nll(model).item(), rel=1e-5)
    v = torch.randn(size(objective))
    gradient = torch.autograd.grad(nll(model), list(model.parameters()), create_graph=True)
    flat = torch.cat([g.reshape(-1) for g in gradient])
    product = torch.autograd.grad(flat @ v, list(model.parameters()), materialize_grads=True)
    expected = torch.cat([p.reshape(-1) for p in product])
    torch.testing.assert_close(Curvature(objective)(v), expected, rtol=1e-3, atol=1e-4)
    statistics = copy.deepcopy(model)
    statistics[1].reset_running_stats()
    statistics[1].momentum = None
    statistics[1].train()
    seen = 0
    for x in images:  # averaged by images
        seen += len(x)
        statistics[1].momentum = len(x) / seen
        statistics(x)
    assert float(surface["nll"].sel(x=0, y=0)) == pytest.approx(nll(statistics.eval()).item(), rel=1e-5)


def per_class(f, y):
    return F.binary_cross_entropy_with_logits(f, y, reduction="none")


@dataclass(frozen=True)
class Labels(Gaussian):
    """Outputs that are no floating-point numbers alone."""

    def outputs(self, network, x):
        f = network(x)
        return f, f.argmax(1)


X, Y = torch.zeros(4, 6), torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        ([{"x": X, "y": Y}], {}, r"a batch as dict, not as a pair \(x, y\); .* `pair`"),
        ([(X, Y[:3])], {}, r"tensors of batch 0 do not all have one row per example: x \(4, 6\), y \(3,\)"),
        ([(X, torch.tensor(1))], {}, r"one row per example: x \(4, 6\), y \(\)"),
        ([({"a": X, "n": 3}, Y)], {}, r"x\['n'\] of batch 0 is int, not a tensor"),
        (
            [(X, torch.zeros(4, 2))],
            {"loss": per_class},
            r"losses of 4 examples have shape \(4, 2\), .* \(4,\);",
        ),
        ([(X, Y)], {"loss": per_class, "task": ls.Classification()}, "`task` and `loss` both"),
        ([(X, Y)], {"task": "classification"}, r"task='classification' is not a landscape\.Task"),
        ([(X, Y)], {"task": Labels()}, r"outputs hold a tensor of shape \(1,\); let its `outputs` return"),
    ],
)
def test_what_is_no_task_or_no_batch(mlp, data, settings, message):
    with unchanged(mlp), pytest.raises(ls.UserError, match=message):
        ls.Objective(mlp, data, **settings)


def test_texts_without_a_label(tagger, texts):
    ignored = [torch.full_like(label, -100) for label in texts[1]]
    with pytest.raises(ls.UserError, match="no unit of the 24 examples counts"):
        ls.Objective(tagger, Texts(texts[0], ignored, 8), task=Tokens())
