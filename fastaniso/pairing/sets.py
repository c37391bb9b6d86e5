"""One or two sets of rows to pair, checked and counted before a long run begins."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from fastaniso.ops import dispatch as ops
from fastaniso.pairing.tiles import Block, blocks_of, rows_in_block
from fastaniso.progress import Meter, Report, reporter
from fastaniso.result import Dropped
from fastaniso.rows import Rows, as_groups, as_rows, as_tensor
from fastaniso.state import Moments, Neighbors, Pairs
from fastaniso.statistics import cosine
from fastaniso.statistics.host import check_invalid_option, dropped_rows, to_host

_State = TypeVar("_State", Pairs, Neighbors)


@dataclass(frozen=True)
class Sets:
    """Rows and the others they are paired with (None: each other), and what a linear pass found out about both.

    ``n`` and ``others_n`` are rows kept, ``backend`` is the one that runs, and with what ``precision``.
    """

    rows: Rows
    others: Rows | None
    n: int
    others_n: int | None
    dropped: Dropped
    dropped_others: Dropped | None
    backend: str
    moments: Moments
    other_moments: Moments | None
    precision: str = "exact"

    @property
    def pairs(self) -> int:
        """Pairs of kept rows: i < j of one set, or all of two."""
        return self.n * (self.n - 1) // 2 if self.others_n is None else self.n * self.others_n

    @property
    def mean(self) -> float:
        """The exact mean cosine, from the linear pass; nan without a pair."""
        if self.other_moments is None:
            (value,) = to_host(cosine.mean(self.moments))
            return float(value[0])
        (total,) = to_host(cosine.sum_between(self.moments, self.other_moments))
        return float(total[0]) / self.pairs if self.pairs else math.nan

    @property
    def visited(self) -> int:
        """The same with the dropped rows, whose pairs are visited, too, and left out."""
        count = self.rows.count
        return count * (count - 1) // 2 if self.others is None else count * self.others.count

    def asked(
        self,
        *,
        bins: int = 0,
        moments: bool = True,
        extrema: bool = True,
        uniformity_t: tuple[float, ...] = (),
        thresholds: tuple[float, ...] = (),
    ) -> Pairs:
        """The state of no pair that holds what is asked for."""
        return Pairs.empty(
            self.rows.dim,
            self.rows.values.device,
            bins=bins,
            moments=moments,
            extrema=extrema,
            uniformity_t=uniformity_t,
            thresholds=thresholds,
        )

    def blocks(self) -> tuple[list[Block], list[Block] | None]:
        """Rows and others in blocks."""
        size = rows_in_block(self.rows.dim, self.rows.values.dtype, self.backend)
        return blocks_of(self.rows, size), None if self.others is None else blocks_of(self.others, size)


def as_sets(
    hidden: Any, other: Any, mask: Any, other_mask: Any, *, backend: str, invalid: str, precision: str = "exact"
) -> Sets:
    """View and check both sets; raises ``InvalidRowsError`` before any pair is formed."""
    check_invalid_option(invalid)
    precision = ops.checked_precision(precision)
    rows = as_rows(hidden, mask)
    if other is None:
        if other_mask is not None:
            raise ValueError("other_mask: given without other; the mask of hidden is mask")
        moments = ops.moments(rows, backend=backend)
        (counts,) = to_host(moments.counts)
        dropped = dropped_rows(counts, invalid)
        return Sets(rows, None, int(counts[0]), None, dropped, None, _resolved(rows, backend), moments, None, precision)
    others = as_rows(other, other_mask, name="other")
    _check_same_space(rows, others)
    moments, other_moments = (ops.moments(each, backend=backend) for each in (rows, others))
    counts, other_counts = to_host(moments.counts, other_moments.counts)
    dropped = dropped_rows(counts, invalid)
    dropped_others = dropped_rows(other_counts, invalid, name="other")
    n, m = int(counts[0]), int(other_counts[0])
    name = _resolved(rows, backend)
    return Sets(rows, others, n, m, dropped, dropped_others, name, moments, other_moments, precision)


def numbered(rows: Rows, hidden: Any, groups: Any) -> tuple[Tensor, Tensor]:
    """The labels that occur on rows the mask keeps, sorted (G,), and each row's place among them (``[...]``)."""
    shape = as_tensor(hidden, "hidden").shape[:-1]
    ids = as_groups(groups, rows, shape)
    labels = torch.unique(ids if rows.mask is None else ids[rows.mask])
    if not len(labels):
        labels = labels.new_zeros(1)  # no row is kept: one group of none
    # A masked row may have a label that is no group: any place will do.
    places = torch.searchsorted(labels, ids).clamp(max=len(labels) - 1)
    return labels, places.view(shape)


def run(
    states: Iterator[_State], empty: _State, total: int, progress: Report | bool | None, *, stage: str = "pairs"
) -> _State:
    """The last of the states, which come tile by tile until ``total`` pairs are visited, told to ``progress``."""
    state, before = empty, None
    with reporter(progress) as report:
        meter = Meter(report, stage, "pairs", total=total)
        for state in states:
            if report is not None:
                meter.step(int(state.counts[:3].sum()) - meter.done)
            elif state.counts.is_cuda:
                # One tile ahead, no more: launches queued up could not be interrupted.
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record()
                if before is not None:
                    before.synchronize()
                before = event
    return state


def _resolved(rows: Rows, backend: str) -> str:
    return ops.resolve(backend, rows.values.device)


def _check_same_space(rows: Rows, others: Rows) -> None:
    if others.dim != rows.dim:
        raise ValueError(f"other: expected rows of {rows.dim} numbers as in hidden, got {others.dim}")
    ours, theirs = rows.values, others.values
    if theirs.device != ours.device:
        raise ValueError(
            f"other: expected it on {ours.device} beside hidden, got {theirs.device}; pass other.to(hidden.device)"
        )
    if theirs.dtype != ours.dtype:
        expected, got = (str(dtype).removeprefix("torch.") for dtype in (ours.dtype, theirs.dtype))
        raise TypeError(f"other: expected {expected} as in hidden, got {got}; pass other.to(hidden.dtype)")
