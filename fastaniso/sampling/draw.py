"""Draw tiles without replacement, run the op on them, and keep what estimates and their variances need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastaniso.ops import dispatch as ops
from fastaniso.pairing.tiles import gather, kept_rows
from fastaniso.rows import Rows
from fastaniso.sampling.design import Design, Stratum
from fastaniso.state import Pairs
from fastaniso.statistics.pairs import about

Floats = NDArray[np.float64]
_AT_ONCE = 64  # tiles whose results are brought to the host together

POWERS, ABSOLUTE, GIVEN = slice(0, 4), 4, 5
"""Places in a tile's sums: Σ(c − pivot)^p for p = 1..4, Σ|c|, then the exponentials and the pairs above thresholds."""


@dataclass
class StratumSums:
    """Over the tiles drawn from a stratum: how many, their sums (K,) and those sums' products (K, K), in float64.

    ``histogram`` (B,) counts their pairs; ``squares`` (2, B) are sums over tiles of the squares of the counts, and of
    the counts up to a bin.
    """

    stratum: Stratum
    sums: Floats
    products: Floats
    histogram: NDArray[np.int64]
    squares: Floats
    drawn: int = 0


@dataclass
class SampleSums:
    """The strata's sums, the extrema of the pairs drawn with their rows, and what made them."""

    strata: list[StratumSums]
    pivot: float
    extrema: Floats = field(default_factory=lambda: np.array([np.inf, -np.inf]))
    extrema_at: NDArray[np.int64] = field(default_factory=lambda: np.full((2, 2), -1))
    provenance: frozenset[str] = frozenset()

    @property
    def tiles(self) -> int:
        """Tiles drawn."""
        return sum(s.drawn for s in self.strata)

    @property
    def pairs(self) -> int:
        """Pairs in them."""
        return sum(s.drawn * s.stratum.pairs for s in self.strata)


class TileSampler:
    """Rows in random order, and tiles of them drawn as ``design`` says; ``draw`` more until the sample is large enough.

    ``asked`` is the state of no pair that holds what is wanted of each; ``pivot`` a number near the mean, about which
    powers are summed. The rows of a tile are gathered when it is visited: memory is that of two blocks.
    """

    def __init__(
        self,
        rows: Rows,
        others: Rows | None,
        design: Design,
        *,
        seed: int,
        asked: Pairs,
        pivot: float,
        backend: str,
        precision: str,
    ) -> None:
        """Find the rows that count and put them in random order; the design is one for as many."""
        self._generator = np.random.default_rng(seed)
        self._rows, self._others = rows, others
        self._grid = grid = design.grid
        self._order = self._shuffled(rows, grid.rows.count)
        self._other_order = self._order
        if others is not None and grid.others is not None:
            self._other_order = self._shuffled(others, grid.others.count)
        self._design = design
        self._asked = asked
        self._backend, self._precision = backend, precision
        self._seen: list[set[int]] = [set() for _ in grid.strata]
        size = GIVEN + len(asked.uniformity_t) + len(asked.thresholds)
        self.sums = SampleSums(
            [
                StratumSums(
                    stratum,
                    np.zeros(size),
                    np.zeros((size, size)),
                    np.zeros(asked.bins, int),
                    np.zeros((2, asked.bins)),
                )
                for stratum in grid.strata
            ],
            pivot,
        )

    def draw(self, tiles: int) -> Iterator[int]:
        """Visit tiles until about ``tiles`` have been drawn in all; yields the pairs visited, some tiles at a time."""
        waiting: list[tuple[int, Pairs]] = []
        wanted = [self._choose(h, count) for h, count in enumerate(self._design.allocation(tiles))]
        visits = sorted((self._grid.strata[h].tile(rank), h) for h, ranks in enumerate(wanted) for rank in ranks)
        block, rows = -1, None
        for (i, j), h in visits:
            if rows is None or i != block:
                block, rows = i, self._block(i)
            diagonal = self._grid.strata[h].shape == "diagonal"
            waiting.append((h, self._visit(rows, None if diagonal else self._other_block(j), i, j)))
            if len(waiting) == _AT_ONCE:
                yield self._take(waiting)
                waiting = []
        if waiting:
            yield self._take(waiting)

    def _choose(self, h: int, count: int) -> list[int]:
        """Ranks of tiles not drawn before, until the stratum has ``count``."""
        seen, tiles = self._seen[h], self._grid.strata[h].tiles
        more = max(count - len(seen), 0)
        # Of as many as all together, those that are new: a simple random sample of the tiles not drawn yet.
        drawn = self._generator.choice(tiles, min(more + len(seen), tiles), replace=False).tolist() if more else []
        new = [rank for rank in drawn if rank not in seen][:more]
        seen.update(new)
        return new

    def _visit(self, rows: Rows, others: Rows | None, i: int, j: int) -> Pairs:
        asked = self._asked
        return ops.pairs(
            rows,
            others,
            bins=asked.bins,
            moments=True,
            extrema=True,
            uniformity_t=asked.uniformity_t,
            thresholds=asked.thresholds,
            backend=self._backend,
            precision=self._precision,
            start=self._grid.rows.edges(i)[0],
            other_start=(self._grid.others or self._grid.rows).edges(j)[0],
        )

    def _block(self, i: int) -> Rows:
        start, stop = self._grid.rows.edges(i)
        return gather(self._rows, self._order[start:stop])

    def _other_block(self, j: int) -> Rows:
        if self._others is None:
            return self._block(j)
        assert self._grid.others is not None
        start, stop = self._grid.others.edges(j)
        return gather(self._others, self._other_order[start:stop])

    def _take(self, waiting: list[tuple[int, Pairs]]) -> int:
        """Add the results of some tiles to the sums."""
        states = [state for _, state in waiting]

        def together(name: str) -> NDArray[np.float64]:
            stacked: NDArray[np.float64] = torch.stack([getattr(state, name) for state in states]).cpu().numpy()
            return stacked

        counts, histogram = together("counts")[:, 0], together("histogram")
        moments = torch.stack([state.moments for state in states if state.moments is not None])
        powers = about(moments.new_tensor(self.sums.pivot), moments.new_tensor(counts), moments)
        sums = np.concatenate(
            (powers.cpu().numpy(), together("moments")[:, 4:], together("exponentials"), together("above")), 1
        )
        belongs = np.array([h for h, _ in waiting])
        for h, total in enumerate(self.sums.strata):
            mine = belongs == h
            if not mine.any():
                continue
            in_bin = histogram[mine].astype(np.float64)
            total.sums += sums[mine].sum(0)
            total.products += np.einsum("tk,tl->kl", sums[mine], sums[mine])  # no BLAS, whose threads take memory
            total.histogram += histogram[mine].sum(0).astype(np.int64)
            total.squares += np.stack([np.square(counted).sum(0) for counted in (in_bin, in_bin.cumsum(1))])
            total.drawn += int(mine.sum())
        self._take_extrema(together("extrema"), together("extrema_at").astype(np.int64))
        self.sums.provenance |= frozenset().union(*(state.provenance for state in states))
        return int(counts.sum())

    def _take_extrema(self, values: Floats, places: NDArray[np.int64]) -> None:
        for which, sign in enumerate((1, -1)):
            best = int((sign * values[:, which]).argmin())
            if sign * values[best, which] < sign * self.sums.extrema[which]:
                i, j = places[best, which]
                self.sums.extrema[which] = values[best, which]
                at = int(self._order[i]), int(self._other_order[j])
                self.sums.extrema_at[which] = at if self._others is not None else sorted(at)

    def _shuffled(self, rows: Rows, n: int) -> Tensor:
        order = torch.from_numpy(self._generator.permutation(n)).to(rows.values.device)
        kept = kept_rows(rows, n)
        return order if kept is None else kept[order]
