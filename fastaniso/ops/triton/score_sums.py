"""Sums over rows of scores: bins, counts, moments, and what a program adds to its own at the end."""

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
def joined(n, total, second, more_n, more_total, more_second):
    """Counts, sums and central squares of two sets, as those of both."""
    delta = more_total / tl.maximum(more_n, 1.0) - total / tl.maximum(n, 1.0)
    both = n + more_n
    second = (
        second + more_second + tl.where(n * more_n > 0, delta * delta * (n * (more_n / tl.maximum(both, 1.0))), 0.0)
    )
    return both, total + more_total, second


@triton.jit
def add_to(target, numbers, inside):
    """A program's own numbers grow."""
    tl.store(target, tl.load(target, mask=inside, other=0) + numbers, mask=inside)


@triton.jit
def store_sums(counts, moments, rows, row_counts, scores, sums):
    """Add what a program has of its rows, one number a lane, to what it kept of earlier launches."""
    for i in tl.static_range(5):
        add_to(counts + i, tl.sum(row_counts[i]).to(tl.int64), True)
        add_to(rows + i, tl.sum(sums[i]), True)
    numbers, totals, seconds, smallest, greatest = scores
    n = tl.sum(numbers)
    total = tl.sum(totals)
    away = totals / tl.maximum(numbers, 1.0) - total / tl.maximum(n, 1.0)
    second = tl.sum(seconds + numbers * away * away)
    known_n = tl.load(counts + 5)
    _, total, second = joined(known_n.to(tl.float64), tl.load(moments), tl.load(moments + 1), n, total, second)
    tl.store(counts + 5, known_n + n.to(tl.int64))
    tl.store(moments, total)
    tl.store(moments + 1, second)
    tl.store(moments + 2, tl.minimum(tl.load(moments + 2), tl.min(smallest, axis=0)))
    tl.store(moments + 3, tl.maximum(tl.load(moments + 3), tl.max(greatest, axis=0)))
