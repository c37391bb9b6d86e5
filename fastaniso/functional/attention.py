"""Attention of every head from its queries and keys: no map of T·S is kept."""

from __future__ import annotations

from typing import Any

from fastaniso.heads import as_heads
from fastaniso.ops import dispatch as ops
from fastaniso.planning.attention import plan_attention
from fastaniso.result import AttentionStatistics
from fastaniso.statistics import attention as statistics


def attention(
    queries: Any,
    keys: Any,
    *,
    query_mask: Any = None,
    key_mask: Any = None,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
    bins: int = 512,
    score_range: tuple[float, float] = (-32.0, 32.0),
    positions: int = 64,
    backend: str = "auto",
    memory_limit: int | str | None = None,
    invalid: str = "raise",
) -> AttentionStatistics:
    """Scores s = scale·q·k and rows of the softmax over the keys that each query sees, by head: no map is kept.

    Of each head: mean, variance, extremes and histogram of the scores; entropy −Σ a·log a in nats, and over the log of
    the number of keys seen (of rows that see two or more); means over rows of the largest, median (of an even number of
    keys the mean of both in the middle) and least softmax; mean attention to each of the first keys, and the sink rate,
    the share of heads with more than 0.3 to the first (Gu et al. 2025). Products and exponentials in float32 (float64
    of float64 queries), sums in float64, counts in int64. Exact, O(T·S·d) a head; some rows of scores are held at a
    time, and one copy of a head's keys.

    Args:
        queries: ``(B, H, T, d)`` float32, float64, float16 or bfloat16: tensor, NumPy array or anything with DLPack;
            any strides, the last axis contiguous. As they enter the scores: say whether before or after rotary
            positions.
        keys: ``(B, G, S, d)`` of the same dtype on the same device, H a multiple of G: head h reads keys h // (H / G).
        query_mask: Bool ``(B, T)``, True keeps: other queries are not measured.
        key_mask: Bool ``(B, S)``, True keeps: other keys cannot be attended to. The first keys are counted among those
            kept, so that padding on the left moves nothing.
        scale: Factor of q·k, 1/√d by default.
        causal: Query i sees keys up to its own, i + S − T: queries are aligned with the last keys, T ≤ S.
        window: Keys that a query sees, its own included: the last so many if causal, else an odd number with its own
            in the middle; None for all.
        bins: Bins of the histogram, at most 8192; 0 for none.
        score_range: Its range, lowest and highest; scores outside are counted apart.
        positions: How many first keys the attention is summed for.
        backend: "auto", "triton", "cpu" or "reference".
        memory_limit: ``MemoryError`` before the run if it takes more beside the input (bytes, or such as "2 GB").
        invalid: "raise" refuses rows with a score that is NaN or infinite; "omit" leaves them out and counts them.

    Raises:
        InvalidRowsError: A score is NaN or infinite and ``invalid="raise"``.
    """
    heads = as_heads(queries, keys, query_mask, key_mask)
    ops.check_attention_options(bins, score_range, positions)
    plan = plan_attention(heads, causal=causal, window=window, bins=bins, positions=positions, backend=backend)
    plan.check(memory_limit)
    state = ops.attention(
        heads,
        scale=scale,
        causal=causal,
        window=window,
        bins=bins,
        score_range=score_range,
        positions=positions,
        backend=backend,
    )
    return statistics.describe_attention(state, invalid=invalid)
