"""Which rank of a scan reads which batch, also where runs before, by other numbers of ranks, had read some."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fastaniso.distributed.exchange import gather_json
from fastaniso.scanning.modalities import ModelBatch


@dataclass(frozen=True)
class Turn:
    """A batch that is to be read: its ``number`` in the data, the items before it, and the bytes since the last turn.

    All count over all batches, whoever reads them.
    """

    batch: ModelBatch
    number: int
    first: int
    bytes: float


class Passed(Iterator[ModelBatch]):
    """All batches of the data, counted as they pass by a rank, whoever reads them."""

    def __init__(self, stream: Iterator[ModelBatch]) -> None:
        """Nothing has passed yet."""
        self._stream = stream
        self.batches = self.items = 0

    def __next__(self) -> ModelBatch:
        """The next one."""
        batch = next(self._stream)
        self.batches += 1
        self.items += batch.items
        return batch

    def check_all_read(self, batches: int, items: int, group: Any) -> None:
        """``ValueError`` unless so many were read by all together, and have passed by every rank of the group."""
        own = [self.batches, self.items]
        every = [own] if group is None else gather_json(own, group)
        if any(counts != [batches, items] for counts in every):
            told = "; ".join(f"rank {rank} was given {n:,} batches of {k:,} items" for rank, (n, k) in enumerate(every))
            raise ValueError(
                f"data: {told}; {batches:,} batches of {items:,} items were read: every rank must be given all of the "
                "same data, of which it reads its share"
            )


@dataclass(frozen=True)
class Deal:
    """Batches dealt out in turn: first to the ranks of the run before, and what those had not read to these.

    ``before`` has for each earlier run how many batches each of its ranks had read: batches are told by their order
    alone, so that this says of every batch who has read it, or who will.
    """

    rank: int = 0
    size: int = 1
    before: tuple[tuple[int, ...], ...] = ()

    def turns(self, stream: Iterable[ModelBatch], done: int) -> Iterator[Turn]:
        """The rank's own batches behind the ``done`` first of them."""
        dealt = [0] * (len(self.before) + 1)
        first, passed = 0, 0.0
        for number, batch in enumerate(stream):
            passed += batch.bytes
            if self._is_own(dealt, done):
                yield Turn(batch, number, first, passed)
                passed = 0.0
            first += batch.items

    def _is_own(self, dealt: list[int], done: int) -> bool:
        """Whether the next batch is the rank's to read; ``dealt`` counts the batches that have come to each run."""
        for run, read in enumerate(self.before):
            turn, rank = divmod(dealt[run], len(read))
            dealt[run] += 1
            if turn < read[rank]:
                return False
        turn, rank = divmod(dealt[-1], self.size)
        dealt[-1] += 1
        return rank == self.rank and turn >= done
