import threading
import time

import numpy as np
import pytest
import torch
from helpers import unchanged
from torch import nn

import landscape as ls
from landscape.curvature.minibatches import minibatch_eigenpairs
from landscape.linalg.search import Search
from landscape.runtime.arithmetic import exact_arithmetic
from landscape.runtime.threads import Stopped, side_by_side, stop_if_asked


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


class Notes(nn.Module):
    """A network that writes down what it sees, and reads it again a moment later: not to be called twice at once."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        self.x = x.detach()
        time.sleep(0.01)
        assert self.x.data_ptr() == x.data_ptr()
        return self.network(x)


def test_each_item_once_with_its_share_of_the_threads(four_threads):
    seen = dict(side_by_side(lambda i: (i * i, torch.get_num_threads(), threading.get_ident()), range(20), 2))
    assert {i: square for i, (square, _, _) in seen.items()} == {i: i * i for i in range(20)}
    assert {threads for _, threads, _ in seen.values()} == {2}
    assert threading.get_ident() not in {thread for _, _, thread in seen.values()}
    assert torch.get_num_threads() == 4
    assert dict(side_by_side(lambda _: torch.get_num_threads(), [0], 1)) == {0: 4}


def test_one_failure_stops_the_others_at_once(four_threads):
    stopped = threading.Event()

    def work(i):
        if i == 0:
            time.sleep(0.05)
            raise ZeroDivisionError
        try:
            while True:
                time.sleep(0.01)
                stop_if_asked()
        except Stopped:
            stopped.set()
            raise

    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(work, range(50), 2))
    assert stopped.is_set()
    assert time.monotonic() - began < 5
    stop_if_asked()  # in the calling thread nothing was asked


@pytest.mark.parametrize("workers", [2, 3])
def test_spectrum_by_several_workers_is_that_by_one(mlp, points, workers, four_threads):
    model = Notes(mlp)
    objective = ls.Objective(model, points, weight_decay=0.1)
    settings = {"k": 3, "batch_size": 8, "ggn_part": True}
    with unchanged(model):
        several = ls.hessian_spectrum(objective, workers=workers, **settings)
    torch.set_num_threads(4 // workers)  # what each worker had
    alone = ls.hessian_spectrum(objective, workers=1, **settings)
    assert several.identical(alone)
    for name in ("eigenvalue", "residual", "ggn_part"):
        np.testing.assert_array_equal(several[name], alone[name])


def test_interrupted_and_resumed_equals_uninterrupted(mlp, points, four_threads):
    objective = ls.Objective(mlp, points)
    settings = {"k": 2, "batch_size": 5, "workers": 2}
    whole = ls.hessian_spectrum(objective, **settings)
    kept = []

    def interrupt(partial):
        kept.append(partial.copy(deep=True))
        if partial["done"].sum() >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ls.hessian_spectrum(objective, save=interrupt, save_every=0, **settings)
    assert 0 < int(kept[-1]["done"].sum()) < kept[-1]["done"].size
    assert ls.hessian_spectrum(objective, partial=kept[-1], **settings).identical(whole)


def test_what_the_caller_set_is_set_again(mlp, points, four_threads):
    torch.set_float32_matmul_precision("high")
    try:
        ls.hessian_spectrum(ls.Objective(mlp, points), k=1, batch_size=8, workers=2)
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cuda.flash_sdp_enabled()
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_thread_that_leaves_does_not_change_settings_under_another():
    entered, left = threading.Event(), threading.Event()
    seen = []

    def settings():
        return torch.get_float32_matmul_precision(), torch.backends.cuda.flash_sdp_enabled()

    def inner():
        with exact_arithmetic():
            entered.set()
            left.wait(10)
            seen.append(settings())

    torch.set_float32_matmul_precision("medium")
    try:
        thread = threading.Thread(target=inner)
        with exact_arithmetic():
            thread.start()
            entered.wait(10)
        left.set()
        thread.join()
        assert seen == [("highest", False)]
        assert settings() == ("medium", True)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_mini_batches_in_threads_of_the_callers_own_are_computed_in_true_float32(mlp, points, four_threads):
    class Watching(Notes):
        def forward(self, x):
            out = super().forward(x)
            seen.add((torch.get_float32_matmul_precision(), torch.backends.cuda.flash_sdp_enabled()))
            return out

    seen = set()
    objective = ls.Objective(Watching(mlp), points)
    batches = dict(enumerate(objective.minibatches(5)))
    torch.set_float32_matmul_precision("medium")
    try:
        seen.clear()  # of the passes that made the objective
        for _ in side_by_side(lambda i: minibatch_eigenpairs(objective, {i: batches[i]}, Search(k=2)), range(10), 4):
            pass
        assert seen == {("highest", False)}
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cuda.flash_sdp_enabled()
    finally:
        torch.set_float32_matmul_precision("highest")
