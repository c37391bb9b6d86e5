"""The ops on the CPU: allocate the results, hand addresses and strides to the C++ kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fastaniso import _cpu
from fastaniso.heads import key_span

_DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
GRAM_ROWS: int = _cpu.GRAM_ROWS


def moments(hidden: Tensor, mask: Tensor | None, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Counts (5,), totals (6,) and sums (4, d) of :class:`fastaniso.state.Moments`."""
    counts, totals, sums = _moments_results(hidden)
    _cpu.moments(
        _rows(hidden, mask), start, torch.get_num_threads(), counts.data_ptr(), totals.data_ptr(), sums.data_ptr()
    )
    return counts, totals, sums


def group_moments(
    hidden: Tensor, mask: Tensor | None, groups: Tensor, num_groups: int, start: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Counts (G,), unit sums (G, d), Σ‖u‖² (G,) and dropped (5,) of :class:`fastaniso.state.GroupMoments`."""
    counts = torch.empty(num_groups, dtype=torch.int64)
    unit_sum = torch.empty(num_groups, hidden.shape[2], dtype=torch.float64)
    unit_squared = torch.empty(num_groups, dtype=torch.float64)
    dropped = torch.empty(5, dtype=torch.int64)
    _cpu.group_moments(
        _rows(hidden, mask),
        groups.data_ptr(),
        num_groups,
        start,
        torch.get_num_threads(),
        counts.data_ptr(),
        unit_sum.data_ptr(),
        unit_squared.data_ptr(),
        dropped.data_ptr(),
    )
    return counts, unit_sum, unit_squared, dropped


def gram(
    hidden: Tensor, mask: Tensor | None, raw: bool, unit: bool, start: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The three tensors of ``moments`` and the central scatters (d, d) of x and of u ((0, 0) when not asked for)."""
    dim = hidden.shape[2]
    counts, totals, sums = _moments_results(hidden)
    scatter, unit_scatter = (
        torch.empty((dim, dim) if wanted else (0, 0), dtype=torch.float64) for wanted in (raw, unit)
    )
    _cpu.gram(
        _rows(hidden, mask),
        start,
        torch.get_num_threads(),
        counts.data_ptr(),
        totals.data_ptr(),
        sums.data_ptr(),
        scatter.data_ptr() if raw else 0,
        unit_scatter.data_ptr() if unit else 0,
    )
    return counts, totals, sums, scatter, unit_scatter


def pairs(
    hidden: Tensor,
    mask: Tensor | None,
    other: Tensor | None,
    other_mask: Tensor | None,
    bins: int,
    moments: bool,
    extrema: bool,
    uniformity_t: list[float],
    thresholds: list[float],
    start: int,
    other_start: int,
    precision: str = "exact",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The seven tensors of :class:`fastaniso.state.Pairs`, empty where not asked for; always exact."""
    counts = torch.empty(5, dtype=torch.int64)
    histogram = torch.empty(bins, dtype=torch.int64)
    powers = torch.empty(5 if moments else 0, dtype=torch.float64)
    exponentials = torch.empty(len(uniformity_t), dtype=torch.float64)
    above = torch.empty(len(thresholds), dtype=torch.int64)
    values = torch.empty(2 if extrema else 0, dtype=torch.float64)
    places = torch.empty(2 if extrema else 0, 2, dtype=torch.int64)
    _cpu.pairs(
        _rows(hidden, mask),
        None if other is None else _rows(other, other_mask),
        start,
        other_start,
        torch.get_num_threads(),
        uniformity_t,
        thresholds,
        counts.data_ptr(),
        bins,
        histogram.data_ptr(),
        powers.data_ptr() if moments else 0,
        exponentials.data_ptr(),
        above.data_ptr(),
        values.data_ptr() if extrema else 0,
        places.data_ptr(),
    )
    return counts, histogram, powers, exponentials, above, values, places


def neighbors(
    hidden: Tensor,
    mask: Tensor | None,
    other: Tensor | None,
    other_mask: Tensor | None,
    least: Tensor | None,
    other_least: Tensor | None,
    k: int,
    both: bool,
    start: int,
    other_start: int,
    precision: str = "exact",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The three tensors of :class:`fastaniso.state.Neighbors`, and the same the other way if ``both``; always exact."""
    dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    counts = torch.empty(5, dtype=torch.int64)
    lists = []
    for rows in (hidden, other if both else None):
        count = 0 if rows is None else rows.shape[0] * rows.shape[1]
        lists += [torch.empty(count, k, dtype=dtype), torch.empty(count, k, dtype=torch.int64)]
    _cpu.neighbors(
        _rows(hidden, mask),
        None if other is None else _rows(other, other_mask),
        *(0 if each is None else each.data_ptr() for each in (least, other_least)),
        k,
        start,
        other_start,
        torch.get_num_threads(),
        counts.data_ptr(),
        *(tensor.data_ptr() for tensor in lists),
    )
    cosines, indices, other_cosines, other_indices = lists
    return counts, cosines, indices, other_cosines, other_indices


def attention(
    queries: Tensor,
    keys: Tensor,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    scale: float,
    causal: bool,
    window: int | None,
    bins: int,
    low: float,
    high: float,
    positions: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The six tensors of :class:`fastaniso.state.Attention`."""
    heads = queries.shape[1]
    results = (
        torch.empty(heads, 8, dtype=torch.int64),
        torch.empty(heads, bins, dtype=torch.int64),
        torch.empty(heads, 4, dtype=torch.float64),
        torch.empty(heads, 5, dtype=torch.float64),
        torch.empty(heads, positions, dtype=torch.float64),
        torch.empty(heads, positions, dtype=torch.int64),
    )
    _cpu.attention(
        _vectors(queries, query_mask),
        _vectors(keys, key_mask),
        scale,
        *key_span(queries.shape[2], keys.shape[2], causal, window),
        bins,
        low,
        high,
        positions,
        torch.get_num_threads(),
        *(tensor.data_ptr() for tensor in results),
    )
    return results


def isa() -> str:
    """The instruction set in use: the best of this CPU, or the one that ``FASTANISO_ISA`` names."""
    name: str = _cpu.isa()
    return name


def available_isas() -> list[str]:
    """The instruction sets that this CPU can run, best first."""
    names: list[str] = _cpu.available_isas()
    return names


@contextmanager
def using_isa(name: str) -> Iterator[None]:
    """Run with another instruction set, for tests and benchmarks; ``ValueError`` if this CPU cannot."""
    before = _cpu.isa()
    _cpu.use_isa(name)
    try:
        yield
    finally:
        _cpu.use_isa(before)


def _rows(hidden: Tensor, mask: Tensor | None) -> _cpu.Rows:
    outer, inner, dim = hidden.shape
    outer_stride, inner_stride, _ = hidden.stride()
    return _cpu.Rows(
        hidden.data_ptr(),
        _DTYPE_CODES[hidden.dtype],
        outer,
        inner,
        dim,
        outer_stride,
        inner_stride,
        0 if mask is None else mask.data_ptr(),
    )


def _vectors(vectors: Tensor, mask: Tensor | None) -> _cpu.Vectors:
    return _cpu.Vectors(
        vectors.data_ptr(),
        _DTYPE_CODES[vectors.dtype],
        *vectors.shape,
        *vectors.stride()[:3],
        0 if mask is None else mask.data_ptr(),
    )


def _moments_results(hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty(5, dtype=torch.int64),
        torch.empty(6, dtype=torch.float64),
        torch.empty(4, hidden.shape[2], dtype=torch.float64),
    )
