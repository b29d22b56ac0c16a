"""Networks, data and tasks of the user's own, from the command line."""

import numpy as np
import pytest
import torch
from helpers import invoke

import landscape as ls
from landscape.data.own import own_data
from landscape.data.sources import MissingSplit

CODE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import landscape as ls


def examples(split, samples=None):
    torch.manual_seed({"train": 1, "test": 2}[split])
    x = torch.randn(96, 3)
    return TensorDataset(x, x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.1 * torch.randn(96, 1))


def loader(split):
    return DataLoader(examples(split, None), batch_size=20)


def texts(words=11):
    class Words:
        def __iter__(self):
            for _ in range(3):
                tokens = torch.randint(0, words, (16, 6))
                yield {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}

    return Words()


def broken():
    yield torch.ones(2, 3), torch.ones(2, 1)
    raise RuntimeError("the disk is gone")


def numbers(split):
    return 3


def mlp(width=5):
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1))


class Reader(nn.Module):
    def __init__(self, words=11):
        super().__init__()
        self.embed, self.read = nn.Embedding(words, 4), nn.Linear(4, words)

    def forward(self, input_ids, attention_mask):
        return self.read(self.embed(input_ids))


class Cubed(ls.Task):
    def losses(self, outputs, y):
        return (outputs - y).abs().pow(3).mean(1)
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(CODE)
    torch.manual_seed(0)
    weights = torch.nn.Sequential(torch.nn.Linear(3, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1))
    torch.save(weights.state_dict(), tmp_path / "mlp.pt")
    return path


def told(*arguments):
    done = invoke(*arguments)
    assert done.returncode, done.stdout
    return done.stderr


def test_a_table_by_an_mlp_from_the_command_line_and_in_python(own, tmp_path):
    out = tmp_path / "mlp.h5"
    asked = (tmp_path / "mlp.pt", "--model", f"{own}:mlp(width=7)", "--data", f"{own}:loader", "--task", "regression")
    for command, *more in (("test",), ("top", "-k", "2", "--samples", "50"), ("spectrum", "--batches", "2")):
        done = invoke(command, *asked, "--out", out, *more)
        assert done.returncode == 0, done.stderr
    found = ls.load(out)
    objective = ls.open(
        tmp_path / "mlp.pt", model=f"{own}:mlp(width=7)", data=f"{own}:loader", task="regression", samples=50
    ).objective()
    assert [len(y) for _, y in objective.batches] == [20, 20, 10]
    exact = torch.linalg.eigvalsh(dense(objective)).numpy()
    largest = exact[np.argsort(-np.abs(exact))][:2]
    np.testing.assert_allclose(found["top"]["eigenvalue"], largest, rtol=1e-3)
    assert found["test"].attrs["config"]["objective"]["data"]["split"] == "test"
    assert found["top"].attrs["config"]["objective"]["task"]["name"] == "Regression"
    shown = invoke("show", out)
    assert shown.returncode == 0
    page = invoke("report", out, "--out", tmp_path / "page.html")
    assert page.returncode == 0, page.stderr
    assert "--task regression" in (tmp_path / "page.html").read_text()


def dense(objective):
    H = ls.Curvature(objective)
    return H(torch.eye(H.n))


def test_tokens_and_a_task_of_ones_own(own, tmp_path):
    words = {"input_ids", "attention_mask"}
    data = own_data(f"{own}:texts(words=5)", samples=20, seed=3)
    assert [len(batch["input_ids"]) for batch in data] == [16, 4]
    assert all(set(batch) == words for batch in data)
    assert int(data.batches[0]["input_ids"].max()) < 5
    again = own_data(f"{own}:texts(words=5)", samples=16, seed=3)
    assert torch.equal(again.batches[0]["input_ids"], data.first(16).batches[0]["input_ids"])
    torch.manual_seed(0)
    torch.save({"embed.weight": torch.randn(11, 4), "read.weight": torch.randn(11, 4), "read.bias": torch.zeros(11)},
               tmp_path / "reader.pt")  # fmt: skip
    subject = ls.open(tmp_path / "reader.pt", model=f"{own}:Reader", data=f"{own}:texts", task="next-token")
    assert subject.objective().units == 48 * 5
    cubed = ls.open(tmp_path / "mlp.pt", model=f"{own}:mlp(width=7)", data=f"{own}:examples", task=f"{own}:Cubed")
    objective = cubed.objective()
    x, y = objective.x, objective.y
    with torch.no_grad():
        truth = float((objective.model(x) - y).abs().pow(3).mean())
    assert objective.evaluate().nll == pytest.approx(truth, rel=1e-6)


def test_mistakes_are_told_in_a_line(own, tmp_path):
    mlp = (tmp_path / "mlp.pt", "--model", f"{own}:mlp(width=7)", "--out", tmp_path / "x.h5")
    for data, words in [
        (f"{own}:lodaer", "has no function 'lodaer'; did you mean loader"),
        (f"{own}:broken", "batch 1 of broken fails: RuntimeError: the disk is gone"),
        (f"{own}:numbers", "numbers gives int, not batches"),
        (f"{tmp_path / 'none.py'}:f", "no such file"),
        (f"{own}:loader(size=3)", "takes no size"),
    ]:
        assert words in told("top", *mlp, "--data", data, "--task", "regression")
    assert "did you mean regression" in told("top", *mlp, "--data", f"{own}:loader", "--task", "regresion")
    assert "gives a DataLoader, no landscape.Task" in told(
        "top", *mlp, "--data", f"{own}:loader", "--task", f"{own}:loader(split='train')"
    )
    assert "`mixup`" in ls_error(mlp, own)
    with pytest.raises(MissingSplit, match="takes no split"):
        own_data(f"{own}:texts", split="test")
    with pytest.raises(ls.UserError, match=r"samples=99.*gives 48 examples"):
        own_data(f"{own}:texts", samples=99)


def ls_error(mlp, own):
    with pytest.raises(ls.UserError) as told:
        ls.open(mlp[0], model=mlp[2], data=f"{own}:loader", mixup=0.5)
    return str(told.value)


def test_a_checkpoint_names_no_code(own, tmp_path):
    """Data of its metadata are never imported: only those of the user's own option."""
    from safetensors.torch import save_file

    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef data(): return []\n")
    weights = torch.load(tmp_path / "mlp.pt", weights_only=True)
    save_file(weights, tmp_path / "w.safetensors", {"data": f'"{evil}:data"'})
    assert told("top", tmp_path / "w.safetensors", "--model", f"{own}:mlp(width=7)", "--out", tmp_path / "x.h5")
    assert not (tmp_path / "ran").exists()
