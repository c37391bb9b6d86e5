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
from bench.harness import OURS, Row, Timing
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
EVERYTHING = f"{OURS}_everything"
CHUNK, CHUNKS = 2048, 16
"""The baselines take so many rows at a time, and so many times: all others would take as long."""

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


def torch_chunks(units: Tensor) -> Tensor:
    """Counts over the first chunks of unit rows with all rows, as a careful user has them: every pair twice."""
    counts = torch.zeros(1024, device=units.device)
    for chunk in units.split(CHUNK)[:CHUNKS]:
        counts += (chunk @ units.T).float().histc(1024, -1, 1)
    return counts


def torch_chunks_everything(units: Tensor) -> Tensor:
    """All that ``pairs`` takes from a cosine."""
    sums = torch.zeros(7, dtype=torch.float64, device=units.device)
    counts = torch.zeros(1024, device=units.device)
    for chunk in units.split(CHUNK)[:CHUNKS]:
        cosines = (chunk @ units.T).float()
        counts += cosines.histc(1024, -1, 1)
        powers = [(cosines**p).sum(dtype=torch.float64) for p in range(1, 5)]
        exponential = (4 * (cosines - 1)).exp().sum(dtype=torch.float64)
        sums += torch.stack((*powers, exponential, cosines.min().double(), cosines.max().double()))
    return sums


def torch_chunks_topk(units: Tensor) -> Tensor:
    """The largest cosines of the first chunks of unit rows, themselves excluded."""
    found = []
    for first in range(0, min(len(units), CHUNK * CHUNKS), CHUNK):
        cosines = (units[first : first + CHUNK] @ units.T).float()
        cosines.diagonal(first).fill_(-torch.inf)
        found.append(cosines.topk(K, dim=1).values)
    return torch.cat(found)


def for_all_rows(timing: Timing, n: int) -> Timing:
    """What the first chunks took, for all of them."""
    times = max(1.0, n / (CHUNK * CHUNKS))
    return Timing(*(times * seconds for seconds in (timing.p20, timing.p50, timing.p80)))


def cublas_rate(dim: int) -> float:
    """Operations a second of a bfloat16 product of 16 384 rows with as many."""
    rows = torch.randn(16_384, dim, device="cuda").bfloat16()
    return 2 * len(rows) ** 2 * dim / timed({"mm": lambda: rows @ rows.T}, 10)["mm"].p50


def bench_pairs(n: int, dim: int, dtype: torch.dtype) -> list[Row]:
    """``fastaniso`` is the histogram alone. The limit is the time of cuBLAS in bfloat16 for half of the square."""
    size = (n, dim, dtype)
    rows = some_rows(*size)
    limit = n * n * dim / cublas_rate(dim)
    calls: dict[str, Callable[[], object]] = {OURS: lambda: pairs(rows, bins=1024), EVERYTHING: lambda: pairs(rows)}
    timings = timed(calls, 3 if n > 500_000 else 5)
    peaks = {name: peak_mib(call) for name, call in calls.items()}
    counts, histogram, powers, *_ = pairs(rows)
    assert histogram.sum() == counts[0] == n * (n - 1) // 2
    error = abs(float(powers[0] / counts[0]) / mean_cosine(exact(rows[0], unit=True, product=False), n, n) - 1)
    for block in rows[0].split(1 << 16):
        block.copy_(F.normalize(block.float(), dim=1))
    for baseline in (torch_chunks, torch_chunks_everything) if dtype == torch.bfloat16 else ():
        calls = {baseline.__name__: lambda baseline=baseline: baseline(rows[0])}
        timings |= {name: for_all_rows(timing, n) for name, timing in timed(calls, 3).items()}
        peaks |= {name: peak_mib(call) for name, call in calls.items()}
    return [
        row(
            "pairs",
            name,
            size,
            timing,
            tflop_per_s=n * (n - 1) * dim / timing.p50 / 1e12,
            share_of_limit=limit / timing.p50,
            ratio_to_ours=timing.p50 / timings[OURS].p50,
            peak_mib=peaks[name],
            error=error if name == EVERYTHING else None,
        )
        for name, timing in timings.items()
    ]


def bench_neighbors(n: int, dim: int, dtype: torch.dtype) -> list[Row]:
    """The limit is the time of cuBLAS in bfloat16 for the square; the error is the largest of some rows' cosines."""
    size = (n, dim, dtype)
    rows = some_rows(*size)
    limit = 2 * n * n * dim / cublas_rate(dim)
    units = F.normalize(rows[0].float(), dim=1).to(dtype)
    timings = timed({OURS: lambda: kernels.neighbors(rows, None, None, None, None, None, K, False, 0, 0)}, 5)
    baseline = timed({"torch_chunks_topk": lambda: torch_chunks_topk(units)}, 3)
    timings |= {name: for_all_rows(timing, n) for name, timing in baseline.items()}
    some = torch.arange(0, n, max(1, n // 200), device="cuda")
    exact_units = F.normalize(rows[0, some].double(), dim=1)
    cosines = torch.cat([exact_units @ F.normalize(block.double(), dim=1).T for block in rows[0].split(1 << 14)], dim=1)
    cosines[torch.arange(len(some), device="cuda"), some] = -torch.inf
    found = kernels.neighbors(rows, None, None, None, None, None, K, False, 0, 0)[1][some]
    error = float((found - cosines.topk(K, dim=1).values).abs().max())
    return [
        row(
            "neighbors",
            name,
            size,
            timing,
            tflop_per_s=2 * n * n * dim / timing.p50 / 1e12,
            share_of_limit=limit / timing.p50,
            ratio_to_ours=timing.p50 / timings[OURS].p50,
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
