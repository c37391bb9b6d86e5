"""Column sums in float64 for the rows that float32 cannot sum: float64 input, very long rows, extreme norms.

With u = x/‖x‖, a slice of programs adds Σx, Σx², Σu, Σu² over the rows of its flagged ranges, in order.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fastaniso.ops.triton.norms import TILE_COLUMNS, TILE_ROWS, read_float64
from fastaniso.ops.triton.rows import Block, row_offsets
from fastaniso.ops.triton.shapes import ceiling
from fastaniso.state import NO_ROW


@triton.jit
def columns_kernel(
    values,
    norms,  # (count,) float64, as norms.py leaves them
    flags,  # (ranges,) int32, or None when every range is meant
    partials,  # (slices, 4, D) float64
    totals,  # (slices, 4) float64: Σ‖x‖, min ‖x‖, max ‖x‖, Σ‖u‖⁴
    counts,  # (slices, 5) int64, as in state.Moments
    count,
    first_index,
    inner,
    stride_outer,
    stride_inner,
    ranges,
    rows_per_range,
    ONE_AXIS: tl.constexpr,
    ALIGN: tl.constexpr,
    D,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    NONE: tl.constexpr,
):
    """Σx, Σx², Σu, Σu² of a column block over a slice of the ranges; slice totals beside column block 0."""
    member = tl.program_id(0)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    x_sum = tl.zeros((ROWS, COLUMNS), tl.float64)
    xx_sum = tl.zeros((ROWS, COLUMNS), tl.float64)
    u_sum = tl.zeros((ROWS, COLUMNS), tl.float64)
    uu_sum = tl.zeros((ROWS, COLUMNS), tl.float64)
    norm_sum = tl.zeros((ROWS,), tl.float64)
    smallest = tl.full((ROWS,), float("inf"), tl.float64)
    largest = tl.full((ROWS,), -float("inf"), tl.float64)
    kept = tl.zeros((ROWS,), tl.int64)
    masked = tl.zeros((ROWS,), tl.int64)
    zero = tl.zeros((ROWS,), tl.int64)
    infinite = tl.zeros((ROWS,), tl.int64)
    invalid = tl.full((ROWS,), NONE, tl.int64)
    per_member = tl.cdiv(ranges, tl.num_programs(0))
    for part in tl.range(member * per_member, tl.minimum((member + 1) * per_member, ranges)):
        start = part * rows_per_range
        stop = tl.minimum(start + rows_per_range, count)
        if flags is not None:
            stop = tl.where(tl.load(flags + part) != 0, stop, start)
        for first in tl.range(start, stop, ROWS):
            rows = first + tl.arange(0, ROWS)
            exists = rows < count
            norm = tl.load(norms + rows, mask=exists, other=-1.0)
            usable = (norm > 0) & (norm < float("inf"))
            offsets = row_offsets(rows, inner, stride_outer, stride_inner, ONE_AXIS, ALIGN)
            x = read_float64(values, offsets, usable, columns, D)
            # Divided, not multiplied by 1/‖x‖, which overflows for a subnormal norm.
            u = x / tl.where(usable, norm, 1.0)[:, None]
            x_sum += x
            xx_sum += x * x
            u_sum += u
            uu_sum += u * u
            norm_sum += tl.where(usable, norm, 0.0)
            smallest = tl.where(usable, tl.minimum(smallest, norm), smallest)
            largest = tl.where(usable, tl.maximum(largest, norm), largest)
            kept += usable.to(tl.int64)
            masked += (exists & (norm < 0)).to(tl.int64)
            zero += (norm == 0).to(tl.int64)
            infinite += (norm == float("inf")).to(tl.int64)
            bad = (norm == 0) | (norm == float("inf"))
            invalid = tl.where(bad, tl.minimum(invalid, first_index + rows.to(tl.int64)), invalid)
    target = partials + member.to(tl.int64) * (4 * D) + columns
    inside = columns < D
    tl.store(target, tl.sum(x_sum, axis=0), mask=inside)
    tl.store(target + D, tl.sum(xx_sum, axis=0), mask=inside)
    tl.store(target + 2 * D, tl.sum(u_sum, axis=0), mask=inside)
    tl.store(target + 3 * D, tl.sum(uu_sum, axis=0), mask=inside)
    if tl.program_id(1) == 0:
        number = tl.sum(kept)
        tl.store(totals + member * 4, tl.sum(norm_sum))
        tl.store(totals + member * 4 + 1, tl.min(smallest, axis=0))
        tl.store(totals + member * 4 + 2, tl.max(largest, axis=0))
        tl.store(totals + member * 4 + 3, number.to(tl.float64))  # ‖u‖⁴ is 1 to the last bits of float64
        tl.store(counts + member * 5, number)
        tl.store(counts + member * 5 + 1, tl.sum(masked))
        tl.store(counts + member * 5 + 2, tl.sum(zero))
        tl.store(counts + member * 5 + 3, tl.sum(infinite))
        tl.store(counts + member * 5 + 4, tl.min(invalid, axis=0))


def column_sums(
    block: Block,
    norms: Tensor,
    flags: Tensor | None,
    partials: Tensor,
    totals: Tensor,
    counts: Tensor,
    rows_per_range: int,
    first_index: int,
) -> None:
    """Fill the ``partials`` (slices, 4, d), ``totals`` (slices, 4) and ``counts`` (slices, 5) of the flagged ranges."""
    dim = block.values.shape[2]
    columns_kernel[(partials.shape[0], ceiling(dim, TILE_COLUMNS))](
        block.values,
        norms,
        flags,
        partials,
        totals,
        counts,
        block.rows,
        first_index,
        ranges=ceiling(block.rows, rows_per_range),
        rows_per_range=rows_per_range,
        **block.layout,
        D=dim,
        ROWS=TILE_ROWS,
        COLUMNS=TILE_COLUMNS,
        NONE=NO_ROW,
    )
