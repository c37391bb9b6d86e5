"""Sums of unit rows by group, without atomics: rows sorted by group, cut into segments, segments added in order.

Σu and Σ‖u‖² of each group, u = x/‖x‖. A stable sort brings a group's rows together in their own order; a segment is at
most 256 of them and never crosses into the next group, so one program sums it in float32 (float64 rows in float64); a
second pass adds a group's segments in order in float64. The number of segments is bounded on the host by the shapes,
so nothing waits for the device.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastaniso.ops.triton.norms import row_norms, usable
from fastaniso.ops.triton.rows import Block, blocks, on_device, row_offsets
from fastaniso.ops.triton.shapes import ceiling
from fastaniso.state import NO_ROW

MAX_ROWS = 2**20
SEGMENT = 256
TILE_ROWS = 8
TILE_COLUMNS = 256
NORM_ROWS = 64


@triton.jit
def segments_kernel(
    values,  # rows at `inner`, `stride_outer`, `stride_inner`
    norms,  # (rows,) float64
    order,  # (rows,) int64: row numbers sorted by group
    starts,  # (groups + 1,) int64: where each group starts in `order`
    segment_starts,  # (groups + 1,) int64: number of each group's first segment
    segment_group,  # (segments,) int64: the group of each segment; `groups` where there is no such segment
    partials,  # (segments, D)
    partial_squares,  # (segments, column blocks)
    groups,
    inner,
    stride_outer,
    stride_inner,
    ONE_AXIS: tl.constexpr,
    ALIGN: tl.constexpr,
    D,
    LENGTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Σu of a column block over one segment: at most LENGTH rows of one group."""
    segment = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    group = tl.load(segment_group + segment)
    exists = group < groups
    first = tl.load(starts + group, mask=exists, other=0)
    first += (segment - tl.load(segment_starts + group, mask=exists, other=0)) * LENGTH
    last = tl.minimum(first + LENGTH, tl.load(starts + group + 1, mask=exists, other=0))
    total = tl.zeros((ROWS, COLUMNS), partials.dtype.element_ty)
    squares = tl.zeros((ROWS, COLUMNS), partials.dtype.element_ty)
    for place in tl.range(first, last, ROWS):
        places = place + tl.arange(0, ROWS)
        inside = places < last
        rows = tl.load(order + places, mask=inside, other=0).to(tl.int32)
        norm = tl.load(norms + rows, mask=inside, other=1.0)
        # ‖x‖ and x are brought near 1 by a power of two first: 1/‖x‖ of a subnormal norm would overflow.
        exponent = ((norm.to(tl.int64, bitcast=True) >> 52) & 0x7FF) - 1023
        bounded = tl.minimum(tl.maximum(exponent, -126), 126)
        power = ((1023 - bounded) << 52).to(tl.float64, bitcast=True)
        scale = power.to(partials.dtype.element_ty)
        inverse = (1.0 / (norm * power)).to(partials.dtype.element_ty)
        offsets = row_offsets(rows, inner, stride_outer, stride_inner, ONE_AXIS, ALIGN)
        mask = inside[:, None] & (columns < D)[None, :]
        x = tl.load(values + (offsets[:, None] + columns[None, :]), mask=mask, other=0.0)
        u = x.to(partials.dtype.element_ty) * scale[:, None] * inverse[:, None]
        total += u
        squares += u * u
    tl.store(partials + segment * D + columns, tl.sum(total, axis=0), mask=columns < D)
    tl.store(partial_squares + segment * tl.num_programs(1) + tl.program_id(1), tl.sum(squares))


@triton.jit
def add_segments_kernel(
    partials,
    partial_squares,
    segment_starts,
    unit_sum,  # (groups, D) float64, added to
    unit_squared,  # (groups,) float64, added to
    D,
    PARTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Add a group's segments, in order, to its sums."""
    group = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < D
    first = tl.load(segment_starts + group)
    last = tl.load(segment_starts + group + 1)
    total = tl.zeros((ROWS, COLUMNS), tl.float64)
    for segment in tl.range(first, last, ROWS):
        segments = segment + tl.arange(0, ROWS)
        mask = (segments < last)[:, None] & inside[None, :]
        total += tl.load(partials + (segments[:, None] * D + columns[None, :]), mask=mask, other=0.0).to(tl.float64)
    target = unit_sum + group * D + columns
    tl.store(target, tl.load(target, mask=inside, other=0.0) + tl.sum(total, axis=0), mask=inside)
    if tl.program_id(1) == 0:
        squares = tl.zeros((COLUMNS,), tl.float64)
        for part in tl.range(first * PARTS, last * PARTS, COLUMNS):
            parts = part + tl.arange(0, COLUMNS)
            squares += tl.load(partial_squares + parts, mask=parts < last * PARTS, other=0.0).to(tl.float64)
        tl.store(unit_squared + group, tl.load(unit_squared + group) + tl.sum(squares))


def group_moments(
    hidden: Tensor, mask: Tensor | None, groups: Tensor, num_groups: int, start: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Counts (G,), unit sums (G, d), Σ‖u‖² (G,) and dropped (5,) of :class:`fastaniso.state.GroupMoments`."""
    device, dim = hidden.device, hidden.shape[2]
    counts = torch.zeros(num_groups, dtype=torch.int64, device=device)
    unit_sum = torch.zeros(num_groups, dim, dtype=torch.float64, device=device)
    unit_squared = torch.zeros(num_groups, dtype=torch.float64, device=device)
    dropped = torch.zeros(5, dtype=torch.int64, device=device)
    dropped[4] = NO_ROW
    labels = groups.reshape(-1)
    with on_device(hidden):
        for block in blocks(hidden, mask, MAX_ROWS):
            label = labels[block.first : block.first + block.rows]
            _add_block(block, label, start + block.first, counts, unit_sum, unit_squared, dropped)
    return counts, unit_sum, unit_squared, dropped


def _add_block(
    block: Block,
    label: Tensor,
    first_index: int,
    counts: Tensor,
    unit_sum: Tensor,
    unit_squared: Tensor,
    dropped: Tensor,
) -> None:
    num_groups, dim = unit_sum.shape
    device = unit_sum.device
    member = (label >= 0) & (label < num_groups)
    wanted = torch.ones_like(member) if block.mask is None else block.mask.reshape(-1)
    norms = torch.empty(block.rows, dtype=torch.float64, device=device)
    row_norms(Block(block.values, wanted & member, block.first), norms, NORM_ROWS)
    _add_dropped(norms, wanted, member, first_index, dropped)

    key = torch.where(usable(norms), label, num_groups)
    sorted_key, order = torch.sort(key, stable=True)
    starts = torch.searchsorted(sorted_key, torch.arange(num_groups + 1, device=device))
    sizes = starts.diff()
    counts += sizes
    segment_starts = torch.zeros(num_groups + 1, dtype=torch.int64, device=device)
    segment_starts[1:] = ((sizes + (SEGMENT - 1)) // SEGMENT).cumsum(0)
    segments = min(block.rows, block.rows // SEGMENT + num_groups)
    if segments == 0:
        return
    segment_group = torch.searchsorted(segment_starts[1:], torch.arange(segments, device=device), right=True)

    column_blocks = ceiling(dim, TILE_COLUMNS)
    dtype = torch.float64 if block.values.dtype == torch.float64 else torch.float32
    partials = torch.empty(segments, dim, dtype=dtype, device=device)
    partial_squares = torch.empty(segments, column_blocks, dtype=dtype, device=device)
    segments_kernel[(segments, column_blocks)](
        block.values,
        norms,
        order,
        starts,
        segment_starts,
        segment_group,
        partials,
        partial_squares,
        num_groups,
        **block.layout,
        D=dim,
        LENGTH=SEGMENT,
        ROWS=TILE_ROWS,
        COLUMNS=TILE_COLUMNS,
    )
    add_segments_kernel[(num_groups, column_blocks)](
        partials,
        partial_squares,
        segment_starts,
        unit_sum,
        unit_squared,
        D=dim,
        PARTS=column_blocks,
        ROWS=TILE_ROWS,
        COLUMNS=TILE_COLUMNS,
    )


def _add_dropped(norms: Tensor, wanted: Tensor, member: Tensor, first_index: int, dropped: Tensor) -> None:
    """Masked rows first, then groups outside 0..G−1, then rows that cannot be normalised."""
    zero, infinite = norms == 0, torch.isinf(norms)
    dropped[0] += (~wanted).sum()
    dropped[1] += zero.sum()
    dropped[2] += infinite.sum()
    dropped[3] += (wanted & ~member).sum()
    index = torch.arange(first_index, first_index + norms.shape[0], device=norms.device)
    dropped[4] = torch.minimum(dropped[4], torch.where(zero | infinite, index, NO_ROW).min())
