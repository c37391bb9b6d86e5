"""Central scatters Σ(x − x̄)(x − x̄)ᵀ and Σ(u − ū)(u − ū)ᵀ: upper tiles only, split over the rows.

A program multiplies a tile of at most (128, 128) over at most 32 768 rows; the tensor cores' accumulator, which may
round toward zero at each of its steps of 16 rows, is emptied every 1024 rows (float32 rows: 256) into a second float32
sum; the splits are added in order in float64. Then central = Σzzᵀ − n·s sᵀ with z = x − p, s = x̄ − p and a pivot p:

- float16, bfloat16: p = 0. Raw products are exact; the unit product is uuᵀ = (x/‖x‖²)xᵀ with its left factor in two
  parts of the rows' dtype, which costs at most 2⁻¹⁷ of bfloat16 and 2⁻²¹ of float16 (half as often high as low).
- float32: p = the mean of the first block; z in three bfloat16 parts without loss, six products: 2⁻²⁴, no TF32.
- float64: p = the mean of the first block; float64 products (torch.mm) of at most 4096 rows at a time.

With z' = |z| the error of entry (i, j) of Σzzᵀ is at most 2⁻¹⁶ Σz'_i z'_j (2⁻¹⁷ raw or float32) if every rounding
goes the same way, and about 2⁻²² Σz'_i z'_j in practice; the subtraction in float64 adds nothing to speak of. Norms of
any size are brought near 1 by exact powers of two first.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastaniso.ops.triton.moments import add_block, finish
from fastaniso.ops.triton.norms import usable
from fastaniso.ops.triton.products import centred, float32_product, half_product
from fastaniso.ops.triton.rows import Block, blocks, current_target, on_device, row_offsets
from fastaniso.ops.triton.scales import Scales
from fastaniso.ops.triton.shapes import (
    MAX_ROWS_PER_PROGRAM,
    MAX_SPLIT,
    GramTile,
    ceiling,
    max_programs,
    max_splits,
    rows_per_split,
    tile_side,
    triangle,
)
from fastaniso.ops.triton.tiles import add_tiles, centre, tile_of
from fastaniso.state import Moments

FLOAT64_ROWS = 4096


@triton.jit
def _read(values, offsets, keep, columns, D: tl.constexpr):
    mask = keep[:, None] & (columns < D)[None, :]
    return tl.load(values + (offsets[:, None] + columns[None, :]), mask=mask, other=0.0)


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
    FLUSH: tl.constexpr,
    UNIT: tl.constexpr,
    SCALED: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One upper tile of Σzzᵀ over one split of the rows."""
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
    for flush in tl.range(start, stop, FLUSH):
        recent = tl.zeros((T, T), tl.float32)
        if pivot is not None:
            small = tl.zeros((T, T), tl.float32)
        for first in tl.range(flush, flush + FLUSH, K, num_stages=STAGES):
            rows = first + tl.arange(0, K)
            scale = tl.load(scales + rows)
            weight = scale
            if UNIT:
                weight = tl.load(weights + rows)
            offsets = row_offsets(rows, inner, stride_outer, stride_inner, ONE_AXIS, ALIGN)
            left = _read(values, offsets, scale != 0, left_columns, D)
            right = _read(values, offsets, scale != 0, right_columns, D)
            if pivot is not None:
                left = centred(left, scale, weight, left_pivot, UNIT)
                right = centred(right, scale, weight, right_pivot, UNIT)
                recent, small = float32_product(left, right, recent, small)
            else:
                recent = half_product(left, right, scale, weight, recent, UNIT, SCALED)
        total += recent
        if pivot is not None:
            total += small
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
        dim, dtype = block.values.shape[2], block.values.dtype
        side = tile_side(dim, dtype)
        per_split = rows_per_split(block.rows, dim, dtype)
        splits, tiles = ceiling(block.rows, per_split), triangle(ceiling(dim, side))
        # float16 unit rows are always scaled, its range is too short for x/‖x‖²; so are float32's, it costs nothing.
        always = self.unit and dtype != torch.bfloat16
        scales = Scales.of(
            norms,
            splits * per_split,
            unit=self.unit,
            always=always,
            lift=12 if always and dtype == torch.float16 else 0,
        )
        pivot = None
        if self.pivoted:
            pivot = (self.pivot if self.unit else self.pivot / scales.factor.sqrt()).float()
        partials = torch.empty(splits, tiles, side, side, dtype=torch.float32, device=norms.device)
        # For bfloat16 the norms decide on the device which of two launches works; the other returns at once.
        variants = (False, True) if dtype == torch.bfloat16 else (always,)
        for scaled in variants:
            tile = GramTile.of(dim, dtype, current_target(), unit=self.unit, scaled=scaled)
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
                T=side,
                K=tile.K,
                FLUSH=min(tile.flush, per_split),
                UNIT=self.unit,
                SCALED=scaled,
                STAGES=tile.stages,
                num_warps=tile.warps,
            )
        add_tiles(partials, scales.factor, self.sum)

    def finished(self, sums: Tensor, kept: Tensor) -> Tensor:
        """The full central scatter."""
        shift = sums / kept.clamp(min=1) - torch.where(kept > 0, self.pivot, 0.0)
        centre(self.sum, shift, kept)
        return self.sum


def gram(
    hidden: Tensor, mask: Tensor | None, raw: bool, unit: bool, start: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The three tensors of ``moments`` and the central scatters (d, d) of x and of u ((0, 0) when not asked for)."""
    dim, device = hidden.shape[2], hidden.device
    state = Moments.empty(dim, device)
    scatters = [_Scatter(dim, hidden.dtype, device, unit=which) for which, ask in ((False, raw), (True, unit)) if ask]
    limit = min(max_splits(dim, hidden.dtype) * MAX_SPLIT, max_programs(dim) * MAX_ROWS_PER_PROGRAM)
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
