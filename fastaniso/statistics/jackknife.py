"""The jackknife over groups of rows: how far a mean cosine would move with other groups of the same kind.

Σ‖s_g‖² and the like are accumulated; a group g is left out of s by ‖s − s_g‖² = ‖s‖² − 2 s·s_g + ‖s_g‖².
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastaniso.state import GroupMoments, Moments
from fastaniso.statistics.cosine import ratio


class Grouped(NamedTuple):
    """Of each group, float64 (G,): n_g, s·s_g, ‖s_g‖² and Σ‖u‖² over its rows, s_g = Σu."""

    counts: Tensor
    with_all: Tensor
    own: Tensor
    squares: Tensor


def grouped(groups: GroupMoments, moments: Moments) -> Grouped:
    """What is told of some groups; ``moments`` are those of all rows."""
    own = torch.linalg.vecdot(groups.unit_sum, groups.unit_sum)
    return Grouped(groups.counts.double(), groups.unit_sum.mv(moments.sums[2]), own, groups.unit_squared)


def left_out(groups: Grouped, moments: Moments, *, across: bool) -> Tensor:
    """The mean cosine of all rows and, after it, without each group in turn: (1 + G,); nan where no pair is left.

    Over the ordered pairs i ≠ j of all rows or, ``across``, over those of two groups.
    """
    nothing = torch.zeros_like(moments.totals[:1])

    def without(all_of_it: Tensor, each: Tensor) -> Tensor:
        return all_of_it - torch.cat((nothing, each))

    n = without(moments.counts[0].double(), groups.counts)
    squared = without(moments.sums[2].dot(moments.sums[2]), 2 * groups.with_all - groups.own)
    squares = without(moments.totals[4], groups.squares)
    if across:
        within, pairs = without(groups.own.sum(), groups.own), without(groups.counts.square().sum(), groups.counts**2)
        return ratio(squared - within, n.square() - pairs)
    # Divided by Σ‖u‖² for n, as in the mean cosine itself.
    return ratio(squared - squares, torch.where(n > 1, squares * (n - 1), 0))


def standard_error(without: Tensor) -> Tensor:
    """√((G − 1)/G·Σ(θ_g − θ̄)²) of the values θ_g without each of G groups in turn."""
    groups = len(without)
    return ((without - without.mean()).square().sum() * (groups - 1) / max(groups, 1)).sqrt()
