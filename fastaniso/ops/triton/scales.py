"""A power of two and a weight for every row, so that no product of the Gram kernels overflows or vanishes.

Raw rows share one power 2^−E, with 2^E the largest norm's size; unit rows u = (x·2^−e)·w have their own e, w = 2^e/‖x‖.
Where all norms are moderate the powers are 1, and the kernels may read the rows as they are. float16 rows are lifted by
2¹² besides, away from its subnormal numbers.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastaniso.ops.triton.norms import usable
from fastaniso.ops.triton.shapes import ceiling

MODERATE = 50
"""Norms between 2^−50 and 2^50 leave float32 sums of products of bfloat16 rows, and 1/‖x‖², far from their ends."""


@triton.jit
def exponent_of(norm):
    """The exponent of a float64 norm, within what float32 holds."""
    exponent = ((norm.to(tl.int64, bitcast=True) >> 52) & 0x7FF) - 1023
    return tl.minimum(tl.maximum(exponent, -126), 126)


@triton.jit
def power_of(exponent):
    """2^exponent in float64."""
    return ((exponent + 1023) << 52).to(tl.float64, bitcast=True)


@triton.jit
def scales_kernel(
    norms,  # (rows,) float64
    extremes,  # (2,) float64: the smallest and the largest norm of a usable row
    scales,  # (padded,) float32: the power of two, 0 for a dropped row
    weights,  # (padded,) float32: 2^e/‖x‖ of a unit row
    factor,  # (1,) float64: what undoes the powers in a product
    moderate,  # (1,) int32: whether every power is 1
    rows,
    padded,
    UNIT: tl.constexpr,
    ALWAYS: tl.constexpr,  # scale moderate rows too
    LIFT: tl.constexpr,
    LIMIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Powers and weights of BLOCK rows."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    lowest = exponent_of(tl.load(extremes))
    highest = exponent_of(tl.load(extremes + 1))
    is_moderate = (highest <= LIMIT) & (highest >= -LIMIT)
    if UNIT:
        is_moderate = is_moderate & (lowest >= -LIMIT)
    if ALWAYS:
        is_moderate = highest != highest
    norm = tl.load(norms + row, mask=row < rows, other=-1.0)
    keep = (norm > 0) & (norm < float("inf"))
    norm = tl.where(keep, norm, 1.0)
    if UNIT:
        power = tl.where(is_moderate, 1.0, power_of(-exponent_of(norm)))
    else:
        power = tl.where(is_moderate, 1.0, power_of(-highest)) + tl.zeros((BLOCK,), tl.float64)
    tl.store(
        scales + row,
        tl.where(keep, power * power_of(tl.full((), LIFT, tl.int64)), 0.0).to(tl.float32),
        mask=row < padded,
    )
    tl.store(weights + row, tl.where(keep, 1.0 / (norm * power), 0.0).to(tl.float32), mask=row < padded)
    if tl.program_id(0) == 0:
        tl.store(moderate, is_moderate.to(tl.int32))
        if UNIT:
            tl.store(factor, power_of(tl.full((), -2 * LIFT, tl.int64)))
        else:
            tl.store(factor, tl.where(is_moderate, 1.0, power_of(2 * highest)))


@dataclass(frozen=True)
class Scales:
    """What ``scales_kernel`` fills, for the rows of one block."""

    scales: Tensor
    weights: Tensor
    factor: Tensor
    moderate: Tensor

    @classmethod
    def of(cls, norms: Tensor, padded: int, *, unit: bool, always: bool, lift: int = 0) -> Self:
        """For ``norms`` (rows,) as norms.py leaves them; ``padded`` ≥ rows entries, the rest marked dropped."""
        kept = usable(norms)
        inf = float("inf")
        extremes = torch.stack((torch.where(kept, norms, inf).amin(), torch.where(kept, norms, 0.0).amax()))
        made = cls(
            torch.empty(padded, dtype=torch.float32, device=norms.device),
            torch.empty(padded, dtype=torch.float32, device=norms.device),
            torch.empty(1, dtype=torch.float64, device=norms.device),
            torch.empty(1, dtype=torch.int32, device=norms.device),
        )
        block = 1024
        scales_kernel[(ceiling(padded, block),)](
            norms,
            extremes,
            made.scales,
            made.weights,
            made.factor,
            made.moderate,
            norms.shape[0],
            padded,
            UNIT=unit,
            ALWAYS=always,
            LIFT=lift,
            LIMIT=MODERATE,
            BLOCK=block,
        )
        return made
