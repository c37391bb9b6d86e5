"""Spearman's rank correlation of a few numbers, and how easily chance would give as much."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_MOST_EXACT = 9
"""Numbers whose orders (9! = 362,880) are all looked at."""

_NODES = 200


class RankCorrelation(NamedTuple):
    """Spearman ``rho`` of ``n`` pairs, two-sided ``p``; ``method`` is "exact permutation" or "t approximation"."""

    rho: float
    p: float
    n: int
    method: str


def spearman(x: list[float], y: list[float]) -> float:
    """Spearman ρ: the correlation of ranks, ties sharing their mean rank; nan below 3 pairs or without spread."""
    if len(x) < 3:
        return float("nan")
    a, b = _centred_ranks(x), _centred_ranks(y)
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else float("nan")


def rank_correlation(x: list[float], y: list[float]) -> RankCorrelation:
    """``spearman`` and the two-sided p that ranks in random order correlate as much or more; nan where ρ is.

    Up to 9 pairs exactly, over all orders of the ranks as they are, ties included; above, t = ρ√((n − 2)/(1 − ρ²)) is
    taken as Student's of n − 2 degrees of freedom (Kendall & Stuart). Neighbouring layers are not independent draws:
    p says how unlikely so monotone a relation of *exchangeable* layers would be, no more.
    """
    rho, n = spearman(x, y), len(x)
    exact = n <= _MOST_EXACT
    p = math.nan if math.isnan(rho) else _exact(x, y) if exact else _student(rho, n - 2)
    return RankCorrelation(rho, p, n, "exact permutation" if exact else "t approximation")


def _exact(x: list[float], y: list[float]) -> float:
    a, b = _centred_ranks(x), _centred_ranks(y)
    # Products of half ranks are exact but for the mean's rounding: equal ones count as equal.
    return float(np.mean(np.abs(a[_orders(len(a))] @ b) >= abs(a @ b) - 1e-9))


@lru_cache
def _orders(n: int) -> NDArray[np.int8]:
    """All orders of 0..n−1, (n!, n)."""
    if n == 1:
        return np.zeros((1, 1), np.int8)
    return np.concatenate([np.insert(_orders(n - 1), place, n - 1, axis=1) for place in range(n)])


def _student(rho: float, freedom: int) -> float:
    """P(|r| ≥ |ρ|) of density ∝ (1 − r²)^(ν/2 − 1): with r = sin φ ∫ cos^(ν−1) φ, smooth, so small p keep digits."""
    start = math.asin(min(abs(rho), 1.0))
    nodes, weights = _rule()
    half = (math.pi / 2 - start) / 2
    # From the upper end, where cos φ is small: sin of the distance to it.
    tail = half * float(weights @ np.sin(half * (1 - nodes)) ** (freedom - 1))
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    # No order of n ranks is rarer than one and its reverse of n!.
    return min(1.0, max(2 * tail * scale, 2 / math.factorial(freedom + 2)))


@lru_cache
def _rule() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss and Legendre's nodes and weights on [−1, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return nodes, weights


def _centred_ranks(values: list[float]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks: NDArray[np.float64] = ((2 * last - counts - 1) / 2)[inverse]
    centred: NDArray[np.float64] = ranks - ranks.mean()
    return centred
