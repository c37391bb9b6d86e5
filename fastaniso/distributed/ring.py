"""All pairs of rows that lie on several ranks: shards go round a ring, and every pair is formed on one rank only.

A rank forms the pairs of its own rows, then with the shards of the ranks after it, up to the one opposite: ⌊W/2⌋ + 1
steps of W ranks. With the opposite one the two share out their pairs, so that both form as many in all. While a shard
is paired the next one is on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from fastaniso.distributed.exchange import exchange
from fastaniso.rows import Rows


@dataclass(frozen=True)
class Shard:
    """The rows of one rank, ``values`` (n, d) and ``mask`` (n,) bool, the first of which has the index ``start``."""

    values: Tensor
    mask: Tensor
    start: int

    @property
    def count(self) -> int:
        """Rows, masked ones included."""
        return len(self.values)

    def part(self, first: int, last: int) -> Shard:
        """Rows ``first`` to ``last`` (half-open, of this shard)."""
        return Shard(self.values[first:last], self.mask[first:last], self.start + first)

    @property
    def rows(self) -> Rows:
        """As kernels read them."""
        return Rows(self.values[None], self.mask[None])


@dataclass(frozen=True)
class Meeting:
    """Rows of two shards to be paired, all of ``ours`` with all of ``theirs``, which are ``owner``'s."""

    ours: Shard
    theirs: Shard
    owner: int


class Ring:
    """The ranks of ``group`` and how many rows each has (``counts``)."""

    def __init__(self, counts: list[int], group: dist.ProcessGroup | None) -> None:
        """Known on every rank."""
        self.counts = counts
        self.group = group
        self.rank = dist.get_rank(group)
        self.size = len(counts)
        self.starts = [sum(counts[:rank]) for rank in range(self.size)]

    @property
    def steps(self) -> int:
        """Shards that a rank meets besides its own."""
        return self.size // 2

    @property
    def alike(self) -> bool:
        """Whether all ranks have about as many rows, and form the pairs of their own in about the same time."""
        return 10 * max(self.counts) <= 11 * min(self.counts)

    def meetings(self, own: Shard) -> Iterator[Meeting]:
        """With each of those shards, while the next one is on its way; the first is sent for at once."""
        return self._follow(own, *self._call(own, 1)) if self.steps else iter(())

    def _follow(self, own: Shard, theirs: Shard, wait: Callable[[], None]) -> Iterator[Meeting]:
        for step in range(1, self.steps + 1):
            wait()
            shard = theirs
            if step < self.steps:
                theirs, wait = self._call(shard, step + 1)
            yield self._meeting(own, shard, step)

    def owner(self, rank: int, step: int) -> int:
        """Whose shard a rank meets in a step."""
        return (rank + step) % self.size

    def shared(self, rank: int) -> int:
        """Of the rows of a rank of the first half, how many it pairs with the shard opposite, which takes the others.

        So many that both form equally many pairs in all, whatever the sizes of the shards.
        """
        opposite = rank + self.size // 2
        ours, theirs = self.counts[rank], self.counts[opposite]
        if not theirs:
            return 0
        rows = (self._unshared(opposite) - self._unshared(rank) + ours * theirs) / (2 * theirs)
        return min(max(round(rows), 0), ours)

    def _unshared(self, rank: int) -> float:
        """Pairs of a rank's rows among themselves and with all shards that it meets, but for the opposite one."""
        met = (self.counts[self.owner(rank, step)] for step in range(1, self.size // 2))
        return self.counts[rank] * ((self.counts[rank] - 1) / 2 + sum(met))

    def _call(self, held: Shard, step: int) -> tuple[Shard, Callable[[], None]]:
        """Begin to hand on the shard at hand, and to receive the next one: of the last one what is needed of it."""
        before, after = (self.rank - 1) % self.size, (self.rank + 1) % self.size
        sent = held.part(*self._needed(before, step))
        owner = self.owner(self.rank, step)
        first, last = self._needed(self.rank, step)
        values = held.values
        theirs = Shard(
            torch.empty(last - first, values.shape[1], dtype=values.dtype, device=values.device),
            torch.empty(last - first, dtype=torch.bool, device=values.device),
            self.starts[owner] + first,
        )
        # A mask travels as bytes, which every back end can send.
        wait = exchange(
            (sent.values, sent.mask.view(torch.uint8)),
            before,
            (theirs.values, theirs.mask.view(torch.uint8)),
            after,
            self.group,
        )
        return theirs, wait

    def _needed(self, rank: int, step: int) -> tuple[int, int]:
        """Which rows of the shard that it meets in a step a rank needs (half-open)."""
        owner = self.owner(rank, step)
        return (self.shared(owner) if 2 * step == self.size and owner < rank else 0), self.counts[owner]

    def _meeting(self, own: Shard, theirs: Shard, step: int) -> Meeting:
        owner = self.owner(self.rank, step)
        if 2 * step == self.size and self.rank < owner:
            own = own.part(0, self.shared(self.rank))
        return Meeting(own, theirs, owner)
