"""What a Hessian product of a language model costs, from formulas, beside what is counted at sizes that fit anywhere.

    python benchmarks/budget.py

Counted are the operations of matrix products (torch's FlopCounterMode) and the bytes that the kept graph holds, for
GPT-2s of several sizes with random weights. The formulas were fitted on the sizes FITTED and are held against those in
CHECKED; then they are written out for 124 M, 1 B and 7 B parameters. Needs transformers.
"""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

import landscape as ls
from landscape.curvature.operators import Curvature

VOCABULARY, HEAD = 512, 16
GRAPH, HESSIAN, GAUSS_NEWTON = 3, 6, 4  # forward passes' operations: the graph once, then each product
# Vectors of the network's size: weights, a basis of k + 6, k eigenvectors, and what a step works with; k is 5.
FIRST, OTHER = 1 + 11 + 5 + 6, 1 + 5
RATE = 25e12  # operations a second, assumed of one GPU in true float32; none has been measured
PUBLISHED = {"124 M": (12, 768, 50257), "1 B": (24, 1792, 50257), "7 B": (32, 4096, 32000)}


@dataclass(frozen=True)
class Size:
    """A GPT-2: layers, width, tokens in a sequence, sequences; heads of HEAD numbers."""

    layers: int
    width: int
    tokens: int
    sequences: int

    @property
    def graph_bytes(self) -> float:
        """The kept graph: 56 numbers for each token, layer and unit of width, 3 for each pair of tokens and head."""
        each = self.layers * (56 + 3 * self.tokens / HEAD) + 3.2
        return 4 * self.tokens * self.sequences * self.width * each

    @property
    def block_parameters(self) -> int:
        return 12 * self.layers * self.width**2

    @property
    def forward(self) -> float:
        """2 operations a parameter and token, in blocks and head; and 4 T d a token and layer in the attention."""
        count = self.tokens * self.sequences
        matrices = 2 * count * (self.block_parameters + VOCABULARY * self.width)
        return matrices + 4 * count * self.layers * self.tokens * self.width


FITTED = [Size(2, 64, 32, 2), Size(4, 64, 32, 2), Size(2, 64, 64, 2)]
CHECKED = [Size(4, 128, 64, 2), Size(6, 96, 48, 4)]


def counted(size: Size) -> dict[str, float]:
    """Operations of forward pass, graph and product, and bytes that the kept graph holds, of one size."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=size.tokens, n_embd=size.width, n_layer=size.layers,
                        n_head=size.width // HEAD)  # fmt: skip
    ids = torch.randint(0, VOCABULARY, (size.sequences, size.tokens))
    objective = ls.Objective(GPT2LMHeadModel(config).eval(), [{"input_ids": ids}], task=ls.NextToken())
    found = {}
    for kind in ("hessian", "ggn"):
        H = Curvature(objective, kind=kind)
        v = torch.randn(H.n)
        held: dict[int, int] = {}
        own = {p.untyped_storage().data_ptr() for p in objective.model.parameters()}

        def keep(t: torch.Tensor, held=held, own=own) -> torch.Tensor:
            storage = t.untyped_storage()
            if storage.data_ptr() not in own:
                held[storage.data_ptr()] = storage.nbytes()
            return t

        with FlopCounterMode(display=False) as first, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            H(v)
        with FlopCounterMode(display=False) as again:
            H(v)
        found[f"{kind} product"] = again.get_total_flops()
        found[f"{kind} graph"] = first.get_total_flops() - again.get_total_flops()
        found[f"{kind} bytes"] = sum(held.values())
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        objective.model(ids)
    return {"forward": forward.get_total_flops(), **found}


def main() -> None:
    """Print what is counted over what the formulas say, and the budget."""
    for size in FITTED + CHECKED:
        found, each = counted(size), {}
        for name, passes in (("graph", GRAPH), ("product", HESSIAN)):
            each[f"hessian {name}"] = found[f"hessian {name}"] / (passes * size.forward)
        each["ggn product"] = found["ggn product"] / (GAUSS_NEWTON * size.forward)
        each["bytes"] = found["hessian bytes"] / size.graph_bytes
        print(size, {name: round(value, 3) for name, value in each.items()})
    print(f"\nHessian products over 2^20 tokens, in sequences of 1024, at {RATE / 1e12:.0f} TFLOP/s a GPU:\n")
    print("| parameters | on | seconds a product | first GPU, top 5 | each other GPU |")
    print("|---|---|---|---|---|")
    for name, (layers, width, vocabulary) in PUBLISHED.items():
        block = 12 * layers * width**2
        n = block + vocabulary * width
        forward = (2 * n + 4 * layers * 1024 * width) * 2**20
        graph = 4 * 1024 * width * (layers * (56 + 3 * 1024 / 64) + 3.2)  # of one sequence, heads of 64
        for count in (1, 8, 64):
            seconds = (GRAPH + HESSIAN) * forward / RATE / count
            first, other = ((4 * n * vectors + graph) / 1e9 for vectors in (FIRST, OTHER))
            print(f"| {name} | {count} | {seconds:.0f} | {first:.0f} GB | {'' if count == 1 else f'{other:.0f} GB'} |")


if __name__ == "__main__":
    main()
