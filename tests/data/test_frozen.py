import random

import numpy as np
import pytest
import torch
from helpers import CIFAR10, IMAGENET, needs_shared
from PIL import Image
from sklearn.datasets import load_digits
from timm.data import Mixup
from torch import nn

import landscape as ls
from landscape.data.frozen import MIX_BLOCK, FrozenData, mixed
from landscape.data.transforms import InputSettings, make_transform


def test_digits_splits_are_the_whole_and_disjoint():
    parts = [ls.load_data("digits", split=s, transform="eval", mean=[0], std=[1]) for s in ("train", "test")]
    assert [len(p.y) for p in parts] == [1442, 355]
    pixels = torch.cat([p.x for p in parts]).reshape(1797, 64).numpy()
    truth = np.round(load_digits().data * 255 / 16) / 255
    assert {r.tobytes() for r in (pixels * 255).round().astype(np.uint8)} == {
        r.tobytes() for r in (truth * 255).round().astype(np.uint8)
    }


def test_a_folder_of_folders_without_end_is_not_walked(tmp_path, monkeypatch):
    """Such as /, which holds whole file systems, and links into itself."""
    monkeypatch.setattr("landscape.data.sources.FOLDERS", 20)
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "again").symlink_to(tmp_path)
    for name in (str(tmp_path), f"hfds/{tmp_path}"):
        with pytest.raises(ls.UserError, match="has over 20 folders below it"):
            ls.load_data(name)


def test_a_standard_deviation_that_vanishes_is_refused():
    for std in (0.0, 1e-50, 1e-308):
        with pytest.raises(ls.UserError, match="std"):
            ls.load_data("digits", std=[std])


def test_default_statistics_of_digits_are_theirs():
    x = ls.load_data("digits", transform="eval").x
    assert abs(float(x.mean())) < 5e-3
    assert abs(float(x.std()) - 1) < 5e-3


def test_frozen_by_seed_whatever_the_batches_workers_and_number():
    a = ls.load_data("digits", samples=100, seed=3)
    b = ls.load_data("digits", samples=40, seed=3, batch_size=7, workers=1)
    assert torch.equal(a.x[:40], b.x)
    assert torch.equal(a.y[:40], b.y)
    assert not torch.equal(a.x, ls.load_data("digits", samples=100, seed=4).x)
    assert [len(y) for _, y in b] == [7, 7, 7, 7, 7, 5]
    assert all(torch.equal(x1, x2) for (x1, _), (x2, _) in zip(b, b, strict=True))


def test_training_transform_shifts_and_evaluation_does_not():
    own = {"samples": 50, "seed": None}
    train, evaluation = (ls.load_data("digits", transform=t, **own) for t in ("train", "eval"))
    assert torch.equal(train.y, evaluation.y)
    moved = [not torch.equal(a, b) for a, b in zip(train.x, evaluation.x, strict=True)]
    assert 25 < sum(moved) < 50  # one of nine shifts is none


def test_random_states_are_left_alone():
    states = random.getstate(), np.random.get_state()[1].copy(), torch.default_generator.get_state()
    ls.load_data("digits", samples=20, mixup=0.8, auto_augment="rand-m5")
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.default_generator.get_state(), states[2])


def test_soft_labels():
    smooth = ls.load_data("digits", samples=30, smoothing=0.1)
    assert smooth.y.shape == (30, 10)
    torch.testing.assert_close(smooth.y.sum(1), torch.ones(30))
    torch.testing.assert_close(smooth.y.max(1).values, torch.full((30,), 0.91))
    mix = ls.load_data("digits", samples=131, mixup=1.0, cutmix=1.0)  # odd, and over one block
    torch.testing.assert_close(mix.y.sum(1), torch.ones(131))
    assert ((mix.y > 0).sum(1) == 2).float().mean() > 0.5


def test_mixing_keeps_the_pairs_labels():
    x, y = torch.eye(4).reshape(4, 1, 2, 2).repeat(3, 1, 1, 1), torch.arange(4).repeat(3)
    xm, ym = mixed(x, y, Mixup(mixup_alpha=1.0, cutmix_alpha=0, num_classes=4, label_smoothing=0, mode="elem"), 0)
    torch.testing.assert_close(xm.reshape(12, 4), ym)  # image i is the one-hot of class i, so both mix alike


def test_neighbours_are_mixed_with_each_other_whatever_the_number():
    """Every pixel of an image is its number: the mixed one lies between the two numbers of its pair, and the odd last
    one is itself; so too across blocks."""
    n = 2 * MIX_BLOCK + 7
    x, y = torch.arange(float(n))[:, None, None, None].repeat(1, 1, 2, 2), torch.arange(n) % 10
    xm, ym = mixed(x, y, Mixup(mixup_alpha=1.0, cutmix_alpha=0, num_classes=10, label_smoothing=0, mode="elem"), 5)
    value, first = xm[:, 0, 0, 0], torch.arange(n) // 2 * 2
    assert ((first <= value) & (value <= first + 1)).all()
    assert value[-1] == n - 1
    share = 1 - (value - torch.arange(n)).abs()
    torch.testing.assert_close(ym[torch.arange(n), y], share, atol=1e-4, rtol=0)
    data = ls.load_data("digits", samples=11, mixup=1.0, batch_size=4)
    assert data.clusters.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert data.config["mixing"] == "pairs of neighbours, per element"
    assert ls.load_data("digits", samples=11, smoothing=0.1).clusters is None


def test_the_error_of_mixed_examples_is_the_spread_over_draws():
    """The two of a pair share both images: the correlation of their losses, about 0.3, widens the error by 13 %."""
    digits = ls.load_data("digits", transform="eval")
    pixels = digits.x.flatten(1)
    means = torch.stack([pixels[digits.y == c].mean(0) for c in range(10)])
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():  # the class whose mean is nearest
        model[1].weight.copy_(means / 8)
        model[1].bias.copy_(-means.square().sum(1) / 16)
    mix = Mixup(mixup_alpha=0.8, cutmix_alpha=0, num_classes=10, label_smoothing=0, mode="elem")
    nll, stated, as_if_independent, together = [], [], [], []
    for draw in range(500):
        index = torch.from_numpy(np.random.default_rng(draw).permutation(len(digits.y))[:64])
        x, y = mixed(digits.x[index], digits.y[index], mix, draw)
        objective = ls.Objective(model, FrozenData(x, y, 64, 10, {}, torch.arange(64) // 2))
        found = objective.evaluate()
        nll.append(found.nll)
        stated.append(found.nll_sem)
        loss = nn.functional.cross_entropy(model(x), y, reduction="none").detach()
        as_if_independent.append(float(loss.std()) / 8)
        together.append(torch.corrcoef(loss.view(32, 2).T)[0, 1])
    assert np.mean(together) > 0.2
    assert np.mean(stated) == pytest.approx(np.std(nll), rel=0.07)
    assert np.mean(as_if_independent) < 0.92 * np.std(nll)
    with pytest.raises(
        ls.UserError, match=r"mini-batches of 15 separate examples 14 and 15, .* take mini-batches of 16"
    ):
        objective.minibatches(15)
    assert len(objective.minibatches(16)) == 4


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "val"):
        for name, value in (("cat", 10), ("dog", 200)):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (16, 16), (value, i, 0)).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def test_image_folder(folder):
    data = ls.load_data(str(folder), transform="eval", seed=None, mean=[0, 0, 0], std=[1, 1, 1])
    assert data.x.shape == (6, 3, 16, 16)
    assert data.y.tolist() == [0, 0, 0, 1, 1, 1]
    torch.testing.assert_close(data.x[:, 0, 0, 0] * 255, torch.tensor([10.0] * 3 + [200.0] * 3))
    assert len(ls.load_data(str(folder), split="test").y) == 6
    assert len(ls.load_data(str(folder / "train")).y) == 6
    with pytest.raises(ls.UserError, match="no folder for the split 'test'"):
        ls.load_data(str(folder / "train"), split="test")


def test_images_of_different_sizes_need_a_size(folder):
    Image.new("RGB", (20, 20)).save(folder / "train" / "cat" / "0.png")
    with pytest.raises(ls.UserError, match="image_size"):
        ls.load_data(str(folder))
    assert ls.load_data(str(folder), image_size=16).x.shape[2:] == (16, 16)


def test_an_empty_folder(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(ls.UserError, match="empty"):
        ls.load_data(str(tmp_path))


@needs_shared
def test_hugging_face_folder():
    data = ls.load_data(f"hfds/{CIFAR10}", samples=9, transform="eval", **IMAGENET)
    assert data.x.shape == (9, 3, 32, 32)
    assert data.num_classes == 10
    assert data.config["available"] == 10000
    with pytest.raises(ls.UserError, match="no split 'dev'"):
        ls.load_data(f"hfds/{CIFAR10}", split="dev")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("digit", {}, "did you mean digits"),
        ("torch/cifar1", {}, "did you mean cifar10"),
        ("hfds/./nowhere", {}, "no such folder"),
        ("digits", {"samples": 5000}, "has 1442 examples"),
        ("digits", {"samples": 0}, "ask for 1 to 1442"),
        ("digits", {"split": "dev"}, "no split 'dev'"),
        ("digits", {"transform": "trian"}, "train, eval"),
        ("digits", {"transform": "eval", "mixup": 1.0}, "belong to transform='train'"),
        ("digits", {"mean": [1, 2, 3]}, "3 numbers for images with 1"),
        ("digits", {"std": [0.0]}, "1e-06 or more"),
        ("digits", {"smoothing": 0.1, "num_classes": 3}, "out of range for num_classes=3"),
    ],
)
def test_bad_requests(name, settings, message):
    with pytest.raises(ls.UserError, match=message):
        ls.load_data(name, **settings)


@pytest.mark.parametrize("shape", [(8, 8), (16, 16), (12, 8), (8, 20), (30, 16)])
def test_training_and_evaluation_see_the_same_square(shape):
    """Bars across the long side: neither squashed nor cropped elsewhere, but for the pad of the random crop."""
    width, height = shape
    image = Image.fromarray(np.add.outer(5 * np.arange(height), 7 * np.arange(width)).astype(np.uint8))
    settings = InputSettings(8, 1, (0.0,), (1.0,))
    seen = make_transform(settings, training=False)(image)[0]
    train = make_transform(settings, training=True, mirror=False)
    padded = torch.nn.functional.pad(seen, (1, 1, 1, 1))
    windows = padded.unfold(0, 8, 1).unfold(1, 8, 1).reshape(-1, 8, 8)
    for _ in range(20):
        assert (windows == train(image)[0]).all(dim=(1, 2)).any()
    assert windows.shape == (9, 8, 8)
