"""The top eigenvalues of a GPT-2 of 124 million parameters on a CPU: how long they take, and how much memory.

    python benchmarks/gpt2.py --threads 2 --tol 0.01

The network has the published sizes (Radford et al. 2019) and random weights; the data are random tokens, and time and
memory do not depend on what they say. Needs transformers.
"""

import argparse
import json
import resource
import time


def main() -> None:
    """Print sizes, eigenvalues, residuals, seconds and the peak of the resident memory as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--tol", type=float, default=1e-2)
    parser.add_argument("--max-products", type=int, default=400)
    parser.add_argument("--chunk-size", type=int)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()

    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    import landscape as ls

    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    sizes = {"n_layer": asked.layers, "n_embd": asked.width, "n_head": max(1, asked.width // 64)}
    model = GPT2LMHeadModel(GPT2Config(**sizes)).eval()
    ids = torch.randint(0, model.config.vocab_size, (asked.sequences, asked.tokens))
    objective = ls.Objective(model, [{"input_ids": ids}], task=ls.NextToken())
    del model
    print(objective, flush=True)
    H = ls.Curvature(objective, chunk_size=asked.chunk_size)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        H(torch.ones(H.n))
        seconds.append(time.perf_counter() - start)
    print(f"the first product {seconds[0]:.1f} s, the second {seconds[1]:.1f} s, {peak():.2f} GB", flush=True)
    parameters = H.n
    del H
    start = time.perf_counter()
    found = ls.hessian_top(
        objective, k=asked.k, tol=asked.tol, max_products=asked.max_products, chunk_size=asked.chunk_size, progress=True
    )
    took = time.perf_counter() - start
    print(json.dumps({
        "parameters": parameters, "tokens": int(ids.numel()), "threads": asked.threads,
        "product_seconds": seconds, "search_seconds": took, "products": int(found["products"]),
        "done": bool(found["done"]), "eigenvalue": found["eigenvalue"].values.tolist(),
        "residual": found["residual"].values.tolist(), "converged": found["converged"].values.tolist(),
        "peak_GB": peak(),
    }))  # fmt: skip


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
