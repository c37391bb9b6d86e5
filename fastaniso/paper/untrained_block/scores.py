"""Scores and softmax of a block's heads, measured by ``fastaniso.attention``: no map of scores is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

import fastaniso

BINS = 120


def scores(queries: Tensor, keys: Tensor, *, causal: bool) -> dict[str, Any]:
    """Spread of the scores over all pairs of tokens of a sequence, and what the softmax makes of them.

    ``queries, keys (B, H, T, k)``. ``std`` is that of all scores together. A constant added to a row of scores changes
    no softmax, so ``row_std`` is the spread that it sees: that of the scores less their row's mean, which are the
    scores with the keys less their mean. The softmax is over the keys that the block's mask lets a query see.
    """
    sequences = [
        fastaniso.attention(queries[i : i + 1], keys[i : i + 1], causal=causal, bins=0, positions=0)
        for i in range(len(queries))
    ]
    every = sequences
    if causal:
        every = [fastaniso.attention(queries, keys, bins=0, positions=0)]
    means = np.array([one.score_mean for one in every])
    variances = np.array([one.score_variance for one in every])
    within = fastaniso.attention(queries, keys - keys.mean(2, keepdim=True), bins=0, positions=0)
    return {
        "std": float(np.sqrt(variances.mean() + means.var())),
        "row_std": float(np.sqrt(np.mean(within.score_variance))),
        "entropy": float(np.mean([one.normalized_entropy for one in sequences])),
        "max": _extremes([one.row_max for one in sequences]),
        "median": _extremes([one.row_median for one in sequences]),
        "min": _extremes([one.row_min for one in sequences]),
    }


def _extremes(values: Sequence[tuple[float, ...]]) -> dict[str, float]:
    """Mean; least and most of the sequences (means over heads); least and most of the heads of each sequence."""
    table = np.array(values)  # (sequences, heads)
    by_sequence = table.mean(1)
    return {
        "mean": float(table.mean()),
        "least_sequence": float(by_sequence.min()),
        "most_sequence": float(by_sequence.max()),
        "least_head": float(table.min()),
        "most_head": float(table.max()),
    }


def histogram(queries: Tensor, keys: Tensor) -> dict[str, Any]:
    """Density of the scores before the softmax, all heads together, and of the scores less their row's mean."""
    return {"scores": _density(queries, keys), "centered": _density(queries, keys - keys.mean(2, keepdim=True))}


def _density(queries: Tensor, keys: Tensor) -> dict[str, list[float]]:
    seen = fastaniso.attention(queries, keys, bins=0, positions=0)
    low, high = min(seen.score_min), max(seen.score_max)
    counted = fastaniso.attention(queries, keys, bins=BINS, score_range=(low, high), positions=0)
    counts, edges = counted.histogram
    inside = counts.sum(0)
    density = inside / (inside.sum() * np.diff(edges))
    return {"edges": edges.tolist(), "density": density.tolist()}
