"""What ``pairs`` takes from tiles of cosines while they are in registers.

A launch visits the tiles of two panels, or the upper triangle of one; its programs take tiles in turn and keep their
sums to themselves, one row of every output each. Of two launches one takes the whole tiles and one the others: those at
the edge of the panels and on the diagonal, where some cosines do not count.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,assignment,attr-defined"
# ruff: noqa: RUF005 (Triton does not know (*sums, more))
from __future__ import annotations

import triton
import triton.language as tl

from fastaniso.ops.triton import shared_histogram
from fastaniso.ops.triton.cosines import cosine_tile, tile_at

CLEAR = tl.constexpr(256)


@triton.jit
def _load(values, N: tl.constexpr):
    loaded = (0,)  # Triton carries no empty tuple through a branch
    for i in tl.static_range(N):
        loaded = loaded + (tl.load(values + i),)
    return loaded


@triton.jit
def _zeros(T: tl.constexpr, N: tl.constexpr, DTYPE: tl.constexpr):
    sums = (0,)
    for _ in tl.static_range(N):
        sums = sums + (tl.zeros((T,), DTYPE),)
    return sums


@triton.jit
def _sum(terms, valid, EDGE: tl.constexpr):
    if EDGE:
        terms = tl.where(valid, terms, 0.0)
    return tl.sum(terms, axis=1)


@triton.jit
def _less(best, best_at, found, at):
    better = (found < best) | ((found == best) & (at < best_at))
    return tl.where(better, found, best), tl.where(better, at, best_at)


@triton.jit
def _store_least(least, least_at, best, best_at, T: tl.constexpr):
    """The least of a program's rows, and of the smallest row that has it: that row · 2³² + its tile's column."""
    value = tl.min(best, axis=0)
    at = ((best_at // 65536 * T + tl.arange(0, T)).to(tl.int64) << 32) + best_at % 65536
    tl.store(least, value)
    tl.store(least_at, tl.min(tl.where(best == value, at, 2**62), axis=0))


@triton.jit
def _add_to(target, number):
    tl.store(target, tl.load(target) + number.to(target.dtype.element_ty))


@triton.jit
def valid_pairs(first_row, first_column, left_count, right_count, T: tl.constexpr, TRIANGLE: tl.constexpr):
    """Which (T, T) pairs of a tile exist, and of one panel those i < j."""
    rows = first_row + tl.arange(0, T)
    columns = first_column + tl.arange(0, T)
    valid = (rows < left_count)[:, None] & (columns < right_count)[None, :]
    if TRIANGLE:
        valid = valid & (rows[:, None] < columns[None, :])
    return valid


@triton.jit(do_not_specialize=["left_first", "right_first", "slots", "supertiles_down"])
def pair_sums_kernel(
    left,
    right,
    left_weights,
    right_weights,
    left_kept,  # (1,) int64: kept rows of the whole set
    right_kept,
    left_first,  # how many of them lie before the panel
    right_first,
    pivot,  # (1,): deviations are from here
    exponents,  # (EXPONENTS,): 2t·log₂e
    thresholds,  # (THRESHOLDS,)
    histogram,  # (programs, BINS + 2) int32, added to; as in shared_histogram.py
    powers,  # (programs, 5) float64, added to: Σδ, Σδ², Σδ³, Σδ⁴ of δ = c − pivot, and Σ|c|
    exponentials,  # (programs, EXPONENTS) float64, added to
    above,  # (programs, THRESHOLDS) int32, added to
    least,  # (programs, 2): least c and least −c, 2 where there is none
    least_at,  # (programs, 2) int64
    width,
    slots,
    supertiles_down,
    BINS: tl.constexpr,
    SHARED_SLOTS: tl.constexpr,  # 0: count in global memory
    EXPONENTS: tl.constexpr,
    THRESHOLDS: tl.constexpr,
    TRIANGLE: tl.constexpr,
    EDGE: tl.constexpr,
    WHOLE: tl.constexpr,  # side of a whole tile
    SIDE: tl.constexpr,
    T: tl.constexpr,
    K: tl.constexpr,
    PARTS: tl.constexpr,
    DESCRIBED: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Sums over the whole tiles (or, with EDGE, the others) of a pair of panels."""
    program = tl.program_id(0)
    left_count = tl.load(left_kept) - left_first
    right_count = tl.load(right_kept) - right_first
    dtype: tl.constexpr = tl.float64 if PARTS == 0 else tl.float32
    if SHARED_SLOTS > 0:
        for first in tl.static_range(0, SHARED_SLOTS, CLEAR):
            shared_histogram.clear(first + tl.arange(0, CLEAR))
        tl.debug_barrier()
    if powers is not None:
        centre = tl.load(pivot)
        first_power = tl.zeros((T,), dtype)
        second_power = tl.zeros((T,), dtype)
        third_power = tl.zeros((T,), dtype)
        fourth_power = tl.zeros((T,), dtype)
        sizes = tl.zeros((T,), dtype)
    scales = _load(exponents, EXPONENTS)
    levels = _load(thresholds, THRESHOLDS)
    exponential_sums = _zeros(T, EXPONENTS, dtype)
    numbers_above = _zeros(T, THRESHOLDS, tl.int32)
    if least is not None:
        lowest = tl.full((T,), 2.0, dtype)
        highest = tl.full((T,), 2.0, dtype)
        lowest_at = tl.full((T,), 2**30, tl.int32)
        highest_at = tl.full((T,), 2**30, tl.int32)
    for slot in tl.range(program, slots, tl.num_programs(0)):
        tile_row, tile_column = tile_at(slot, supertiles_down, SIDE, TRIANGLE)
        first_row = tile_row * T
        first_column = tile_column * T
        whole_row = first_row // WHOLE * WHOLE
        whole_column = first_column // WHOLE * WHOLE
        wanted = (whole_row + WHOLE <= left_count) & (whole_column + WHOLE <= right_count)
        if TRIANGLE:
            wanted = wanted & (whole_row < whole_column)
        if EDGE:
            wanted = (first_row < left_count) & (first_column < right_count) & (wanted == 0)
            if TRIANGLE:
                wanted = wanted & (tile_row <= tile_column)
        if wanted:
            cosines = cosine_tile(
                left, right, left_weights, right_weights, first_row, first_column, width, T, K, PARTS, DESCRIBED, STAGES
            )
            valid = True
            if EDGE:
                valid = valid_pairs(first_row, first_column, left_count, right_count, T, TRIANGLE)
            if least is not None:
                low, high = cosines, cosines
                if EDGE:
                    low, high = tl.where(valid, low, 2.0), tl.where(valid, high, -2.0)
                at = tile_row * 65536 + tile_column
                lowest, lowest_at = _less(lowest, lowest_at, tl.maximum(tl.min(low, axis=1), -1.0), at)
                highest, highest_at = _less(highest, highest_at, tl.maximum(-tl.max(high, axis=1), -1.0), at)
            if SHARED_SLOTS > 0:
                if EDGE:
                    shared_histogram.count_some(cosines, valid.to(tl.int32))
                else:
                    shared_histogram.count(cosines)
            elif histogram is not None:
                bin = tl.floor(tl.fma(cosines, BINS / 2, BINS / 2)).to(tl.int32)
                place = histogram + program * (BINS + 2) + tl.minimum(tl.maximum(bin, -1), BINS) + 1
                tl.atomic_add(place, 1, mask=valid, sem="relaxed")
            if powers is not None:
                deviation = cosines - centre
                if EDGE:
                    deviation = tl.where(valid, deviation, 0.0)
                square = deviation * deviation
                first_power += tl.sum(deviation, axis=1)
                second_power += tl.sum(square, axis=1)
                third_power += tl.sum(square * deviation, axis=1)
                fourth_power += tl.sum(square * square, axis=1)
                sizes += _sum(tl.abs(cosines), valid, EDGE)
            more = (0,)
            for i in tl.static_range(EXPONENTS):
                term = tl.exp2(cosines * scales[i + 1] - scales[i + 1])
                more = more + (exponential_sums[i + 1] + _sum(term, valid, EDGE),)
            exponential_sums = more
            more = (0,)
            for i in tl.static_range(THRESHOLDS):
                is_above = cosines > levels[i + 1]
                if EDGE:
                    is_above = is_above & valid
                more = more + (numbers_above[i + 1] + tl.sum(is_above.to(tl.int32), axis=1),)
            numbers_above = more
    if SHARED_SLOTS > 0:
        tl.debug_barrier()
        for first in tl.static_range(0, SHARED_SLOTS, CLEAR):
            slot_numbers = first + tl.arange(0, CLEAR)
            place = histogram + program * (BINS + 2) + slot_numbers
            inside = slot_numbers < BINS + 2
            known = tl.load(place, mask=inside, other=0)
            tl.store(place, known + shared_histogram.read(slot_numbers), mask=inside)
    if powers is not None:
        _add_to(powers + program * 5, tl.sum(first_power))
        _add_to(powers + program * 5 + 1, tl.sum(second_power))
        _add_to(powers + program * 5 + 2, tl.sum(third_power))
        _add_to(powers + program * 5 + 3, tl.sum(fourth_power))
        _add_to(powers + program * 5 + 4, tl.sum(sizes))
    for i in tl.static_range(EXPONENTS):
        _add_to(exponentials + program * EXPONENTS + i, tl.sum(exponential_sums[i + 1]))
    for i in tl.static_range(THRESHOLDS):
        _add_to(above + program * THRESHOLDS + i, tl.sum(numbers_above[i + 1]))
    if least is not None:
        _store_least(least + program * 2, least_at + program * 2, lowest, lowest_at, T)
        _store_least(least + program * 2 + 1, least_at + program * 2 + 1, highest, highest_at, T)
