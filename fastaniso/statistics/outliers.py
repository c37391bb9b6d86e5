"""Dimensions that stand out by their size or their variance, from linear sums."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fastaniso.state import Gram, Moments
from fastaniso.statistics.cosine import ratio


def root_mean_squares(moments: Moments | Gram) -> Tensor:
    """r_k = √(Σx_k²/n) of each dimension: (d,); nan when n = 0."""
    return ratio(moments.sums[1], moments.counts[0]).sqrt()


def variances(moments: Moments | Gram) -> Tensor:
    """Variance (over n) of each dimension: (d,); from the scatter where there is one, else Σx²/n − x̄², at least 0."""
    n = moments.counts[0]
    if isinstance(moments, Gram) and moments.scatter is not None:
        return ratio(moments.scatter.diagonal(), n)
    return (ratio(moments.sums[1], n) - ratio(moments.sums[0], n).square()).clamp(min=0)


def kurtosis(sizes: Tensor) -> Tensor:
    """E_k[r⁴]/(E_k[r²])² over the d dimensions: 1 where all are equal, d where one is all; nan when all are 0."""
    # By the largest first: fourth powers of 1e±100 would leave float64.
    squares = ratio(sizes, sizes.max()).square()
    return squares.square().mean() / squares.mean().square()


def max_over_median(sizes: Tensor) -> Tensor:
    """Largest r_k over the median, of an even d the mean of the middle two; inf where the median is 0."""
    ordered = sizes.sort().values
    d = len(ordered)
    return ratio(ordered[-1], ordered[-1]) * ordered[-1] / (ordered[(d - 1) // 2 : d // 2 + 1].mean())


def stand_out(variances: Tensor, factor: float) -> Tensor:
    """Where a variance is ``factor`` times the mean variance or more, and not 0: bool (d,)."""
    if not factor > 0:
        raise ValueError(f"factor: expected a number above 0, got {factor!r}")
    return (variances >= factor * variances.mean()) & (variances > 0)


def summary(moments: Moments | Gram, factor: float) -> Mapping[str, Tensor]:
    """Kurtosis, max over median, and how many variances stand out."""
    sizes = root_mean_squares(moments)
    return {
        "kurtosis": kurtosis(sizes),
        "max_over_median": max_over_median(sizes),
        "count": torch.where(moments.counts[0] > 0, stand_out(variances(moments), factor).sum(), torch.nan),
    }
