"""Moments of rows and of unit rows in one read.

With u = x/‖x‖: Σx, Σx², Σu, Σu² for each dimension and Σ‖x‖, min, max, Σ‖u‖⁴; Σ‖x‖² and Σ‖u‖² are the sums of Σx² and
Σu² over the dimensions, so that Σ‖u‖² is the one of the *rounded* unit rows that Σu adds up.

A program sums a fixed range of rows, at most 1024, in float32; its partial sums are added in order in float64. One
warp holds a row where it can, so that a norm costs five shuffles and no barrier. A program that meets a row outside
float32's safe range (zero, non-finite, or a norm below 1e-12 or above 1e15) raises its flag, leaves zeros, and the
float64 kernels sum its range again: nothing waits for the host to decide. Rows beyond 8192 numbers, and float64 rows,
go there at once and are read twice.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastaniso.ops.triton.columns import column_sums
from fastaniso.ops.triton.norms import row_norms
from fastaniso.ops.triton.rows import Block, blocks, on_device, row_offsets, wanted_rows
from fastaniso.ops.triton.shapes import MAX_ROWS_PER_PROGRAM, MomentsTile, ceiling, max_programs, rows_per_program
from fastaniso.ops.triton.totals import add_partials, add_totals_kernel
from fastaniso.state import NO_ROW, Moments

MAX_FAST_DIM = 8192


@triton.jit
def _read(values, offsets, wanted, FIRST: tl.constexpr, D: tl.constexpr, K: tl.constexpr, C: tl.constexpr):
    # (K, R, C): the last axis over a row's threads, the first within a thread; several rows only if they share a warp.
    columns = FIRST + tl.arange(0, K)[:, None, None] * C + tl.arange(0, C)[None, None, :]
    mask = wanted[None, :, None]
    if FIRST + K * C > D:
        mask = mask & (columns < D)
    return tl.load(values + (offsets[None, :, None] + columns), mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _add(x, inverse, x_sum, xx_sum, u_sum, uu_sum):
    u = x * inverse[None, :, None]
    return x_sum + x, xx_sum + x * x, u_sum + u, uu_sum + u * u


@triton.jit
def _store(
    target, good, x_sum, xx_sum, u_sum, uu_sum, FIRST: tl.constexpr, D: tl.constexpr, K: tl.constexpr, C: tl.constexpr
):
    columns = FIRST + tl.arange(0, K)[:, None] * C + tl.arange(0, C)[None, :]
    inside = columns < D
    tl.store(target + columns, tl.where(good, tl.sum(x_sum, axis=1), 0.0), mask=inside)
    tl.store(target + D + columns, tl.where(good, tl.sum(xx_sum, axis=1), 0.0), mask=inside)
    tl.store(target + 2 * D + columns, tl.where(good, tl.sum(u_sum, axis=1), 0.0), mask=inside)
    tl.store(target + 3 * D + columns, tl.where(good, tl.sum(uu_sum, axis=1), 0.0), mask=inside)


@triton.jit
def moments_kernel(
    values,  # rows at `inner`, `stride_outer`, `stride_inner`
    mask,  # (count,) or None
    partials,  # (programs, 4, D) float32
    totals,  # (programs, 4) float64: Σ‖x‖, min ‖x‖, max ‖x‖, Σ‖u‖⁴
    counts,  # (programs, 5) int64, as in state.Moments
    flags,  # (programs,) int32: 1 where the float64 kernels must sum the range
    norms,  # (count,) float64, or None when nobody asks
    count,
    inner,
    stride_outer,
    stride_inner,
    rows_per_program,
    ONE_AXIS: tl.constexpr,
    ALIGN: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    K0: tl.constexpr,  # the row's first K0·C numbers,
    K1: tl.constexpr,  # and K1·C more: 768 = 2·256 + 1·256 rather than padded to 1024
    R: tl.constexpr,
    STAGES: tl.constexpr,
    NONE: tl.constexpr,
):
    """The four sums and the totals of one fixed range of rows."""
    program = tl.program_id(0)
    x0 = tl.zeros((K0, R, C), tl.float32)
    xx0 = tl.zeros((K0, R, C), tl.float32)
    u0 = tl.zeros((K0, R, C), tl.float32)
    uu0 = tl.zeros((K0, R, C), tl.float32)
    if K1 > 0:
        x1 = tl.zeros((K1, R, C), tl.float32)
        xx1 = tl.zeros((K1, R, C), tl.float32)
        u1 = tl.zeros((K1, R, C), tl.float32)
        uu1 = tl.zeros((K1, R, C), tl.float32)
    norm_sum = tl.zeros((R,), tl.float32)
    smallest = tl.full((R,), float("inf"), tl.float32)
    largest = tl.zeros((R,), tl.float32)
    fourth = tl.zeros((R,), tl.float32)
    wanted_count = tl.zeros((R,), tl.int32)
    unsafe = tl.zeros((R,), tl.int32)
    start = program * rows_per_program
    for first in tl.range(start, start + rows_per_program, R, num_stages=STAGES):
        rows = first + tl.arange(0, R)
        wanted = wanted_rows(mask, rows, count)
        offsets = row_offsets(rows, inner, stride_outer, stride_inner, ONE_AXIS, ALIGN)
        a = _read(values, offsets, wanted, 0, D, K0, C)
        squares = tl.sum(a * a, axis=0)
        if K1 > 0:
            b = _read(values, offsets, wanted, K0 * C, D, K1, C)
            squares += tl.sum(b * b, axis=0)
        squared = tl.sum(squares, axis=1)
        safe = (squared > 1e-24) & (squared < 1e30)
        estimate = tl.rsqrt(squared)
        # One Newton step: the hardware's estimate alone is off by 2⁻²². Rows that are not wanted are 0 from here on.
        inverse = tl.where(safe, estimate * (1.5 - 0.5 * squared * estimate * estimate), 0.0)
        norm = tl.where(safe, squared, 0.0) * inverse
        length = norm * inverse
        if norms is not None:
            tl.store(norms + rows, tl.where(wanted, norm, -1.0).to(tl.float64), mask=rows < count)
        norm_sum += norm
        smallest = tl.minimum(smallest, tl.where(safe, norm, float("inf")))
        largest = tl.maximum(largest, norm)
        fourth += length * length
        unsafe += (wanted & (safe == 0)).to(tl.int32)
        if mask is not None:
            wanted_count += wanted.to(tl.int32)
        x0, xx0, u0, uu0 = _add(a, inverse, x0, xx0, u0, uu0)
        if K1 > 0:
            x1, xx1, u1, uu1 = _add(b, inverse, x1, xx1, u1, uu1)
    good = tl.sum(unsafe) == 0
    target = partials + program.to(tl.int64) * (4 * D)
    _store(target, good, x0, xx0, u0, uu0, 0, D, K0, C)
    if K1 > 0:
        _store(target, good, x1, xx1, u1, uu1, K0 * C, D, K1, C)
    exist = tl.minimum(rows_per_program, count - start)
    kept = exist
    if mask is not None:
        kept = tl.sum(wanted_count)
    any_kept = good & (kept > 0)
    tl.store(flags + program, tl.where(good, 0, 1))
    tl.store(totals + program * 4, tl.where(good, tl.sum(norm_sum), 0.0).to(tl.float64))
    tl.store(totals + program * 4 + 1, tl.where(good, tl.min(smallest, axis=0), float("inf")).to(tl.float64))
    tl.store(totals + program * 4 + 2, tl.where(any_kept, tl.max(largest, axis=0), -float("inf")).to(tl.float64))
    tl.store(totals + program * 4 + 3, tl.where(good, tl.sum(fourth), 0.0).to(tl.float64))
    tl.store(counts + program * 5, tl.where(good, kept, 0).to(tl.int64))
    tl.store(counts + program * 5 + 1, tl.where(good, exist - kept, 0).to(tl.int64))
    tl.store(counts + program * 5 + 2, tl.zeros((), tl.int64))
    tl.store(counts + program * 5 + 3, tl.zeros((), tl.int64))
    tl.store(counts + program * 5 + 4, tl.full((), NONE, tl.int64))


def moments(hidden: Tensor, mask: Tensor | None, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Counts (5,), totals (6,) and sums (4, d) of :class:`fastaniso.state.Moments`."""
    state = Moments.empty(hidden.shape[2], hidden.device)
    with on_device(hidden):
        for block in blocks(hidden, mask, max_programs(hidden.shape[2]) * MAX_ROWS_PER_PROGRAM):
            add_block(block, start, None, state.counts, state.totals, state.sums)
        finish(state.totals, state.sums)
    return state.counts, state.totals, state.sums


def add_block(block: Block, start: int, norms: Tensor | None, counts: Tensor, totals: Tensor, sums: Tensor) -> None:
    """Add one block's rows to the three tensors; fill ``norms`` (rows,) if given, as norms.py describes them."""
    dim, device = sums.shape[1], sums.device
    fast = block.values.dtype != torch.float64 and dim <= MAX_FAST_DIM
    tile = MomentsTile.of(dim, block.values.element_size())
    per_program = rows_per_program(block.rows, dim, tile.R)
    programs = ceiling(block.rows, per_program)
    slices = min(programs, max(32, 2**18 // dim))
    first = programs if fast else 0
    partial_totals = torch.empty(first + slices, 4, dtype=torch.float64, device=device)
    partial_counts = torch.empty(first + slices, 5, dtype=torch.int64, device=device)
    careful = torch.empty(slices, 4, dim, dtype=torch.float64, device=device)
    partials = flags = None
    if fast:
        partials = torch.empty(programs, 4, dim, dtype=torch.float32, device=device)
        flags = torch.empty(programs, dtype=torch.int32, device=device)
        moments_kernel[(programs,)](
            block.values,
            block.mask,
            partials,
            partial_totals,
            partial_counts,
            flags,
            norms,
            block.rows,
            rows_per_program=per_program,
            **block.layout,
            D=dim,
            C=tile.C,
            K0=tile.K0,
            K1=tile.K1,
            R=tile.R,
            STAGES=4,
            NONE=NO_ROW,
            num_warps=tile.warps,
        )
    if norms is None:
        norms = torch.empty(block.rows, dtype=torch.float64, device=device)
    row_norms(block, norms, per_program, flags)
    column_sums(
        block, norms, flags, careful, partial_totals[first:], partial_counts[first:], per_program, start + block.first
    )
    add_partials(partials, careful, sums)
    add_totals_kernel[(1,)](partial_totals, partial_counts, totals, counts, first + slices, PROGRAMS=256, NONE=NO_ROW)


def finish(totals: Tensor, sums: Tensor) -> None:
    """Σ‖x‖² and Σ‖u‖², once every block is in."""
    totals[1] = sums[1].sum()
    totals[4] = sums[3].sum()
