"""How fast this machine multiplies pairs of rows: measured when it is asked for, on rows made up for it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from math import isqrt

import torch

from fastaniso.ops import dispatch as ops
from fastaniso.rows import Rows

_LONG_ENOUGH = 5e-3
_LEAST_RUNS, _TIME_FOR_RUNS = 4, 0.05  # on a busy machine few of them have its cores to themselves
_PRODUCTS = 2 * 10**8  # a millisecond or more on two cores: below, starting threads is most of it
_LEAST_ROWS, _MOST_ROWS = 256, {"cpu": 4096, "triton": 32_768, "reference": 512}


@dataclass(frozen=True)
class Calibration:
    """Products of an op ("pairs" or "neighbors") on rows of one form, for which ``seconds`` are to be expected."""

    op: str
    products: float
    dim: int
    dtype: torch.dtype
    backend: str
    device: torch.device

    def seconds(self) -> float:
        """Expected, from a run on a few thousand rows: some 100 ms, once a form of rows, device and thread count."""
        threads = torch.get_num_threads()
        return self.products / _products_a_second(self.op, self.dim, self.dtype, self.backend, self.device, threads)


@cache
def _products_a_second(
    op: str, dim: int, dtype: torch.dtype, backend: str, device: torch.device, threads: int
) -> float:
    count = min(max(isqrt(2 * _PRODUCTS // dim), _LEAST_ROWS), _MOST_ROWS[backend])
    seconds = _time(op, _rows(count, dim, dtype, device), backend)
    while seconds < _LONG_ENOUGH and count < _MOST_ROWS[backend]:
        count = min(2 * count, _MOST_ROWS[backend])
        seconds = _time(op, _rows(count, dim, dtype, device), backend)
    return count * (count - 1) / 2 * dim / seconds


def _rows(count: int, dim: int, dtype: torch.dtype, device: torch.device) -> Rows:
    generator = torch.Generator().manual_seed(0)
    return Rows(torch.randn(1, count, dim, generator=generator).to(device, dtype), None)


def _time(op: str, rows: Rows, backend: str) -> float:
    """Seconds of the quickest run of four, the first of which may compile, or of as many as there is time for."""
    best, runs, began_all = float("inf"), 0, time.perf_counter()
    while runs < _LEAST_RUNS or time.perf_counter() - began_all < _TIME_FOR_RUNS:
        runs += 1
        began = time.perf_counter()
        counts = (
            ops.pairs(rows, bins=2048, uniformity_t=(2.0,), backend=backend).counts
            if op == "pairs"
            else ops.neighbors(rows, k=10, backend=backend).counts
        )
        int(counts[0])  # wait for a GPU
        best = min(best, time.perf_counter() - began)
    return best
