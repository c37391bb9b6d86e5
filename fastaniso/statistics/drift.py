"""Drift of the mean and norms of the rows (Godey et al. 2024, §3.3), from linear sums."""

from __future__ import annotations

import torch
from torch import Tensor

from fastaniso.state import Gram, Moments
from fastaniso.statistics.cosine import ratio


def drift(moments: Moments | Gram) -> Tensor:
    """‖x̄‖, ‖x̄‖/E‖x‖ and ‖ū‖: (3,), the last two without scale; nan when n = 0."""
    n = moments.counts[0].double()
    length_of_sum = torch.linalg.vector_norm(moments.sums[0])
    lengths = torch.stack((length_of_sum, length_of_sum, torch.linalg.vector_norm(moments.sums[2])))
    # √(n·Σ‖u‖²) for n: unit rows whose norms all round the same way are all a little longer or shorter than 1.
    return ratio(lengths, torch.stack((n, moments.totals[0], (n * moments.totals[4]).sqrt())))


def norms(moments: Moments | Gram) -> Tensor:
    """Mean, standard deviation (over n, not n−1), minimum and maximum of ‖x‖: (4,); nan when n = 0.

    The deviation comes from Σ‖x‖ and Σ‖x‖²: below about 1e-7 of the mean it is rounding.
    """
    n = moments.counts[0].double()
    mean, mean_square = ratio(moments.totals[:2], n).unbind()
    std = (mean_square - mean.square()).clamp(min=0).sqrt()
    extremes = torch.where(n > 0, moments.totals[2:4], torch.nan)
    return torch.cat((torch.stack((mean, std)), extremes))
