"""What the caller's process is like after every analysis: as before, whatever the network does."""

import random
import signal
from contextlib import contextmanager

import numpy as np
import pytest
import rich.style  # noqa: F401  (draws a random number when it is imported, by the command line)
import torch
from analyses.test_catalogue import command
from helpers import invoke, unchanged
from torch import nn

import landscape as ls
from landscape.catalogue import CATALOGUE
from landscape.runtime.errors import UserError

NETWORK = """
import os, random
import numpy as np, torch
import landscape as ls

class Noisy(torch.nn.Module):
    calls = 0

    def __init__(self):
        super().__init__()
        self.network = ls.create_model("resnet8", 10, 8, 1, widths=(4, 4, 4))

    def forward(self, x):
        random.random(), np.random.rand(), torch.rand(2)
        torch.set_num_threads(1)
        Noisy.calls += 1
        if Noisy.calls == int(os.environ.get("FAILS_AT", 0)):
            raise {"error": RuntimeError, "interrupt": KeyboardInterrupt}[os.environ["FAILS_BY"]]("broke")
        return self.network(x)

def net():
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    Noisy.calls = 0
    return Noisy()
"""


def settings():
    read = torch._C._get_fp32_precision_getter
    return {
        "precisions": [read(b, op) for b in ("generic", "cuda", "mkldnn") for op in ("all", "matmul", "conv", "rnn")
                       if (b, op) not in {("generic", "matmul"), ("generic", "conv"), ("generic", "rnn")}],
        "products": torch.get_float32_matmul_precision(),
        "attention": [torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled(),
                      torch.backends.cuda.mem_efficient_sdp_enabled()],
        "threads": torch.get_num_threads(),
        "type": torch.get_default_dtype(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "python": random.getstate(),
        "torch": torch.default_generator.get_state().tolist(),
        "numpy": [np.asarray(part).tolist() for part in np.random.get_state()],
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        "warnings": np.geterr(),
    }  # fmt: skip


@contextmanager
def undisturbed_process():
    """Fails where the block left any of it changed; begins with settings that nobody has by default."""
    random.seed(11), np.random.seed(12), torch.manual_seed(13)
    torch.set_float32_matmul_precision("high")
    before = settings()
    try:
        yield
        after = settings()
        assert {k for k in before if before[k] != after[k]} == set()
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("caller")
    (folder / "noisy.py").write_text(NETWORK)
    network = ls.create_model("resnet8", 10, 8, 1, widths=(4, 4, 4))
    state = {f"network.{k}": v for k, v in network.state_dict().items()}
    torch.save(state, folder / "w.pt")
    return folder / "w.pt"


def asked(name, checkpoint, out):
    arguments = command(name, checkpoint, out)
    return [*arguments, "--model", f"{checkpoint.parent}/noisy.py:net", "--data", "digits", "--num-classes", "10"]


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_after_every_analysis_of_a_network_that_draws(name, checkpoint, tmp_path, monkeypatch):
    monkeypatch.delenv("FAILS_AT", raising=False)
    with undisturbed_process():
        result = invoke(*asked(name, checkpoint, tmp_path / "x.h5"))
    assert result.returncode in (0, 2), result.stderr
    if result.returncode:
        assert result.stderr.count("landscape: ") == 1


@pytest.mark.parametrize("by", ["error", "interrupt"])
@pytest.mark.parametrize("name", ["surface", "spectrum", "density"])
def test_also_where_it_breaks_or_is_interrupted(name, by, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("FAILS_BY", by)
    extra = ["--gradient-norm", "--eigenvalues"] if name == "surface" else []
    for at in (2, 12):
        monkeypatch.setenv("FAILS_AT", str(at))
        with undisturbed_process():
            result = invoke(*asked(name, checkpoint, tmp_path / f"{at}.h5"), *extra)
        assert result.returncode in ({"error": 2, "interrupt": 130}[by], 0), result.stderr
        assert "Traceback" not in result.stderr


def networks():
    torch.manual_seed(0)
    hooked = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))
    hooked[0].register_forward_hook(lambda m, x, y: y * 1.5)
    lazy = nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.Linear(4, 2))
    plain = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))
    parametrised = nn.Sequential(nn.utils.parametrizations.orthogonal(nn.Linear(6, 4)), nn.Tanh(), nn.Linear(4, 2))
    spectral = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4)), nn.Tanh(), nn.Linear(4, 2))
    return {
        "scripted": torch.jit.script(plain),
        "traced": torch.jit.trace(plain, torch.randn(3, 6)),
        "data parallel": nn.DataParallel(plain),
        "hooked": hooked,
        "parametrised": parametrised,
        "spectral": spectral,
        "lazy": lazy,
        "compiled": torch.compile(plain, backend="eager"),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind", ["scripted", "traced", "data parallel", "hooked", "parametrised", "spectral", "lazy", "compiled"]
)
def test_networks_of_every_make_work_or_are_refused_in_a_line(kind, points):
    network = networks()[kind]
    with undisturbed_process(), nothing_moved(network, kind):
        objective = in_a_line(lambda: ls.Objective(network, points))
        plane = in_a_line(lambda: ls.random_plane(network))
        if objective is None:
            assert kind == "lazy"
            return
        for compute in (
            lambda: ls.evaluate_surface(objective, plane, points=3, rays=1),
            lambda: ls.hessian_spectrum(objective, k=2, batch_size=5, batches=2, workers=1),
        ):
            found = in_a_line(compute)
            assert found is None or bool(found["done"].all())


def in_a_line(compute):
    """What it gives; None where it is refused in one line."""
    try:
        return compute()
    except UserError as e:
        said = str(e)
    assert said.strip()
    assert "\n" not in said.strip()
    return None


@contextmanager
def nothing_moved(network, kind):
    if kind == "lazy":
        yield
        return
    with unchanged(network):
        yield
