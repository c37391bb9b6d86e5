"""How far the Triton kernels may be from float64 on the same rounded inputs, derived from how they add.

u is half a unit in the last place: 2⁻²⁴, or 2⁻⁵³ for float64 rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

SAFETY = 4
"""Covers the tail of a random walk of roundings."""


def rounding(dtype: torch.dtype) -> float:
    return torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps / 2


def unit_error(dim: int, dtype: torch.dtype) -> float:
    """Relative error of u_k: half that of ‖x‖² (d squares in at least eight lanes), then 1/‖x‖ and a product."""
    return SAFETY * ((dim / 8) ** 0.5 / 2 + 3) * rounding(dtype)


def sums(terms: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """Error of Σ terms over rows: √1024 roundings in a float32 sum, each term's own, and float64's in both sums."""
    own = torch.finfo(torch.float64).eps * max(len(terms), 1)
    relative = SAFETY * 1024**0.5 * rounding(dtype) + 2 * unit_error(dim, dtype) + own
    return relative * terms.abs().sum(0) + torch.finfo(torch.float64).tiny


def scatter(rows: Tensor, dtype: torch.dtype, *, unit: bool) -> Tensor:
    """Error (d, d) of the central scatter of kept float64 ``rows`` (x, or u if ``unit``), as gram.py's docstring says.

    float16 and bfloat16 products are of uncentred rows, the others of rows minus their mean.
    """
    dim = rows.shape[1]
    mean = rows.mean(0) if len(rows) else rows.new_zeros(dim)
    half = dtype in (torch.float16, torch.bfloat16)
    z = rows.abs() if half else (rows - mean).abs()
    relative = torch.finfo(torch.float64).eps * (len(rows) + 64) if dtype == torch.float64 else 2.0**-17
    if half and unit:
        relative *= 2
    # A row's own error: none for x; a pivot subtracted from a rounded u leaves the rounding of u.
    own = rows.abs() * (unit_error(dim, dtype) if unit else rounding(dtype))
    products = relative * (z.T @ z) + own.T @ z + z.T @ own + own.T @ own
    # n·s sᵀ with the error of the mean, which matters where the pivot is 0.
    off = sums(rows, dim, dtype)
    shift = mean.abs() if half else mean.abs() * rounding(dtype) + off / max(len(rows), 1)
    return products + torch.outer(off, shift) + torch.outer(shift, off) + torch.finfo(torch.float64).tiny


def cosine(dim: int, dtype: torch.dtype, precision: str = "exact") -> float:
    """Error of one cosine of rows whose products add to at most 1 in size, as cosines.py's docstring says.

    A tensor core may round toward zero at each of its steps of 16 numbers; of float32 rows it adds 64 at a time, in six
    products, and those are added in float32. Fast float32 rows are rounded to the eleven digits of float16 first.
    """
    if precision == "fast" and dtype == torch.float32:
        return 2.0**-10 + cosine(dim, torch.float16)
    unit = rounding(dtype)
    if dtype == torch.float64:
        return SAFETY * (dim**0.5 + 4) * unit
    if dtype == torch.float32:
        return 2 * 4 * unit + SAFETY * ((6 * dim / 64) ** 0.5 + 4) * unit
    return 2 * max(dim / 16, 1) * unit + SAFETY * 4 * unit


def pair_moments(cosines: Tensor, dim: int, dtype: torch.dtype, precision: str = "exact") -> Tensor:
    """Error (5,) of Σc, Σ(c − c̄)^2, 3, 4 and Σ|c| of float64 cosines, summed about a pivot within 2⁻²⁰ of c̄.

    A thread adds 32 numbers of each of some 128 tiles.
    """
    one, own = cosine(dim, dtype, precision), torch.finfo(torch.float64).eps * max(len(cosines), 1)
    added = SAFETY * 4096**0.5 * rounding(dtype) + own
    size = (cosines - cosines.mean()).abs() + one + 2.0**-20 if len(cosines) else cosines
    powers = [(p * one * size ** (p - 1) + added * size**p).sum() for p in range(1, 5)]
    absolute = (one + added * (cosines.abs() + one)).sum()
    # Σc is the pivot's multiple, exact, and Σδ; moving from the pivot to c̄ mixes in what is smaller by 2⁻²⁰.
    central = [2 * power + 2.0**-18 * powers[0] for power in powers[1:]]
    return torch.stack((powers[0] + own * cosines.abs().sum(), *central, absolute)) + torch.finfo(torch.float64).tiny
