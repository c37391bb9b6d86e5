"""Norm of every row in float64, or why the row is dropped: norms[i] = ‖x_i‖, −1 masked, 0 zero, +inf non-finite.

Squares of float32, float16 and bfloat16 numbers neither overflow nor vanish in float64; float64 rows are scaled by
their largest entry.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastaniso.ops.triton.rows import Block, row_offsets, wanted_rows
from fastaniso.ops.triton.shapes import ceiling

TILE_ROWS = 8
TILE_COLUMNS = 128


@triton.jit
def read_float64(values, offsets, wanted, columns, D):
    """Numbers (rows, columns) as float64, zero outside."""
    inside = wanted[:, None] & (columns < D)[None, :]
    return tl.load(values + (offsets[:, None] + columns[None, :]), mask=inside, other=0.0).to(tl.float64)


@triton.jit
def norms_kernel(
    values,  # rows at `inner`, `stride_outer`, `stride_inner`
    mask,  # (count,) or None
    flags,  # (programs,) int32, or None: programs whose flag is 0 do nothing
    norms,  # (count,) float64
    count,
    inner,
    stride_outer,
    stride_inner,
    rows_per_program,
    ONE_AXIS: tl.constexpr,
    ALIGN: tl.constexpr,
    D,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Norms of one range of rows."""
    start = tl.program_id(0) * rows_per_program
    stop = tl.minimum(start + rows_per_program, count)
    if flags is not None:
        stop = tl.where(tl.load(flags + tl.program_id(0)) != 0, stop, start)
    for first in tl.range(start, stop, ROWS):
        rows = first + tl.arange(0, ROWS)
        wanted = wanted_rows(mask, rows, count)
        offsets = row_offsets(rows, inner, stride_outer, stride_inner, ONE_AXIS, ALIGN)
        scale = tl.full((ROWS,), 1.0, tl.float64)
        if values.dtype.element_ty == tl.float64:
            largest = tl.zeros((ROWS, COLUMNS), tl.float64)
            for column in tl.range(0, D, COLUMNS):
                x = read_float64(values, offsets, wanted, column + tl.arange(0, COLUMNS), D)
                largest = tl.maximum(largest, tl.abs(x))
            scale = tl.max(largest, axis=1)
            scale = tl.where(scale > 0, scale, 1.0)
        squares = tl.zeros((ROWS, COLUMNS), tl.float64)
        for column in tl.range(0, D, COLUMNS):
            x = read_float64(values, offsets, wanted, column + tl.arange(0, COLUMNS), D) / scale[:, None]
            squares += x * x
        norm = scale * tl.sqrt(tl.sum(squares, axis=1))
        norm = tl.where(norm < float("inf"), norm, float("inf"))  # NaN becomes inf: one mark for both
        tl.store(norms + rows, tl.where(wanted, norm, -1.0), mask=rows < count)


def row_norms(block: Block, norms: Tensor, rows_per_program: int, flags: Tensor | None = None) -> None:
    """Fill ``norms`` (rows,) for the rows of ``block``, or only for the programs that ``flags`` names."""
    norms_kernel[(ceiling(block.rows, rows_per_program),)](
        block.values,
        block.mask,
        flags,
        norms,
        block.rows,
        rows_per_program=rows_per_program,
        **block.layout,
        D=block.values.shape[2],
        ROWS=TILE_ROWS,
        COLUMNS=TILE_COLUMNS,
    )


def usable(norms: Tensor) -> Tensor:
    """Which rows are kept: neither masked nor zero nor non-finite."""
    return (norms > 0) & torch.isfinite(norms)
