"""``describe``, ``pairs`` and ``nearest_neighbors`` of rows that lie in shares on the ranks of a process group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from fastaniso.accumulator import Accumulator
from fastaniso.distributed.beginning import begin, sharded, told_of, viewed
from fastaniso.distributed.carried import Carried
from fastaniso.distributed.exchange import agreed, merged, shared
from fastaniso.distributed.ring import Meeting, Shard
from fastaniso.functional.neighborhood import check_k
from fastaniso.functional.pairwise import checked_options
from fastaniso.ops import dispatch as ops
from fastaniso.pairing.sets import run
from fastaniso.pairing.tiles import Block, rows_in_block, visit_neighbors, visit_pairs, written
from fastaniso.result import Description, NearestNeighbors, PairStatistics
from fastaniso.rows import Rows
from fastaniso.state import Neighbors, Pairs
from fastaniso.statistics.describe import describe as described
from fastaniso.statistics.pairs import pair_statistics


def describe(
    hidden: Any,
    *,
    mask: Any = None,
    gram: bool | str = True,
    backend: str = "auto",
    invalid: str = "raise",
    group: dist.ProcessGroup | None = None,
) -> Description:
    """``fastaniso.describe`` of the rows of all ranks together, on every rank; collective.

    Each rank passes its own rows, any number of them, none included; the states of one pass are merged by a tree in the
    order of the ranks: bits depend on how rows are shared out only where kernels add float32 rows for a while, some
    1e-9. Arguments as for ``fastaniso.describe``.
    """

    def own() -> tuple[tuple[Accumulator, Rows], Any]:
        accumulator = Accumulator(gram=gram, backend=backend, invalid=invalid)
        rows = viewed(hidden, mask)
        return (accumulator, rows), told_of(rows, {"call": "describe", "gram": gram, "invalid": invalid})

    (accumulator, rows), told = shared(own, group)
    shard, _ = sharded(rows, told, group)
    state = merged(
        lambda: accumulator.update(shard.values, shard.mask, start=shard.start).state, shard.values.device, group
    )
    return described(state, invalid=invalid)


def pairs(
    hidden: Any,
    *,
    bins: int = 2048,
    thresholds: Sequence[float] = (),
    uniformity_t: float = 2.0,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    group: dist.ProcessGroup | None = None,
) -> PairStatistics:
    """``fastaniso.pairs`` over every unordered pair of the rows of all ranks, on every rank; collective.

    Each rank passes its own rows; indices count on over the ranks. Shards go round a ring while the one before is
    paired: every pair is formed once, on one rank, in ⌊W/2⌋ + 1 steps, O(n² d/W) a rank; memory is that of three
    shards. Counts do not depend on the number of ranks. Arguments as for ``fastaniso.pairs``.
    """
    begun = begin(
        "pairs", lambda: checked_options(bins, thresholds, uniformity_t), hidden, mask, backend, invalid, group
    )
    shard, name = begun.shard, begun.backend
    empty = Pairs.empty(shard.values.shape[1], shard.values.device, **begun.options)
    meetings = begun.ring.meetings(shard)

    def visited() -> Pairs:
        try:
            state = run(visit_pairs(empty, _blocks(shard, name), backend=name), empty, 0, None)
            for meeting in meetings:
                # Of a pair the row that comes first is i.
                first, second = sorted((meeting.ours, meeting.theirs), key=lambda met: met.start)
                tiles = visit_pairs(state, _blocks(first, name), _blocks(second, name), backend=name)
                state = run(tiles, state, 0, None)
        except Exception:
            # What others wait for still goes round.
            for _ in meetings:
                pass
            raise
        return state

    state = merged(visited, shard.values.device, group)
    return pair_statistics(state, n=begun.n, dropped=begun.dropped)


def nearest_neighbors(
    hidden: Any,
    k: int,
    *,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    group: dist.ProcessGroup | None = None,
) -> NearestNeighbors:
    """The k nearest of each of the rank's own rows among the rows of all ranks, itself excluded; collective.

    As ``fastaniso.nearest_neighbors``, with indices that count on over the ranks. Every pair is formed once: a shard
    that goes round the ring carries the lists of its rows along, and what a candidate must reach; the lists come home
    at the end. ``hidden`` is ``[n, d]``; other arguments as for ``fastaniso.nearest_neighbors``.
    """

    def options() -> dict[str, Any]:
        check_k("k", k)
        return {"k": k}

    begun = begin("nearest_neighbors", options, hidden, mask, backend, invalid, group)
    _check_candidates(k, begun.n)
    shard, ring, name = begun.shard, begun.ring, begun.backend
    meetings = ring.meetings(shard)
    lists = _empty(shard, k, shard.start, shard.count)
    failures: list[Exception] = []
    own = lists
    try:
        own = run(visit_neighbors(lists, _blocks(shard, name), backend=name, in_place=True), lists, 0, None)
    except Exception as error:
        failures.append(error)
    carried = Carried(lists, own.least(shard.start, shard.start + shard.count))
    for step, meeting in enumerate(meetings, 1):
        carried = carried.handed_on(ring, step)
        if failures:
            continue  # what others wait for still goes round
        try:
            own, carried = _found(own, carried, meeting, name)
        except Exception as error:
            failures.append(error)
    if ring.steps:
        own = written(own, [carried.come_home(ring)], in_place=True)
    agreed(lambda: _raise_first(failures), group)
    return NearestNeighbors(own.cosines, own.indices)


def _found(own: Neighbors, carried: Carried, meeting: Meeting, backend: str) -> tuple[Neighbors, Carried]:
    """The rank's lists and those of the shard it has met, with what each is to the other."""
    for block in _blocks(meeting.ours, backend):
        for other in _blocks(meeting.theirs, backend):
            found, back = ops.mutual_neighbors(
                block.load(),
                other.load(),
                k=own.k,
                least=own.least(block.start, block.stop),
                other_least=carried.least(other.start, other.stop),
                backend=backend,
                start=block.start,
                other_start=other.start,
            )
            own, carried = written(own, [found], in_place=True), carried.with_more(back)
    return own, carried


def _raise_first(failures: list[Exception]) -> None:
    for failure in failures:
        raise failure


def _blocks(shard: Shard, backend: str) -> list[Block]:
    size = rows_in_block(shard.values.shape[1], shard.values.dtype, backend)

    def block(first: int, last: int) -> Block:
        return Block(shard.start + first, shard.start + last, lambda: shard.part(first, last).rows)

    return [block(first, min(first + size, shard.count)) for first in range(0, shard.count, size)]


def _empty(like: Shard, k: int, start: int, count: int) -> Neighbors:
    dtype = torch.float64 if like.values.dtype == torch.float64 else torch.float32
    return Neighbors.empty(like.values.shape[1], k, start, start + count, like.values.device, dtype=dtype)


def _check_candidates(k: int, kept: int) -> None:
    if k > max(kept - 1, 0):
        raise ValueError(f"k: expected at most {max(kept - 1, 0)} (each row has as many other rows), got {k}")
