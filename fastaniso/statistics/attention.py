"""Statistics of attention by head, from the sums of ``Attention``."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastaniso._version import __version__
from fastaniso.result import AttentionDropped, AttentionStatistics, ScoreHistogram
from fastaniso.state import Attention
from fastaniso.statistics.cosine import ratio
from fastaniso.statistics.host import InvalidRowsError, check_invalid_option, to_host

ACCUMULATOR = "float64 sums, int64 counts"
SINK_EPSILON = 0.3
"""Mean attention above which a key is a sink (Gu et al. 2025)."""


def score_moments(state: Attention) -> Tensor:
    """Mean and variance (over the scores' number), least and largest of each head's scores: (H, 4); nan of no score."""
    scores = state.counts[:, 5]
    mean, variance = (ratio(state.scores[:, column], scores) for column in (0, 1))
    extremes = torch.where(scores[:, None] > 0, state.scores[:, 2:], torch.nan)
    return torch.cat((torch.stack((mean, variance), 1), extremes), 1)


def row_means(state: Attention) -> Tensor:
    """Means over rows of entropy, entropy / log(keys), and of the softmax's largest, median and least: (H, 5).

    A row of one key has an entropy of 0 and none relative to log(1): it counts in all but the second.
    """
    rows, lonely = state.counts[:, 0], state.counts[:, 4]
    return ratio(state.rows, torch.stack((rows, rows - lonely, rows, rows, rows), 1))


def attention_to(state: Attention) -> Tensor:
    """Mean attention to each of the first keys over the rows that see it: (H, P); nan where none does."""
    return ratio(state.received, state.visible)


def sink_rate(state: Attention, epsilon: float = SINK_EPSILON) -> Tensor:
    """Share of the heads whose mean attention to key k is above epsilon, for each of the first keys: (P,).

    Of the heads in which some row sees it; nan where there is none.
    """
    received = attention_to(state)
    return ratio((received > epsilon).sum(0), (~received.isnan()).sum(0))


def describe_attention(state: Attention, *, invalid: str = "raise") -> AttentionStatistics:
    """Every statistic that ``state`` holds; refuses rows with a score that is NaN or infinite unless "omit"."""
    check_invalid_option(invalid)
    heads, positions = state.heads, state.positions
    counts, histogram, scores, rows, received, visible, sinks = to_host(
        *(state.counts, state.histogram, score_moments(state), row_means(state), attention_to(state)),
        *(state.visible, sink_rate(state)),
    )
    counts = counts.reshape(heads, 8).astype(np.int64)
    measured, masked, keyless, nonfinite, one_key, score_counts, below, above = map(tuple, counts.T.tolist())
    if invalid == "raise" and any(nonfinite):
        raise InvalidRowsError(
            f"queries, keys: {max(nonfinite)} row(s) of a head have a score that is NaN or infinite, and no softmax; "
            "leave them out with query_mask= and key_mask=, or pass invalid='omit' to leave them out and count them; "
            "scores beyond the range of float32 are finite in float64"
        )
    mean, variance, least, largest = map(tuple, scores.reshape(heads, 4).T.tolist())
    entropy, normalized, row_max, row_median, row_min = map(tuple, rows.reshape(heads, 5).T.tolist())
    low, high = state.score_range
    return AttentionStatistics(
        heads=heads,
        dim=state.dim,
        scale=state.scale,
        causal=state.causal,
        window=state.window,
        rows=measured,
        one_key=one_key,
        dropped=AttentionDropped(max(masked, default=0), max(keyless, default=0), sum(nonfinite)),
        scores=score_counts,
        score_mean=mean,
        score_variance=variance,
        score_min=least,
        score_max=largest,
        entropy=entropy,
        normalized_entropy=normalized,
        row_max=row_max,
        row_median=row_median,
        row_min=row_min,
        sink_rate=float(sinks[0]) if positions else float("nan"),
        sink_epsilon=SINK_EPSILON,
        accumulator=ACCUMULATOR,
        provenance=tuple(sorted(state.provenance)),
        version=__version__,
        attention_to=received.reshape(heads, positions),
        visible=visible.reshape(heads, positions).astype(np.int64),
        histogram=ScoreHistogram(
            counts=histogram.reshape(heads, state.bins).astype(np.int64),
            edges=np.linspace(low, high, state.bins + 1),
            below=np.array(below, dtype=np.int64),
            above=np.array(above, dtype=np.int64),
        ),
    )
