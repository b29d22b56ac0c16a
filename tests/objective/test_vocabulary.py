"""Losses of language models from hidden states, some tokens at a time, beside those of all logits at once."""

import pytest
import torch
from helpers import unchanged
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, jvp, vjp
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import landscape as ls
from landscape.curvature.lockstep import MiniBatchCurvatures
from landscape.curvature.operators import Curvature
from landscape.objective.nests import stacked
from landscape.objective.vocabulary import cross_entropy, in_parts


def head(tokens=7, width=3, classes=5, bias=True):
    g = torch.Generator().manual_seed(0)
    each = {"hidden": (tokens, width), "weight": (classes, width), **({"bias": (classes,)} if bias else {})}
    return {name: torch.randn(shape, generator=g, dtype=torch.float64) for name, shape in each.items()}


@pytest.mark.parametrize("at_once", [1, 10, 1000])
@pytest.mark.parametrize("bias", [True, False])
def test_derivatives_of_every_order_are_those_of_all_logits_at_once(at_once, bias):
    given, y = head(bias=bias), torch.tensor([0, 1, 2, 3, 4, 0, 2])
    tensors = [t.requires_grad_() for t in given.values()]

    def losses(*tensors):
        return cross_entropy(dict(zip(given, tensors, strict=True)), y, at_once)

    whole = F.cross_entropy(F.linear(given["hidden"], given["weight"], given.get("bias")), y, reduction="none")
    torch.testing.assert_close(losses(*tensors), whole)
    assert gradcheck(losses, tensors, check_forward_ad=True)
    assert gradgradcheck(losses, tensors, check_fwd_over_rev=True)


def test_the_linearised_second_derivative_is_that_of_gauss_and_newton():
    given, y = head(), torch.tensor([0, 1, 2, 3, 4, 0, 2])
    names, point = list(given), tuple(given.values())
    moved = tuple(torch.randn_like(t) for t in point)

    def logits(*tensors):
        return F.linear(*tensors)

    def loss(z):
        return F.cross_entropy(z, y, reduction="sum")

    z, dz = jvp(logits, point, moved)
    truth = vjp(logits, *point)[1](jvp(grad(loss), (z,), (dz,))[1])

    def linear(*tensors):
        return cross_entropy(dict(zip(names, tensors, strict=True)), y, 10, linear=True).sum()

    for found, right in zip(jvp(grad(linear, (0, 1, 2)), point, moved)[1], truth, strict=True):
        torch.testing.assert_close(found, right)


class Largest(TorchDispatchMode):
    """The most numbers that any tensor made within it holds."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in torch.utils._pytree.tree_leaves(out):
            self.most = max(self.most, t.numel() if isinstance(t, torch.Tensor) else 0)
        return out


def gpt2(**more):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 211, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 16}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**sizes, **more})).eval()


def batch(vocabulary=211, examples=4, tokens=12):
    g = torch.Generator().manual_seed(1)
    mask = torch.ones(examples, tokens, dtype=torch.long)
    mask[2, 8:] = 0
    return {"input_ids": torch.randint(0, vocabulary, (examples, tokens), generator=g), "attention_mask": mask}


@pytest.fixture(scope="module")
def objectives():
    model = gpt2()
    with unchanged(model):
        return [
            ls.Objective(model, [batch()], task=ls.NextToken(logits_at_once=at_once), dtype=torch.float64)
            for at_once in (211 * 5, None)
        ]


def test_a_gpt2_in_chunks_is_the_gpt2_in_one(objectives):
    """64 wide, 2 layers, embedding and head tied: loss and H v, G v, F v, beside logits held whole and torch.func."""
    chunked, whole = objectives
    assert in_parts(chunked.outputs(chunked.x))
    assert not in_parts(whole.outputs(whole.x))
    assert chunked.evaluate().nll == pytest.approx(whole.evaluate().nll, rel=1e-14)
    assert chunked.evaluate().accuracy == whole.evaluate().accuracy
    theta = {name: p.detach() for name, p in whole.model.named_parameters()}
    named = {name: torch.randn_like(p) for name, p in theta.items()}
    v = torch.cat([t.reshape(-1) for t in named.values()])

    def logits(theta):
        return functional_call(whole.model, theta, (), whole.x).logits[:, :-1].movedim(-1, 1)

    def loss(z):
        return F.cross_entropy(z, whole.y)

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        H = jvp(grad(lambda t: loss(logits(t))), (theta,), (named,))[1]
        z, dz = jvp(logits, (theta,), (named,))
        G = vjp(logits, theta)[1](jvp(grad(loss), (z,), (dz,))[1])[0]
    truth = {"hessian": H, "ggn": G, "fisher": G}
    assert chunked.config() == whole.config(), "how many logits are held at once is no part of what is computed"
    for kind, product in truth.items():
        right = torch.cat([product[name].reshape(-1) for name in theta])
        for objective in objectives:
            found = Curvature(objective, kind=kind)(v)
            torch.testing.assert_close(found, right, rtol=0, atol=1e-8 * float(right.abs().max()))
    gradients = [Curvature(objective, kind="ggn").gradient() for objective in objectives]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


class Tokens(nn.Module):
    """A network that vmap can transform; that of transformers looks into its masks."""

    def __init__(self):
        super().__init__()
        self.embed, self.lm_head = nn.Embedding(11, 4), nn.Linear(4, 11)

    def forward(self, input_ids):
        return self.lm_head(self.embed(input_ids).cumsum(1).tanh())


def test_mini_batches_at_once_under_vmap():
    torch.manual_seed(0)
    task = ls.NextToken(logits_at_once=30)
    data = [{"input_ids": torch.randint(0, 11, (4, 6))}]
    objective = ls.Objective(Tokens(), data, task=task, dtype=torch.float64)
    V = torch.randn(2, Curvature(objective).n, dtype=torch.float64)
    for kind in ("hessian", "ggn", "fisher"):
        together = MiniBatchCurvatures(objective, *stacked(objective.minibatches(2)), kind=kind)
        found = together(V, [0, 1])
        assert together.vectorised
        one_by_one = [Curvature(objective, *b, kind=kind)(v) for b, v in zip(objective.minibatches(2), V, strict=True)]
        torch.testing.assert_close(found, torch.stack(one_by_one), rtol=0, atol=1e-12)


def test_no_tensor_is_as_large_as_tokens_by_vocabulary():
    """Neither in the loss nor in gradient or product; only parameters and what is allowed at once."""
    model, data = gpt2(vocab_size=1009, n_embd=8, n_layer=1, n_head=2), [batch(1009, 8, 16)]
    of = {at_once: ls.Objective(model, data, task=ls.NextToken(logits_at_once=at_once)) for at_once in (None, 5000)}
    most = {}
    for at_once, objective in of.items():
        v = torch.ones(Curvature(objective).n)
        with Largest() as largest:
            objective.evaluate()
            for kind in ("hessian", "ggn"):
                Curvature(objective, kind=kind)(v)
        most[at_once] = largest.most
    assert most[None] >= 8 * 15 * 1009
    assert most[5000] <= len(v) < 8 * 15 * 1009 / 10, "the largest is the vector of all parameters"


class Scaled(nn.Module):
    """A network that changes what its head gives."""

    def __init__(self):
        super().__init__()
        self.embed, self.lm_head = nn.Embedding(11, 4), nn.Linear(4, 11, bias=False)

    def forward(self, input_ids):
        return 3 * self.lm_head(self.embed(input_ids))


def test_a_head_that_is_not_the_last_word_is_left_alone():
    ids = torch.arange(8).view(2, 4)
    model = Scaled()
    objective = ls.Objective(model, [{"input_ids": ids}], task=ls.NextToken())
    truth = F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert objective.evaluate().nll == pytest.approx(truth.item(), rel=1e-6)
    assert "forward" not in vars(objective.model.lm_head)
    with pytest.raises(ls.UserError, match="logits_at_once=0 must be 1 or more"):
        ls.NextToken(logits_at_once=0)
