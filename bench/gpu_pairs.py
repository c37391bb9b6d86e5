"""``pairs`` and ``neighbors`` on a GPU: against cuBLAS counted on the triangle, and what a careful user writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.gpu_tools import Size, exact, mean_cosine, peak_mib, row, some_rows, timed
from bench.harness import OURS, Row
from fastaniso.ops import triton as kernels
from fastaniso.ops.triton import shapes

SIZES = (
    (1_000_000, 768, torch.bfloat16),
    (262_144, 4096, torch.bfloat16),
    (65_536, 768, torch.bfloat16),
    (131_072, 384, torch.bfloat16),
    (131_072, 768, torch.float16),
    (131_072, 768, torch.float32),
)
NEIGHBOR_SIZES = ((262_144, 768, torch.bfloat16), (65_536, 768, torch.bfloat16))
BASELINE_ROWS = 65_536
"""The baselines take their time and memory: they run at this number of rows, beside ours."""

CHUNK = 4096
K = 10
EXPLORED: Size = (40_960, 768, torch.bfloat16)
"""One panel, so that every variant is compiled for its triangle only."""


def pairs(rows: Tensor, **asked: Any) -> tuple[Tensor, ...]:
    """Everything, or only what is asked for."""
    nothing = {"bins": 0, "moments": False, "extrema": False, "uniformity_t": [], "thresholds": []}
    everything = {"bins": 1024, "moments": True, "extrema": True, "uniformity_t": [2.0], "thresholds": []}
    return kernels.pairs(
        rows, None, None, None, **({**nothing, **asked} if asked else everything), start=0, other_start=0
    )


def chunks_and_histc(rows: Tensor, *, everything: bool) -> Tensor:
    """A chunk of rows with all rows at a time, the products in the rows' dtype; every pair twice."""
    units = F.normalize(rows[0].float(), dim=1).to(rows.dtype)
    counts = torch.zeros(1024, device=rows.device)
    sums = torch.zeros(7, dtype=torch.float64, device=rows.device)
    for chunk in units.split(CHUNK):
        cosines = (chunk @ units.T).float()
        counts += cosines.histc(1024, -1, 1)
        if everything:
            powers = torch.stack([(cosines**p).sum(dtype=torch.float64) for p in range(1, 5)])
            exponential = (4 * (cosines - 1)).exp().sum(dtype=torch.float64)
            sums += torch.cat((powers, torch.stack((exponential, cosines.min().double(), cosines.max().double()))))
    return counts


def chunks_and_topk(rows: Tensor) -> Tensor:
    units = F.normalize(rows[0].float(), dim=1).to(rows.dtype)
    found = []
    for first in range(0, len(units), CHUNK):
        cosines = (units[first : first + CHUNK] @ units.T).float()
        cosines.diagonal(first).fill_(-torch.inf)
        found.append(cosines.topk(K, dim=1).values)
    return torch.cat(found)


def cublas_rate(dim: int) -> float:
    """Operations a second of a bfloat16 product of 16 384 rows with as many."""
    rows = torch.randn(16_384, dim, device="cuda").bfloat16()
    return 2 * len(rows) ** 2 * dim / timed({"mm": lambda: rows @ rows.T}, 10)["mm"].p50


def bench_pairs(n: int, dim: int, dtype: torch.dtype) -> list[Row]:
    """The limit is the time of cuBLAS in bfloat16 for half of the square."""
    size = (n, dim, dtype)
    rows = some_rows(*size)
    limit = n * n * dim / cublas_rate(dim)
    calls: dict[str, Callable[[], object]] = {
        OURS: lambda: pairs(rows),
        f"{OURS}, histogram": lambda: pairs(rows, bins=1024),
    }
    if n == BASELINE_ROWS:
        calls["torch chunks + histc"] = lambda: chunks_and_histc(rows, everything=False)
        calls["torch chunks, everything"] = lambda: chunks_and_histc(rows, everything=True)
    timings = timed(calls, 3 if n > 500_000 else 5)
    counts, histogram, powers, *_ = pairs(rows)
    assert histogram.sum() == counts[0] == n * (n - 1) // 2
    error = abs(float(powers[0] / counts[0]) / mean_cosine(exact(rows[0], unit=True, product=False), n, n) - 1)
    return [
        row(
            "pairs",
            name,
            size,
            timing,
            tflop_per_s=n * (n - 1) * dim / timing.p50 / 1e12,
            share_of_limit=limit / timing.p50,
            ratio_to_ours=timing.p50 / timings[OURS].p50,
            peak_mib=peak_mib(calls[name]),
            error=error if name == OURS else None,
        )
        for name, timing in timings.items()
    ]


def bench_neighbors(n: int, dim: int, dtype: torch.dtype) -> list[Row]:
    """The limit is the time of cuBLAS in bfloat16 for the square."""
    size = (n, dim, dtype)
    rows = some_rows(*size)
    limit = 2 * n * n * dim / cublas_rate(dim)
    calls: dict[str, Callable[[], Any]] = {
        OURS: lambda: kernels.neighbors(rows, None, None, None, K, False, 0, 0),
    }
    if n == BASELINE_ROWS:
        calls["torch chunks + topk"] = lambda: chunks_and_topk(rows)
    timings = timed(calls, 5)
    some = torch.arange(0, n, n // 200, device="cuda")
    units = F.normalize(rows[0].double(), dim=1) if n == BASELINE_ROWS else None
    error = None
    if units is not None:
        cosines = units[some] @ units.T
        cosines[torch.arange(len(some)), some] = -torch.inf
        error = float((calls[OURS]()[1][some] - cosines.topk(K, dim=1).values).abs().max())
    return [
        row(
            "neighbors",
            name,
            size,
            timing,
            tflop_per_s=2 * n * n * dim / timing.p50 / 1e12,
            share_of_limit=limit / timing.p50,
            ratio_to_ours=timing.p50 / timings[OURS].p50,
            peak_mib=peak_mib(calls[name]),
            error=error if name == OURS else None,
        )
        for name, timing in timings.items()
    ]


def explore() -> None:
    """What each part of ``pairs`` costs, and what other choices of its shape would give."""
    n, dim, _ = EXPLORED
    rows = some_rows(*EXPLORED)
    operations = n * n * dim

    def tell(what: str, call: Callable[[], object]) -> None:
        seconds = timed({what: call}, 5)[what].p50
        print(f"  {what:40} {seconds * 1e3:8.2f} ms  {operations / seconds / 1e12:5.0f} TFLOP/s", flush=True)

    print(f"  cuBLAS {'':33} {'':11}  {cublas_rate(dim) / 1e12:5.0f} TFLOP/s")
    tell("everything", lambda: pairs(rows))
    for name, asked in (
        ("a threshold alone", {"thresholds": [0.5]}),
        ("an exponential alone", {"uniformity_t": [2.0]}),
        ("extrema alone", {"extrema": True}),
        ("moments alone", {"moments": True}),
        ("histogram alone, 1024 bins", {"bins": 1024}),
        ("histogram alone, 8192 bins", {"bins": 8192}),
    ):
        tell(name, lambda asked=asked: pairs(rows, **asked))
    ones = torch.ones_like(rows)
    tell("histogram, every cosine in one bin", lambda: pairs(ones, bins=1024))
    tell("everything, every cosine in one bin", lambda: pairs(ones))
    for side in (1, 4, 32):
        with patch.object(shapes, "SUPERTILE_SIDE", side):
            tell(f"everything, supertiles of {side}", lambda: pairs(rows))
    for programs in (132, 264, 527, 2111):
        with patch.object(shapes, "PAIR_PROGRAMS", programs):
            tell(f"everything, {programs} programs", lambda: pairs(rows))
    tile = shapes.PairTile.of
    for name, change in (
        ("through pointers", {"described": False}),
        ("with as many registers as it likes", {"registers": None}),
        ("in two stages", {"stages": 2}),
    ):
        with patch.object(shapes.PairTile, "of", lambda *a, change=change, **b: replace(tile(*a, **b), **change)):
            tell(f"everything, {name}", lambda: pairs(rows))
