"""Which tiles a sample is drawn from, and how many: strata of tiles of one shape.

Rows are put in random order and cut into blocks whose sizes differ by one at most. Tiles of two blocks of the same two
sizes are a stratum, tiles on the diagonal are strata of their own: in a stratum all tiles hold equally many pairs, so
that totals and means are the same thing and no estimate varies because tiles do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import isqrt

LEAST_TILES = 64
"""Tiles a sample has at least: a confidence interval is only as good as the variance between tiles is known."""

_LEAST_BLOCKS = 32
# Gathering a tile and calling the kernel take as long as about so many products, on the CPU and on a GPU.
_PRODUCTS_A_CALL = {"cpu": 2 * 10**7, "triton": 2 * 10**10, "reference": 10**6}
_MAX_ROWS = {"cpu": 1024, "triton": 8192, "reference": 256}


@dataclass(frozen=True)
class Stratum:
    """Tiles of a block of ``rows`` and a block of ``others`` (indices of blocks), each of ``pairs`` pairs.

    "diagonal": a block with itself; "triangle": blocks i < j of the same range; "rectangle": all of both.
    """

    shape: str
    rows: range
    others: range
    pairs: int

    @property
    def tiles(self) -> int:
        """How many there are."""
        count = len(self.rows)
        return {"diagonal": count, "triangle": count * (count - 1) // 2, "rectangle": count * len(self.others)}[
            self.shape
        ]

    def tile(self, rank: int) -> tuple[int, int]:
        """The blocks of a tile by its place in the stratum."""
        if self.shape == "diagonal":
            return self.rows[rank], self.rows[rank]
        if self.shape == "rectangle":
            return self.rows[rank // len(self.others)], self.others[rank % len(self.others)]
        # Column by column; in integers, which are exact at any size.
        column = (isqrt(8 * rank + 1) + 1) // 2
        return self.rows[rank - column * (column - 1) // 2], self.rows[column]


@dataclass(frozen=True)
class Blocks:
    """``count`` rows in ``blocks`` blocks, the larger ones first."""

    count: int
    blocks: int

    def edges(self, block: int) -> tuple[int, int]:
        """First row of a block and the row after its last."""
        size, larger = divmod(self.count, self.blocks)
        start = block * size + min(block, larger)
        return start, start + size + (block < larger)

    def by_size(self) -> Iterator[tuple[range, int]]:
        """Blocks of each size."""
        size, larger = divmod(self.count, self.blocks)
        yield from ((r, s) for r, s in ((range(larger), size + 1), (range(larger, self.blocks), size)) if len(r) and s)


@dataclass(frozen=True)
class Grid:
    """All tiles of n rows with each other, or with as many others, by strata."""

    rows: Blocks
    others: Blocks | None

    @cached_property
    def strata(self) -> tuple[Stratum, ...]:
        """The strata that hold a pair."""
        found: list[Stratum] = []
        sizes = list(self.rows.by_size())
        if self.others is not None:
            found = [Stratum("rectangle", a, b, s * t) for a, s in sizes for b, t in self.others.by_size()]
        else:
            for blocks, size in sizes:
                found.append(Stratum("diagonal", blocks, blocks, size * (size - 1) // 2))
                found.append(Stratum("triangle", blocks, blocks, size * size))
            if len(sizes) == 2:
                (a, s), (b, t) = sizes
                found.append(Stratum("rectangle", a, b, s * t))
        return tuple(stratum for stratum in found if stratum.pairs * stratum.tiles)

    @cached_property
    def pairs(self) -> int:
        """Pairs in all tiles."""
        return sum(stratum.tiles * stratum.pairs for stratum in self.strata)

    @property
    def tiles(self) -> int:
        """Tiles of all strata."""
        return sum(stratum.tiles for stratum in self.strata)

    @property
    def rows_in_tile(self) -> int:
        """Rows on a tile's shorter side, or one more."""
        return min(blocks.count // blocks.blocks for blocks in (self.rows, self.others or self.rows))


@dataclass(frozen=True)
class Design:
    """A grid, and the tiles to draw from it, about ``tiles``; with ``relative_error``, at first, in a pilot."""

    grid: Grid
    tiles: int
    relative_error: float | None
    products_a_call: int
    dim: int

    def allocation(self, tiles: int) -> tuple[int, ...]:
        """How many of about ``tiles`` fall to each stratum: by its pairs, and two at least, whose variance is known."""
        strata, pairs = self.grid.strata, self.grid.pairs
        return tuple(
            min(max(round(tiles * stratum.tiles * stratum.pairs / pairs), 2), stratum.tiles) for stratum in strata
        )

    def sampled_pairs(self, tiles: int) -> int:
        """Pairs in about ``tiles`` tiles."""
        drawn = zip(self.allocation(tiles), self.grid.strata, strict=True)
        return sum(count * stratum.pairs for count, stratum in drawn)

    def is_worth_it(self, tiles: int) -> bool:
        """Whether about ``tiles`` tiles cost less than all pairs, calls and gathering included."""
        call = self.products_a_call / self.dim
        return self.sampled_pairs(tiles) + sum(self.allocation(tiles)) * call < self.grid.pairs + call


def design(n: int, others: int | None, dim: int, sample: float, backend: str) -> Design | None:
    """How to draw ``sample`` pairs (an int) or to a relative error (a float below 1); None: take all pairs.

    Smaller tiles tell more, as pairs of one tile share rows, and larger ones cost less; the sizes depend on the form of
    the rows alone, so that a seed stands for a sample.
    """
    check_sample(sample)
    wanted = sample if isinstance(sample, int) else None
    call = _PRODUCTS_A_CALL[backend]
    rows = min(isqrt(call // dim), _MAX_ROWS[backend])
    if wanted is not None:
        rows = min(rows, isqrt(wanted // LEAST_TILES))
    smallest = n if others is None else min(n, others)
    if smallest < 2:
        return None
    grid = Grid(_blocks(n, rows), None if others is None else _blocks(others, rows))
    pairs_in_tile = max(stratum.pairs for stratum in grid.strata)
    tiles = LEAST_TILES if wanted is None else -(-wanted // pairs_in_tile)
    drawn = Design(grid, tiles, None if wanted is not None else float(sample), call, dim)
    return drawn if drawn.is_worth_it(tiles) else None


def check_sample(sample: object) -> None:
    """Refuse what is neither a number of pairs nor a relative error."""
    if isinstance(sample, bool) or not (
        (isinstance(sample, int) and sample >= 1) or (isinstance(sample, float) and 0 < sample < 1)
    ):
        raise ValueError(
            f"sample: expected a number of pairs (an int from 1) or a relative error of the mean (a float between 0 "
            f"and 1), got {sample!r}"
        )


def _blocks(count: int, rows: int) -> Blocks:
    rows = max(min(rows, count // _LEAST_BLOCKS), 1)
    return Blocks(count, -(-count // rows))
