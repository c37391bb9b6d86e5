"""A tile of cosines of the rows of two panels, and the order in which tiles are visited.

The products of half-precision rows are exact; a tensor core, which may round toward zero at each of its steps of 16
numbers, leaves at most d/16·2⁻²³ of Σ|x_k·y_k|. Float32 rows are multiplied in six products of their parts, and every
step has a sum of its own that is added in float32: a few 2⁻²⁴.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from fastaniso.ops.triton.tiles import tile_of

# Of three parts high, middle, low (0, 1, 2) the six products above 2⁻²⁴, smallest first: two bits a product.
LEFT_PARTS = tl.constexpr(2 | 0 << 2 | 1 << 4 | 1 << 6 | 0 << 8 | 0 << 10)
RIGHT_PARTS = tl.constexpr(0 | 2 << 2 | 1 << 4 | 0 << 6 | 1 << 8 | 0 << 10)


@triton.jit
def _read(panel, first_row, column, width, T: tl.constexpr, K: tl.constexpr, DESCRIBED: tl.constexpr):
    if DESCRIBED:
        return panel.load([first_row, column])
    else:
        rows = first_row + tl.arange(0, T)
        columns = column + tl.arange(0, K)
        return tl.load(panel + (rows.to(tl.int64)[:, None] * width + columns[None, :]))


@triton.jit
def cosine_tile(
    left,  # a panel (rows, PARTS·width), or its descriptor; if PARTS is 0 the cosines themselves (rows, width)
    right,
    left_weights,  # (rows,) float32
    right_weights,
    first_row,
    first_column,
    width,
    T: tl.constexpr,
    K: tl.constexpr,
    PARTS: tl.constexpr,
    DESCRIBED: tl.constexpr,
    STAGES: tl.constexpr,
):
    """(T, T) cosines of the rows from ``first_row`` and from ``first_column`` on; rounding may leave some beyond ±1."""
    rows = first_row + tl.arange(0, T)
    columns = first_column + tl.arange(0, T)
    if PARTS == 0:
        cosines = tl.load(left + (rows.to(tl.int64)[:, None] * width + columns[None, :]))
    else:
        tl.assume(width >= K)
        cosines = tl.zeros((T, T), tl.float32)
        if PARTS == 1:
            for k in tl.range(0, width, K, num_stages=STAGES):
                a = _read(left, first_row, k, width, T, K, DESCRIBED)
                b = _read(right, first_column, k, width, T, K, DESCRIBED)
                cosines = tl.dot(a, tl.trans(b), cosines)
            cosines = cosines * tl.load(left_weights + rows)[:, None]
        else:
            left_weight = tl.load(left_weights + rows)
            steps = width // K
            for step in tl.range(0, 6 * steps, num_stages=STAGES):
                product = step // steps
                k = (step - product * steps) * K
                left_column = ((LEFT_PARTS >> (2 * product)) & 3) * width + k
                right_column = ((RIGHT_PARTS >> (2 * product)) & 3) * width + k
                a = _read(left, first_row, left_column, PARTS * width, T, K, DESCRIBED)
                b = _read(right, first_column, right_column, PARTS * width, T, K, DESCRIBED)
                cosines += tl.dot(a, tl.trans(b)) * left_weight[:, None]
        cosines = cosines * tl.load(right_weights + columns)[None, :]
    return cosines


@triton.jit
def tile_at(slot, supertiles_down, SIDE: tl.constexpr, TRIANGLE: tl.constexpr):
    """Row and column of the slot-th tile: supertiles of SIDE² tiles after one another, both column by column.

    Programs that run side by side so share the rows they read.
    """
    supertile = slot // (SIDE * SIDE)
    within = slot % (SIDE * SIDE)
    if TRIANGLE:
        super_row, super_column = tile_of(supertile)
    else:
        super_row = supertile % supertiles_down
        super_column = supertile // supertiles_down
    return super_row * SIDE + within % SIDE, super_column * SIDE + within // SIDE
