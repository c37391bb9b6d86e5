"""Plans: what a call takes, said before it runs, holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import fastaniso
from fastaniso.planning.plan import parse_bytes


def test_plan() -> None:
    linear = fastaniso.plan(10**6, 768)
    assert linear.backend == "cpu"
    assert linear.bytes_read == 10**6 * 768 * 4
    assert linear.peak_bytes < 2 * 2**20
    gram = fastaniso.plan(10**6, 768, gram=True, dtype=torch.bfloat16)
    assert gram.bytes_read == 10**6 * 768 * 2
    assert 2 * 8 * 768**2 <= gram.state_bytes < 2 * 8 * 768**2 + 10**5
    assert gram.operations > 10**6 * 768**2 * 2
    assert fastaniso.plan(10, 768, gram="unit").state_bytes < gram.state_bytes
    assert fastaniso.plan(10, 4, groups=100).state_bytes > fastaniso.plan(10, 4).state_bytes
    # What runs does not grow with n: only the reference materialises.
    assert fastaniso.plan(10, 768, gram=True).peak_bytes == gram.peak_bytes
    assert fastaniso.plan(10**6, 768, backend="reference").peak_bytes > 10**6 * 768 * 8


def test_plans_of_all_pairs() -> None:
    pairs = fastaniso.plan(10**6, 768, pairs=True)
    assert pairs.operations == 2 * 768 * (10**6 * (10**6 - 1) // 2)
    assert pairs.exact
    between = fastaniso.plan(1000, 768, pairs=True, other=500)
    assert between.operations == 2 * 768 * 500_000
    assert between.bytes_read == 1500 * 768 * 4
    assert fastaniso.plan(1000, 768, pairs=True, bins=8192).state_bytes > between.state_bytes
    for n in (10**4, 10**6, 10**8):
        for dim in (8, 768, 4096):
            for dtype in (torch.float32, torch.float64, torch.float16):
                bound = 24 * 10**6 + torch.get_num_threads() * 10**6
                assert fastaniso.plan(n, dim, pairs=True, dtype=dtype).peak_bytes <= bound
                neighbors = fastaniso.plan(n, dim, neighbors=10, dtype=dtype)
                result = n * 10 * (16 if dtype == torch.float64 else 12)
                assert neighbors.state_bytes == result
                assert neighbors.peak_bytes <= bound + result
    assert fastaniso.plan(10**4, 768, pairs=True, backend="reference").peak_bytes > 10**4 * 768 * 8


def test_plans_of_samples() -> None:
    everything = fastaniso.plan(10**5, 768, pairs=True)
    few = fastaniso.plan(10**5, 768, pairs=True, sample=10**6)
    assert few.exact is False
    assert few.operations < everything.operations / 100
    most = fastaniso.plan(10**5, 768, pairs=True, sample=0.01)
    assert most.exact is None
    assert most.operations == everything.operations
    assert fastaniso.plan(100, 768, pairs=True, sample=10**6).exact
    with pytest.raises(ValueError, match="sample: expected a number of pairs"):
        fastaniso.plan(100, 768, pairs=True, sample=-1)


def test_expected_times_are_measured() -> None:
    pytest.importorskip("fastaniso._cpu")
    for options in ({"pairs": True}, {"neighbors": 5}):
        small, large = (fastaniso.plan(n, 64, **options).seconds() for n in (10**4, 10**6))
        assert 1e-3 < small < 60
        assert large == pytest.approx(small * 10**4, rel=1e-3)
    assert fastaniso.plan(10**6, 64, pairs=True, sample=10**6).seconds() < large / 100
    with pytest.raises(ValueError, match="seconds: only calls with pairs=True or neighbors=k are timed"):
        fastaniso.plan(10, 4).seconds()


def test_one_call_is_planned_at_a_time() -> None:
    for options in ({"gram": True}, {"groups": 3}, {"neighbors": 3}):
        with pytest.raises(ValueError, match="plan: one call at a time"):
            fastaniso.plan(10, 4, pairs=True, **options)


@pytest.mark.parametrize(
    ("text", "count"),
    [("2 GB", 2 * 10**9), ("1.5kB", 1500), ("3MiB", 3 * 2**20), ("7", 7), (12, 12), ("0.5 g", 5 * 10**8)],
)
def test_memory_limits_are_read(text: int | str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1", "2 XB", -1, 1.5, True, "i"])
def test_memory_limits_that_are_none(text: Any) -> None:
    with pytest.raises(ValueError, match="memory_limit: expected bytes or a string"):
        parse_bytes(text)


MEASURE = """
import re
import torch, fastaniso
from fastaniso import Accumulator, plan

def memory(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

def peak(call):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the high-water mark starts again here
    before = memory("VmRSS")
    call()
    return memory("VmHWM") - before

def accumulate(x):
    accumulator = Accumulator(gram=True)
    for part in x.tensor_split(3):
        accumulator.update(part)
    accumulator.result()

n, d = 3000, 512
for dtype in (torch.float32, torch.float64):
    x = torch.randn(n, d).to(dtype)
    small = x[:50, :8].contiguous()
    for call, planned in (
        (fastaniso.mean_cosine, plan(n, d, dtype=dtype)),
        (fastaniso.cosine_std, plan(n, d, gram="unit", dtype=dtype)),
        (fastaniso.describe, plan(n, d, gram=True, dtype=dtype)),
        (accumulate, plan(n // 3, d, gram=True, dtype=dtype, accumulate=True)),
    ):
        call(small)
        print(peak(lambda: call(x)), planned.peak_bytes)

n, d = 12000, 96
for dtype in (torch.float32, torch.float64):
    x = torch.randn(n, d).to(dtype)
    small = x[:400]
    fastaniso.pairs(x[:9000], sample=10**5)  # what is loaded for the first sample
    for call, planned in (
        (fastaniso.pairs, plan(n, d, pairs=True, dtype=dtype)),
        (lambda x: fastaniso.pairs(x, x[::2]), plan(n, d, pairs=True, other=n // 2, dtype=dtype)),
        (lambda x: fastaniso.pairs(x, sample=10**6), plan(n, d, pairs=True, sample=10**6, dtype=dtype)),
        (lambda x: fastaniso.nearest_neighbors(x, 20), plan(n, d, neighbors=20, dtype=dtype)),
    ):
        call(small)
        print(peak(lambda: call(x)), planned.peak_bytes)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's high-water mark")
def test_plans_bound_the_memory_used() -> None:
    pytest.importorskip("fastaniso._cpu")
    # Freed blocks go back to the system at once, so that the mark shows what is held.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "2"}
    root = Path(__file__).parent.parent
    lines = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, env=environment, cwd=root
    ).stdout.splitlines()
    for line in lines:
        used, planned = map(int, line.split())
        assert used <= planned + 2**19, line  # half a MiB: pages of code touched for the first time
        assert planned <= 2 * used + 3 * 2**20, line
