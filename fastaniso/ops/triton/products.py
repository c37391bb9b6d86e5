"""Products of a tile's rows on the tensor cores: XᵀY of K rows, added to a float32 accumulator.

Half-precision rows go in as they are (their products are exact in float32); float32 rows as three bfloat16 parts.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def half_product(left, right, scale, weight, total, UNIT: tl.constexpr, SCALED: tl.constexpr):
    """XᵀY, or XᵀWY with the weights of unit rows, of half-precision rows as they are or scaled first."""
    dtype: tl.constexpr = left.dtype
    if SCALED:
        right = (right.to(tl.float32) * scale[:, None]).to(dtype)
    if UNIT:
        # uuᵀ = (x·2^−e·w²)(x·2^−e)ᵀ: the weight goes to the left factor, kept in two parts.
        weighted = left.to(tl.float32) * (weight * weight)[:, None]
        if SCALED:
            weighted = weighted * scale[:, None]
        high = weighted.to(dtype)
        low = (weighted - high.to(tl.float32)).to(dtype)
        total = tl.dot(tl.trans(low), right, total)
        return tl.dot(tl.trans(high), right, total)
    else:
        if SCALED:
            left = (left.to(tl.float32) * scale[:, None]).to(dtype)
        return tl.dot(tl.trans(left), right, total)


@triton.jit
def three_parts(x):
    """Three bfloat16 numbers whose sum is a float32 number."""
    high = x.to(tl.bfloat16)
    rest = x - high.to(tl.float32)
    middle = rest.to(tl.bfloat16)
    return high, middle, (rest - middle.to(tl.float32)).to(tl.bfloat16)


@triton.jit
def centred(x, scale, weight, pivot, UNIT: tl.constexpr):
    """x − p of raw rows, u − p of unit rows, 0 for dropped rows."""
    z = x * scale[:, None]
    if UNIT:
        z = z * weight[:, None]
    return tl.where((scale != 0)[:, None], z - pivot[None, :], 0.0)


@triton.jit
def float32_product(left, right, large, small):
    """XᵀY to 2⁻²⁴ from six products of parts; the five small ones have an accumulator of their own."""
    left_high, left_middle, left_low = three_parts(left)
    right_high, right_middle, right_low = three_parts(right)
    small = tl.dot(tl.trans(left_low), right_high, small)
    small = tl.dot(tl.trans(left_high), right_low, small)
    small = tl.dot(tl.trans(left_middle), right_middle, small)
    small = tl.dot(tl.trans(left_middle), right_high, small)
    small = tl.dot(tl.trans(left_high), right_middle, small)
    return tl.dot(tl.trans(left_high), right_high, large), small
