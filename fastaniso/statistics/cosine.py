"""Cosines between all pairs of rows, from sums: no pair is ever formed.

Notation: u = x/‖x‖ of n rows, ū their mean, s = n·ū, S = Σ(u − ū)(u − ū)ᵀ; pairs are the n(n−1) ordered i ≠ j.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastaniso.state import Gram, GroupMoments, Moments

_TINY = torch.finfo(torch.float64).tiny  # under a sum that may be empty


def over_pairs(unit_sum: Any, unit_squares: Any, n: Any) -> Any:
    """Σ of the cosines over the ordered pairs i ≠ j, (‖s‖² − Q)·n/Q with Q = Σ‖u‖² accumulated; of arrays or tensors.

    Q and not n: rounded unit rows are not exactly unit. Subtracted, because near a mean of zero the difference is all
    there is; divided by, because norms that all round the same way would scale the mean itself.
    """
    return (unit_sum.dot(unit_sum) - unit_squares) * n / unit_squares


def sum_over_pairs(moments: Moments | Gram) -> Tensor:
    """``over_pairs`` of a state; 0 when it holds no row."""
    total: Tensor = over_pairs(moments.sums[2], moments.totals[4].clamp(min=_TINY), moments.counts[0])
    return total


def sum_between(x: Moments | Gram, y: Moments | Gram) -> Tensor:
    """Σ of the cosines over the pairs of a row of x and a row of y, s_x·s_y, each s rescaled by √(n/Σ‖u‖²)."""
    return x.sums[2].dot(y.sums[2]) * (_rescale(x) * _rescale(y)).sqrt()


def sum_and_pairs(moments: Moments | Gram) -> Tensor:
    """``sum_over_pairs`` and the number of pairs, n(n−1): (2,) float64."""
    n = moments.counts[0].double()
    return torch.stack((sum_over_pairs(moments), n * (n - 1)))


def mean(moments: Moments | Gram) -> Tensor:
    """Mean cosine over the n(n−1) ordered pairs i ≠ j; nan when n < 2."""
    return ratio(*sum_and_pairs(moments).unbind())


def std(gram: Gram) -> Tensor:
    """Standard deviation of the cosine over the n(n−1) ordered pairs i ≠ j; nan when n < 2.

    With v = u − ū: c_ij − ‖ū‖² = ū·v_i + ū·v_j + v_i·v_j, whose squares sum to ‖S‖² + 2n·ūᵀSū over all i, j, because
    Σv = 0. The diagonal (1 − ‖ū‖²)² and the mean off it, ‖ū‖² − tr S/(n(n−1)), take (tr S)²/(n−1) away. Every term
    shrinks with the spread itself, where E[c²] − mean² loses its digits; ūᵀSū is of fourth order in the spread of a
    collapsed cloud, which the float32 scatter of float32 rows resolves down to 1 − mean ≈ 1e-7.
    """
    scatter = _unit_scatter(gram)
    n = gram.counts[0].double()
    centre = gram.sums[2] / n
    trace = scatter.trace()
    squares = scatter.flatten().dot(scatter.flatten()) + 2 * n * centre.dot(scatter.mv(centre))
    return ratio((squares - trace.square() / (n - 1)).clamp(min=0), n * (n - 1)).sqrt()


def std_between(x: Gram, y: Gram) -> Tensor:
    """Standard deviation of the cosine over the n_x·n_y pairs of a row of x and a row of y."""
    scatter_x, scatter_y = _unit_scatter(x), _unit_scatter(y)
    n_x, n_y = x.counts[0].double(), y.counts[0].double()
    centre_x, centre_y = x.sums[2] / n_x, y.sums[2] / n_y
    squares = (
        scatter_x.flatten().dot(scatter_y.flatten())
        + n_x * centre_x.dot(scatter_y.mv(centre_x))
        + n_y * centre_y.dot(scatter_x.mv(centre_y))
    )
    return ratio(squares.clamp(min=0), n_x * n_y).sqrt()


def contributions(moments: Moments | Gram) -> Tensor:
    """Contribution of each dimension to the mean cosine, (s_k² − Σu_k²)/(n(n−1)): (d,), they sum to the mean."""
    n = moments.counts[0].double()
    return ratio((moments.sums[2].square() - moments.sums[3]) * _rescale(moments), n * (n - 1))


def within_sum_and_pairs(groups: GroupMoments) -> Tensor:
    """Σ of the cosines over the ordered pairs of one group, Σ_g(‖s_g‖² − Σ‖u‖²_g), and Σ_g n_g(n_g−1): (2,)."""
    return torch.stack((_group_sums(groups).sum(), _group_pairs(groups).sum()))


def group_sum_and_pairs(groups: GroupMoments) -> Tensor:
    """``sum_and_pairs`` over the rows of all groups together, from the groups' own sums: (2,)."""
    total = groups.unit_sum.sum(0)
    n = groups.counts.sum().double()
    return torch.stack((total.dot(total) - groups.unit_squared.sum(), n * (n - 1)))


def group_means(groups: GroupMoments) -> Tensor:
    """Mean cosine within each group over its n_g(n_g−1) ordered pairs: (G,); nan where n_g < 2."""
    return ratio(_group_sums(groups), _group_pairs(groups))


def _rescale(moments: Moments | Gram) -> Tensor:
    """n/Σ‖u‖²: 1 but for the rounding of the unit rows, and 0 when there are none."""
    return moments.counts[0] / moments.totals[4].clamp(min=_TINY)


def ratio(numerator: Tensor, pairs: Tensor) -> Tensor:
    """numerator/pairs, and nan where there is no pair (never ±inf from a rounded zero over zero)."""
    return numerator / pairs.double().masked_fill(pairs == 0, torch.nan)


def _group_sums(groups: GroupMoments) -> Tensor:
    squares: Tensor = torch.linalg.vecdot(groups.unit_sum, groups.unit_sum)
    return squares - groups.unit_squared


def _group_pairs(groups: GroupMoments) -> Tensor:
    n = groups.counts.double()
    return n * (n - 1)


def _unit_scatter(gram: Gram) -> Tensor:
    if gram.unit_scatter is None:
        raise ValueError("the std of the cosine needs the scatter of unit rows: make the Gram with unit=True")
    return gram.unit_scatter
