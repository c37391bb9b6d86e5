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


PANEL_ALIGN = 64
"""Numbers of a panel's row are padded to a multiple of this: a step of the product needs no mask."""

PANEL_BYTES = 2**26
MAX_PANEL_ROWS = 65_536
MAX_FLOAT64_PANEL_ROWS = 2048
"""A float64 product of two panels is written out: 32 MiB."""


def panel_parts(dtype: torch.dtype) -> int:
    """How many bfloat16 parts a number of a panel has; 0 for float64, whose products are not made tile by tile."""
    return {torch.float32: 3, torch.float64: 0}.get(dtype, 1)


def panel_rows(rows: int, dim: int, dtype: torch.dtype) -> int:
    """Rows of a panel of at most 64 MiB (or 512 rows): equal shares of all rows, in whole tiles of 128."""
    bytes_a_row = ceiling(dim, PANEL_ALIGN) * PANEL_ALIGN * {torch.float32: 6, torch.float64: 8}.get(dtype, 2)
    limit = MAX_FLOAT64_PANEL_ROWS if dtype == torch.float64 else MAX_PANEL_ROWS
    most = min(limit, max(512, PANEL_BYTES // bytes_a_row))
    share = ceiling(rows, max(1, ceiling(rows, most)))
    return max(1, ceiling(share, 128)) * 128


PAIR_PROGRAMS = 1055
"""Programs of a launch of ``pairs``: four rounds of two a multiprocessor of an H200; odd, so that none of them always
meets the lower rows of a supertile."""

SUPERTILE_SIDE = 16
"""Tiles that lie together in both directions are visited together: they share rows while those are in the cache."""


@dataclass(frozen=True)
class PairTile:
    """A program's tile of cosines: side, numbers of a step, pipeline stages, warps, most registers of a thread, and
    whether rows come through descriptors."""

    side: int
    K: int
    stages: int
    warps: int
    registers: int | None = None
    described: bool = False

    @classmethod
    def of(
        cls, dtype: torch.dtype, target: str, *, small: bool = False, many: bool = False, slots: int = 0
    ) -> PairTile:
        """For rows of ``dtype``: a ``small`` tile leaves registers for more, as ``many`` sums need them; ``slots``
        int32 of shared memory are taken.

        Those are in an array of their own, for which Triton does not ask: a program may have more than 48 KiB with it
        only if Triton asks for more than that without it.
        """
        if dtype == torch.float64:
            return cls(16 if small or many else 32, PANEL_ALIGN, 1, 4)
        if target == "interpreter":
            # NumPy runs it line by line: small, so that few rows meet every kind of tile.
            return cls(16 if small else 32, PANEL_ALIGN, 1, 4)
        small = small or many or dtype == torch.float32
        side, warps = (64, 4) if small else (128, 8)
        if target == "rocm":
            return cls(side, 32, 2, warps)
        if target == "cuda":
            # Without the last figure the compiler would rather spill than have fewer programs a multiprocessor.
            return cls(side, 32, 8 if small else 5, 8 if many else warps, 255)
        if small:
            return cls(side, 64, 4, warps, described=True)
        # Hopper: two programs a multiprocessor, so that one multiplies while the other sums up.
        registers = 128 if target == "hopper" else None
        return cls(side, 64, 3 if slots <= 4096 else 2, warps, registers, described=True)


def supertiles(rows: int, others: int, side: int, *, triangle: bool) -> tuple[int, int]:
    """Supertiles down, and all slots of a launch, for tiles of ``side``; slots outside are passed over."""
    down, across = (ceiling(number, side * SUPERTILE_SIDE) for number in (rows, others))
    return down, (down * (down + 1) // 2 if triangle else down * across) * SUPERTILE_SIDE**2


def list_splits(k: int) -> int:
    """Lists that a row of ``neighbors`` has: enough programs for a GPU, at most 128 places a row (or k)."""
    return max(1, min(8, 128 // power_of_two(k)))
