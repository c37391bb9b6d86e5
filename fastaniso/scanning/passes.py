"""The passes over stored rows: each grows one state, a block or a tile at a time, from where it was left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch

from fastaniso.functional import passes
from fastaniso.ops import dispatch as ops
from fastaniso.pairing.tiles import Block, visit_neighbors, visit_pairs
from fastaniso.planning.plan import scatters_of
from fastaniso.progress import Meter, Report
from fastaniso.rows import Rows
from fastaniso.scanning.checkpoint import Checkpoint
from fastaniso.scanning.feed import Waiting, blocks_on, files_on
from fastaniso.sources import Source
from fastaniso.state import Coverage, Gram, Moments, Neighbors, Pairs
from fastaniso.statistics.host import dropped_rows, to_host

P = TypeVar("P", Pairs, Neighbors)


@dataclass(frozen=True)
class Passes:
    """What all passes share: the rows, where they are measured and how, and where states are kept."""

    source: Source
    checkpoint: Checkpoint
    device: torch.device
    backend: str
    report: Report | None
    waiting: Waiting = field(default_factory=Waiting)

    def moments(self, *, gram: bool | str, invalid: str, block_rows: int) -> Moments | Gram:
        """One linear pass, file by file: a row that cannot be normalised is named by its place in its file."""
        dim = self.source.dim
        raw, unit = (name in scatters_of(gram) for name in ("raw", "unit"))
        empty: Moments | Gram = Gram.empty(dim, raw=raw, unit=unit) if gram else Moments.empty(dim)
        state = self.checkpoint.state("vectors", empty).to(self.device)
        seen = sum(stop - start for ranges in state.coverage.ranges.values() for start, stop in ranges)
        meter = Meter(self.report, "measuring", "rows", total=self.source.count, done=seen)
        with files_on(self.device, self.source, block_rows, waiting=self.waiting) as files:
            for part, name, blocks in zip(self.source.parts, self.checkpoint.names, files, strict=True):
                for block in blocks:
                    if _holds(state.coverage, name, block.start, block.stop):
                        continue
                    rows = block.load()
                    one = partial(ops.gram, raw=raw, unit=unit) if gram else ops.moments
                    state = state.merge(one(rows, backend=self.backend, start=block.start, source=name))  # type: ignore[arg-type]  # both of one kind
                    self.checkpoint.keep("vectors", state)
                    meter.step(rows.count)
                dropped_rows(to_host(state.counts)[0], invalid, name=part.name)
        return state

    def again(self, calls: Iterable[tuple[str, tuple[tuple[str, Any], ...]]], *, block_rows: int) -> dict[Any, Any]:
        """What the functions of a second pass make of the rows, by their names and options."""
        found = {}
        for call in calls:
            name, options = call
            rows = _ReadAgain(self.source, self.device, block_rows, Meter(self.report, name, "rows"), self.waiting)
            # A row that equals the mean is no mistake of the caller's.
            found[call] = getattr(passes, name)(rows, **dict(options), backend=self.backend, invalid="omit")
        return found

    def pairs(
        self, *, bins: int, thresholds: tuple[float, ...], uniformity_t: tuple[float, ...], block_rows: int
    ) -> Pairs:
        """Every tile of the triangle once."""
        empty = Pairs.empty(self.source.dim, bins=bins, thresholds=thresholds, uniformity_t=uniformity_t)
        state = self.checkpoint.state("pairs", empty).to(self.device)
        with self._triangle(block_rows) as blocks:
            grown = visit_pairs(state, blocks, source=self._name, backend=self.backend)
            return self._follow("pairs", state, grown, counted=1)

    def neighbors(self, *, k: int, block_rows: int) -> Neighbors:
        """Every tile of the triangle once, for the rows on both its sides."""
        dtype = torch.float64 if self.source.dtype == torch.float64 else torch.float32
        empty = Neighbors.empty(self.source.dim, k, 0, self.source.count, dtype=dtype)
        state = self.checkpoint.state("neighbors", empty).to(self.device)
        with self._triangle(block_rows) as blocks:
            grown = visit_neighbors(state, blocks, source=self._name, backend=self.backend)
            return self._follow("neighbors", state, grown, counted=2)

    def _triangle(self, block_rows: int) -> AbstractContextManager[Sequence[Block]]:
        return blocks_on(self.device, self.source, block_rows, triangle=True, waiting=self.waiting)

    @property
    def _name(self) -> str:
        """What states of pairs call the source: its rows count on over all files."""
        return ", ".join(self.checkpoint.names)

    def _follow(self, stage: str, state: P, grown: Iterator[P], *, counted: int) -> P:
        """The last of the states, each kept and told; a pair of rows is ``counted`` once or twice in a state."""
        total = self.source.count * (self.source.count - 1) // 2
        meter = Meter(self.report, stage, "pairs", total=total, done=_visited(state) // counted)
        for state in grown:
            self.checkpoint.keep(stage, state)
            meter.step(_visited(state) // counted - meter.done)
        return state


@dataclass(frozen=True)
class _ReadAgain:
    """The rows as ``fastaniso.rows.Blocks``: read ``block_rows`` at once, on the device, as often as asked."""

    source: Source
    device: torch.device
    block_rows: int
    meter: Meter
    waiting: Waiting

    @property
    def count(self) -> int:
        return self.source.count

    @property
    def dim(self) -> int:
        return self.source.dim

    @property
    def dtype(self) -> torch.dtype:
        return self.source.dtype

    def blocks(self, size: int) -> Iterator[tuple[int, Rows]]:
        with blocks_on(self.device, self.source, self.block_rows, waiting=self.waiting) as blocks:
            for block in blocks:
                rows = block.load()
                for offset, part in rows.blocks(size):
                    yield block.start + offset, part
                self.meter.step(rows.count)


def _visited(state: Pairs | Neighbors) -> int:
    return int(state.counts[:3].sum())


def _holds(coverage: Coverage, name: str, start: int, stop: int) -> bool:
    return any(first <= start and stop <= last for first, last in coverage.ranges.get(name, ()))
