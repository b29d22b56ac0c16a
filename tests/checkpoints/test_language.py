"""Language models in Hugging Face folders: real architectures at small sizes, written by their library."""

import itertools
import json

import pytest
import torch
from helpers import invoke, unchanged
from torch.func import functional_call, grad, jvp
from torch.nn import functional as F

import landscape as ls
from landscape.curvature.operators import Curvature
from landscape.data.text import text_data

transformers = pytest.importorskip("transformers")
SIZES = {"vocab_size": 31, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
MORE = {**SIZES, "num_key_value_heads": 1, "max_position_embeddings": 24}
FAMILIES = {
    "GPT2": {"vocab_size": 31, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 24},
    "Llama": MORE,
    "Mistral": MORE,
    "Qwen2": {**MORE, "tie_word_embeddings": True},
    "Qwen3": {**MORE, "head_dim": 4},
    "Gemma": {**MORE, "head_dim": 4},
    "Phi": {**MORE, "num_key_value_heads": 2},
    "OPT": {"vocab_size": 31, "hidden_size": 8, "word_embed_proj_dim": 8, "num_hidden_layers": 2, "ffn_dim": 16,
            "num_attention_heads": 2, "max_position_embeddings": 24},
    "Bert": {**SIZES, "max_position_embeddings": 24},
    "Roberta": {**SIZES, "max_position_embeddings": 30},
    "DistilBert": {"vocab_size": 31, "dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 16},
}  # fmt: skip
MASKED = ("Bert", "Roberta", "DistilBert")


def network(family):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**FAMILIES[family])
    kind = "LMHeadModel" if family == "GPT2" else "ForMaskedLM" if family in MASKED else "ForCausalLM"
    return getattr(transformers, family + kind)(config).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_loads_by_itself(family, tmp_path):
    """To the very logits, tied weights tied again; and its task is known."""
    theirs = network(family)
    theirs.save_pretrained(tmp_path / "net")
    ours, provenance = ls.load_checkpoint(tmp_path / "net")
    ids = torch.randint(3, 31, (2, 9))
    assert torch.equal(ours(ids).logits, theirs(ids).logits)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert provenance["model"] == f"transformers:{type(theirs).__name__}"
    assert ("shifted=False" in provenance["metadata"]["task"]) == (family in MASKED)


def test_a_vit_is_one_of_our_own(tmp_path):
    config = transformers.ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48,
                                    image_size=16, patch_size=8, num_labels=10)  # fmt: skip
    theirs = transformers.ViTForImageClassification(config).eval()
    theirs.save_pretrained(tmp_path / "vit")
    ours, _ = ls.load_checkpoint(tmp_path / "vit")
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(ours(x), theirs(x).logits, rtol=0, atol=1e-5)


def test_weights_saved_without_the_head_and_older_files_load(tmp_path):
    theirs = network("GPT2")
    theirs.transformer.save_pretrained(tmp_path / "net", state_dict={
        **theirs.transformer.state_dict(), "h.0.attn.bias": torch.ones(1, 1, 24, 24)})  # fmt: skip
    file = tmp_path / "net" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "architectures": ["GPT2LMHeadModel"]}))
    ours, _ = ls.load_checkpoint(tmp_path / "net")
    ids = torch.arange(9)[None]
    assert torch.equal(ours(ids).logits, theirs(ids).logits)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_layer": 3}, "does not fit GPT2LMHeadModel: it lacks transformer.h.2"),
        ({"n_layer": 10**9}, "states 1000000000 layers"),
        ({"n_embd": 10}, "has the shape"),
        ({"n_head": 3}, "cannot be made of its config.json"),
        ({"activation_function": "os.system"}, "cannot be made of its config.json"),
    ],
)
def test_what_a_config_may_not_say_is_one_line(change, words, tmp_path):
    network("GPT2").save_pretrained(tmp_path / "net")
    file = tmp_path / "net" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ls.UserError) as e:
        ls.load_checkpoint(tmp_path / "net")
    assert words in str(e.value)
    assert "\n" not in str(e.value)


def test_code_that_a_folder_names_is_not_looked_at(tmp_path):
    network("GPT2").save_pretrained(tmp_path / "net")
    (tmp_path / "net" / "modeling.py").write_text("raise SystemExit('it ran')")
    file = tmp_path / "net" / "config.json"
    held = {**json.loads(file.read_text()), "auto_map": {"AutoModelForCausalLM": "modeling.Net"},
            "attn_implementation": "someone/kernels", "_attn_implementation": "someone/kernels"}  # fmt: skip
    file.write_text(json.dumps(held))
    assert ls.load_checkpoint(tmp_path / "net")[1]["model"] == "transformers:GPT2LMHeadModel"


WORDS = [f"w{i}" for i in range(24)]


@pytest.fixture
def folder(tmp_path):
    """Texts of known words, and a network with a tokenizer for them."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: i for i, word in enumerate(["<|endoftext|>", "[MASK]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for family in ("GPT2", "Bert"):
        network(family).save_pretrained(tmp_path / family)
        tokenizer.save(str(tmp_path / family / "tokenizer.json"))
    (tmp_path / "texts").mkdir()
    texts = [" ".join(WORDS[i : i + 1 + i % 5]) for i in range(24)] * 3
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (tmp_path / "texts" / "train.jsonl").write_text(lines)
    return tmp_path


def test_texts_are_packed_to_one_length_and_frozen_by_seed(folder):
    name = f"hfds/{folder / 'texts'}"
    data = text_data(name, folder / "GPT2", tokens=8, batch_size=4, samples=10, seed=1)
    ids = torch.cat([batch["input_ids"] for batch in data])
    assert ids.shape == (10, 8)
    assert [len(batch["input_ids"]) for batch in data] == [4, 4, 2]
    again, other = (text_data(name, folder / "GPT2", tokens=8, samples=10, seed=seed) for seed in (1, 2))
    assert ids.equal(again.batches[0]["input_ids"])
    assert not ids.equal(other.batches[0]["input_ids"])
    stream = ids.flatten().tolist()  # words that follow one another in the alphabet, each text ended by a token
    for one, following in itertools.pairwise(stream):
        assert following in (0, one + 1) or one == 0
    whole = text_data(name, folder / "GPT2", tokens=8)
    assert whole.samples == sum(2 + i % 5 if i + 1 + i % 5 <= 24 else 25 - i for i in range(24)) * 3 // 8
    with pytest.raises(ls.UserError, match=rf"fill {whole.samples} sequences of 8 `tokens`"):
        text_data(name, folder / "GPT2", tokens=8, samples=1000)
    masked = text_data(name, folder / "Bert", tokens=8, masked=True).batches[0]
    assert ((masked["input_ids"] == 1) == (masked["labels"] != -100)).all()
    assert 0.05 < float((masked["labels"] != -100).float().mean()) < 0.25


def test_from_the_command_line_to_a_result(folder):
    """Folder and texts alone: the loss is that of transformers on the same sequences."""
    for family in ("GPT2", "Bert"):
        out = folder / f"{family}.h5"
        text = f"hfds/{folder / 'texts'}"
        asked = ("--data", text, "--out", out, "--samples", 20, "--tokens", 8, "--batches", 2, "--batch-size", 10)
        done = invoke("spectrum", folder / family, *asked, "-k", 2)
        assert done.returncode == 0, done.stderr
        held = ls.load(out)["spectrum"]
        assert held["converged"].all()
        (batch,) = text_data(text, folder / family, tokens=8, samples=20, masked=family == "Bert").batches
        each = [
            {"labels": t["input_ids"], **t} for t in ({k: v[i : i + 10] for k, v in batch.items()} for i in (0, 10))
        ]
        losses = [network(family)(**part).loss.item() for part in each]
        assert held["nll"].values == pytest.approx(losses, rel=1e-5)


def test_lora_adapters_are_what_is_differentiated_by():
    """With peft: the product is that of torch.func over the adapters alone, and the caller's model stays as it is."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["c_attn"], init_lora_weights=False, fan_in_fan_out=True)
    model = peft.get_peft_model(network("GPT2"), config).eval()
    ids = torch.randint(0, 31, (4, 7), generator=torch.Generator().manual_seed(0))
    with unchanged(model):
        objective = ls.Objective(model, [{"input_ids": ids}], task=ls.NextToken(), dtype=torch.float64)
    H = Curvature(objective)
    assert all("lora_" in name for name in H.parameters)
    assert H.n == sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    theta = {name: p.detach() for name, p in H.parameters.items()}
    v = {name: torch.randn_like(p) for name, p in theta.items()}

    def loss(theta):
        logits = functional_call(objective.model, theta, (), {"input_ids": ids}).logits
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        truth = jvp(grad(loss), (theta,), (v,))[1]
    found = H(torch.cat([t.reshape(-1) for t in v.values()]))
    torch.testing.assert_close(found, torch.cat([t.reshape(-1) for t in truth.values()]), rtol=0, atol=1e-8)
    assert ls.hessian_top(objective, k=2)["converged"].all()


class Checkpointed(torch.nn.Module):
    """Blocks whose activations are computed again in the backward pass."""

    def __init__(self, on):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(5, 5) for _ in range(3))
        self.on = on

    def forward(self, x):
        for block in self.blocks:
            run = lambda x, block=block: block(x).tanh()  # noqa: E731
            x = torch.utils.checkpoint.checkpoint(run, x, use_reentrant=False) if self.on else run(x)
        return x


@pytest.mark.parametrize("kind", ["hessian", "ggn", "residual", "fisher"])
def test_gradient_checkpointing_changes_no_product(kind):
    data = [(torch.randn(6, 5), torch.randint(0, 5, (6,)))]
    with_it, without = (
        Curvature(ls.Objective(Checkpointed(on), data, dtype=torch.float64), kind=kind) for on in (True, False)
    )
    v = torch.randn(without.n, dtype=torch.float64)
    torch.testing.assert_close(with_it(v), without(v), rtol=0, atol=1e-14)
    torch.testing.assert_close(with_it(v), without(v), rtol=0, atol=1e-14)  # from the graph that is kept
