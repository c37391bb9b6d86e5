"""Tiles of the upper triangle: their numbering, the sum over splits, and the last step to a full central scatter."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fastaniso.ops.triton.shapes import ceiling, triangle

CENTRE_TILE = 32


@triton.jit
def tile_of(index):
    """Row and column of the index-th upper tile, column by column: (0,0), (0,1), (1,1), (0,2), …"""
    column = ((tl.sqrt((8 * index + 1).to(tl.float32)) - 1) / 2).to(tl.int32)
    # The root may be off by one near a whole number.
    column = tl.where(column * (column + 1) // 2 > index, column - 1, column)
    column = tl.where((column + 1) * (column + 2) // 2 <= index, column + 1, column)
    return index - column * (column + 1) // 2, column


@triton.jit
def add_tiles_kernel(
    partials,  # (splits, tiles, T, T) float32
    factor,  # (1,) float64
    scatter,  # (D, D) float64, added to
    splits,
    D,
    T: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Add ROWS rows of one tile over all splits."""
    tile_row, tile_column = tile_of(tl.program_id(0))
    within = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    across = tl.arange(0, T)
    source = partials + tl.program_id(0).to(tl.int64) * (T * T) + within[:, None] * T + across[None, :]
    step = tl.num_programs(0).to(tl.int64) * (T * T)
    total = tl.zeros((ROWS, T), tl.float64)
    for split in tl.range(0, splits):
        total += tl.load(source + split * step).to(tl.float64)
    rows = tile_row * T + within
    columns = tile_column * T + across
    target = scatter + rows.to(tl.int64)[:, None] * D + columns[None, :]
    inside = (rows < D)[:, None] & (columns < D)[None, :]
    tl.store(target, tl.load(target, mask=inside, other=0.0) + total * tl.load(factor), mask=inside)


@triton.jit
def centre_kernel(
    scatter,  # (D, D) float64: Σzzᵀ in the upper triangle; Σzzᵀ − n·s sᵀ, both triangles, afterwards
    shift,  # (D,) float64: s, the mean of z
    kept,  # (1,) int64: n
    D,
    T: tl.constexpr,
):
    """Subtract the mean's part from one upper tile and mirror it."""
    tile_row, tile_column = tile_of(tl.program_id(0))
    rows = tile_row * T + tl.arange(0, T)
    columns = tile_column * T + tl.arange(0, T)
    upper = (rows[:, None] <= columns[None, :]) & (columns < D)[None, :]
    row_shift = tl.load(shift + rows, mask=rows < D, other=0.0) * tl.load(kept).to(tl.float64)
    column_shift = tl.load(shift + columns, mask=columns < D, other=0.0)
    place = scatter + rows.to(tl.int64)[:, None] * D + columns[None, :]
    mirrored = scatter + columns.to(tl.int64)[None, :] * D + rows[:, None]
    central = tl.load(place, mask=upper, other=0.0) - row_shift[:, None] * column_shift[None, :]
    tl.store(place, central, mask=upper)
    tl.store(mirrored, central, mask=upper)


def add_tiles(partials: Tensor, factor: Tensor, scatter: Tensor) -> None:
    """Upper tiles of ``scatter`` += factor · Σ over the splits of ``partials`` (splits, tiles, T, T), in order."""
    splits, tiles, tile, _ = partials.shape
    rows = max(1, 2048 // tile)
    add_tiles_kernel[(tiles, ceiling(tile, rows))](
        partials, factor, scatter, splits, D=scatter.shape[0], T=tile, ROWS=min(rows, tile)
    )


def centre(scatter: Tensor, shift: Tensor, kept: Tensor) -> None:
    """Make Σzzᵀ, held in the upper triangle, the full central scatter, given the mean ``shift`` of z."""
    dim = scatter.shape[0]
    tiles = triangle(ceiling(dim, CENTRE_TILE))
    centre_kernel[(tiles,)](scatter, shift, kept, D=dim, T=CENTRE_TILE)
