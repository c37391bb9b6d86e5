"""Statistics over the cosines of all pairs of rows: each pair is multiplied once and nothing of size n² is written.

For cosines c of the pairs i < j of one set, or of all pairs of two: counts in B bins, Σc and central Σ(c − c̄)^2, 3, 4,
Σ|c|, Σexp(2t(c − 1)), counts above thresholds, and the least and the largest with their places. A program's sums over
the tiles of a launch are float32 (float64 for float64 rows), over launches float64; counts are int32 for at most 10⁹
pairs, then int64. Deviations are from a pivot, c̄ as Σu gives it after one read, and are moved to c̄ at the end.

Which program adds what depends on the shape alone, and programs are added in order: same input, same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastaniso.ops.triton import shapes, shared_histogram
from fastaniso.ops.triton.extrema import extrema_kernel
from fastaniso.ops.triton.pair_sums import pair_sums_kernel
from fastaniso.ops.triton.panels import PanelPair
from fastaniso.ops.triton.row_sets import RowSet, count_ordered_pairs, panel_pairs
from fastaniso.ops.triton.rows import current_target, on_device
from fastaniso.ops.triton.shapes import PairTile, ceiling, panel_parts, power_of_two, supertiles

MAX_SHARED_BINS = 8192
MAX_PAIRS = 10**9
"""Pairs that a program counts in int32."""


@dataclass(frozen=True)
class Asked:
    """What is wanted of the pairs."""

    bins: int
    moments: bool
    extrema: bool
    uniformity_t: list[float]
    thresholds: list[float]


class PairSums:
    """The sums of one visit: those of every program, and what they come to."""

    def __init__(self, asked: Asked, left: RowSet, right: RowSet) -> None:
        """Of no pair."""
        self._asked, self._left, self._right = asked, left, right
        self._device = left.kept.device
        self._floats = floats = torch.float64 if left.dtype == torch.float64 else torch.float32
        self._pivot = _pivot(left, right).to(floats)
        self._exponents = self._filled([2 * t * math.log2(math.e) for t in asked.uniformity_t])
        self._thresholds = self._filled([_comparable(t, floats) for t in asked.thresholds])
        self._histogram = self._programs(asked.bins + 2 if asked.bins else 0, torch.int32)
        self._powers = self._programs(5 if asked.moments else 0, torch.float64)
        self._exponentials = self._programs(len(asked.uniformity_t), torch.float64)
        self._above = self._programs(len(asked.thresholds), torch.int32)
        self._least = self._programs(2 if asked.extrema else 0, floats)
        self._least_at = self._programs(2 if asked.extrema else 0, torch.int64)
        self._best = torch.full((2,), 2.0, dtype=floats, device=self._device)
        self._best_at = torch.full((2, 2), -1, dtype=torch.int64, device=self._device)
        self._slots = torch.zeros(asked.bins + 2, dtype=torch.int64, device=self._device)
        self._total_above = torch.zeros(len(asked.thresholds), dtype=torch.int64, device=self._device)
        self._since_flush = 0

    def _filled(self, values: list[float]) -> Tensor | None:
        # On the device: a copy from the host would wait for it.
        made = [torch.full((), value, dtype=self._floats, device=self._device) for value in values]
        return torch.stack(made) if made else None

    def _programs(self, size: int, dtype: torch.dtype) -> Tensor | None:
        return torch.zeros(shapes.PAIR_PROGRAMS, size, dtype=dtype, device=self._device) if size else None

    def add(self, pair: PanelPair) -> None:
        """Visit the pairs of two panels, or of one: whole tiles, then the others."""
        dtype, target, asked = self._left.dtype, current_target(), self._asked
        shared = target not in ("rocm", "interpreter") and dtype != torch.float64
        slots = shared_histogram.shared_slots(asked.bins) if shared and 0 < asked.bins <= MAX_SHARED_BINS else 0
        # More than one exponent or threshold: their sums leave no room for a large tile.
        many = max(len(asked.uniformity_t), len(asked.thresholds)) > 1
        large, small = (PairTile.of(dtype, target, small=which, many=many, slots=slots) for which in (False, True))
        # Two panels have a whole tile, one panel has one off its diagonal.
        if min(pair.left.rows, pair.right.rows) >= large.side * (2 if pair.triangle else 1):
            self._launch(pair, large, large.side, slots, edge=False)
        self._launch(pair, small, large.side, slots, edge=True)

    def _launch(self, pair: PanelPair, tile: PairTile, whole: int, slots: int, *, edge: bool) -> None:
        asked = self._asked
        down, number = supertiles(pair.left.rows, pair.right.rows, tile.side, triangle=pair.triangle)
        programs = min(shapes.PAIR_PROGRAMS, number)
        self._make_room(ceiling(number, programs) * tile.side**2)
        operands = pair.operands(tile)
        kept = (self._left.kept, self._right.kept, pair.left.first, pair.right.first)
        constants: dict[str, Any] = {
            "TRIANGLE": pair.triangle,
            "EDGE": edge,
            "T": tile.side,
            "K": tile.K,
            "PARTS": panel_parts(self._left.dtype),
            "DESCRIBED": tile.described,
            "STAGES": tile.stages,
        }
        options: dict[str, Any] = {"num_warps": tile.warps}
        if tile.registers is not None:
            options["maxnreg"] = tile.registers
        pair_sums_kernel[(programs,)](
            *operands,
            *kept,
            self._pivot if asked.moments else None,
            self._exponents,
            self._thresholds,
            self._histogram,
            self._powers,
            self._exponentials,
            self._above,
            self._least,
            self._least_at,
            pair.width,
            number,
            down,
            BINS=asked.bins,
            SHARED_SLOTS=slots,
            EXPONENTS=len(asked.uniformity_t),
            THRESHOLDS=len(asked.thresholds),
            WHOLE=whole,
            SIDE=shapes.SUPERTILE_SIDE,
            **constants,
            **options,
            **({"extern_libs": shared_histogram.library(asked.bins)} if slots else {}),
        )
        if asked.extrema:
            extrema_kernel[(2,)](
                *operands,
                self._left.kept_rows,
                self._right.kept_rows,
                *kept,
                self._least,
                self._least_at,
                self._best,
                self._best_at,
                programs,
                pair.width,
                PROGRAMS=power_of_two(shapes.PAIR_PROGRAMS),
                **constants,
                num_warps=tile.warps,
            )

    def _make_room(self, pairs: int) -> None:
        """Empty the int32 counts before a program counts more than MAX_PAIRS in them."""
        self._since_flush += pairs
        if self._since_flush > MAX_PAIRS:
            self._flush()
            self._since_flush = pairs

    def _flush(self) -> None:
        for partial, total in ((self._histogram, self._slots), (self._above, self._total_above)):
            if partial is not None:
                total += partial.sum(0)
                partial.zero_()

    def results(self, counts: Tensor, start: int, other_start: int) -> tuple[Tensor, ...]:
        """The seven tensors of :class:`fastaniso.state.Pairs`, given ``counts`` and the index of the first rows."""
        self._flush()
        nothing = torch.empty(0, dtype=torch.float64, device=self._device)
        histogram = self._slots[1:-1]
        if self._asked.bins:
            histogram[0] += self._slots[0]
            histogram[-1] += self._slots[-1]
        values, places = nothing, counts.new_empty(0, 2)
        if self._asked.extrema:
            least, minus_most = torch.where(self._best < 2, self._best, torch.inf).double()
            values = torch.stack((least, -minus_most))
            offsets = torch.stack((counts.new_full((), start), counts.new_full((), other_start)))
            places = self._best_at + torch.where((self._best < 2)[:, None], offsets, 0)
        return (
            counts,
            histogram,
            nothing if self._powers is None else _central(self._powers.sum(0), self._pivot.double(), counts[0]),
            nothing if self._exponentials is None else self._exponentials.sum(0),
            self._total_above,
            values,
            places,
        )


def pairs(
    hidden: Tensor,
    mask: Tensor | None,
    other: Tensor | None,
    other_mask: Tensor | None,
    bins: int,
    moments: bool,
    extrema: bool,
    uniformity_t: list[float],
    thresholds: list[float],
    start: int,
    other_start: int,
    precision: str = "exact",
) -> tuple[Tensor, ...]:
    """The seven tensors of :class:`fastaniso.state.Pairs`, empty where not asked for."""
    with on_device(hidden):
        left = RowSet(hidden, mask, start, precision)
        right = left if other is None else RowSet(other, other_mask, other_start, precision)
        sums = PairSums(Asked(bins, moments, extrema, uniformity_t, thresholds), left, right)
        for pair in panel_pairs(left, right):
            sums.add(pair)
        counts = count_ordered_pairs(left, right)
        if left is right:
            counts[:3] //= 2
        return sums.results(counts, start, start if other is None else other_start)


def _pivot(left: RowSet, right: RowSet) -> Tensor:
    """The mean cosine (1,): from Σu, less each row's own u·u if there is one set."""
    total = (left.unit_sum * right.unit_sum).sum(0, keepdim=True)
    if left is right:
        return (total - left.unit_squared) / (left.kept * (left.kept - 1)).clamp(min=1)
    return total / (left.kept * right.kept).clamp(min=1)


def _comparable(threshold: float, dtype: torch.dtype) -> float:
    """The largest number of ``dtype`` not above a threshold; beyond ±1 infinity, since rounding may leave c there."""
    if threshold >= 1:
        return math.inf
    if threshold < -1:
        return -math.inf
    rounded = torch.tensor(threshold, dtype=dtype)
    if rounded.item() > threshold:
        rounded = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
    return rounded.item()


def _central(powers: Tensor, pivot: Tensor, count: Tensor) -> Tensor:
    """Σc, Σ(c − c̄)^2, 3, 4 and Σ|c| from Σδ^1, 2, 3, 4 about the pivot and Σ|c|."""
    first, second, third, fourth, sizes = powers.unbind()
    shift = first / count.clamp(min=1)
    return torch.stack(
        (
            first + count * pivot[0],
            (second - first * shift).clamp(min=0),
            third - 3 * shift * second + 2 * first * shift**2,
            (fourth - 4 * shift * third + 6 * shift**2 * second - 3 * first * shift**3).clamp(min=0),
            sizes,
        )
    )
