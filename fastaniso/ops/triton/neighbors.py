"""The k largest cosines of each row and where they are.

A program has a block of rows and every SPLITS-th tile of candidates; it keeps a list of the K ≥ k best of each row,
unsorted, and looks at a tile twice only if some cosine in it is larger than the least of its row's list. Then it takes
the largest of each row, one after another, in place of the least, until none is larger. Candidates come in order, so a
later one never displaces an equal earlier one. At the end the lists of a row are sorted by (cosine, −index). Empty
places have a cosine below any that may be found, and a negative index.

All ordered pairs are multiplied, those of one set too (twice the work of its triangle), and for ``both`` once in each
direction. Float64 rows are multiplied and sorted panel by panel by torch.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

from itertools import groupby

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastaniso.ops.triton.cosines import cosine_tile
from fastaniso.ops.triton.panels import PanelPair
from fastaniso.ops.triton.row_sets import RowSet, count_ordered_pairs, panel_pairs
from fastaniso.ops.triton.rows import current_target, on_device
from fastaniso.ops.triton.shapes import PairTile, ceiling, list_splits, panel_parts, power_of_two
from fastaniso.state.neighbors import sort_keys

NOTHING = -2.0
"""The cosine of an empty place where any candidate may be found."""

SORTED_ROWS = 8192


@triton.jit(do_not_specialize=["left_first", "right_first", "tiles"])
def neighbors_kernel(
    left,
    right,
    left_weights,
    right_weights,
    left_kept,  # (1,) int64: kept rows of the whole set
    right_kept,
    left_first,  # how many of them lie before the panel
    right_first,
    cosines,  # (rows, SPLITS, LENGTH) float32, updated
    indices,  # (rows, SPLITS, LENGTH) int32, updated: numbers among the kept candidates
    width,
    tiles,
    ONE_SET: tl.constexpr,  # leave out i = j
    SPLITS: tl.constexpr,
    LENGTH: tl.constexpr,
    T: tl.constexpr,
    K: tl.constexpr,
    PARTS: tl.constexpr,
    DESCRIBED: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Lists of T rows over every SPLITS-th tile of a panel of candidates."""
    split = tl.program_id(0) % SPLITS
    first_row = tl.program_id(0) // SPLITS * T
    left_count = tl.load(left_kept) - left_first
    right_count = tl.load(right_kept) - right_first
    local = tl.arange(0, T)
    lists = ((first_row + local).to(tl.int64) * SPLITS + split) * LENGTH
    place = lists[:, None] + tl.arange(0, LENGTH)[None, :]
    least = tl.min(tl.load(cosines + place), axis=1)
    stop = tl.minimum(tiles, tl.cdiv(right_count, T).to(tl.int32))
    stop = tl.where(first_row < left_count, stop, 0)
    for tile in tl.range(split, stop, SPLITS):
        first_column = tile * T
        tile_cosines = cosine_tile(
            left, right, left_weights, right_weights, first_row, first_column, width, T, K, PARTS, DESCRIBED, STAGES
        )
        tile_cosines = tl.minimum(tl.maximum(tile_cosines, -1.0), 1.0)
        row_numbers = left_first + first_row + local
        column_numbers = right_first + first_column + local
        meets_itself = False
        if ONE_SET:
            meets_itself = left_first + first_row == right_first + first_column
        if (first_column + T > right_count) | meets_itself:
            valid = (first_column + local < right_count)[None, :]
            if ONE_SET:
                valid = valid & (row_numbers[:, None] != column_numbers[None, :])
            tile_cosines = tl.where(valid, tile_cosines, -2.0)
        if tl.max((tl.max(tile_cosines, axis=1) > least).to(tl.int32), axis=0) != 0:
            best = tl.load(cosines + place)
            at = tl.load(indices + place)
            more = 1
            while more != 0:
                found = tl.max(tile_cosines, axis=1)
                column = tl.min(tl.where(tile_cosines == found[:, None], local[None, :], T), axis=1)
                is_least = best == least[:, None]
                last = tl.max(tl.where(is_least, at, -(2**30)), axis=1)
                better = found > least
                replaced = is_least & (at == last[:, None]) & better[:, None]
                best = tl.where(replaced, found[:, None], best)
                at = tl.where(replaced, (right_first + first_column + column).to(tl.int32)[:, None], at)
                least = tl.min(best, axis=1)
                tile_cosines = tl.where(local[None, :] == column[:, None], -2.0, tile_cosines)
                more = tl.max(better.to(tl.int32), axis=0)
            tl.debug_barrier()
            tl.store(cosines + place, best)
            tl.store(indices + place, at)
            tl.debug_barrier()


class _Lists:
    """The lists of a panel of rows, and the kernel that puts candidates into them."""

    def __init__(self, below: Tensor, k: int) -> None:
        """Empty lists of rows that look only at cosines above ``below`` (rows,)."""
        self._k, self._length, self._splits = k, power_of_two(k), list_splits(k)
        shape = (len(below), self._splits, self._length)
        self._cosines = below[:, None, None].expand(shape).contiguous()
        empty = torch.arange(-self._length, 0, dtype=torch.int32, device=below.device)
        self._indices = empty.expand(shape).contiguous()

    def add(self, pair: PanelPair, left: RowSet, right: RowSet) -> None:
        """Compare the rows with a panel of candidates."""
        tile = PairTile.of(left.dtype, current_target(), small=self._length > 16)
        neighbors_kernel[(ceiling(pair.left.rows, tile.side) * self._splits,)](
            *pair.operands(tile),
            left.kept,
            right.kept,
            pair.left.first,
            pair.right.first,
            self._cosines,
            self._indices,
            pair.width,
            ceiling(pair.right.rows, tile.side),
            ONE_SET=left is right,
            SPLITS=self._splits,
            LENGTH=self._length,
            T=tile.side,
            K=tile.K,
            PARTS=panel_parts(left.dtype),
            DESCRIBED=tile.described,
            STAGES=tile.stages,
            num_warps=8 if self._length > 64 else tile.warps,
        )

    def best(self) -> tuple[Tensor, Tensor]:
        """Cosines and numbers of candidates (rows, k), sorted."""
        parts = zip(
            self._cosines.flatten(1).split(SORTED_ROWS), self._indices.flatten(1).split(SORTED_ROWS), strict=True
        )
        best, at = zip(*(self._sorted(cosines, indices) for cosines, indices in parts), strict=True)
        return torch.cat(best), torch.cat(at)

    def _sorted(self, cosines: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        first = sort_keys(cosines, indices.long()).sort(dim=1, descending=True).indices[:, : self._k]
        return cosines.gather(1, first), indices.gather(1, first)


class _SortedLists:
    """The same for float64 rows, whose products are there already: all candidates of a panel are sorted."""

    def __init__(self, below: Tensor, k: int) -> None:
        self._k = k
        self._cosines = below[:, None].expand(-1, k)
        self._indices = torch.full((len(below), k), -1, dtype=torch.int64, device=below.device)

    def add(self, pair: PanelPair, left: RowSet, right: RowSet) -> None:
        """Compare the rows with a panel of candidates."""
        assert pair.products is not None
        rows, candidates = (
            torch.arange(panel.first, panel.first + size, device=pair.products.device)
            for panel, size in zip((pair.left, pair.right), pair.products.shape, strict=True)
        )
        left_out = (candidates >= right.kept)[None, :]
        if left is right:
            left_out = left_out | (rows[:, None] == candidates)
        products = pair.products.clamp_(-1, 1).masked_fill_(left_out, NOTHING)
        # Stable, and candidates come in order: the smaller index stays first.
        cosines, order = torch.cat((self._cosines, products), 1).sort(dim=1, descending=True, stable=True)
        order = order[:, : self._k]
        known = self._indices.gather(1, order.clamp(max=self._k - 1))
        self._cosines = cosines[:, : self._k].contiguous()
        self._indices = torch.where(order < self._k, known, order - self._k + pair.right.first)

    def best(self) -> tuple[Tensor, Tensor]:
        """Cosines and numbers of candidates (rows, k), sorted."""
        return self._cosines, self._indices


def neighbors(
    hidden: Tensor,
    mask: Tensor | None,
    other: Tensor | None,
    other_mask: Tensor | None,
    least: Tensor | None,
    other_least: Tensor | None,
    k: int,
    both: bool,
    start: int,
    other_start: int,
    precision: str = "exact",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The three tensors of :class:`fastaniso.state.Neighbors`, and cosines and indices the other way if ``both``."""
    with on_device(hidden):
        left = RowSet(hidden, mask, start, precision)
        right = left if other is None else RowSet(other, other_mask, other_start, precision)
        cosines, indices = _search(left, right, k, start if other is None else other_start, least)
        if both:
            other_cosines, other_indices = _search(right, left, k, start, other_least)
        else:
            other_cosines, other_indices = cosines.new_empty(0, k), indices.new_empty(0, k)
        return count_ordered_pairs(left, right), cosines, indices, other_cosines, other_indices


def _search(left: RowSet, right: RowSet, k: int, start: int, least: Tensor | None) -> tuple[Tensor, Tensor]:
    """Cosines and indices (n, k) of each row's best among ``right``, whose first row has the index ``start``."""
    n, device, double = left.count, left.kept.device, left.dtype == torch.float64
    # One row more, where the panels' empty places go.
    best = torch.full((n + 1, k), -torch.inf, dtype=torch.float64 if double else torch.float32, device=device)
    at = torch.full((n + 1, k), -1, dtype=torch.int64, device=device)
    below = torch.full_like(best[:, 0], NOTHING)
    if least is not None:
        # An empty place gives way to a larger cosine only, and one that equals the least may be found.
        below[:n] = torch.nextafter(least, below[:n]).clamp(min=NOTHING)
    for first, pairs in groupby(panel_pairs(left, right, ordered=True), key=lambda pair: pair.left.first):
        places = torch.arange(first, first + left.panels.step, device=device)
        rows = torch.where(places < left.kept, left.kept_rows[places.clamp(max=n - 1)], n)
        lists = (_SortedLists if double else _Lists)(below[rows], k)
        for pair in pairs:
            lists.add(pair, left, right)
        cosines, numbers = lists.best()
        found = numbers >= 0
        best[rows] = cosines.masked_fill(~found, -torch.inf)
        at[rows] = torch.where(found, right.kept_rows[numbers.long().clamp(min=0)] + start, -1)
    return best[:n], at[:n]
