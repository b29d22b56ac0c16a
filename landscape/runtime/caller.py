"""The caller's process: the global state that networks and computations may change, put back as it was."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from landscape.runtime.threads import of_all_threads


@of_all_threads
@contextmanager
def undisturbed() -> Iterator[None]:
    """The block leaves Python's, numpy's and torch's random states, torch's number of threads and its default dtype as
    they were, whatever the network's own code in it draws or sets.
    """
    python, numpy_ = random.getstate(), np.random.get_state()  # noqa: NPY002
    drawn = torch.default_generator.get_state()
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    here, threads, dtype = threading.get_ident(), torch.get_num_threads(), torch.get_default_dtype()
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_)  # noqa: NPY002
        torch.default_generator.set_state(drawn)
        for device, state in enumerate(on_gpus):
            torch.cuda.set_rng_state(state, device)
        if threading.get_ident() == here and torch.get_num_threads() != threads:  # each thread has its own number
            torch.set_num_threads(threads)
        if torch.get_default_dtype() is not dtype:
            torch.set_default_dtype(dtype)
        if torch.are_deterministic_algorithms_enabled() != strict:
            torch.use_deterministic_algorithms(strict, warn_only=warns)
