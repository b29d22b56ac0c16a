import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import CIFAR10, ROOT, invoke, needs_shared, refused, unchanged
from torch import nn
from torch.overrides import TorchFunctionMode

import landscape as ls
from landscape.checkpoints.read import read_checkpoint
from landscape.data.sources import balanced, open_source
from landscape.data.transforms import InputSettings
from landscape.training.recipe import Recipe
from landscape.training.train import train

SHORT = Recipe(epochs=3, warmup_epochs=1, fraction=0.2)


@pytest.fixture
def vit():
    torch.manual_seed(0)
    return ls.create_model("vit_xs", 10, 8, 1)


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


class Stopped(Exception):
    pass


def raising_epoch(*_):
    raise Stopped


def stopped_after_one_epoch(model, source, settings, state):
    """A training that left its state after the first epoch."""

    def stop(epoch, _):
        if epoch == 2:
            raise Stopped

    with pytest.raises(Stopped):
        train(model, source, settings, state=state, save_every=0, each_epoch=stop)
    assert state.exists()


def test_a_data_set_is_given_by_its_name_or_opened_with_public_names():
    network = ls.create_model("resnet8", 10, 8, 1, widths=(2, 2, 2))
    recipe = ls.Recipe(epochs=1, fraction=0.05, warmup_epochs=0)
    one, other = (ls.train(network, source, recipe) for source in ("digits", ls.open_source("digits")))
    assert same_weights(one.model, other.model)
    assert one.metadata["data"] == "digits"
    with pytest.raises(ls.UserError, match="recipe='mild' is not one of plain, strong, weak"):
        ls.train(network, "digits", "mild")


@pytest.mark.parametrize("more", [{}, {"sam": 0.05}, {"mixup": 1.0, "cutmix": 0.8, "smoothing": 0.1}])
def test_interrupted_and_resumed_is_what_was_never_interrupted(vit, digits, tmp_path, more):
    settings = replace(SHORT, **more)
    with unchanged(vit):
        whole = train(vit, digits, settings)
    assert not same_weights(whole.model, vit)
    state = tmp_path / "w.training"
    stopped_after_one_epoch(vit, digits, settings, state)
    resumed = train(vit, digits, settings, state=state, save_every=0)
    assert same_weights(resumed.model, whole.model)
    assert resumed.metadata == whole.metadata
    again = train(vit, digits, settings, state=state, each_epoch=raising_epoch)  # what is finished is only read
    assert same_weights(again.model, whole.model)


class Failing(Sequence):
    """Images on a disk that fails at the `after`-th look."""

    def __init__(self, images, after):
        self.images, self.left = images, after

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        self.left -= 1
        if self.left < 0:
            raise Stopped
        return self.images[i]


@pytest.mark.parametrize(
    ("name", "more"), [("resnet8", {}), ("vit_xs", {"mixup": 1.0, "cutmix": 0.8, "drop_path": 0.3, "sam": 0.05})]
)
def test_stopped_within_an_epoch_it_goes_on_to_the_same_bits(digits, tmp_path, name, more):
    """What the step leaves: weights, statistics, optimiser, random states, the loss so far; in two epochs."""
    settings = replace(SHORT, **more)
    torch.manual_seed(0)
    network = ls.create_model(name, 10, 8, 1, drop_path_rate=settings.drop_path)
    whole = train(network, digits, settings)
    state, part = tmp_path / "w.training", balanced(digits, settings.fraction, settings.seed)
    for after in (250, 500):
        source = replace(part, images=Failing(part.images, after))
        with pytest.raises(Stopped):
            train(network, source, replace(settings, fraction=1.0), InputSettings(8, 1, (0.3055,), (0.3764,)),
                  state=state, save_every=0)  # fmt: skip
        held = torch.load(state, weights_only=True)
        assert held["step"] > 0
    resumed = train(network, part, replace(settings, fraction=1.0), InputSettings(8, 1, (0.3055,), (0.3764,)),
                    state=state)  # fmt: skip
    assert same_weights(resumed.model, whole.model)
    assert resumed.metadata["training_loss"] == whole.metadata["training_loss"]
    assert resumed.metadata["training_lr"] == whole.metadata["training_lr"]


def test_an_interrupt_is_stored_and_gone_on_with_to_the_same_bytes(tmp_path):
    """Ctrl-C in the first epoch of a real process; what it says is so."""
    options = ["--model", "resnet8", "--data", "digits", "--epochs", "3", "--batch-size", "8", "--out"]
    command = [sys.executable, "-c", "from landscape.cli.main import main; main()", "train", *options]
    out, whole = tmp_path / "w.safetensors", tmp_path / "whole.safetensors"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, str(out)], cwd=ROOT, stderr=subprocess.PIPE, env=environment)
    said = b""
    while b"epoch" not in said:  # the bar of the first epoch
        said += process.stderr.read1()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    said += process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    assert b"interrupted; continue with the same command" in said
    assert b"Traceback" not in said
    assert not out.exists()
    held = torch.load(tmp_path / "w.safetensors.training", weights_only=True)
    assert len(held["losses"]) < 3
    assert held["step"] > 0
    for path in (out, whole):
        subprocess.run([*command, str(path), "--quiet"], cwd=ROOT, check=True, env=environment)
    assert out.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "w.safetensors.training").exists()


def test_a_state_of_another_recipe_is_refused_with_the_difference(vit, digits, tmp_path):
    state = tmp_path / "w.training"
    stopped_after_one_epoch(vit, digits, SHORT, state)
    with pytest.raises(ls.UserError, match=r"lr: 0.002 there, 0.1 asked"):
        train(vit, digits, replace(SHORT, lr=0.1), state=state)
    with pytest.raises(ls.UserError, match=r"mean: \[0.3055\] there, \[0.5\] asked"):
        train(vit, digits, SHORT, InputSettings(8, 1, (0.5,), (0.3764,)), state=state)
    state.write_bytes(b"nonsense")
    with pytest.raises(ls.UserError, match="remove it to start anew"):
        train(vit, digits, SHORT, state=state)


def test_a_fraction_has_the_same_share_of_each_class(digits):
    labels = np.array([digits.images[i][1] for i in range(len(digits))])
    part = balanced(digits, 0.1, 0)
    found = np.array([part.images[i][1] for i in range(len(part))])
    for c in range(10):
        assert (found == c).sum() == round(0.1 * (labels == c).sum())
    again, other = balanced(digits, 0.1, 0), balanced(digits, 0.1, 1)
    assert list(again.images.indices) == list(part.images.indices)
    assert list(other.images.indices) != list(part.images.indices)
    with pytest.raises(ls.UserError, match="fraction=0"):
        balanced(digits, 0, 0)


def test_a_network_trained_on_a_part_is_analysed_on_that_part(tmp_path):
    out = tmp_path / "w.safetensors"
    made = invoke("train", "--model", "resnet8", "--data", "digits", "--epochs", 1, "--fraction", 0.1, "--out", out)
    assert made.returncode == 0, made.stderr
    assert invoke("surface", out, "--points", 1, "--out", tmp_path / "a.h5").returncode == 0
    data = ls.load(tmp_path / "a.h5")["surface"].attrs["config"]["objective"]["data"]
    assert data["fraction"] == [0.1, 0]
    assert data["available"] == len(balanced(open_source("digits"), 0.1, 0))


def test_a_checkpoint_of_every_epoch(tmp_path):
    out, folder = tmp_path / "w.safetensors", tmp_path / "epochs"
    options = (
        "--model",
        "vit_xs",
        "--data",
        "digits",
        "--epochs",
        2,
        "--fraction",
        0.1,
        "--drop-path",
        0.2,
        "--sam",
        0.05,
    )
    made = invoke("train", *options, "--trajectory", folder, "--out", out)
    assert made.returncode == 0, made.stderr
    assert sorted(path.name for path in folder.iterdir()) == [f"epoch{n}.safetensors" for n in range(3)]
    end, _ = ls.load_checkpoint(folder / "epoch2.safetensors")
    assert same_weights(end, ls.load_checkpoint(out)[0])
    assert same_weights(ls.load_checkpoint(folder / "epoch0.safetensors")[0], end) is False
    kept, last = (ls.load_checkpoint(path)[1]["metadata"] for path in (folder / "epoch1.safetensors", out))
    assert kept.items() <= last.items()
    assert kept["weight_decay"] == 0.05
    assert not list(tmp_path.glob("*.training"))


@needs_shared
def test_the_strong_recipe_on_real_images(tmp_path):
    out = tmp_path / "w.safetensors"
    made = invoke("train", "--model", "vit_ti(depth=1)", "--data", f"hfds/{CIFAR10}", "--recipe", "strong",
                  "--epochs", 1, "--fraction", 0.02, "--out", out, "--quiet")  # fmt: skip
    assert made.returncode == 0, made.stderr
    provenance = ls.load_checkpoint(out)[1]["metadata"]
    assert provenance["auto_augment"] == "rand-m9-n2-mstd1.0"
    assert np.isfinite(provenance["training_loss"]).all()


def test_killed_on_the_command_line_it_goes_on_to_the_same_weights(tmp_path):
    script = (
        "import sys\nfrom pathlib import Path\nimport landscape as ls\nfrom landscape.data.sources import open_source\n"
        "from landscape.runtime.random import seeded\n"
        "from landscape.training.recipe import Recipe\nfrom landscape.training.train import train\n"
        "with seeded(0):\n    model = ls.create_model('resnet8', 10, 8, 1)\n"
        "out = Path(sys.argv[1])\n"
        "recipe = Recipe(epochs=8, fraction=0.3)\n"
        "done = train(model, open_source('digits'), recipe, state=str(out) + '.t', save_every=0)\n"
        "ls.save_checkpoint(out, done.model, done.metadata)\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script]
    killed, whole = tmp_path / "killed.safetensors", tmp_path / "whole.safetensors"
    process = subprocess.Popen([*command, str(killed)], cwd=ROOT, env=environment)
    while process.poll() is None and not (tmp_path / "killed.safetensors.t").exists():
        time.sleep(0.02)
    assert process.poll() is None, "finished before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    for path in (killed, whole):
        subprocess.run([*command, str(path)], cwd=ROOT, check=True, env=environment)
    assert killed.read_bytes() == whole.read_bytes()


def test_a_quickstart_keeps_where_its_training_stood(tmp_path):
    command = [
        sys.executable,
        "-c",
        "from landscape.cli.main import main; main()",
        "quickstart",
        "--out",
        str(tmp_path),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    said = b""
    while b"epoch" not in said:
        said += process.stderr.read1()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert b"Traceback" not in said + process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == ["resnet8.safetensors.training"]


def test_a_finished_checkpoint_is_not_overwritten(tmp_path):
    """The same training again ends at once and well; another is refused, unless it is to replace the first."""
    out = tmp_path / "w.safetensors"
    few = ("train", "--data", "digits", "--epochs", 1, "--fraction", 0.05, "--out", out)
    assert invoke(*few, "--model", "resnet8", "--quiet").returncode == 0
    before, written = out.read_bytes(), out.stat().st_mtime_ns
    again = invoke(*few, "--model", "resnet8")
    assert (again.returncode, out.stat().st_mtime_ns) == (0, written)
    assert "has this training, finished" in again.stdout
    refused(invoke(*few, "--model", "vit_xs"), "another network (model: resnet8 there, vit_xs asked)", "--overwrite")
    refused(invoke(*few, "--model", "resnet8", "--lr", 0.1), "lr: 0.002 there, 0.1 asked")
    ls.save_checkpoint(tmp_path / "theirs.safetensors", ls.create_model("resnet8", 10, 8, 1), {})
    refused(invoke(*few[:-1], tmp_path / "theirs.safetensors", "--model", "resnet8"), "has another network")
    assert out.read_bytes() == before
    assert invoke(*few, "--model", "vit_xs", "--overwrite", "--quiet").returncode == 0
    assert read_checkpoint(out).metadata["model"] == "vit_xs"


def test_a_trajectory_of_another_training_is_not_overwritten(tmp_path):
    few = ("train", "--data", "digits", "--epochs", 1, "--fraction", 0.05, "--trajectory", tmp_path / "epochs", "-q")
    assert invoke(*few, "--model", "resnet8", "--out", tmp_path / "a.safetensors").returncode == 0
    before = (tmp_path / "epochs" / "epoch0.safetensors").read_bytes()
    refused(
        invoke(*few, "--model", "vit_xs", "--out", tmp_path / "b.safetensors"), "epoch0.safetensors is from another"
    )
    assert (tmp_path / "epochs" / "epoch0.safetensors").read_bytes() == before


RENAMES = """
import sys
names = []
sys.addaudithook(lambda event, args: names.append(str(args[1])) if event == "os.rename" else None)
from landscape.cli.main import main
try:
    main()
except SystemExit:
    pass
print(names)
"""


def test_no_untrained_weights_ever_stand_under_the_final_name(tmp_path):
    """Every file that a training puts in its place, as the interpreter sees them: its state, then the weights, once."""
    out = tmp_path / "w.safetensors"
    few = ["train", "--data", "digits", "--model", "resnet8", "--epochs", "1", "--fraction", "0.05", "-q", "--out"]
    run = subprocess.run([sys.executable, "-c", RENAMES, *few, out], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == f"{[f'{out}.training', str(out)]}\n", run.stderr
    assert list(tmp_path.iterdir()) == [out]
    (tmp_path / "file").write_text("")
    refused(invoke(*few, tmp_path / "file" / "w.safetensors"), "cannot write")


def test_two_processes_train_as_one(tmp_path):
    """Of a network without BatchNorm, on data without draws, the averaged gradients are those of the whole batch."""
    script = (
        "import sys, torch\nimport landscape as ls\nfrom landscape.runtime import processes\n"
        "from landscape.runtime.random import seeded\n"
        "from landscape.data.sources import Source\nfrom landscape.data.transforms import InputSettings\n"
        "from landscape.training.recipe import Recipe\n"
        "from landscape.training.train import train\nfrom PIL import Image\nimport numpy as np\n"
        "torch.set_num_threads(1)\nprocesses.start()\n"
        "images = [(Image.fromarray(np.full((8, 8), 20 * (i % 10), np.uint8)), i % 10) for i in range(64)]\n"
        "source = Source('flat', 'train', images, 10, mirror=False)\n"
        "settings = InputSettings(8, 1, (0.5,), (0.5,))\n"
        "import landscape.training.train as t\n"
        "t.make_transform = lambda *a, **k: lambda image: torch.as_tensor(np.array(image))[None] / 255\n"
        "with seeded(0):\n    model = ls.create_model('vit_xs', 10, 8, 1)\n"
        "done = train(model, source, Recipe(epochs=2, batch_size=16, optimizer='sgd', lr=0.05), settings)\n"
        "if processes.rank() == 0:\n    ls.save_checkpoint(sys.argv[1], done.model, done.metadata)\n"
    )
    path = tmp_path / "script.py"
    path.write_text(script)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for launcher, out in (([sys.executable], "one"), (torchrun, "two")):
        subprocess.run(
            [*launcher, str(path), str(tmp_path / f"{out}.safetensors")], check=True, cwd=ROOT, env=environment
        )
    one, two = (read_checkpoint(tmp_path / f"{out}.safetensors") for out in ("one", "two"))
    for name, t in one.state.items():
        torch.testing.assert_close(two.state[name], t, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(two.metadata["training_loss"], one.metadata["training_loss"], rtol=1e-4)


def test_mistakes_in_asking_for_a_training(tmp_path):
    few = ("--model", "resnet8", "--data", "digits", "--out", tmp_path / "w.safetensors", "--epochs", 1)
    for options, words in (
        (("--recipe", "stronger"), "plain, strong, weak"),
        (("--optimizer", "adamm"), "try adamw or sgd"),
        (("--fraction", 0), "fraction=0"),
        (("--schedule", "linear"), "cosine, steps"),
        (("--lr", -1), "lr=-1"),
        (("--momentum", 1), "momentum=1.0 must be below 1"),
        (("--optimizer", "adahessian"), "needs second derivatives"),
        (("--milestones", "0.6,0.3"), "milestones=0.6,0.3 must be shares"),
        (("--milestones", "60,120"), "milestones=60,120 must be shares"),
        (("--smoothing", 5), "smoothing=5"),
        (("--mixup", 1, "--batch-size", 1), "mixing needs pairs"),
        (("--lr", 1e11, "--clip", 0, "--optimizer", "sgd"), "lower --lr"),
    ):
        refused(invoke("train", *few, *options), words)


def test_a_network_with_parameters_of_five_dimensions(digits):
    torch.manual_seed(0)
    volumes = nn.Unflatten(1, (1, 4))
    model = nn.Sequential(nn.Conv2d(1, 4, 3), volumes, nn.Conv3d(1, 2, 3), nn.Flatten(), nn.Linear(64, 10))
    with unchanged(model):
        trained = train(model, digits, replace(SHORT, epochs=1, warmup_epochs=0))
    assert not torch.equal(trained.model[2].weight, model[2].weight)
    assert all(p.is_contiguous() for p in trained.model.parameters())


def test_a_network_whose_view_needs_the_channels_first():
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(144, 10)

        def forward(self, x):
            y = torch.relu(self.conv(x))
            return self.head(y.view(len(y), -1))

    settings = InputSettings(8, 3, (0.5,) * 3, (0.5,) * 3)
    model = Viewing()
    with unchanged(model):
        trained = train(model, open_source("digits"), replace(SHORT, epochs=1, warmup_epochs=0), settings)
    assert not torch.equal(trained.model.conv.weight, model.conv.weight)


def test_steps_do_not_wait_for_the_device(vit, digits):
    """The losses stay where they are until the epoch is over: what would copy one is counted."""
    copied = []

    class Copies(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if getattr(func, "__name__", "") in ("__float__", "item", "cpu", "tolist") and args[0].grad_fn is None:
                copied.append(func.__name__)
            return func(*args, **(kwargs or {}))

    with Copies():
        train(vit, digits, replace(SHORT, optimizer="sgd", epochs=2))
    losses = copied.count("__float__")
    assert losses == 2
