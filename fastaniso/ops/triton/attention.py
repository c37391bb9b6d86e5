"""Statistics of attention from queries and keys: no map is kept, only the scores of some queries at a time.

Two kernels take turns: one writes the scores of units of 64 queries with the keys they may see (`score_tiles`), 64 MiB
at a time, the other takes from each row what is asked (`score_rows`): to multiply once and read a few times costs less
than to multiply again for each of a dozen steps of the row's median, and a score may be read while it is in the cache.
Tiles that no query of a unit sees are neither written nor read, and of a window no more than it is long has a place.

Which program adds which rows depends on the shape alone, and programs are added in order in float64: same input, same
bits. Histogram counts are int32 for at most 10⁹ scores of a program, then int64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastaniso.heads import key_span
from fastaniso.ops.triton import shared_histogram
from fastaniso.ops.triton.attention_shapes import Cut, ScoreTile
from fastaniso.ops.triton.pairs import MAX_SHARED_BINS
from fastaniso.ops.triton.rows import Pace, current_target, on_device
from fastaniso.ops.triton.score_rows import score_rows_kernel
from fastaniso.ops.triton.score_tiles import scores_kernel
from fastaniso.ops.triton.shapes import ceiling, power_of_two

MAX_SCORES = 10**9
"""Scores that a program counts in int32."""

PLACES = 64
AHEAD = 64
"""Pairs of launches, a millisecond or less each, that wait for the device: Ctrl-C is heard, the host seldom waits."""


class _Sums:
    """What every program keeps, and what they come to."""

    def __init__(self, heads: int, slots: int, bins: int, positions: int, device: torch.device) -> None:
        """Of no row."""

        def zeros(size: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(heads, slots, size, dtype=dtype, device=device)

        self.counts = zeros(6, torch.int64)
        self.histogram = zeros(bins + 2, torch.int32) if bins else None
        self.moments = zeros(4, torch.float64)
        self.moments[:, :, 2], self.moments[:, :, 3] = torch.inf, -torch.inf
        self.rows = zeros(5, torch.float64)
        self.received = zeros(positions, torch.float64)
        self.visible = zeros(positions, torch.int64)
        self._slots = torch.zeros(heads, bins + 2, dtype=torch.int64, device=device)
        self._since_flush = 0

    def make_room(self, scores: int) -> None:
        """Empty the int32 counts before a program counts more than MAX_SCORES in them."""
        self._since_flush += scores
        if self._since_flush > MAX_SCORES:
            self._flush()
            self._since_flush = scores

    def _flush(self) -> None:
        if self.histogram is not None:
            self._slots += self.histogram.sum(1)
            self.histogram.zero_()

    def results(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The six tensors of :class:`fastaniso.state.Attention`."""
        self._flush()
        numbers = self.counts[:, :, 5].double()
        totals, seconds, least, largest = self.moments.unbind(2)
        mean = totals.sum(1, keepdim=True) / numbers.sum(1, keepdim=True).clamp(min=1)
        away = totals / numbers.clamp(min=1) - mean
        moments = (totals.sum(1), (seconds + numbers * away**2).sum(1), least.amin(1), largest.amax(1))
        return (
            torch.cat((self.counts.sum(1), self._slots[:, :1], self._slots[:, -1:]), 1),
            self._slots[:, 1:-1].contiguous(),
            torch.stack(moments, 1),
            self.rows.sum(1),
            self.received.sum(1),
            self.visible.sum(1),
        )


def attention(
    queries: Tensor,
    keys: Tensor,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    scale: float,
    causal: bool,
    window: int | None,
    bins: int,
    low: float,
    high: float,
    positions: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The six tensors of :class:`fastaniso.state.Attention`."""
    batch, heads, length, dim = queries.shape
    others, device, target = keys.shape[2], queries.device, current_target()
    floats = torch.float64 if queries.dtype == torch.float64 else torch.float32
    first, stop = key_span(length, others, causal, window)
    tile = ScoreTile.of(dim, min(others, stop - first), queries.dtype, target)
    shape = (batch, heads, length, others)
    cut = Cut.of(shape, stop - first, bins + positions, tile, floats.itemsize, target)
    with on_device(queries):
        # On the device: a copy from the host would wait for it.
        settings = torch.stack([torch.full((), x, dtype=torch.float64, device=device) for x in (scale, low, high)])
        sums = _Sums(heads, cut.slots, bins, positions, device)
        scores = torch.empty(
            cut.units_at_once * cut.heads_at_once * tile.queries * cut.width, dtype=floats, device=device
        )
        first_keys = None if key_mask is None else _first_keys(key_mask, positions)
        shared = target not in ("rocm", "interpreter") and floats == torch.float32 and 0 < bins <= MAX_SHARED_BINS
        slots = shared_histogram.shared_slots(bins) if shared else 0
        strides = (*queries.stride()[:3], *keys.stride()[:3])
        constants = {"QUERIES": tile.queries, "KEYS": tile.keys}
        extern: dict[str, Any] = {"extern_libs": shared_histogram.library(bins)} if slots else {}
        pace = Pace(device, AHEAD)
        for first_head in range(0, heads, cut.heads_at_once):
            of_heads = min(cut.heads_at_once, heads - first_head)
            for first_unit in range(0, cut.units, cut.units_at_once):
                units = min(cut.units_at_once, cut.units - first_unit)
                place = (length, others, first, stop, cut.tiles, first_unit, first_head)
                scores_kernel[(cut.width // tile.keys, units, of_heads)](
                    queries,
                    keys,
                    key_mask,
                    settings,
                    scores,
                    *place,
                    cut.width,
                    *strides,
                    SHARED=heads // keys.shape[1],
                    D=dim,
                    ALIGN=next(a for a in (16, 8, 4, 2, 1) if all(stride % a == 0 for stride in strides)),
                    K=tile.K,
                    STAGES=tile.stages,
                    **constants,
                    num_warps=tile.warps,
                )
                sums.make_room(ceiling(units * tile.queries // cut.rows.R, cut.slots) * cut.rows.R * cut.width)
                score_rows_kernel[(cut.slots, of_heads)](
                    scores,
                    query_mask,
                    first_keys,
                    settings,
                    sums.counts,
                    sums.histogram,
                    sums.moments,
                    sums.rows,
                    sums.received if positions else None,
                    sums.visible,
                    *place,
                    units,
                    cut.width,
                    positions,
                    BINS=bins,
                    SHARED_SLOTS=slots,
                    R=cut.rows.R,
                    C=cut.rows.C,
                    HELD=cut.rows.held,
                    PLACES=min(PLACES, power_of_two(positions)),
                    **constants,
                    num_warps=cut.rows.warps,
                    **extern,
                )
                pace.wait()
        return sums.results()


def _first_keys(key_mask: Tensor, positions: int) -> Tensor:
    """Where the first keys of each sequence that the mask keeps are (B, P), S where there are no more."""
    batch, others = key_mask.shape
    place = key_mask.cumsum(1) - 1
    place = torch.where(key_mask, place, positions).clamp(max=positions)
    # All others go to a place that is cut off.
    found = torch.full((batch, positions + 1), others, dtype=torch.int32, device=key_mask.device)
    at = torch.arange(others, dtype=torch.int32, device=key_mask.device).expand(batch, others)
    return found.scatter_(1, place, at)[:, :positions].contiguous()
