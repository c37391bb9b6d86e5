"""Spearman's rank correlation of a few numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def spearman(x: list[float], y: list[float]) -> float:
    """Spearman ρ: the correlation of ranks, ties sharing their mean rank; nan below 3 pairs or without spread."""
    if len(x) < 3:
        return float("nan")
    a, b = _ranks(x), _ranks(y)
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else float("nan")


def _ranks(values: list[float]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks: NDArray[np.float64] = ((2 * last - counts - 1) / 2)[inverse]
    return ranks
