"""The attention op in float64, every score and every softmax written out: slow, obviously right, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from fastaniso.heads import key_span


def attention(
    queries: Tensor,
    keys: Tensor,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    scale: float,
    causal: bool,
    window: int | None,
    bins: int,
    low: float,
    high: float,
    positions: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The six tensors of :class:`fastaniso.state.Attention`."""
    by_head = []
    for head in range(queries.shape[1]):
        group = head // (queries.shape[1] // keys.shape[1])
        scores = scale * queries[:, head].double() @ keys[:, group].double().mT
        allowed = allowed_keys(queries, keys, key_mask, causal, window)
        by_head.append(_head(scores, allowed, query_mask, key_mask, bins, low, high, positions))
    counts, histogram, moments, rows, received, visible = (torch.stack(part) for part in zip(*by_head, strict=True))
    return counts, histogram, moments, rows, received, visible


def allowed_keys(queries: Tensor, keys: Tensor, key_mask: Tensor | None, causal: bool, window: int | None) -> Tensor:
    """Which keys each query may attend to: (B, T, S)."""
    batch, length, others = queries.shape[0], queries.shape[2], keys.shape[2]
    first, stop = key_span(length, others, causal, window)
    ahead = torch.arange(others, device=keys.device) - torch.arange(length, device=keys.device)[:, None]
    allowed = ((ahead >= first) & (ahead < stop)).expand(batch, length, others)
    return allowed if key_mask is None else allowed & key_mask[:, None]


def _head(
    scores: Tensor,
    allowed: Tensor,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    bins: int,
    low: float,
    high: float,
    positions: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One head's part of the six, of scores (B, T, S)."""
    batch, length, others = scores.shape
    wanted = torch.ones(batch, length, dtype=torch.bool, device=scores.device) if query_mask is None else query_mask
    keyless = wanted & ~allowed.any(2)
    finite = (scores.isfinite() | ~allowed).all(2)
    measured = wanted & ~keyless & finite
    seen = allowed[measured]  # (rows, S)
    given = scores[measured]
    every = given[seen]
    histogram = _histogram(every, bins, low, high)
    outside = [(every < low).sum(), (every > high).sum()] if bins else [every.new_zeros((), dtype=torch.int64)] * 2
    keys_of = seen.sum(1)
    counts = torch.stack(
        (
            measured.sum(),
            (~wanted).sum(),
            keyless.sum(),
            (wanted & ~keyless & ~finite).sum(),
            (keys_of == 1).sum(),
            seen.sum(),
            *outside,
        )
    )
    inf = every.new_tensor([torch.inf])
    deviation = every - every.sum() / max(len(every), 1)
    moments = torch.stack(
        (every.sum(), deviation.square().sum(), torch.cat((every, inf)).min(), torch.cat((every, -inf)).max())
    )
    attention = given.masked_fill(~seen, -torch.inf).softmax(1) if others else given
    entropy = torch.special.entr(attention).sum(1)
    normalised = torch.where(keys_of > 1, entropy / keys_of.clamp(min=2).double().log(), 0)
    # In order, those of keys that are not seen last.
    ordered = attention.masked_fill(~seen, torch.inf).sort(1).values
    rows = torch.zeros(5, dtype=torch.float64, device=scores.device)
    if len(given):
        middle = torch.stack(((keys_of - 1) // 2, keys_of // 2), 1)
        median = ordered.gather(1, middle).mean(1)
        largest = ordered.gather(1, keys_of[:, None] - 1)
        rows = torch.stack(
            (entropy.sum(), normalised.sum(), largest.sum(), median.sum(), ordered[:, 0].sum()),
        )
    # The place of each key among those of its sequence that the mask keeps.
    kept = torch.ones(batch, others, dtype=torch.bool, device=scores.device) if key_mask is None else key_mask
    place = torch.where(kept, kept.cumsum(1) - 1, positions)[:, None].expand(batch, length, others)[measured]
    at = place[seen & (place < positions)]
    received = torch.zeros(positions, dtype=torch.float64, device=scores.device)
    received.index_add_(0, at, attention[seen & (place < positions)])
    return counts, histogram, moments, rows, received, torch.bincount(at, minlength=positions)


def _histogram(scores: Tensor, bins: int, low: float, high: float) -> Tensor:
    if not bins:
        return scores.new_zeros(0, dtype=torch.int64)
    inside = scores[(scores >= low) & (scores <= high)]
    return torch.bincount(((inside - low) * (bins / (high - low))).long().clamp(0, bins - 1), minlength=bins)
