"""Arithmetic that second derivatives need: true float32, and attention that is twice differentiable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape.runtime.threads import of_all_threads

Setting = tuple[str, str]


EVERYWHERE: Setting = ("generic", "all")
BACKENDS: tuple[Setting, ...] = (("cuda", "all"), ("mkldnn", "all"))
OPERATIONS: tuple[Setting, ...] = tuple((b, op) for b in ("cuda", "mkldnn") for op in ("matmul", "conv", "rnn"))


@of_all_threads
@contextmanager
def true_float32() -> Iterator[None]:
    """Within the block, float32 products are computed in true float32, without TF32.

    The settings are global: the first block entered makes them, and the last block left restores the caller's. They are
    made with `torch.backends.*.fp32_precision`. `torch.set_float32_matmul_precision` is set to agree with them, since
    torch raises an error if the two disagree and torch.compile reads it. `torch.backends.cudnn.allow_tf32` is not set:
    torch's own default would then be lost. A network whose code reads it gets torch's error.
    """
    stored = {EVERYWHERE: _read(EVERYWHERE)}
    stored |= _own([EVERYWHERE], BACKENDS)
    stored |= _own([EVERYWHERE, *BACKENDS], OPERATIONS)
    for setting in (EVERYWHERE, *BACKENDS, *stored):
        _write(setting, "ieee")
    products = torch.get_float32_matmul_precision()  # raises if the two disagree, which they no longer can
    try:
        torch.set_float32_matmul_precision("highest")
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        inherited = dict.fromkeys((*BACKENDS, ("cuda", "matmul"), ("mkldnn", "matmul")), "none")
        for setting, value in (inherited | stored).items():
            _write(setting, value)


def _own(above: Sequence[Setting], settings: Sequence[Setting]) -> dict[Setting, str]:
    """Those of `settings` that have a value of their own, with the value; it reads the same whatever those above have.

    The others inherit their value and must be left alone: torch takes no value that stands for cuDNN's default.
    """
    readings = []
    for value in ("ieee", "none"):
        for one in above:
            _write(one, value)
        readings.append([_read(setting) for setting in settings])
    return {s: a for s, a, b in zip(settings, *readings, strict=True) if a == b}


def _read(setting: Setting) -> str:
    return torch._C._get_fp32_precision_getter(*setting)


def _write(setting: Setting, value: str) -> None:
    torch._C._set_fp32_precision_setter(*setting, value)


@of_all_threads
@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Attention on the math backend, the only one with second derivatives, and float32 products in true float32.

    The caller's settings are restored when no thread is within such a block any longer.
    """
    with true_float32(), sdpa_kernel(SDPBackend.MATH):
        yield
