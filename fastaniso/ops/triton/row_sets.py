"""The rows of one side of all pairs, and the order in which panels of them meet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from fastaniso.ops.triton.moments import add_block
from fastaniso.ops.triton.norms import usable
from fastaniso.ops.triton.panels import LIFT, TILE_COLUMNS, TILE_ROWS, Panel, PanelPair, panel_kernel
from fastaniso.ops.triton.rows import Block, Pace, blocks
from fastaniso.ops.triton.shapes import (
    MAX_ROWS_PER_PROGRAM,
    PANEL_ALIGN,
    ceiling,
    max_programs,
    panel_parts,
    panel_rows,
)
from fastaniso.state import NO_ROW, Moments

AHEAD = 2
"""Pairs of panels that wait for the device."""


class RowSet:
    """All rows of one side: their counts, norms and unit sum from one read, and panels of those that are kept."""

    def __init__(self, hidden: Tensor, mask: Tensor | None, start: int, precision: str = "exact") -> None:
        """Read the rows, the first of which has the index ``start``; ``dtype`` is what they are multiplied as."""
        self.dim, device = hidden.shape[2], hidden.device
        rounded = precision == "fast" and hidden.dtype == torch.float32
        self.dtype = torch.float16 if rounded else hidden.dtype
        self._block = Block(hidden, mask, 0)
        self.count = self._block.rows
        state = Moments.empty(self.dim, device)
        self._norms = torch.empty(self.count, dtype=torch.float64, device=device)
        for block in blocks(hidden, mask, max_programs(self.dim) * MAX_ROWS_PER_PROGRAM):
            norms = self._norms[block.first : block.first + block.rows]
            add_block(block, start, norms, state.counts, state.totals, state.sums)
        self.counts, self.kept = state.counts, state.counts[:1]
        self.unit_sum, self.unit_squared = state.sums[2], state.sums[3].sum()
        self.kept_rows = _places(usable(self._norms))

    @property
    def panels(self) -> range:
        """The first kept row of each panel; the last panels are empty where rows were dropped."""
        return range(0, self.count, panel_rows(self.count, self.dim, self.dtype))

    def room(self) -> Panel:
        """Memory for a panel."""
        rows, device = self.panels.step, self._norms.device
        parts = panel_parts(self.dtype)
        width = ceiling(self.dim, PANEL_ALIGN) * PANEL_ALIGN
        dtype = torch.bfloat16 if parts == 3 else self.dtype
        values = torch.empty(rows, max(parts, 1) * width, dtype=dtype, device=device)
        weights = torch.empty(rows, dtype=torch.float32, device=device) if parts else None
        return Panel(values, weights, width, 0, 0)

    def fill(self, panel: Panel, first: int) -> Panel:
        """Kept rows from the ``first``-th on, in the memory of ``panel``."""
        panel_kernel[(panel.values.shape[0] // TILE_ROWS,)](
            self._block.values,
            self._norms,
            self.kept_rows,
            self.kept,
            panel.values,
            panel.weights,
            first,
            **self._block.layout,
            D=self.dim,
            width=panel.width,
            PARTS=panel_parts(self.dtype),
            LIFT=LIFT if self.dtype == torch.float16 else 0,
            ROWS=TILE_ROWS,
            COLUMNS=TILE_COLUMNS,
        )
        return replace(panel, first=first, rows=min(panel.values.shape[0], self.count - first))


def panel_pairs(left: RowSet, right: RowSet, *, ordered: bool = False) -> Iterator[PanelPair]:
    """All pairs of panels, filled; of one set (``left is right``) each panel with itself and, unless all ``ordered``
    pairs are wanted, only with those behind it.

    A panel's memory is filled again for the next pair, and at most two pairs wait for the device: Ctrl-C is heard.
    """
    pace = Pace(left.kept.device, AHEAD)
    products: Tensor | None = None
    if left.count == 0 or right.count == 0:
        return
    ours = left.room()
    theirs = right.room() if right is not left or len(left.panels) > 1 else ours
    if left.dtype == torch.float64:
        products = ours.values.new_empty(len(ours.values), len(theirs.values))
    for first in left.panels:
        mine = left.fill(ours, first)
        for other in right.panels:
            if left is right and other < first and not ordered:
                continue
            yours = mine if left is right and other == first else right.fill(theirs, other)
            if products is not None:
                torch.mm(mine.values, yours.values.T, out=products)
            yield PanelPair(mine, yours, products)
            pace.wait()


def _places(keep: Tensor) -> Tensor:
    """The numbers of the rows to keep, in order (n,); undefined beyond their number, which stays on the device."""
    n = keep.shape[0]
    places = torch.where(keep, keep.cumsum(0) - 1, n)
    rows = torch.empty(n + 1, dtype=torch.int64, device=keep.device)
    return rows.scatter_(0, places, torch.arange(n, device=keep.device))[:n]


def count_ordered_pairs(left: RowSet, right: RowSet) -> Tensor:
    """Pairs kept, left out for a masked row, and for one that cannot be normalised; first such rows: (5,) int64.

    Of one set, ordered pairs i ≠ j.
    """
    lonely = int(left is right)  # a row has no pair with itself
    everything = left.count * (right.count - lonely)
    unmasked = (left.count - left.counts[1]) * (right.count - right.counts[1] - lonely)
    kept = left.counts[0] * (right.counts[0] - lonely)
    other_first = torch.full_like(left.counts[4], NO_ROW) if lonely else right.counts[4]
    return torch.stack((kept, everything - unmasked, unmasked - kept, left.counts[4], other_first))
