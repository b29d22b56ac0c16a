"""Orders of blocks: closed forms, intervals of ranks that cover, and a block that does nothing comes first."""

import numpy as np
import pytest
import torch
from helpers import small
from scipy.stats import kendalltau

import landscape as ls
from landscape import store
from landscape.analyses import orders
from landscape.analyses.placement import Placement, in_order, study_order
from landscape.analyses.similarity import Similarity
from landscape.runtime.errors import UserError
from landscape.study import drawing


def exact(values: np.ndarray) -> orders.Ranks:
    return orders.ranks(np.repeat(np.asarray(values, float)[..., None], 3, axis=-1))


def test_agreement_of_known_orders():
    a = np.arange(6.0)
    assert orders.concordance(exact(np.stack([a, 10 * a, a**2]))).estimate == pytest.approx(1)
    assert orders.concordance(exact(np.stack([a, -a]))).estimate == pytest.approx(0)
    b = np.array([2.0, 0, 1, 5, 3, 4])
    found = orders.correlation(exact(np.stack([a, b])), 1, a)
    assert found.estimate == pytest.approx(kendalltau(a, b)[0])
    assert np.isnan(found.low), "values without errors give no interval"
    np.testing.assert_allclose(orders.together(exact(np.stack([a, b]))).estimate[0] * 5 + 1, [2, 1, 3, 5, 4, 6])
    share = orders.agreed(exact(np.stack([a, b])))
    assert share[0, 3] == 1
    assert share[0, 1] == share[1, 0] == 0


def test_what_says_nothing_of_a_thing_leaves_it_to_the_others():
    with_gap = np.array([[1.0, np.nan, 0.0], [0.0, 1.0, 2.0]])
    found = exact(with_gap)
    np.testing.assert_array_equal(found.estimate, [[1, np.nan, 0], [0, 0.5, 1]])
    np.testing.assert_array_equal(orders.together(found).estimate, [[0.5, 0.5, 0.5]])
    assert np.isnan(orders.agreed(found)[0, 1])
    alone = exact(np.array([[np.nan, 3.0, np.nan], [2.0, 1.0, 0.0]]))
    assert np.isnan(alone.estimate[0]).all(), "one thing alone has no place"


def test_intervals_of_ranks_cover():
    truth, missed = np.arange(8) * 0.6, np.zeros(8)
    for seed in range(100):
        seen = truth + np.random.default_rng(seed).normal(size=8)
        values = np.stack([seen, seen - 1.96, seen + 1.96], axis=-1)[None]
        _, low, high = orders.interval(orders.ranks(values, seed=seed))[0].T
        missed += (low > truth / truth[-1] + 1e-9) | (high < truth / truth[-1] - 1e-9)
    assert missed.max() <= 12  # 5 expected at most: P(more) < 0.2 %


def test_the_study_s_order_takes_every_other_block_from_the_end_of_each_stage():
    order = np.argsort(study_order(np.array([1, 1, 1, 2, 2, 2, 2, 3, 3])))
    assert order.tolist() == [8, 6, 2, 4, 0, 7, 5, 1, 3]


@pytest.fixture(scope="module")
def subject(tmp_path_factory) -> ls.Subject:
    """A ResNet-20 whose block layer2.1 adds nothing."""
    torch.manual_seed(0)
    network = small("resnet20", num_classes=10)
    network.layer2[1].bn2.weight.data.zero_()
    network.layer2[1].bn2.bias.data.zero_()
    path = tmp_path_factory.mktemp("placement") / "idle.safetensors"
    ls.save_checkpoint(path, network, {"model": "resnet20(widths=(4, 4, 4))", "data": "digits"})
    return ls.open(path, device="cpu")


def test_a_block_that_does_nothing_is_the_first_to_replace(subject, tmp_path):
    out = tmp_path / "idle.h5"
    found = subject.run(Placement(images=32), out)
    rank = found.data["rank"].sel(block="layer2.1", bound="estimate")
    assert float(found.data["value"].sel(block="layer2.1", evidence="lesion", bound="estimate")) == 0
    assert float(rank.sel(order="similarity")) == 0
    assert float(found.data["value"].sel(block="layer2.1", evidence="similarity", bound="estimate")) < 1e-6
    assert in_order(found.data, "study")[:3] == ["layer3.2", "layer2.2", "layer1.2"]
    assert {e.name for e in found.estimates} >= {
        "agreement of the evidence",
        "agreement of lesion with the study's rule",
    }
    assert "order together: " in str(found)
    assert list(drawing.draw_file(out))


def test_groups_that_the_file_has_serve(subject, tmp_path):
    out = tmp_path / "idle.h5"
    held = subject.run(Similarity(images=24), out)
    found = subject.run(Placement(images=32), out)
    cka = held.data["cka"].sel(bound="estimate").values
    names = [str(name) for name in held.data["block"].values]
    i = names.index("layer3.1")
    value = found.data["value"].sel(block="layer3.1", evidence="similarity", bound="estimate")
    assert float(value) == 1 - cka[i, i - 1]
    assert store.load(out)["placement"].attrs["config"]["stored"]["similarity"]["images"] == 24


def test_a_network_without_convolutions_is_refused(tmp_path):
    torch.manual_seed(0)
    ls.save_checkpoint(tmp_path / "v.safetensors", ls.create_model("vit_xs", 10, 8, 1), {"model": "vit_xs"})
    with pytest.raises(UserError, match="the network has 0"):
        ls.open(tmp_path / "v.safetensors", data="digits").run(Placement(images=32))
