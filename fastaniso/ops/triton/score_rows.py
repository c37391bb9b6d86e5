"""What is taken from each query's row of scores: two looks at it, and one for each step of its median.

With m the row's largest score and Z = Σexp(s − m): the softmax exp(s − m)/Z, its entropy log Z − Σ(s − m)exp(s − m)/Z,
largest 1/Z, least and both in the middle. Sums over a block of a row are float32 (float64 of float64 scores), all
others float64. The row's scores are squared about its median, scaled by a power of two so that no square overflows or
vanishes, and rows are joined as Chan, Golub & LeVeque (1979) do. A row that has no key, or a score that is NaN or
infinite, is counted and left out.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from fastaniso.ops.triton import shared_histogram
from fastaniso.ops.triton.middles import middles, score_block
from fastaniso.ops.triton.score_sums import add_counts, add_to, count_in_bins, join_scores, power_within
from fastaniso.ops.triton.score_tiles import keys_seen

CLEAR = tl.constexpr(256)
LOWEST = tl.constexpr(-1000.0)
"""exp(s − m) is 0 from here on; s − m itself may be infinite."""


@triton.jit(do_not_specialize=["T", "S", "first", "stop", "tiles", "first_unit", "first_head", "units"])
def score_rows_kernel(
    scores,  # (units, heads, QUERIES, width): +∞ of a key that is not seen, NaN of a score that is not finite
    query_mask,  # (B, T), or None
    first_keys,  # (B, P) int32: the first keys that the mask keeps, S where there are no more; or None for 0, 1, …
    settings,  # (3,) float64: scale, and the range of the histogram
    counts,  # (H, slots, 6) int64, added to: the first of state.Attention
    histogram,  # (H, slots, BINS + 2) int32, added to; as in shared_histogram.py; or None
    moments,  # (H, slots, 4) float64, joined: Σs, Σ(s − s̄)², least, largest
    rows,  # (H, slots, 5) float64, added to
    received,  # (H, slots, P) float64, added to; or None
    visible,  # (H, slots, P) int64, added to
    T,
    S,
    first,  # query i sees keys from i + first
    stop,  # up to i + stop − 1
    tiles,  # units of a sequence
    first_unit,
    first_head,
    units,
    width,
    P,
    BINS: tl.constexpr,
    SHARED_SLOTS: tl.constexpr,  # 0: count in global memory
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    HELD: tl.constexpr,  # a row has no more than C scores
    PLACES: tl.constexpr,  # of the first P keys so many at a time
):
    """Every slots-th group of R rows of one head."""
    slot = tl.program_id(0)
    head = tl.program_id(1)
    kept_at = (first_head + head).to(tl.int64) * tl.num_programs(0) + slot
    dtype: tl.constexpr = scores.dtype.element_ty
    low = tl.load(settings + 1).to(dtype)
    high = tl.load(settings + 2).to(dtype)
    GROUPS: tl.constexpr = QUERIES // R
    if SHARED_SLOTS > 0:
        for clear in tl.static_range(0, SHARED_SLOTS, CLEAR):
            shared_histogram.clear(clear + tl.arange(0, CLEAR))
        tl.debug_barrier()
    for group in tl.range(slot, units * GROUPS, tl.num_programs(0)):
        unit = group // GROUPS
        within = group % GROUPS * R
        batch = (first_unit + unit) // tiles
        first_query = (first_unit + unit) % tiles * QUERIES
        queries = first_query + within + tl.arange(0, R)
        exist = queries < T
        wanted = exist
        if query_mask is not None:
            query_at = query_mask + (batch.to(tl.int64) * T + queries)
            wanted = wanted & (tl.load(query_at, mask=exist, other=0) != 0)
        begin, end = keys_seen(first_query, tl.minimum(first_query + within + R, T), S, first, stop, KEYS)
        # Whole vectors are read; tiles are written to a multiple of 16 keys.
        limit = tl.cdiv(tl.maximum(end - begin, 0), 16) * 16
        limit = tl.where(tl.max(wanted.to(tl.int32), axis=0) != 0, limit, 0)
        row = (unit * tl.num_programs(1) + head).to(tl.int64) * QUERIES + within + tl.arange(0, R)
        offsets = tl.multiple_of(row * width, 16)

        held = tl.full((R, C), float("inf"), dtype)
        if HELD:
            held = score_block(scores, offsets, 0, limit, C)
            seen = held < float("inf")
            number = tl.sum(seen.to(tl.int32), axis=1)
            bad = tl.max((held != held).to(tl.int32), axis=1)
            largest = tl.max(tl.where(seen, held, -float("inf")), axis=1)
            least = tl.min(tl.where(seen, held, float("inf")), axis=1)
        else:
            number = tl.zeros((R,), tl.int32)
            bad = tl.zeros((R,), tl.int32)
            largest = tl.full((R,), -float("inf"), dtype)
            least = tl.full((R,), float("inf"), dtype)
            for column in tl.range(0, limit, C):
                s = score_block(scores, offsets, column, limit, C)
                seen = s < float("inf")
                number += tl.sum(seen.to(tl.int32), axis=1)
                bad = tl.maximum(bad, tl.max((s != s).to(tl.int32), axis=1))
                largest = tl.maximum(largest, tl.max(tl.where(seen, s, -float("inf")), axis=1))
                least = tl.minimum(least, tl.min(tl.where(seen, s, float("inf")), axis=1))
        measured = wanted & (number > 0) & (bad == 0)
        add_counts(counts + kept_at * 6, exist, wanted, number, bad, measured)
        number = tl.where(measured, number, 0)
        largest = tl.where(measured, largest, 0.0)
        least = tl.where(measured, least, 0.0)

        lower, upper = middles(scores, offsets, held, limit, measured, number, least, largest, HELD)
        lower = tl.where(measured, lower, 0.0)
        upper = tl.where(measured, upper, 0.0)
        power = power_within(tl.maximum(tl.abs(least), tl.abs(largest)).to(tl.float64))
        factor = power.to(dtype)
        pivot = lower * factor
        weight = tl.zeros((R,), tl.float64)
        weighted = tl.zeros((R,), tl.float64)
        shift = tl.zeros((R,), tl.float64)
        square = tl.zeros((R,), tl.float64)
        # Of a row that is held the loop has one round.
        for column in tl.range(0, C if HELD else limit, C):
            s = held
            if not HELD:
                s = score_block(scores, offsets, column, limit, C)
            seen = (s < float("inf")) & measured[:, None]
            below = tl.maximum(s - largest[:, None], LOWEST)
            exponential = tl.where(seen, tl.exp(below), 0.0)
            weight += tl.sum(exponential, axis=1).to(tl.float64)
            weighted += tl.sum(exponential * tl.where(seen, below, 0.0), axis=1).to(tl.float64)
            deviation = tl.where(seen, s * factor[:, None] - pivot[:, None], 0.0)
            shift += tl.sum(deviation, axis=1).to(tl.float64)
            square += tl.sum(deviation * deviation, axis=1).to(tl.float64)
            if histogram is not None:
                count_in_bins(s, seen, histogram + kept_at * (BINS + 2), low, high, BINS, SHARED_SLOTS)
        whole = tl.where(measured, weight, 1.0).to(dtype)
        inverse = 1.0 / whole
        entropy = tl.where(number > 1, tl.log(whole) - weighted.to(dtype) * inverse, 0.0)
        entropy = tl.maximum(entropy, 0.0)
        in_the_middle = tl.exp(tl.maximum(lower - largest, LOWEST)) + tl.exp(tl.maximum(upper - largest, LOWEST))
        at_least = tl.exp(tl.maximum(least - largest, LOWEST))
        sums = rows + kept_at * 5
        add_to(sums, tl.sum(entropy.to(tl.float64)), True)
        add_to(sums + 1, tl.sum((entropy / tl.log(tl.maximum(number, 2).to(dtype))).to(tl.float64)), True)
        add_to(sums + 2, tl.sum(tl.where(measured, inverse, 0.0).to(tl.float64)), True)
        add_to(sums + 3, tl.sum(tl.where(measured, 0.5 * in_the_middle * inverse, 0.0).to(tl.float64)), True)
        add_to(sums + 4, tl.sum(tl.where(measured, at_least * inverse, 0.0).to(tl.float64)), True)
        join_scores(
            moments + kept_at * 4,
            counts + kept_at * 6 + 5,
            measured,
            number,
            lower,
            shift,
            square,
            power,
            least,
            largest,
        )

        if received is not None:
            for place in tl.range(0, P, PLACES):
                places = place + tl.arange(0, PLACES)
                at = places
                if first_keys is not None:
                    at = tl.load(first_keys + (batch.to(tl.int64) * P + places), mask=places < P, other=S)
                at -= begin
                inside = (places < P) & (at >= 0) & (at < limit)
                place_at = offsets[:, None] + tl.where(inside, at, 0)[None, :]
                s = tl.load(scores + place_at, mask=inside[None, :] & measured[:, None], other=float("inf"))
                attention = tl.exp(tl.maximum(s - largest[:, None], LOWEST)) * inverse[:, None]
                attention = tl.where(s < float("inf"), attention, 0.0)
                add_to(received + kept_at * P + places, tl.sum(attention, axis=0).to(tl.float64), places < P)
                add_to(visible + kept_at * P + places, tl.sum((s < float("inf")).to(tl.int64), axis=0), places < P)

    if SHARED_SLOTS > 0:
        tl.debug_barrier()
        for clear in tl.static_range(0, SHARED_SLOTS, CLEAR):
            slots = clear + tl.arange(0, CLEAR)
            target = histogram + kept_at * (BINS + 2) + slots
            known = tl.load(target, mask=slots < BINS + 2, other=0)
            tl.store(target, known + shared_histogram.read(slots), mask=slots < BINS + 2)
