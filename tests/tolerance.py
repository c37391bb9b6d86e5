"""How far a kernel may be from float64 on the same rounded inputs: derived here, in one place, and nowhere loosened.

The kernels compute in float32 (float64 for float64 rows) over short stretches and add those in float64. A stretch of m
additions errs like √m roundings of its largest partial sum, which Σ|terms| bounds; a term itself has at most a few
roundings. SAFETY covers the tail of that random walk.
"""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor

TILE_ROWS = 128  # rows that moments adds in float32 at most (fewer of float32 rows)
BLOCK_ROWS = 256  # products that gram adds in float32 at most
PRODUCT_STEPS = 192  # products that pairs and neighbors add in float32 before they start anew
SAFETY = 4


def rounding(dtype: torch.dtype) -> float:
    """Half a unit in the last place of what the kernels compute in."""
    return torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps / 2


def sums(rows: Tensor, units: Tensor, dtype: torch.dtype) -> Tensor:
    """Bound (4, d) on the error of Σx, Σx², Σu, Σu² over kept float64 rows.

    Unit rows are summed as u − p, p the mean of the first 64: at most as large as u and p together.
    """
    pivot = units[:64].mean(0).abs() if len(units) else units.new_zeros(units.shape[1])
    units = units.abs() + pivot
    absolute = torch.stack((rows.abs().sum(0), rows.square().sum(0), units.abs().sum(0), units.square().sum(0)))
    # √128 roundings of the sum; u = x·(1/‖x‖) carries the error of the norm's square, d terms in √d roundings.
    terms = TILE_ROWS**0.5 + rows.shape[1] ** 0.5 / 8 + 4
    # And float64's own: the reference, too, adds n numbers.
    own = torch.finfo(torch.float64).eps * max(len(rows), 1)
    return (SAFETY * terms * rounding(dtype) + own) * absolute + torch.finfo(torch.float64).tiny


def norms(dim: int, dtype: torch.dtype) -> float:
    """Relative bound on a norm: half the error of a sum of d squares in at least eight lanes."""
    return SAFETY * ((dim / 8) ** 0.5 + 2) * rounding(dtype)


def scatter(rows: Tensor, dtype: torch.dtype, *, fused: bool, kept_first: int, grid: float = 0) -> Tensor:
    """Bound (d, d) on the error of Σ(x − x̄)(x − x̄)ᵀ over kept float64 rows.

    Products are of rows minus a pivot, the mean of the first rows to within half a ``grid``, and sum to at most
    √(D_i·D_j), D_i = Σ(x_i − pivot)².
    Where most rows are alike their products round alike and the walk is not random: the full bound of 256 roundings.
    Without a fused multiply-add, x·scale is rounded before the pivot is subtracted: one rounding of |x| a factor.
    """
    n = max(len(rows), 1)
    pivot = rows[:kept_first].mean(0) if len(rows) else torch.zeros(rows.shape[1])
    about_pivot = ((rows - pivot).abs() + grid / 2).square().sum(0).sqrt()
    size = rows.square().sum(0).sqrt()
    unit = rounding(dtype)
    entry = about_pivot * unit + size * (unit if not fused else unit**2) + n**0.5 * pivot.abs() * unit**2
    product = BLOCK_ROWS * unit * torch.outer(about_pivot, about_pivot)
    rounded = SAFETY * (torch.outer(entry, about_pivot) + torch.outer(about_pivot, entry) + torch.outer(entry, entry))
    own = torch.finfo(torch.float64).eps * n * torch.outer(size, size)
    return product + rounded + own + torch.finfo(torch.float64).tiny


def cosine(dim: int, dtype: torch.dtype) -> float:
    """Bound on the error of one cosine: a sum of d products of numbers that were rounded once, at most 1 in all.

    Of stretches of at most 192 products, which are then added.
    """
    stretch = min(dim, PRODUCT_STEPS)
    return SAFETY * (stretch**0.5 + (dim / stretch) ** 0.5 + 3) * rounding(dtype)


def pair_moments(cosines: Tensor, pivot: float, dim: int, dtype: torch.dtype) -> Tensor:
    """Bound (5,) on the error of Σc, Σ(c − c̄)^2, 3, 4 and Σ|c| over float64 cosines, summed as powers about a pivot.

    Each cosine errs by ``cosine``; a tile adds at most 24 powers a lane in float32. Then the powers move to the mean.
    """
    one = cosine(dim, dtype)
    distance = abs(float(cosines.mean()) - pivot) if len(cosines) else 0.0
    size = (cosines - pivot).abs() + one
    own = torch.finfo(torch.float64).eps * max(len(cosines), 1)
    about_pivot = [
        ((p * one * size ** (p - 1) + SAFETY * 24**0.5 * rounding(dtype) * size**p).sum() + own * (size**p).sum())
        for p in range(1, 5)
    ]
    central = [
        2 * sum(comb(p, k) * distance ** (p - k) * about_pivot[k - 1] for k in range(1, p + 1)) for p in range(2, 5)
    ]
    absolute = ((one + SAFETY * 24**0.5 * rounding(dtype) + own) * (cosines.abs() + one)).sum() + one * len(cosines)
    return torch.stack([about_pivot[0], *central, absolute]) + torch.finfo(torch.float64).tiny
