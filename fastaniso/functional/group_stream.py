"""Sums by group, group after group: millions of groups in the memory of a block of rows.

Rows that lie in order of their labels (sentences, documents) are read as they lie; others (words) are gathered in that
order, a block at a time, for 8 bytes a row and the sort's own memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastaniso.ops import dispatch as ops
from fastaniso.pairing.tiles import gather
from fastaniso.planning.plan import Plan
from fastaniso.result import Dropped
from fastaniso.rows import Rows, as_groups, as_rows, as_tensor
from fastaniso.state import GroupMoments, Moments
from fastaniso.statistics.host import check_invalid_option, dropped_rows, to_host
from fastaniso.statistics.second_pass import kept_rows, wide_rows
from fastaniso.statistics.words import some_groups

_NUMBERS = 2**19  # of the rows whose groups are summed at once
_NUMBERS_ON_A_GPU = 2**24


@dataclass(frozen=True, eq=False)
class Sums:
    """Some groups, each with all its rows: ``labels`` (g,), ``moments`` of g groups, and Σx (g, d) if asked for."""

    labels: Tensor
    moments: GroupMoments
    raw: Tensor | None


class Collected:
    """Labels (G,) and columns (k, G) of numbers that are told of groups as they come, on the host.

    Room is made at once: many small tensors kept between large ones that come and go would hold the heap open.
    """

    def __init__(self, most: int, columns: int) -> None:
        """Of ``most`` groups."""
        self._labels = np.empty(most, np.int64)
        self._columns = np.empty((columns, most))
        self._count = 0

    def add(self, labels: Tensor, *columns: Tensor) -> None:
        """The next groups, and a number of each in every column."""
        chosen = slice(self._count, self._count + len(labels))
        self._labels[chosen] = labels.cpu().numpy()
        self._columns[:, chosen] = torch.stack([column.double() for column in columns]).cpu().numpy()
        self._count = chosen.stop

    @property
    def labels(self) -> NDArray[np.int64]:
        """Of the groups so far."""
        return self._labels[: self._count]

    @property
    def columns(self) -> NDArray[np.float64]:
        """Of the groups so far."""
        return self._columns[:, : self._count]


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Rows with integer labels (rows,), the first pass over them, and the order of their labels.

    ``order`` are the indices of the rows that the mask keeps, stably sorted by label; None where they lie so already.
    There are ``distinct`` labels on them.
    """

    rows: Rows
    labels: Tensor
    order: Tensor | None
    distinct: int
    moments: Moments
    n: int
    dropped: Dropped
    backend: str

    def groups(self, *, raw: bool = False) -> Iterator[Sums]:
        """Every group once, in order of the labels, some at a time; groups without a row that counts are left out."""
        waiting: Sums | None = None
        for rows, labels in self.blocks():
            found = _sums(rows, labels, raw, self.backend)
            if found is None:
                continue
            found = found if waiting is None else _joined(waiting, found)
            # The last group may go on in the next block.
            waiting = _part(found, slice(-1, None))
            if len(found.labels) > 1:
                yield from _counted(_part(found, slice(0, -1)))
        if waiting is not None:
            yield from _counted(waiting)

    def blocks(self) -> Iterator[tuple[Rows, Tensor]]:
        """The rows in order of their labels, some at a time, each with its label."""
        at_once = _rows_at_once(self.rows)
        if self.order is None:
            for start, block in self.rows.blocks(at_once):
                yield block, self.labels[start : start + block.count]
        else:
            for part in torch.split(self.order, at_once):
                yield gather(self.rows, part), self.labels[part]


def labelled(
    hidden: Any,
    groups: Any,
    mask: Any,
    *,
    name: str,
    backend: str,
    invalid: str,
    memory_limit: int | str | None,
    raw: bool = False,
    squares: int = 0,
) -> LabelledRows:
    """View and check rows and labels, and take the first pass; ``InvalidRowsError`` and ``MemoryError`` come here.

    ``raw`` and ``squares`` tell what the caller takes: Σx of each group of a block, so many float64 matrices (d, d).
    """
    check_invalid_option(invalid)
    rows = as_rows(hidden, mask)
    labels = as_groups(groups, rows, as_tensor(hidden, "hidden").shape[:-1], name=name).flatten()
    order, distinct = _order(rows, labels)
    _check_memory(rows, order, distinct, memory_limit, backend, raw, squares)
    moments = ops.moments(rows, backend=backend)
    (counts,) = to_host(moments.counts)
    return LabelledRows(rows, labels, order, distinct, moments, int(counts[0]), dropped_rows(counts, invalid), backend)


def _order(rows: Rows, labels: Tensor) -> tuple[Tensor | None, int]:
    """``order`` and ``distinct`` of ``LabelledRows``."""
    kept = None if rows.mask is None else torch.nonzero(rows.mask.flatten())[:, 0]
    labels = labels if kept is None else labels[kept]
    order = None
    if not bool((labels[1:] >= labels[:-1]).all()):
        order = labels.argsort(stable=True)
        labels = labels[order]
        order = order if kept is None else kept[order]
    return order, int((labels[1:] != labels[:-1]).sum()) + min(len(labels), 1)


def _sums(rows: Rows, labels: Tensor, raw: bool, backend: str) -> Sums | None:
    """The groups of a block, whose labels are in order where the mask keeps the row; None if it keeps none."""
    if rows.mask is None:
        present, places = torch.unique_consecutive(labels, return_inverse=True)
    else:
        mask = rows.mask.flatten()
        present, kept_places = torch.unique_consecutive(labels[mask], return_inverse=True)
        places = torch.zeros_like(labels).masked_scatter_(mask, kept_places)
    if not len(present):
        return None
    shape = rows.values.shape[:2]
    moments = ops.group_moments(rows, places.view(shape), len(present), backend=backend)
    if not raw:
        return Sums(present, moments, None)
    counted = kept_rows(rows.values, rows.mask)
    lengths = torch.bincount(places[counted], minlength=len(present))
    total = torch.segment_reduce(wide_rows(rows.values)[counted], "sum", lengths=lengths, axis=0, initial=0.0)
    return Sums(present, moments, total)


def _joined(before: Sums, after: Sums) -> Sums:
    """One unfinished group, and the groups of the next block, of which the first may be the same."""
    same = int(before.labels[0] == after.labels[0])
    first, rest = _part(after, slice(0, same)), _part(after, slice(same, None))

    def put(mine: Tensor, more: Tensor, others: Tensor) -> Tensor:
        return torch.cat((mine + more.sum(0, keepdim=True), others))

    a, b, c = before.moments, first.moments, rest.moments
    moments = replace(
        c,
        counts=put(a.counts, b.counts, c.counts),
        unit_sum=put(a.unit_sum, b.unit_sum, c.unit_sum),
        unit_squared=put(a.unit_squared, b.unit_squared, c.unit_squared),
    )
    raw = None
    if before.raw is not None and first.raw is not None and rest.raw is not None:
        raw = put(before.raw, first.raw, rest.raw)
    return Sums(torch.cat((before.labels, rest.labels)), moments, raw)


def _part(sums: Sums, chosen: slice | Tensor) -> Sums:
    raw = None if sums.raw is None else sums.raw[chosen]
    return Sums(sums.labels[chosen], some_groups(sums.moments, chosen), raw)


def _counted(sums: Sums) -> Iterator[Sums]:
    """The groups that have a row that counts."""
    some = sums.moments.counts > 0
    if bool(some.all()):
        yield sums
    elif bool(some.any()):
        yield _part(sums, some)


def _rows_at_once(rows: Rows) -> int:
    return max((_NUMBERS if rows.values.is_cpu else _NUMBERS_ON_A_GPU) // rows.dim, 1)


def _check_memory(
    rows: Rows,
    order: Tensor | None,
    distinct: int,
    memory_limit: int | str | None,
    backend: str,
    raw: bool,
    squares: int,
) -> None:
    """Of labels, their order and what is told of each; a block gathered, its groups (as many at most), their merge."""
    if memory_limit is None:
        return
    values = rows.values
    block = min(_rows_at_once(rows), rows.count)
    told = 8 * rows.count * (1 if order is None else 5) + rows.count + 64 * distinct
    gathered = 0 if order is None else block * rows.dim * values.element_size()
    sums = block * 8 * (rows.dim + 4) * (3 + 4 * raw)
    kernel = 2**18 + block * 8 * rows.dim * (8 if ops.resolve(backend, values.device) == "reference" else 1)
    Plan(
        backend=ops.resolve(backend, values.device),
        state_bytes=told,
        working_bytes=gathered + sums + kernel + squares * 8 * rows.dim**2,
        operations=8 * rows.count * rows.dim,
        bytes_read=2 * rows.count * rows.dim * values.element_size(),
        remedy="pass rows in order of their labels, which are read as they lie"
        if order is not None
        else "pass the groups in parts",
    ).check(memory_limit)
