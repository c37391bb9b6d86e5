"""The lists of neighbours that go round the ring with the shard that they are of."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastaniso.distributed.exchange import exchange
from fastaniso.distributed.ring import Ring
from fastaniso.pairing.tiles import written
from fastaniso.state import Neighbors

_FOUND = frozenset({"of other ranks"})
"""A state without provenance would be taken for one that nothing was written to."""


@dataclass(frozen=True)
class Carried:
    """What other ranks found for the rows of a shard, ``lists``, and the k-th cosines that its owner had, ``reached``.

    No candidate below ``reached`` (n,) can be a neighbour in the end: with it, lists that are empty still take in few.
    """

    lists: Neighbors
    reached: Tensor

    def least(self, start: int, stop: int) -> Tensor:
        """The least cosine that a neighbour of rows ``start`` to ``stop`` may have: (stop − start,)."""
        reached = self.reached[start - self.lists.start : stop - self.lists.start]
        return torch.maximum(reached, self.lists.least(start, stop))

    def with_more(self, found: Neighbors) -> Carried:
        """With the neighbours of some of the rows; this one is then void."""
        return replace(self, lists=written(self.lists, [found], in_place=True))

    def handed_on(self, ring: Ring, step: int) -> Carried:
        """To the rank before, and from the rank after those of the shard that this rank meets in ``step``."""
        before, after = (ring.rank - 1) % ring.size, (ring.rank + 1) % ring.size
        lists = self._empty(ring, ring.owner(ring.rank, step))
        reached = torch.full_like(lists.cosines[:, 0], -torch.inf)
        if step > 1:
            sent, received = (self.reached, *_tensors(self.lists)), (reached, *_tensors(lists))
            exchange(sent, before, received, after, ring.group)()
            return Carried(replace(lists, provenance=_FOUND), reached)
        # No other has found anything yet, and nobody waits for an owner that is longer at its own pairs.
        if ring.alike:
            exchange((self.reached,), before, (reached,), after, ring.group)()
        return Carried(lists, reached)

    def come_home(self, ring: Ring) -> Neighbors:
        """To the shard's owner, and the rank's own from who holds them."""
        to, source = ring.owner(ring.rank, ring.steps), (ring.rank - ring.steps) % ring.size
        lists = self._empty(ring, ring.rank)
        exchange(_tensors(self.lists), to, _tensors(lists), source, ring.group)()
        return replace(lists, provenance=_FOUND)

    def _empty(self, ring: Ring, owner: int) -> Neighbors:
        start, like = ring.starts[owner], self.lists.cosines
        return Neighbors.empty(
            self.lists.dim, self.lists.k, start, start + ring.counts[owner], like.device, dtype=like.dtype
        )


def _tensors(lists: Neighbors) -> tuple[Tensor, Tensor]:
    return lists.cosines.contiguous(), lists.indices.contiguous()
