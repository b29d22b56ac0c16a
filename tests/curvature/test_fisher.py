"""The Fisher matrix, by all labels and by drawn ones, beside what it is defined to be."""

import numpy as np
import pytest
import torch
from helpers import in_full
from torch import nn
from torch.func import functional_call, jacrev

import landscape as ls
from landscape.curvature.draws import over_draws
from landscape.curvature.forms import MonteCarloFisher
from landscape.curvature.operators import Curvature
from landscape.objective.nests import uniform_by_content


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.log_variance = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return self.mean(x).tanh(), self.log_variance(x).tanh()


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lm_head = nn.Embedding(5, 3), nn.Linear(3, 5)

    def forward(self, input_ids):
        return self.lm_head(self.embed(input_ids).cumsum(1).tanh())


def small(task):
    """An objective of each task with a few dozen parameters."""
    torch.manual_seed(0)
    x, n = torch.randn(6, 3), 6
    mlp = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 3))
    pixels = torch.randint(0, 3, (n, 2, 2))
    pixels[0], pixels[1, 0] = 255, 255
    given = {
        "classification": (ls.Classification(), mlp, (x, torch.randint(0, 3, (n,)))),
        "regression": (ls.Regression(), mlp, (x, torch.randn(n, 3))),
        "gaussian-regression": (ls.GaussianRegression(), TwoHeads(), (x, torch.randn(n, 2))),
        "multi-label": (ls.MultiLabel(), mlp, (x, torch.randint(0, 2, (n, 3)).float())),
        "segmentation": (ls.Segmentation(), nn.Conv2d(1, 3, 1), (torch.randn(n, 1, 2, 2), pixels)),
        "next-token": (ls.NextToken(), Tokens(), {"input_ids": torch.randint(0, 5, (n, 4))}),
    }[task]
    return ls.Objective(given[1], [given[2]], task=given[0], dtype=torch.float64)


TASKS = ["classification", "regression", "gaussian-regression", "multi-label", "segmentation", "next-token"]


@pytest.mark.parametrize("task", TASKS)
def test_where_losses_are_canonical_it_is_the_gauss_newton_matrix(task):
    objective = small(task)
    F, G = (in_full(Curvature(objective, kind=kind)) for kind in ("fisher", "ggn"))
    if task == "gaussian-regression":
        assert (F - G).abs().max() > 1e-3
        return
    torch.testing.assert_close(F, G, rtol=0, atol=1e-12)


def test_with_a_variance_it_is_the_information_of_a_normal_distribution():
    """J^T diag(exp(-s), 1/2) J over the mean of two numbers; under vmap too."""
    from landscape.curvature.lockstep import MiniBatchCurvatures
    from landscape.objective.nests import stacked

    objective = small("gaussian-regression")
    theta = {name: p.detach() for name, p in objective.model.named_parameters()}
    J = jacrev(lambda t: torch.cat(functional_call(objective.model, t, (objective.x,)), 1))(theta)
    J = torch.cat([part.flatten(2) for part in J.values()], 2)
    s = objective.model(objective.x)[1].detach()
    information = torch.cat([(-s).exp(), torch.full_like(s, 0.5)], 1) / 2
    truth = torch.einsum("nip,ni,niq->pq", J, information, J) / 6
    F = Curvature(objective, kind="fisher")
    torch.testing.assert_close(in_full(F), truth)
    torch.testing.assert_close(F.gradient(), Curvature(objective).gradient())
    together = MiniBatchCurvatures(objective, *stacked(objective.minibatches(3)), kind="fisher")
    V = torch.randn(2, F.n, dtype=torch.float64)
    halves = [Curvature(objective, *b, kind="fisher")(v) for b, v in zip(objective.minibatches(3), V, strict=True)]
    torch.testing.assert_close(together(V, [0, 1]), torch.stack(halves))
    assert together.vectorised


@pytest.mark.parametrize("task", TASKS)
def test_drawn_labels_give_it_within_their_standard_error(task):
    """Over 200 draws: of twelve quadratic forms, each within 5 standard errors, and most within 2."""
    objective = small(task)
    F = in_full(Curvature(objective, kind="fisher"))
    V = torch.randn(12, len(F), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    form = MonteCarloFisher(draws=200)
    mean, sem = over_draws(objective, V, form)
    away = (mean - ((V @ F) * V).sum(1).numpy()) / sem
    assert np.abs(away).max() < 5
    assert np.mean(np.abs(away) < 2) > 0.6
    whole = Curvature(objective, kind=form)
    np.testing.assert_allclose(((whole(V) * V).sum(1)).numpy(), mean, rtol=1e-9)


def test_the_standard_error_covers():
    """Of 200 estimates by 8 draws each, 95 % are within 2.365 standard errors (Student's t, 7 degrees of freedom)."""
    objective = small("classification")
    v = torch.randn(1, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    truth = float(v[0] @ Curvature(objective, kind="fisher")(v[0]))
    within = []
    for seed in range(200):
        mean, sem = over_draws(objective, v, MonteCarloFisher(seed=seed))
        within.append(abs(mean[0] - truth) < 2.365 * sem[0])
    assert 0.88 < np.mean(within) < 0.99


def test_draws_go_with_the_example_not_with_its_place():
    objective = small("next-token")
    v = torch.randn(Curvature(objective).n, dtype=torch.float64)
    whole, cut = (Curvature(objective, kind="fisher_mc", chunk_size=c)(v) for c in (None, 2))
    torch.testing.assert_close(cut, whole, rtol=1e-9, atol=1e-12)
    assert not Curvature(objective, kind=MonteCarloFisher(seed=1))(v).allclose(whole)
    x = torch.arange(6.0).view(3, 2)
    rows = uniform_by_content({"a": x}, 0, 1, (3, 4))
    assert uniform_by_content({"a": x[1:]}, 0, 1, (2, 4)).equal(rows[1:])
    assert len(rows.unique()) == 12


def test_the_penalty_is_added_once():
    torch.manual_seed(0)
    network, data = nn.Linear(3, 3), [(torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1]))]
    plain, with_penalty = (
        Curvature(ls.Objective(network, data, weight_decay=w, decay="all", dtype=torch.float64), kind="fisher")
        for w in (0.0, 0.3)
    )
    v = torch.randn(12, dtype=torch.float64)
    torch.testing.assert_close(with_penalty(v), plain(v) + 0.3 * v)


def test_a_loss_without_a_distribution_has_none():
    objective = ls.Objective(nn.Linear(3, 2), [(torch.randn(4, 3), torch.zeros(4, 2))],
                             loss=lambda f, y: (f - y).abs().sum(1))  # fmt: skip
    for kind in ("fisher", "fisher_mc"):
        with pytest.raises(ls.UserError, match="CustomLoss does not say what distribution its labels have"):
            Curvature(objective, kind=kind)(torch.ones(8))


def test_top_eigenvalues_of_drawn_labels_carry_the_error_over_draws():
    objective = small("classification")
    exact = ls.hessian_top(objective, k=2, kind="fisher", tol=1e-8)["eigenvalue"].values
    found = ls.hessian_top(objective, k=2, kind="fisher_mc", tol=1e-8)
    assert (found["eigenvalue_sem_draws"] > 0).all()
    assert (np.abs(found["eigenvalue"] - exact) < 6 * found["eigenvalue_sem_draws"]).all()
    assert "eigenvalue_sem_draws" not in ls.hessian_top(objective, k=2, kind="fisher")
