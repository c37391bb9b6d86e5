"""``moments`` and ``gram`` on a GPU: against its read bandwidth and against cuBLAS."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from bench.gpu_tools import exact, mean_cosine, peak_mib, row, some_rows, timed
from bench.harness import OURS, Row
from fastaniso.ops import triton as kernels

MOMENTS_SIZES = (
    (1_000_000, 768, torch.bfloat16),
    (1_000_000, 768, torch.float16),
    (1_000_000, 768, torch.float32),
    (400_000, 4096, torch.bfloat16),
    (65_536, 768, torch.bfloat16),
)
GRAM_SIZES = (
    (1_000_000, 768, torch.bfloat16),
    (262_144, 4096, torch.bfloat16),
    (1_000_000, 768, torch.float16),
    (1_000_000, 768, torch.float32),
)


@triton.jit
def read_kernel(values, found, words, BLOCK: tl.constexpr, STEPS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Read STEPS blocks of int32 and keep their largest: the read bandwidth, with next to nothing computed."""
    largest = tl.full((BLOCK,), -(2**31), tl.int32)
    for step in tl.static_range(STEPS):
        place = (tl.program_id(0).to(tl.int64) * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.load(values + place, mask=place < words, other=0))
    tl.store(found + tl.program_id(0), tl.max(largest, axis=0))


def read_all(rows: Tensor) -> None:
    words = rows.view(-1).view(torch.int32)
    block, steps = 4096, 8
    programs = triton.cdiv(words.numel(), block * steps)
    found = torch.empty(programs, dtype=torch.int32, device=rows.device)
    read_kernel[(programs,)](words, found, words.numel(), BLOCK=block, STEPS=steps, num_warps=8)


def bench_moments(n: int, dim: int, dtype: torch.dtype) -> list[Row]:
    """Against the read bandwidth, and what a user would write."""
    size = (n, dim, dtype)
    rows = some_rows(*size)
    flat = rows[0]
    calls: dict[str, Callable[[], object]] = {
        OURS: lambda: kernels.moments(rows, None, 0),
        "normalize_float_sum": lambda: F.normalize(flat.float()).sum(0),
        "read: triton": lambda: read_all(rows),
        "read: sum of int64": lambda: flat.view(-1).view(torch.int64).sum(),
    }
    timings = timed(calls)
    limit = min(t.p50 for name, t in timings.items() if name.startswith("read"))
    want = mean_cosine(exact(flat, unit=True, product=False), n, n)
    _, totals, sums = kernels.moments(rows, None, 0)
    got = {
        OURS: mean_cosine(sums[2], totals[4], n),
        "normalize_float_sum": mean_cosine(F.normalize(flat.float()).sum(0), n, n),
    }
    return [
        row(
            "moments" if name in got else "read",
            name,
            size,
            timing,
            share_of_limit=limit / timing.p50,
            ratio_to_ours=timing.p50 / timings[OURS].p50,
            peak_mib=peak_mib(calls[name]) if name in got else None,
            error=abs(got[name] / want - 1) if name in got else None,
        )
        for name, timing in timings.items()
    ]


def bench_gram(n: int, dim: int, dtype: torch.dtype) -> list[Row]:
    """Against cuBLAS in bfloat16, counted on the triangle: half of its time for the square is the limit.

    ``fastaniso`` is the scatter of x, one product; that of u takes two, so half of the limit is the most it can reach.
    """
    size = (n, dim, dtype)
    rows = some_rows(*size)
    half = rows[0].bfloat16()
    variants = {OURS: (True, False), f"{OURS}, unit": (False, True), f"{OURS}, both": (True, True)}
    calls: dict[str, Callable[[], object]] = {
        name: (lambda raw=raw, unit=unit: kernels.gram(rows, None, raw, unit, 0))
        for name, (raw, unit) in variants.items()
    }
    calls["mm in bfloat16"] = lambda: half.T @ half
    timings = timed(calls)
    limit = timings["mm in bfloat16"].p50 / 2
    out = []
    for name, timing in timings.items():
        error = None
        if name in variants and variants[name] != (True, True):
            raw, unit = variants[name]
            got = kernels.gram(rows, None, raw, unit, 0)[3 + unit]
            want = exact(rows[0], unit=unit, product=True)
            error = float((got - want).norm() / want.norm())
        operations = n * dim * (dim + 1) * (1 if name in variants else 2)
        out.append(
            row(
                "gram",
                name,
                size,
                timing,
                tflop_per_s=operations / timing.p50 / 1e12,
                share_of_limit=limit / timing.p50 if name in variants else None,
                ratio_to_ours=timing.p50 / timings[OURS].p50,
                peak_mib=peak_mib(calls[name]),
                error=error,
            )
        )
    return out
