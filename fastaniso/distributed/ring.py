"""All pairs of rows that lie on several ranks: shards go round a ring, and every pair is formed on one rank only.

A rank forms the pairs of its own rows, then with the shards of the ranks after it, up to the one opposite: ⌊W/2⌋ + 1
steps of W ranks. With the opposite one each of the two takes half. While a shard is paired the next one is on its way.
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
    """Two shards to be paired, all rows of ``ours`` with all of ``theirs``, which are ``owner``'s."""

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

    def owner(self, step: int) -> int:
        """Whose shard is met in a step."""
        return (self.rank + step) % self.size

    def _call(self, held: Shard, step: int) -> tuple[Shard, Callable[[], None]]:
        """Begin to hand on the shard at hand, and to receive the next one."""
        owner = self.owner(step)
        count, values = self.counts[owner], held.values
        theirs = Shard(
            torch.empty(count, values.shape[1], dtype=values.dtype, device=values.device),
            torch.empty(count, dtype=torch.bool, device=values.device),
            self.starts[owner],
        )
        before, after = (self.rank - 1) % self.size, (self.rank + 1) % self.size
        # A mask travels as bytes, which every back end can send.
        wait = exchange(
            (values, held.mask.view(torch.uint8)),
            before,
            (theirs.values, theirs.mask.view(torch.uint8)),
            after,
            self.group,
        )
        return theirs, wait

    def _meeting(self, own: Shard, theirs: Shard, step: int) -> Meeting:
        owner = self.owner(step)
        if 2 * step < self.size:
            return Meeting(own, theirs, owner)
        # Opposite each other: the rows of the rank of the smaller number are shared out.
        if self.rank < owner:
            return Meeting(own.part(0, own.count // 2), theirs, owner)
        return Meeting(own, theirs.part(theirs.count // 2, theirs.count), owner)
