"""Tokens of texts that are padded batch by batch, in dicts: products, errors, folds and mini-batches, written out."""

import math
from dataclasses import dataclass

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
from landscape.objective.nests import stacked

KINDS = ["hessian", "ggn", "residual"]
EXACT = {"rtol": 0, "atol": 1e-10}


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
    V = torch.randn(2, Curvature(objective).n, dtype=torch.float64)
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


def test_texts_without_a_label(tagger, texts):
    ignored = [torch.full_like(label, -100) for label in texts[1]]
    with pytest.raises(ls.UserError, match="no unit of the 24 examples counts"):
        ls.Objective(tagger, Texts(texts[0], ignored, 8), task=Tokens())
