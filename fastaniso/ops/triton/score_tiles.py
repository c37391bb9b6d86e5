"""Scores of a unit of queries with the keys that some of them may see, written to memory that is used again.

s = scale·q·k in float32 (float64 of float64 vectors): half-precision products are exact and summed on the tensor cores,
float32 vectors are multiplied in six products of bfloat16 parts, every step with a sum of its own that is added in
float32 (parts of numbers below 10⁻³⁰ lose digits). A key that a query may not see has +∞, a score that is NaN or
infinite is NaN.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from fastaniso.ops.triton.products import float32_product


@triton.jit
def keys_seen(first_query, stop_query, S, first, stop, KEYS: tl.constexpr):
    """First key, a multiple of KEYS, and end of those that queries from ``first_query`` to ``stop_query`` − 1 see."""
    return tl.maximum(first_query + first, 0) // KEYS * KEYS, tl.minimum(stop_query - 1 + stop, S)


@triton.jit
def _offsets(rows, stride, ALIGN: tl.constexpr):
    return tl.multiple_of(rows.to(tl.int64) * stride, ALIGN)


@triton.jit(do_not_specialize=["T", "S", "first", "stop", "tiles", "first_unit", "first_head"])
def scores_kernel(
    queries,  # (B, H, T, D) at its strides
    keys,  # (B, H / SHARED, S, D) at its strides
    key_mask,  # (B, S), or None
    settings,  # (3,) float64: scale, and the range of the histogram
    scores,  # (units, heads, QUERIES, width), written
    T,
    S,
    first,  # query i sees keys from i + first
    stop,  # up to i + stop − 1
    tiles,  # units of a sequence
    first_unit,
    first_head,
    width,
    query_batch,
    query_head,
    query_row,
    key_batch,
    key_head,
    key_row,
    SHARED: tl.constexpr,  # heads that read the same keys
    D: tl.constexpr,
    ALIGN: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    K: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One tile of scores of one head; none where no query of the unit sees a key of the tile."""
    unit = first_unit + tl.program_id(1)
    head = first_head + tl.program_id(2)
    batch = unit // tiles
    first_query = unit % tiles * QUERIES
    begin, end = keys_seen(first_query, tl.minimum(first_query + QUERIES, T), S, first, stop, KEYS)
    first_key = begin + tl.program_id(0) * KEYS
    if first_key < end:
        rows = first_query + tl.arange(0, QUERIES)
        columns = first_key + tl.arange(0, KEYS)
        numbers = tl.arange(0, K)
        query = queries + batch.to(tl.int64) * query_batch + head.to(tl.int64) * query_head
        key = keys + batch.to(tl.int64) * key_batch + (head // SHARED).to(tl.int64) * key_head
        query_at = _offsets(rows, query_row, ALIGN)
        key_at = _offsets(columns, key_row, ALIGN)
        dtype: tl.constexpr = tl.float64 if queries.dtype.element_ty == tl.float64 else tl.float32
        total = tl.zeros((QUERIES, KEYS), dtype)
        if dtype == tl.float64:
            # Number by number: Triton has no float64 product for AMD's matrix cores.
            for k in tl.range(0, D):
                left = tl.load(query + (query_at + k), mask=rows < T, other=0.0)
                right = tl.load(key + (key_at + k), mask=columns < S, other=0.0)
                total += left[:, None] * right[None, :]
        else:
            for k in tl.range(0, D, K, num_stages=STAGES):
                inside = k + numbers < D
                if queries.dtype.element_ty == tl.float32:
                    left_mask = inside[:, None] & (rows < T)[None, :]
                    right_mask = inside[:, None] & (columns < S)[None, :]
                    left = tl.load(query + (query_at[None, :] + (k + numbers)[:, None]), mask=left_mask, other=0.0)
                    right = tl.load(key + (key_at[None, :] + (k + numbers)[:, None]), mask=right_mask, other=0.0)
                    nothing = tl.zeros((QUERIES, KEYS), tl.float32)
                    large, small = float32_product(left, right, nothing, nothing)
                    total += large + small
                else:
                    left_mask = (rows < T)[:, None] & inside[None, :]
                    right_mask = (columns < S)[:, None] & inside[None, :]
                    left = tl.load(query + (query_at[:, None] + (k + numbers)[None, :]), mask=left_mask, other=0.0)
                    right = tl.load(key + (key_at[:, None] + (k + numbers)[None, :]), mask=right_mask, other=0.0)
                    total = tl.dot(left, tl.trans(right), total)
        found = total * tl.load(settings).to(dtype)
        found = tl.where(tl.abs(found) < float("inf"), found, float("nan"))
        ahead = columns[None, :] - rows[:, None]
        allowed = (ahead >= first) & (ahead < stop) & (columns < S)[None, :]
        if key_mask is not None:
            mask_at = key_mask + (batch.to(tl.int64) * S + columns)
            allowed = allowed & (tl.load(mask_at, mask=columns < S, other=0) != 0)[None, :]
        place = (tl.program_id(1) * tl.num_programs(2) + tl.program_id(2)).to(tl.int64) * QUERIES
        row_at = (place + tl.arange(0, QUERIES)) * width + (first_key - begin)
        tl.store(scores + (row_at[:, None] + tl.arange(0, KEYS)[None, :]), tl.where(allowed, found, float("inf")))
