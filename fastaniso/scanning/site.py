"""What is kept of one site: sums over all of its tokens, and two numbers for the pairs of one sequence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastaniso.accumulator import Accumulator
from fastaniso.distributed.exchange import gather_json, merge
from fastaniso.ops import dispatch as ops
from fastaniso.result import Description
from fastaniso.rows import as_rows
from fastaniso.state import Coverage, Gram, GroupMoments, Moments
from fastaniso.statistics import cosine
from fastaniso.statistics.host import to_host
from fastaniso.statistics.words import some_groups

GROUPS = 64
"""Into so many groups sequences are dealt out in turn: enough for a jackknife over them, O(d) numbers each."""


class SiteAccumulator:
    """Accumulates one site over batches; memory is O(d²) (O(d) without ``gram``), whatever the number of sequences.

    Sequences are groups that end with their batch, so their sums are reduced at once to Σ of the cosines over the
    pairs of one sequence and the number of those pairs; and to those of the ``GROUPS`` that they are dealt out to.
    """

    def __init__(self, *, gram: bool, backend: str, invalid: str) -> None:
        """Nothing seen yet; the options are ``Accumulator``'s."""
        self._rows = Accumulator(gram=gram, backend=backend, invalid=invalid)
        self._backend = backend
        self._within: Tensor | None = None
        self._groups: GroupMoments | None = None

    def update(self, hidden: Tensor, keep: Tensor, sequences: Tensor, *, first: int, source: str | None) -> None:
        """Add states (sequences, tokens, d) where ``keep``; ``sequences`` (1, rows) is the row's place in the batch.

        ``first`` sequences were read before this batch.
        """
        self._rows.update(hidden, keep, source=source)
        rows = as_rows(hidden, keep)
        groups = ops.group_moments(rows, sequences.view(rows.values.shape[:2]), hidden.shape[0], backend=self._backend)
        within = cosine.within_sum_and_pairs(groups)
        self._within = within if self._within is None else self._within + within
        self._deal_out(groups, first)

    @property
    def states(self) -> dict[str, Moments | Gram | GroupMoments]:
        """The state over all tokens, and ``groups``, that of the groups of sequences, by the ends of their names."""
        assert self._groups is not None
        return {"": self.state, ".groups": replace(self._groups, provenance=self.state.provenance)}

    @property
    def state(self) -> Moments | Gram:
        """The state over all tokens."""
        return self._rows.state

    @property
    def within(self) -> list[float] | None:
        """Σ of the cosines over the pairs of one sequence, and the number of those pairs; None if nothing was seen."""
        if self._within is None:
            return None
        found: list[float] = self._within.tolist()
        return found

    def add(self, state: Moments | Gram, groups: GroupMoments, within: list[float]) -> None:
        """Also what ``states`` and ``within`` gave elsewhere."""
        more = torch.tensor(within, dtype=torch.float64, device=state.counts.device)
        if self._within is not None:
            assert self._groups is not None
            state, groups = self.state.merge(state), self._groups.merge(groups)  # type: ignore[arg-type]  # both of one kind
            more = self._within + more
        self._take(state)
        self._groups, self._within = groups, more

    def gather(self, dim: int, device: torch.device, group: Any) -> None:
        """Become the sums of all ranks of a process group; on every rank. A rank may have seen nothing."""
        parts = gather_json(self.within, group)
        self._take(merge(self._empty(dim, device) if self._within is None else self.state, group))
        self._within = torch.tensor([part for part in parts if part], dtype=torch.float64, device=device).sum(0)
        self._groups = merge(self._groups or GroupMoments.empty(dim, GROUPS, device), group)

    def cover(self, source: str) -> None:
        """Say that the rows are those of ``source``, all of them in their order."""
        ranges = self.state.coverage.ranges.values()
        rows = sum(stop - start for pieces in ranges for start, stop in pieces)
        self._take(replace(self.state, coverage=Coverage.of(source, 0, rows)))

    def _take(self, state: Moments | Gram) -> None:
        self._rows.load_state_dict({**self._rows.state_dict(), "state": state.to_dict()})

    def _deal_out(self, sequences: GroupMoments, first: int) -> None:
        """Add the sequences of a batch to their groups."""
        device = sequences.unit_sum.device
        if self._groups is None:
            self._groups = GroupMoments.empty(sequences.dim, GROUPS, device)
        for start in range(0, sequences.groups, GROUPS):
            some = some_groups(sequences, slice(start, start + GROUPS))
            # Each group once: so added, sums have one order on a GPU, too.
            places = (torch.arange(some.groups, device=device) + first + start) % GROUPS
            self._groups.counts.index_add_(0, places, some.counts)
            self._groups.unit_sum.index_add_(0, places, some.unit_sum)
            self._groups.unit_squared.index_add_(0, places, some.unit_squared)

    def _empty(self, dim: int, device: torch.device) -> Moments | Gram:
        return Gram.empty(dim, device) if self._rows.gram else Moments.empty(dim, device)

    def describe(self, sequences: int, *, partial: bool = False) -> Description:
        """All statistics, the sequences as groups: within one sequence, and between tokens of two.

        ``partial`` leaves out rows that cannot be normalised whatever ``invalid`` says.
        """
        if partial:
            self._rows.invalid = "omit"
        description = self._rows.result()
        assert self._within is not None
        within, total = to_host(self._within, cosine.sum_and_pairs(self.state))
        return replace(
            description,
            groups=sequences,
            within_groups=_mean(within[0], within[1]),
            between_groups=_mean(total[0] - within[0], total[1] - within[1]),
        )


def _mean(total: float, pairs: float) -> float:
    return float(total / pairs) if pairs > 0 else float("nan")
