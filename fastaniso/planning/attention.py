"""What attention takes beside its queries and keys: nothing grows with their product."""

from __future__ import annotations

import torch

from fastaniso.heads import Heads, key_span
from fastaniso.ops.dispatch import resolve
from fastaniso.planning.plan import Plan

_SHARED, _OWN, _LEAST_ROWS, _MOST_ROWS = 12 * 2**20, 512 * 2**10, 8, 48  # as in csrc/attention.cpp
_WIDEST = 48  # of a panel, as in csrc/isa/product.inl
_HUGE_PAGE = 2 * 2**20
_GPU_BYTES = 200 * 10**6


def plan_attention(
    heads: Heads, *, causal: bool, window: int | None, bins: int, positions: int, backend: str = "auto"
) -> Plan:
    """Bytes and operations of ``attention``; an upper bound on the bytes."""
    queries, keys = heads.queries, heads.keys
    batch, count, length, dim = queries.shape
    groups, others = keys.shape[1], keys.shape[2]
    name = resolve(backend, queries.device)
    first, stop = key_span(length, others, causal, window)
    seen = max(min(others, stop - first), 1)
    by_head = 8 * (17 + bins + 2 * positions)
    places = 8 * batch * (2 * length + 2 * others + 2)
    size = 8 if queries.dtype == torch.float64 else 4
    if name == "reference":
        working = 8 * batch * length * others * 10
    elif name == "triton":
        working = _GPU_BYTES
    else:
        threads = torch.get_num_threads()
        sequence = (others + _WIDEST) * dim * size
        packed = max(min(_SHARED, batch * groups * sequence), sequence) + _HUGE_PAGE
        rows = min(max(_OWN // (seen * size) // _LEAST_ROWS * _LEAST_ROWS, _LEAST_ROWS), _MOST_ROWS)
        span = min(others, others if heads.query_mask is not None else seen + rows) + 2 * _WIDEST + 32
        own = threads * (
            size * ((rows + _LEAST_ROWS) * span + (_MOST_ROWS + _WIDEST) * dim) + 2 * rows * span * (bins > 0)
        )
        own += _HUGE_PAGE
        partials = 4 * threads * 8 * (bins + 2 + 2 * positions + 64)
        working = packed + own + partials + 2**18
    scores = batch * count * length * seen
    return Plan(
        backend=name,
        state_bytes=count * by_head,
        working_bytes=working + places,
        operations=scores * (2 * dim + 30),
        bytes_read=(queries.numel() + keys.numel()) * queries.element_size(),
        remedy="ask for less: fewer threads, shorter sequences, a window",
    )
