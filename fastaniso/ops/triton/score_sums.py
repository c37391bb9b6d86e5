"""Sums over rows of scores: what a program adds to its own numbers, which no other program touches."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from fastaniso.ops.triton import shared_histogram


@triton.jit
def count_in_bins(s, seen, histogram, low, high, BINS: tl.constexpr, SHARED_SLOTS: tl.constexpr):
    """Count scores in slots as shared_histogram.py does cosines: the range is moved to [−1, 1]."""
    half = (high - low) * 0.5
    c = (s - (low + half)) * (1.0 / half)
    # The last bin is closed.
    c = tl.minimum(tl.maximum(c, -1.0), 1.0 - 2.0**-22)
    c = tl.where(s < low, -1.0 - 1.0 / BINS, tl.where(s > high, 1.0 + 1.0 / BINS, c))
    if SHARED_SLOTS > 0:
        shared_histogram.count_some(tl.where(seen, c, 0.0), seen.to(tl.int32))
    else:
        slot = tl.floor(tl.where(seen, c, 0.0) * (BINS / 2) + BINS / 2).to(tl.int32) + 1
        tl.atomic_add(histogram + slot, 1, mask=seen, sem="relaxed")


@triton.jit
def power_within(size):
    """2^−e with 2^e the size of positive float64 numbers, within what float32 holds."""
    exponent = ((size.to(tl.int64, bitcast=True) >> 52) & 0x7FF) - 1023
    exponent = tl.minimum(tl.maximum(exponent, -126), 126)
    return ((1023 - exponent) << 52).to(tl.float64, bitcast=True)


@triton.jit
def add_to(target, numbers, inside):
    """A program's own numbers grow."""
    tl.store(target, tl.load(target, mask=inside, other=0) + numbers, mask=inside)


@triton.jit
def add_counts(counts, exist, wanted, number, bad, measured):
    """Rows measured, masked, without a key, with a score that is not finite, with one key; scores come later."""
    add_to(counts, tl.sum(measured.to(tl.int64)), True)
    add_to(counts + 1, tl.sum((exist & (wanted == 0)).to(tl.int64)), True)
    add_to(counts + 2, tl.sum((wanted & (number == 0) & (bad == 0)).to(tl.int64)), True)
    add_to(counts + 3, tl.sum((wanted & (bad != 0)).to(tl.int64)), True)
    add_to(counts + 4, tl.sum((measured & (number == 1)).to(tl.int64)), True)


@triton.jit
def _joined(n, total, second, more_n, more_total, more_second):
    """Sums and central squares of two sets, as those of both."""
    delta = more_total / tl.maximum(more_n, 1.0) - total / tl.maximum(n, 1.0)
    between = delta * delta * (n * (more_n / tl.maximum(n + more_n, 1.0)))
    return total + more_total, second + more_second + tl.where(n * more_n > 0, between, 0.0)


@triton.jit
def join_scores(moments, count, measured, number, pivot, shift, square, power, least, largest):
    """Join rows' scores, known by their sums about a pivot, times ``power``, to those that the program knows."""
    n = number.to(tl.float64)
    # Σs = n·pivot + Σ(s − pivot), and squares are moved from the pivot to the row's mean.
    unscaled = 1.0 / power
    totals = n * pivot.to(tl.float64) + shift * unscaled
    seconds = tl.maximum(square - shift * shift / tl.maximum(n, 1.0), 0.0) * unscaled * unscaled
    rows_n = tl.sum(n)
    rows_total = tl.sum(totals)
    away = totals / tl.maximum(n, 1.0) - rows_total / tl.maximum(rows_n, 1.0)
    rows_second = tl.sum(seconds + n * away * away)
    known = tl.load(count)
    total, second = _joined(
        known.to(tl.float64), tl.load(moments), tl.load(moments + 1), rows_n, rows_total, rows_second
    )
    tl.store(count, known + rows_n.to(tl.int64))
    tl.store(moments, total)
    tl.store(moments + 1, second)
    smallest = tl.min(tl.where(measured, least, float("inf")), axis=0).to(tl.float64)
    greatest = tl.max(tl.where(measured, largest, -float("inf")), axis=0).to(tl.float64)
    tl.store(moments + 2, tl.minimum(tl.load(moments + 2), smallest))
    tl.store(moments + 3, tl.maximum(tl.load(moments + 3), greatest))
