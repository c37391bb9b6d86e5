"""Where the least cosine of a launch is, and the least −c, that is the largest cosine.

The programs of ``pair_sums_kernel`` leave their least values, each with its row and the tile it is in. Of equal values
the smallest row is the first in order of (i, j), and of its tiles the leftmost; that one tile is multiplied again, and
the row's first least value is the place.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from fastaniso.ops.triton.cosines import cosine_tile
from fastaniso.ops.triton.pair_sums import valid_pairs


@triton.jit(do_not_specialize=["left_first", "right_first", "programs"])
def extrema_kernel(
    left,
    right,
    left_weights,
    right_weights,
    left_rows,  # (…,) int64: the kept rows of the whole set
    right_rows,
    left_kept,  # (1,) int64: how many they are
    right_kept,
    left_first,  # how many of them lie before the panel
    right_first,
    least,  # (programs, 2) of pair_sums_kernel
    least_at,  # (programs, 2) int64
    best,  # (2,): least so far, updated
    best_at,  # (2, 2) int64: its (i, j), updated
    programs,
    width,
    TRIANGLE: tl.constexpr,
    EDGE: tl.constexpr,
    PROGRAMS: tl.constexpr,  # a power of two of at least ``programs``
    T: tl.constexpr,
    K: tl.constexpr,
    PARTS: tl.constexpr,
    DESCRIBED: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Program 0 looks for the least c, program 1 for the least −c."""
    side = tl.program_id(0)
    program = tl.arange(0, PROGRAMS)
    exists = program < programs
    values = tl.load(least + program * 2 + side, mask=exists, other=2.0)
    places = tl.load(least_at + program * 2 + side, mask=exists, other=2**62)
    value = tl.min(values, axis=0)
    if (value < 2.0) & (value <= tl.load(best + side)):
        place = tl.min(tl.where(values == value, places, 2**62), axis=0)
        row = (place >> 32).to(tl.int32)
        first_row = row // T * T
        first_column = (place & 0xFFFF).to(tl.int32) * T
        cosines = cosine_tile(
            left, right, left_weights, right_weights, first_row, first_column, width, T, K, PARTS, DESCRIBED, STAGES
        )
        cosines = tl.maximum(tl.where(side == 0, cosines, -cosines), -1.0)
        if EDGE:
            left_count = tl.load(left_kept) - left_first
            right_count = tl.load(right_kept) - right_first
            valid = valid_pairs(first_row, first_column, left_count, right_count, T, TRIANGLE)
            cosines = tl.where(valid, cosines, 2.0)
        # Reduced flat: for Blackwell a reduction of a row's reduction does not compile.
        in_row = (tl.arange(0, T) == row - first_row)[:, None]
        is_least = in_row & (cosines == tl.min(tl.where(in_row, cosines, 2.0)))
        column = tl.min(tl.where(is_least, tl.arange(0, T)[None, :], T))
        i = tl.load(left_rows + left_first + row)
        j = tl.load(right_rows + right_first + first_column + column)
        known_i = tl.load(best_at + side * 2)
        known_j = tl.load(best_at + side * 2 + 1)
        is_first = (i < known_i) | ((i == known_i) & (j < known_j))
        better = (value < tl.load(best + side)) | is_first
        tl.debug_barrier()  # every thread has read what is overwritten now
        tl.store(best + side, value, mask=better)
        tl.store(best_at + side * 2, i, mask=better)
        tl.store(best_at + side * 2 + 1, j, mask=better)
