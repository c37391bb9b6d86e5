"""Central scatters Σ(x − x̄)(x − x̄)ᵀ and Σ(u − ū)(u − ū)ᵀ: upper tiles only, split over the rows.

A program multiplies a (128, 128) tile over at most 65 536 rows; the tensor cores' float32 accumulator is emptied every
1024 rows into a second float32 sum; the splits are added in order in float64. Then central = Σzzᵀ − n·s sᵀ with z = x − p,
s = x̄ − p and a pivot p:

- float16, bfloat16: p = 0. Raw products are exact; the unit product is uuᵀ = (x/‖x‖²)xᵀ with the left factor in two parts,
  hi + lo. Error ≤ 2⁻²⁰·Σ|x_i x_j| (raw), 2⁻¹⁷·Σ|u_i u_j| (bfloat16 unit, when all roundings agree; about 2e-7 rms) and
  2⁻²⁰·Σ|u_i u_j| (float16 unit).
- float32: p = the mean, z split exactly into three bfloat16 parts, six products: error ≤ 2⁻²⁰·Σ|z_i z_j|, no TF32.
- float64: p = the mean, float64 products (torch.mm) of 4096 rows at a time.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastaniso.ops.triton.moments import MAX_ROWS_PER_PROGRAM, add_block, finish, programs_for
from fastaniso.ops.triton.norms import usable
from fastaniso.ops.triton.rows import Block, blocks, on_device, row_offsets
from fastaniso.ops.triton.scales import Scales
from fastaniso.ops.triton.tiles import add_tiles, centre, tile_of, triangle
from fastaniso.state import Moments

FLUSH = 1024
MAX_SPLIT = 65_536
MAX_PARTIALS = 2**24
FLOAT64_ROWS = 4096


@triton.jit
def _read(values, offsets, keep, columns, D: tl.constexpr):
    mask = keep[:, None] & (columns < D)[None, :]
    return tl.load(values + (offsets[:, None] + columns[None, :]), mask=mask, other=0.0)


@triton.jit
def _half_product(left, right, scale, weight, total, UNIT: tl.constexpr, SCALED: tl.constexpr):
    dtype: tl.constexpr = left.dtype
    if SCALED:
        left = (left.to(tl.float32) * scale[:, None]).to(dtype)
        right = (right.to(tl.float32) * scale[:, None]).to(dtype)
    if UNIT:
        weighted = left.to(tl.float32) * (weight * weight)[:, None]
        high = weighted.to(dtype)
        low = (weighted - high.to(tl.float32)).to(dtype)
        total = tl.dot(tl.trans(low), right, total)
        return tl.dot(tl.trans(high), right, total)
    else:
        return tl.dot(tl.trans(left), right, total)


@triton.jit
def _three(x):
    high = x.to(tl.bfloat16)
    rest = x - high.to(tl.float32)
    middle = rest.to(tl.bfloat16)
    return high, middle, (rest - middle.to(tl.float32)).to(tl.bfloat16)


@triton.jit
def _centred(x, scale, weight, pivot, UNIT: tl.constexpr):
    z = x * scale[:, None]
    if UNIT:
        z = z * weight[:, None]
    return tl.where((scale != 0)[:, None], z - pivot[None, :], 0.0)


@triton.jit
def _float32_product(left, right, total):
    left_high, left_middle, left_low = _three(left)
    right_high, right_middle, right_low = _three(right)
    # Small products first; the three left out are below 2⁻²⁴.
    total = tl.dot(tl.trans(left_low), right_high, total)
    total = tl.dot(tl.trans(left_high), right_low, total)
    total = tl.dot(tl.trans(left_middle), right_middle, total)
    total = tl.dot(tl.trans(left_middle), right_high, total)
    total = tl.dot(tl.trans(left_high), right_middle, total)
    return tl.dot(tl.trans(left_high), right_high, total)


@triton.jit
def gram_kernel(
    values,  # rows at `inner`, `stride_outer`, `stride_inner`
    scales,  # (padded,) float32, of scales.py
    weights,  # (padded,) float32
    moderate,  # (1,) int32: SCALED programs work where it is 0, the others where it is 1; None: always work
    pivot,  # (D,) float32 of the scaled rows, or None for half precision
    partials,  # (splits, tiles, T, T) float32
    inner,
    stride_outer,
    stride_inner,
    rows_per_split,
    ONE_AXIS: tl.constexpr,
    ALIGN: tl.constexpr,
    D: tl.constexpr,
    T: tl.constexpr,
    K: tl.constexpr,
    FLUSH_ROWS: tl.constexpr,
    UNIT: tl.constexpr,
    SCALED: tl.constexpr,
    STAGES: tl.constexpr,
):
    split = tl.program_id(1)
    tile_row, tile_column = tile_of(tl.program_id(0))
    left_columns = tile_row * T + tl.arange(0, T)
    right_columns = tile_column * T + tl.arange(0, T)
    if pivot is not None:
        left_pivot = tl.load(pivot + left_columns, mask=left_columns < D, other=0.0)
        right_pivot = tl.load(pivot + right_columns, mask=right_columns < D, other=0.0)
    start = split * rows_per_split
    stop = start + rows_per_split
    if moderate is not None:
        stop = tl.where((tl.load(moderate) == 0) == SCALED, stop, start)
    total = tl.zeros((T, T), tl.float32)
    for flush in tl.range(start, stop, FLUSH_ROWS):
        recent = tl.zeros((T, T), tl.float32)
        for first in tl.range(flush, flush + FLUSH_ROWS, K, num_stages=STAGES):
            rows = first + tl.arange(0, K)
            scale = tl.load(scales + rows)
            weight = scale
            if UNIT:
                weight = tl.load(weights + rows)
            offsets = row_offsets(rows, inner, stride_outer, stride_inner, ONE_AXIS, ALIGN)
            left = _read(values, offsets, scale != 0, left_columns, D)
            right = _read(values, offsets, scale != 0, right_columns, D)
            if pivot is not None:
                left = _centred(left, scale, weight, left_pivot, UNIT)
                right = _centred(right, scale, weight, right_pivot, UNIT)
                recent = _float32_product(left, right, recent)
            else:
                recent = _half_product(left, right, scale, weight, recent, UNIT, SCALED)
        total += recent
    place = tl.arange(0, T)[:, None] * T + tl.arange(0, T)[None, :]
    target = partials + (split.to(tl.int64) * tl.num_programs(0) + tl.program_id(0)) * (T * T)
    tl.store(target + place, total, mask=(place >= 0) & (stop > start))


class _Scatter:
    """One of the two scatters while blocks of rows are added to it."""

    def __init__(self, dim: int, dtype: torch.dtype, device: torch.device, *, unit: bool) -> None:
        self.unit = unit
        self.sum = torch.zeros(dim, dim, dtype=torch.float64, device=device)
        self.pivot = torch.zeros(dim, dtype=torch.float64, device=device)
        self.pivoted = dtype in (torch.float32, torch.float64)

    def add(self, block: Block, norms: Tensor, mean: Tensor) -> None:
        """Add a block's rows; the mean of the first block becomes the pivot of all."""
        if self.pivoted and block.first == 0:
            # As float32, because that is what the kernels subtract.
            self.pivot = mean.float().double() if block.values.dtype == torch.float32 else mean
        if block.values.dtype == torch.float64:
            self._add_float64(block, norms)
        else:
            self._add_tiles(block, norms)

    def _add_float64(self, block: Block, norms: Tensor) -> None:
        for part in blocks(block.values, None, FLOAT64_ROWS):
            norm = norms[part.first : part.first + part.rows, None]
            rows = part.values.reshape(-1, part.values.shape[2])
            z = torch.where(usable(norm), (rows / norm if self.unit else rows) - self.pivot, 0.0)
            self.sum.addmm_(z.T, z)

    def _add_tiles(self, block: Block, norms: Tensor) -> None:
        dim, dtype, device = block.values.shape[2], block.values.dtype, norms.device
        tile = tile_side(dim)
        tiles = triangle(triton.cdiv(dim, tile))
        per_split = rows_per_split(block.rows, dim)
        splits = triton.cdiv(block.rows, per_split)
        # float16 unit rows are always scaled: their range is too short for x/‖x‖².
        always = self.unit and dtype == torch.float16
        scales = Scales.of(norms, splits * per_split, unit=self.unit, always=always or self.pivoted and self.unit)
        partials = torch.empty(splits, tiles, tile, tile, dtype=torch.float32, device=device)
        pivot = None
        if self.pivoted:
            pivot = (self.pivot if self.unit else self.pivot / scales.factor.sqrt()).float()
        variants = (False, True) if dtype == torch.bfloat16 else (always,)
        for scaled in variants:
            gram_kernel[(tiles, splits)](
                block.values,
                scales.scales,
                scales.weights,
                scales.moderate if len(variants) > 1 else None,
                pivot,
                partials,
                rows_per_split=per_split,
                **block.layout,
                D=dim,
                T=tile,
                K=32 if self.pivoted else 64,
                FLUSH_ROWS=min(FLUSH, per_split),
                UNIT=self.unit,
                SCALED=scaled,
                STAGES=2 if self.pivoted else 3,
                num_warps=8 if tile == 128 else 4,
            )
        add_tiles(partials, scales.factor, self.sum)

    def finished(self, sums: Tensor, kept: Tensor) -> Tensor:
        """The full central scatter."""
        shift = sums / kept.clamp(min=1) - torch.where(kept > 0, self.pivot, 0.0)
        centre(self.sum, shift, kept)
        return self.sum


def tile_side(dim: int) -> int:
    """Side of a tile: 128, or less where the whole matrix is smaller."""
    return max(16, min(128, triton.next_power_of_2(dim)))


def max_splits(dim: int) -> int:
    """Splits of a launch, so that its partials take 64 MiB (or a quarter of the scatter, if that is more)."""
    tile = tile_side(dim)
    return max(1, MAX_PARTIALS // (triangle(triton.cdiv(dim, tile)) * tile * tile))


def rows_per_split(rows: int, dim: int) -> int:
    """Rows of a program: a power of two that depends on the shape alone."""
    return min(MAX_SPLIT, max(256, triton.next_power_of_2(triton.cdiv(rows, max_splits(dim)))))


def gram(
    hidden: Tensor, mask: Tensor | None, raw: bool, unit: bool, start: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The three tensors of ``moments`` and the central scatters (d, d) of x and of u ((0, 0) when not asked for)."""
    dim, device = hidden.shape[2], hidden.device
    state = Moments.empty(dim, device)
    scatters = [_Scatter(dim, hidden.dtype, device, unit=which) for which, ask in ((False, raw), (True, unit)) if ask]
    limit = min(max_splits(dim) * MAX_SPLIT, programs_for(dim) * MAX_ROWS_PER_PROGRAM)
    with on_device(hidden):
        for block in blocks(hidden, mask, limit):
            norms = torch.empty(block.rows, dtype=torch.float64, device=device)
            add_block(block, start, norms, state.counts, state.totals, state.sums)
            for scatter in scatters:
                scatter.add(block, norms, state.sums[2 * scatter.unit] / state.kept.clamp(min=1))
        finish(state.totals, state.sums)
        made = {s.unit: s.finished(state.sums[2 * s.unit], state.kept) for s in scatters}
    nothing = torch.empty(0, 0, dtype=torch.float64, device=device)
    return state.counts, state.totals, state.sums, made.get(False, nothing), made.get(True, nothing)
