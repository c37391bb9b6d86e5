"""How much of the rows a program takes: chosen from the input's shape and dtype alone, so that the bits never depend on
the number of multiprocessors, and so that nothing spills on sm_80, sm_90, sm_100 and gfx942.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


def power_of_two(number: int) -> int:
    """The smallest power of two that is at least ``number``."""
    return 1 << max(number - 1, 0).bit_length()


def ceiling(number: int, divisor: int) -> int:
    """``number`` / ``divisor``, rounded up."""
    return -(-number // divisor)


MAX_ROWS_PER_PROGRAM = 1024
"""Rows that a ``moments`` program sums in float32."""


@dataclass(frozen=True)
class MomentsTile:
    """R rows of K0·C + K1·C numbers at a time, at most 32 numbers a thread."""

    C: int
    K0: int
    K1: int
    R: int
    warps: int

    @classmethod
    def of(cls, dim: int, itemsize: int) -> MomentsTile:
        """One warp a row up to d = 1024, then two, four and eight; vectors of 16 bytes; short rows share the warp.

        A program is one row's warps, so that Triton (whose versions differ here) has one way only to lay a row out.
        """
        warps = min(8, power_of_two(ceiling(dim, 1024)))
        widest = 32 * warps * 16 // itemsize
        across = min(widest, power_of_two(dim))
        pieces = ceiling(dim, across)
        first = 1 << (pieces.bit_length() - 1)
        rest = power_of_two(pieces - first) if pieces > first else 0
        if rest == first:
            first, rest = 2 * first, 0
        return cls(across, first, rest, min(32, widest // across), warps)


def max_programs(dim: int) -> int:
    """The most programs of a ``moments`` launch: partial sums of at most 64 MiB up to d = 8192."""
    return max(512, min(4096, 2**22 // power_of_two(dim)))


def rows_per_program(rows: int, dim: int, least: int) -> int:
    """Rows of each ``moments`` program: a power of two."""
    return min(MAX_ROWS_PER_PROGRAM, max(16, least, power_of_two(ceiling(rows, max_programs(dim)))))


MAX_SPLIT = 32_768
"""Rows that a ``gram`` program sums in float32, emptying the tensor cores' accumulator every ``flush`` rows."""

MAX_PARTIALS = 2**24
"""Numbers in the partial tiles of a ``gram`` launch: 64 MiB."""


@dataclass(frozen=True)
class GramTile:
    """A program's tile: its side, rows of a step, pipeline stages, warps, and rows between two flushes."""

    side: int
    K: int
    stages: int
    warps: int
    flush: int

    @classmethod
    def of(cls, dim: int, dtype: torch.dtype, target: str, *, unit: bool, scaled: bool) -> GramTile:
        """The tile for rows of ``dtype``: the more a variant computes on its rows, the fewer it holds."""
        side = tile_side(dim, dtype)
        if dtype == torch.float32:
            # Triton 3.6 fails to pipeline a loop of two accumulators for Blackwell.
            return cls(side, 16, 1 if target == "blackwell" else 3, 4, 256)
        warps = 8 if side == 128 else 4
        if not unit and not scaled:
            # Three buffers of rows; on ROCm two, because a workgroup has 64 KiB.
            return cls(side, 64, 3 if target == "rocm" else 5, warps, 1024)
        return cls(side, 16 if unit and scaled else 32, 5, warps, 1024)


def tile_side(dim: int, dtype: torch.dtype) -> int:
    """Side of a tile: 128, float32 64, or less where the whole matrix is smaller."""
    return max(16, min(64 if dtype == torch.float32 else 128, power_of_two(dim)))


def triangle(side: int) -> int:
    """Number of tiles on and above the diagonal of ``side`` × ``side``."""
    return side * (side + 1) // 2


def max_splits(dim: int, dtype: torch.dtype) -> int:
    """Splits of a launch, so that its partial tiles take 64 MiB (or a quarter of the scatter, if that is more)."""
    side = tile_side(dim, dtype)
    return max(1, MAX_PARTIALS // (triangle(ceiling(dim, side)) * side * side))


def rows_per_split(rows: int, dim: int, dtype: torch.dtype) -> int:
    """Rows of a ``gram`` program: a power of two."""
    return min(MAX_SPLIT, max(256, power_of_two(ceiling(rows, max_splits(dim, dtype)))))
