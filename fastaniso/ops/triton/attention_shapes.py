"""How attention is cut: queries in units, scores in tiles, rows in blocks; from the input's shape and dtype alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from fastaniso.ops.triton.shapes import ceiling, power_of_two

SCORE_BYTES = 2**26
"""Scores of one head's 16 queries, or of as many as take this, are kept at a time: some of them are still in the cache
when they are read."""

ROW_WARPS = 4096
"""Warps of a launch that looks at rows: four rounds of eight a multiprocessor of an H200."""

MAX_PARTIALS = 2**24
"""Numbers that all programs keep of histograms and of first keys: more would cost memory, not time."""

THREAD_BYTES = 128
"""Scores that a thread holds in registers: 32, or 16 of float64."""


@dataclass(frozen=True)
class ScoreTile:
    """A program's tile of scores: queries, keys, numbers of a step, stages and warps."""

    queries: int
    keys: int
    K: int
    stages: int
    warps: int

    @classmethod
    def of(cls, dim: int, keys: int, dtype: torch.dtype, target: str) -> Self:
        """For queries that see ``keys``: few take a narrow tile, of very many the scores of 16 queries are kept."""
        parts = {torch.float32: 3, torch.float64: 0}.get(dtype, 1)
        most_queries, most_keys, most_k = {0: (32, 32, 16), 1: (64, 128, 64), 3: (64, 64, 32)}[parts]
        if target == "interpreter":
            # NumPy runs it line by line: small, so that few rows meet every kind of tile.
            most_queries, most_keys = 16, 32
        if most_queries * keys * max(dtype.itemsize, 4) > SCORE_BYTES:
            most_queries = 16
        K = max(16, min(most_k, power_of_two(dim)))
        return cls(most_queries, max(16, min(most_keys, power_of_two(keys))), K, 1 if parts == 3 else 2, 4)


@dataclass(frozen=True)
class RowTile:
    """R rows of C scores at a time; ``held``: a row has no more, and stays in registers."""

    R: int
    C: int
    held: bool
    warps: int

    @classmethod
    def of(cls, width: int, itemsize: int, target: str) -> Self:
        """For rows of at most ``width`` scores: one warp a row where it can, so that a sum costs five shuffles.

        Every thread of a row has the row's float64 sums too: more rows a warp would spill.
        """
        if target == "interpreter":
            return cls(16, min(64, power_of_two(width)), width <= 64, 4)
        a_warp = 32 * THREAD_BYTES // itemsize
        C = min(4 * a_warp, power_of_two(width))
        return cls(2 if C <= 64 else 1, C, width <= C, max(1, C // a_warp))


@dataclass(frozen=True)
class Cut:
    """Units of all sequences, keys that a unit's queries may see, and what one launch takes of them."""

    rows: RowTile
    tiles: int
    units: int
    width: int
    heads_at_once: int
    units_at_once: int
    slots: int

    @classmethod
    def of(
        cls,
        shape: tuple[int, int, int, int],
        span: int,
        kept: int,
        tile: ScoreTile,
        itemsize: int,
        target: str,
    ) -> Self:
        """Of (B, H, T, S), when a query sees ``span`` keys at most and each program keeps ``kept`` numbers."""
        batch, heads, queries, keys = shape
        seen = ceiling(span + tile.queries + tile.keys - 2, tile.keys)
        width = max(1, min(ceiling(keys, tile.keys), seen)) * tile.keys
        tiles = ceiling(queries, tile.queries)
        room = max(1, SCORE_BYTES // (tile.queries * width * itemsize))
        heads_at_once = min(heads, room)
        units_at_once = max(1, min(batch * tiles, room // heads_at_once))
        rows = RowTile.of(width, itemsize, target)
        programs = ceiling(ROW_WARPS, rows.warps * heads_at_once)
        slots = min(units_at_once * tile.queries // rows.R, programs, MAX_PARTIALS // (heads * max(kept, 1)))
        return cls(rows, tiles, batch * tiles, width, heads_at_once, units_at_once, max(1, slots))
