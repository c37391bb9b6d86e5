"""How fast this machine multiplies pairs of rows: measured when it is asked for, on rows made up for it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from math import isqrt

import torch

from fastaniso.ops import dispatch as ops
from fastaniso.rows import Rows

_LONG_ENOUGH = 20e-3  # for threads to start, and for a busy machine to show how busy it is
_PRODUCTS = 10**9
_LEAST_ROWS, _MOST_ROWS = 256, {"cpu": 16_384, "triton": 65_536, "reference": 512}
_RUNS = 3


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
        """Expected, from a run on a few thousand rows: some 0.2 s, once a form of rows, device and thread count."""
        threads = torch.get_num_threads()
        return self.products / _products_a_second(self.op, self.dim, self.dtype, self.backend, self.device, threads)


@cache
def _products_a_second(
    op: str, dim: int, dtype: torch.dtype, backend: str, device: torch.device, threads: int
) -> float:
    most = _MOST_ROWS[backend]
    count = min(max(isqrt(2 * _PRODUCTS // dim), _LEAST_ROWS), most)
    _time(op, _rows(_LEAST_ROWS, dim, dtype, device), backend)  # which may compile
    seconds = _time(op, rows := _rows(count, dim, dtype, device), backend)
    while seconds < _LONG_ENOUGH and count < most:
        count = min(2 * count, most)
        seconds = _time(op, rows := _rows(count, dim, dtype, device), backend)
    seconds = min(seconds, *(_time(op, rows, backend) for _ in range(_RUNS - 1)))
    return count * (count - 1) / 2 * dim / seconds


def _rows(count: int, dim: int, dtype: torch.dtype, device: torch.device) -> Rows:
    generator = torch.Generator().manual_seed(0)
    return Rows(torch.randn(1, count, dim, generator=generator).to(device, dtype), None)


def _time(op: str, rows: Rows, backend: str) -> float:
    began = time.perf_counter()
    counts = (
        ops.pairs(rows, bins=2048, uniformity_t=(2.0,), backend=backend).counts
        if op == "pairs"
        else ops.neighbors(rows, k=10, backend=backend).counts
    )
    int(counts[0])  # wait for a GPU
    return time.perf_counter() - began
