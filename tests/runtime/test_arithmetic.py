"""True float32 whatever precision the caller has set, and the caller's settings as they were after it."""

import itertools
import json
import subprocess
import sys
import threading

import pytest
import torch

from landscape.runtime.arithmetic import OPERATIONS, true_float32

SETTINGS = [
    "",
    "torch.set_float32_matmul_precision('high')",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.cudnn.allow_tf32 = False",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.fp32_precision = 'ieee'",
    "torch.backends.fp32_precision = 'bf16'",
    "torch.backends.cudnn.fp32_precision = 'tf32'",
    "torch.backends.cudnn.fp32_precision = 'ieee'",
    "torch.backends.mkldnn.set_flags(_fp32_precision='bf16')",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
    "torch.backends.cudnn.conv.fp32_precision = 'none'",
    "torch.backends.cudnn.rnn.fp32_precision = 'tf32'",
    "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
    "torch.backends.mkldnn.conv.fp32_precision = 'bf16'",
    "torch.backends.mkldnn.rnn.fp32_precision = 'ieee'",
]
OLDER, NEWER = SETTINGS[1:4], [SETTINGS[i] for i in (6, 11, 12, 15)]

READ = """
import itertools, json, sys, warnings
import torch
from landscape.runtime.arithmetic import true_float32
warnings.simplefilter("ignore")

def attempt(read):
    try:
        return read()
    except RuntimeError:
        return "disagree"

def readings():
    get = torch._C._get_fp32_precision_getter
    newer = [get("generic", "all")]
    newer += [get(b, op) for b in ("cuda", "mkldnn") for op in ("all", "matmul", "conv", "rnn")]
    older = [torch.get_float32_matmul_precision, lambda: torch.backends.cuda.matmul.allow_tf32,
             lambda: torch.backends.cudnn.allow_tf32]
    return newer + [attempt(read) for read in older]

def history():
    '''What is read now, and after each of some further changes, which show what was inherited and what was set.'''
    out = [readings()]
    for value in ("tf32", "ieee", "none"):
        torch.backends.fp32_precision = value
        out.append(readings())
        for backend in ("cuda", "mkldnn"):
            torch._C._set_fp32_precision_setter(backend, "all", value)
        out.append(readings())
    return out

def block():
    try:
        with true_float32():
            with true_float32():
                pass
            inside = readings()
            raise KeyError
    except KeyError:
        return inside
"""


def states(cases):
    """For each setting, in a process forked for it: the readings within the block, the history after it and without."""
    code = (
        READ
        + """
import os
for case in json.load(sys.stdin):
    lines = []
    for entered in (True, False):
        r, w = os.pipe()
        if os.fork() == 0:
            exec(case)
            inside = block() if entered else None
            os.write(w, json.dumps([inside, history()]).encode())
            os._exit(0)
        os.close(w)
        lines.append(json.loads(os.fdopen(r).read() or "null"))
    print(json.dumps(lines))
"""
    )
    result = subprocess.run([sys.executable, "-c", code], input=json.dumps(cases), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()], result.stderr


def test_whatever_the_caller_has_set():
    cases = [*SETTINGS, *map("; ".join, itertools.product(OLDER, NEWER))]
    found, errors = states(cases)
    assert len(found) == len(cases)
    for case, (entered, left_alone) in zip(cases, found, strict=True):
        assert entered is not None, (case, errors[-2000:])
        inside, after = entered
        assert inside[2:5] == inside[6:9] == ["ieee"] * 3, case
        assert inside[9:11] == ["highest", False], case
        assert after == left_alone[1], case


def test_overlapping_blocks_of_two_threads():
    """The one that entered first leaves first: the other is still in true float32, and all is restored after it."""
    torch.set_float32_matmul_precision("high")
    entered, leave = threading.Event(), threading.Event()

    def first():
        with true_float32():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    try:
        thread.start()
        assert entered.wait(10)
        with true_float32():
            leave.set()
            thread.join()
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        leave.set()
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_by_itself(operation):
    before = torch._C._get_fp32_precision_getter(*operation)
    with true_float32():
        assert torch._C._get_fp32_precision_getter(*operation) == "ieee"
    assert torch._C._get_fp32_precision_getter(*operation) == before
