"""What visiting all pairs takes, or a sample of them, or the search for neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastaniso.pairing.tiles import rows_in_block
from fastaniso.sampling.design import design

_PANEL = 48  # rows packed side by side at most, as in csrc/isa/product.inl
_SHARED, _OWN = (12 * 2**20, 4080), (720 * 2**10, 960)  # bytes and rows at most, as in csrc/pair_blocks.cpp
_HUGE_PAGE = 2 * 2**20
_GPU_BYTES = 200 * 10**6
_HEAP = 3 * 2**19


@dataclass(frozen=True)
class PairWork:
    """``products`` of two numbers, working memory, and whether the values are exact (None: a pilot will tell)."""

    products: int
    state_bytes: int
    working_bytes: int
    exact: bool | None


def pair_work(
    n: int,
    others: int | None,
    dim: int,
    *,
    bins: int,
    sample: float | None,
    dtype: torch.dtype,
    backend: str,
    kernel_bytes: int,
) -> PairWork:
    """Of ``pairs``; ``kernel_bytes`` are those of the linear pass before it."""
    state = 8 * (bins + 32)
    everything = (n * (n - 1) // 2 if others is None else n * others) * dim
    working = max(kernel_bytes, _tile_bytes(n, others, dim, dtype, backend) + 2 * state)
    drawn = None if sample is None else design(n, others, dim, sample, backend)
    if drawn is None:
        return PairWork(everything, state, working, True)
    # The order of the rows, and of those kept; two blocks gathered; the results of 64 tiles, and their copies; and what
    # the heap holds on to between the small tensors of so many tiles.
    rows = max(blocks.count // blocks.blocks + 1 for blocks in (drawn.grid.rows, drawn.grid.others or drawn.grid.rows))
    order = 24 * (n + (others or 0))
    gathered = 2 * rows * dim * dtype.itemsize + _tile_bytes(rows, rows, dim, dtype, backend)
    strata = 8 * bins * (3 * len(drawn.grid.strata) + 64 * 4)
    working = max(working, order + gathered + strata + _HEAP)
    if drawn.relative_error is not None:
        return PairWork(everything, state, working, None)
    calls = sum(drawn.allocation(drawn.tiles)) * drawn.products_a_call
    return PairWork(drawn.sampled_pairs(drawn.tiles) * dim + calls, state, working, False)


def neighbor_work(
    n: int, others: int | None, dim: int, k: int, *, dtype: torch.dtype, backend: str, kernel_bytes: int
) -> PairWork:
    """Of ``nearest_neighbors``: a product of a pair of one set serves both rows."""
    products = (n * (n - 1) // 2 if others is None else n * others) * dim
    entry = k * (16 if dtype == torch.float64 else 12)
    tiles = 0 if backend == "cpu" else neighbor_tile_bytes(n, others, dim, k, dtype=dtype, backend=backend)
    working = max(kernel_bytes, _tile_bytes(n, others, dim, dtype, backend) + tiles)
    return PairWork(products, n * entry, working, True)


def neighbor_tile_bytes(n: int, others: int | None, dim: int, k: int, *, dtype: torch.dtype, backend: str) -> int:
    """Of a search tile by tile: a tile's lists, and what merges them a few rows at a time; one tile is the result."""
    block = rows_in_block(dim, dtype, backend, neighbors=True)
    if n <= block and (others or 0) <= block:
        return 0
    return 2 * min(n, block) * k * (16 if dtype == torch.float64 else 12) + 2**23


def _tile_bytes(n: int, others: int | None, dim: int, dtype: torch.dtype, backend: str) -> int:
    """Working memory of the op on a tile."""
    if backend == "triton":
        return _GPU_BYTES
    block = rows_in_block(dim, dtype, backend)
    if backend == "reference":
        side = min(n, block)
        return 8 * (12 * side * min(others or n, block) + 8 * side * dim)
    row = dim * (8 if dtype == torch.float64 else 4)

    def packed(limits: tuple[int, int], rows: int, times: int = 1) -> int:
        most, most_rows = limits
        held = times * max(min(most, (min(rows, most_rows) + _PANEL) * row), _PANEL * row)
        return held if held < _HUGE_PAGE else held + _HUGE_PAGE

    threads = torch.get_num_threads()
    own = packed(_OWN, min(n, block) // 16, threads)
    return packed(_SHARED, min(others or n, block)) + own + threads * 2**18 + 2**18
