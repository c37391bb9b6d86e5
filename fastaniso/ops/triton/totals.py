"""The second pass: partial results of programs, added in a fixed order in float64."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fastaniso.ops.triton.shapes import ceiling


@triton.jit
def _column(partials, count, columns, width, ROWS: tl.constexpr):
    total = tl.zeros((ROWS, columns.shape[0]), tl.float64)
    inside = columns < width
    for first in tl.range(0, count, ROWS):
        rows = first + tl.arange(0, ROWS)
        offsets = rows.to(tl.int64)[:, None] * width + columns[None, :]
        mask = (rows < count)[:, None] & inside[None, :]
        total += tl.load(partials + offsets, mask=mask, other=0.0).to(tl.float64)
    return tl.sum(total, axis=0)


@triton.jit
def add_partials_kernel(
    fast,  # (fast_count, width) float32, or None
    careful,  # (careful_count, width) float64
    sums,  # (width,) float64, added to
    fast_count,
    careful_count,
    width,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Add COLUMNS columns over all programs and slices."""
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < width
    total = tl.load(sums + columns, mask=inside, other=0.0)
    if fast is not None:
        total += _column(fast, fast_count, columns, width, ROWS)
    total += _column(careful, careful_count, columns, width, ROWS)
    tl.store(sums + columns, total, mask=inside)


@triton.jit
def add_totals_kernel(
    partial_totals,  # (programs, 4) float64: Σ‖x‖, min ‖x‖, max ‖x‖, Σ‖u‖⁴
    partial_counts,  # (programs, 5) int64
    totals,  # (6,) float64 of state.Moments, added to
    counts,  # (5,) int64 of state.Moments, added to
    programs,
    PROGRAMS: tl.constexpr,
    NONE: tl.constexpr,
):
    """Add the totals and counts of all programs and slices: one program."""
    norm_sum = tl.zeros((PROGRAMS,), tl.float64)
    smallest = tl.full((PROGRAMS,), float("inf"), tl.float64)
    largest = tl.full((PROGRAMS,), -float("inf"), tl.float64)
    fourth = tl.zeros((PROGRAMS,), tl.float64)
    kept = tl.zeros((PROGRAMS,), tl.int64)
    masked = tl.zeros((PROGRAMS,), tl.int64)
    zero = tl.zeros((PROGRAMS,), tl.int64)
    infinite = tl.zeros((PROGRAMS,), tl.int64)
    invalid = tl.full((PROGRAMS,), NONE, tl.int64)
    for first in tl.range(0, programs, PROGRAMS):
        program = first + tl.arange(0, PROGRAMS)
        exists = program < programs
        total = partial_totals + program * 4
        norm_sum += tl.load(total, mask=exists, other=0.0)
        smallest = tl.minimum(smallest, tl.load(total + 1, mask=exists, other=float("inf")))
        largest = tl.maximum(largest, tl.load(total + 2, mask=exists, other=-float("inf")))
        fourth += tl.load(total + 3, mask=exists, other=0.0)
        count = partial_counts + program * 5
        kept += tl.load(count, mask=exists, other=0)
        masked += tl.load(count + 1, mask=exists, other=0)
        zero += tl.load(count + 2, mask=exists, other=0)
        infinite += tl.load(count + 3, mask=exists, other=0)
        invalid = tl.minimum(invalid, tl.load(count + 4, mask=exists, other=NONE))
    tl.store(totals, tl.load(totals) + tl.sum(norm_sum))
    tl.store(totals + 2, tl.minimum(tl.load(totals + 2), tl.min(smallest, axis=0)))
    tl.store(totals + 3, tl.maximum(tl.load(totals + 3), tl.max(largest, axis=0)))
    tl.store(totals + 5, tl.load(totals + 5) + tl.sum(fourth))
    tl.store(counts, tl.load(counts) + tl.sum(kept))
    tl.store(counts + 1, tl.load(counts + 1) + tl.sum(masked))
    tl.store(counts + 2, tl.load(counts + 2) + tl.sum(zero))
    tl.store(counts + 3, tl.load(counts + 3) + tl.sum(infinite))
    tl.store(counts + 4, tl.minimum(tl.load(counts + 4), tl.min(invalid, axis=0)))


def add_partials(fast: Tensor | None, careful: Tensor, sums: Tensor) -> None:
    """``sums`` += Σ over the first axis of ``fast`` (programs, …) and of ``careful`` (slices, …)."""
    width = sums.numel()
    columns = 64
    add_partials_kernel[(ceiling(width, columns),)](
        fast,
        careful,
        sums,
        0 if fast is None else fast.shape[0],
        careful.shape[0],
        width,
        ROWS=16,
        COLUMNS=columns,
    )
