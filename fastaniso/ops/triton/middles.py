"""The middle of each row's scores, exactly: by bisection, counting how many scores are no larger than a level.

Sixteen times the level halves the interval's values, which leaves one score of thousands in it; then its bits, so that
scores however spread or equal are told apart in 32 steps more (64 of float64). Keys that are not seen have +∞.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

BY_VALUE = tl.constexpr(16)


@triton.jit
def score_block(scores, offsets, column, limit, C: tl.constexpr):
    """(R, C) scores from ``column`` on; +∞ from ``limit`` on."""
    columns = column + tl.arange(0, C)
    return tl.load(scores + (offsets[:, None] + columns[None, :]), mask=(columns < limit)[None, :], other=float("inf"))


@triton.jit
def order_of(values):
    """Integers in the order of the numbers."""
    if values.dtype == tl.float64:
        bits = values.to(tl.int64, bitcast=True)
        return bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF)
    else:
        bits = values.to(tl.int32, bitcast=True)
        return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def value_of(order):
    """The numbers of ``order_of``."""
    if order.dtype == tl.int64:
        return (order ^ ((order >> 63) & 0x7FFFFFFFFFFFFFFF)).to(tl.float64, bitcast=True)
    else:
        return (order ^ ((order >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def middles(scores, offsets, held, limit, measured, number, least, largest, HELD: tl.constexpr):
    """The two scores (R,) in the middle of each measured row's ``number``; one and the same where that is odd."""
    R: tl.constexpr = held.shape[0]
    C: tl.constexpr = held.shape[1]
    rank = (number - 1) // 2
    # The lower one lies in (low, high], with `below` scores up to low and `up_to` up to high.
    low = order_of(least) - 1
    high = tl.where(measured, order_of(largest), low + 1)
    below = tl.zeros((R,), tl.int32)
    up_to = number
    step = 0
    more = tl.max((low + 1 < high).to(tl.int32), axis=0)
    while more != 0:
        by_value = order_of(0.5 * value_of(low) + 0.5 * value_of(high))
        by_bits = (low & high) + ((low ^ high) >> 1)
        middle = tl.minimum(tl.maximum(tl.where(step < BY_VALUE, by_value, by_bits), low + 1), high - 1)
        level = value_of(middle)
        if HELD:
            counted = tl.sum((held <= level[:, None]).to(tl.int32), axis=1)
        else:
            counted = tl.zeros((R,), tl.int32)
            for column in tl.range(0, limit, C):
                block = score_block(scores, offsets, column, limit, C)
                counted += tl.sum((block <= level[:, None]).to(tl.int32), axis=1)
        unsettled = (low + 1 < high) & (up_to - below > 1)
        enough = counted > rank
        high = tl.where(unsettled & enough, middle, high)
        up_to = tl.where(unsettled & enough, counted, up_to)
        low = tl.where(unsettled & (enough == 0), middle, low)
        below = tl.where(unsettled & (enough == 0), counted, below)
        step += 1
        more = tl.max(((low + 1 < high) & (up_to - below > 1)).to(tl.int32), axis=0)
    level = value_of(high)
    lower = tl.full((R,), -float("inf"), least.dtype)
    upper = tl.full((R,), float("inf"), least.dtype)
    if HELD:
        lower = tl.max(tl.where(held <= level[:, None], held, -float("inf")), axis=1)
        upper = tl.min(tl.where(held > level[:, None], held, float("inf")), axis=1)
    else:
        for column in tl.range(0, limit, C):
            block = score_block(scores, offsets, column, limit, C)
            lower = tl.maximum(lower, tl.max(tl.where(block <= level[:, None], block, -float("inf")), axis=1))
            upper = tl.minimum(upper, tl.min(tl.where(block > level[:, None], block, float("inf")), axis=1))
    return lower, tl.where(up_to > number // 2, lower, upper)
