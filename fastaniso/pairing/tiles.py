"""All pairs of blocks of rows: which tiles of the pair grid there are, and the op run on one after another.

Rows may lie in memory or in files: a block says how to load itself, and at most two are held at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastaniso.ops import dispatch as ops
from fastaniso.rows import Rows
from fastaniso.state import Neighbors, Pairs, State, StateMismatchError

_ROWS = 16_384
_BYTES = 2**26
_REFERENCE_ROWS = 512
_MERGED = 2**16  # numbers in the lists that are merged at once


@dataclass(frozen=True)
class Block:
    """Rows ``start`` to ``stop`` (half-open) of a source; ``load`` gives them."""

    start: int
    stop: int
    load: Callable[[], Rows]


def rows_in_block(dim: int, dtype: torch.dtype, backend: str, *, neighbors: bool = False) -> int:
    """Rows of a block for ``backend``, as ``ops.dispatch.resolve`` names it: fixed by the rows' form alone.

    Never by threads or free memory: the tiles decide in which order float64 sums are added, and so their last bits.
    ``neighbors`` of rows in memory take larger blocks: each tile finds its own best, which then have to be merged.
    """
    if backend == "reference":
        return _REFERENCE_ROWS  # it writes out all cosines of a tile in float64
    # On a GPU a tile has to last long beside its launch; on either, two blocks have to fit where sources are on disk.
    larger = (8 if backend == "triton" else 1) * (4 if neighbors else 1)
    rows = min(_BYTES // (dim * dtype.itemsize), _ROWS) * larger
    return max(rows // 1024, 1) * 1024


def blocks_of(rows: Rows, size: int) -> list[Block]:
    """Blocks of about ``size`` rows of what is in memory: views."""

    def block(start: int, part: Rows) -> Block:
        return Block(start, start + part.count, lambda: part)

    return [block(start, part) for start, part in rows.blocks(size)]


def gather(rows: Rows, indices: Tensor) -> Rows:
    """A copy of the rows at ``indices`` (m,), counted over both row axes, without their mask."""
    outer, inner, _ = rows.values.shape
    if outer == 1:
        return Rows(rows.values[0].index_select(0, indices)[None], None)
    return Rows(rows.values[indices // inner, indices % inner][None], None)


def kept_rows(rows: Rows, n: int) -> Tensor | None:
    """Indices of the n rows that are not masked and can be normalised; None where these are all."""
    if n == rows.count:
        return None
    if rows.mask is not None:
        unmasked = torch.nonzero(rows.mask.flatten())[:, 0]
        if len(unmasked) == n:
            return unmasked
    found = []
    for start, block in rows.blocks(_ROWS // 4):
        usable = block.values.isfinite().all(-1) & (block.values != 0).any(-1)
        found.append(torch.nonzero((usable if block.mask is None else usable & block.mask).flatten())[:, 0] + start)
    return torch.cat(found)


def visit_pairs(
    state: Pairs,
    blocks: Sequence[Block],
    others: Sequence[Block] | None = None,
    *,
    source: str | None = None,
    other_source: str | None = None,
    backend: str = "auto",
    precision: str = "exact",
) -> Iterator[Pairs]:
    """Op ``pairs`` on every tile of the triangle of ``blocks``, or of the rectangle with ``others``.

    Yields the merged state after each tile. Tiles that ``state`` has covered under the names of the sources are
    skipped, so that a run goes on where it stopped; ``StateMismatchError`` if it was cut into other blocks.
    ``state.counts[:3].sum()`` are the pairs visited.
    """
    for tile in _tiles(state, blocks, others, source, other_source):
        part = ops.pairs(
            tile.rows,
            tile.others,
            bins=state.bins,
            moments=state.moments is not None,
            extrema=state.extrema is not None,
            uniformity_t=state.uniformity_t,
            thresholds=state.thresholds,
            backend=backend,
            precision=precision,
            start=tile.start,
            other_start=tile.other_start,
            source=source,
            other_source=source if others is None else other_source,
        )
        # The state of no pair, which no kernel has made, takes no merging: a small call has one tile.
        state = state.merge(part) if state.provenance else part
        yield state


def visit_neighbors(
    state: Neighbors,
    blocks: Sequence[Block],
    others: Sequence[Block] | None = None,
    *,
    source: str | None = None,
    other_source: str | None = None,
    backend: str = "auto",
    precision: str = "exact",
    in_place: bool = False,
) -> Iterator[Neighbors]:
    """Op ``neighbors`` for every row of ``blocks`` among them all, each pair visited once, or among ``others``.

    ``state`` holds all the rows (``Neighbors.empty(dim, k, start, stop)``). Yields the merged state after each tile and
    skips covered tiles, as ``visit_pairs`` does. ``in_place`` writes into the tensors of ``state`` and never holds a
    second copy of them: what was yielded before is then void, and after an interruption the last state may be, too.
    """
    for tile in _tiles(state, blocks, others, source, other_source):
        theirs = source if others is None else other_source
        mutual = others is None
        # What a tile found is not held while the next one is visited.
        state = written(state, _find(tile, state, backend, precision, source, theirs, mutual=mutual), in_place)
        yield state


@dataclass(frozen=True)
class _Tile:
    rows: Rows
    others: Rows | None
    start: int
    other_start: int


def _tiles(
    state: Pairs | Neighbors,
    blocks: Sequence[Block],
    others: Sequence[Block] | None,
    source: str | None,
    other_source: str | None,
) -> Iterator[_Tile]:
    """The tiles that ``state`` has not seen, row by row; a row's block is loaded once, and only where it is needed."""
    for i, block in enumerate(blocks):
        rows: Rows | None = None
        for other in blocks[i:] if others is None else others:
            if _is_covered(state, block, other, source, source if others is None else other_source):
                continue
            rows = block.load() if rows is None else rows
            diagonal = others is None and other is block
            yield _Tile(rows, None if diagonal else other.load(), block.start, 0 if diagonal else other.start)


def _is_covered(state: State, block: Block, other: Block, source: str | None, other_source: str | None) -> bool:
    if source is None or other_source is None:
        return False
    rows, others = (block.start, block.stop), (other.start, other.stop)
    covered = state.coverage.area(source, rows, other_source, others)  # type: ignore[union-attr]  # of pairs
    if covered in (0, (rows[1] - rows[0]) * (others[1] - others[0])):
        return covered > 0
    raise StateMismatchError(
        f"pairs of rows {rows} of {source!r} with rows {others} of {other_source!r} are covered in part: the state was "
        "made of blocks of another size; go on with the same blocks, or start anew"
    )


def _find(
    tile: _Tile,
    state: Neighbors,
    backend: str,
    precision: str,
    source: str | None,
    other_source: str | None,
    *,
    mutual: bool,
) -> Sequence[Neighbors]:
    """The neighbours of a tile's rows, and of its others if each is a candidate of the other, that ``state`` lacks."""
    least = _least(state, tile.rows, tile.start)
    if tile.others is None or not mutual:
        found = ops.neighbors(
            tile.rows,
            tile.others,
            k=state.k,
            least=least,
            backend=backend,
            precision=precision,
            start=tile.start,
            other_start=tile.other_start,
            source=source,
            other_source=other_source,
        )
        return (found,)
    return ops.mutual_neighbors(
        tile.rows,
        tile.others,
        k=state.k,
        least=least,
        other_least=_least(state, tile.others, tile.other_start),
        backend=backend,
        precision=precision,
        start=tile.start,
        other_start=tile.other_start,
        source=source,
        other_source=other_source,
    )


def _least(state: Neighbors, rows: Rows, start: int) -> Tensor | None:
    return state.least(start, start + rows.count) if state.provenance else None


def written(state: Neighbors, parts: Sequence[Neighbors], in_place: bool) -> Neighbors:
    """``state`` merged with parts that hold some of its rows: only those rows are looked at."""
    (part, *more) = parts
    # Of no row, or of rows that have met no candidate: the part is all there is.
    if not state.provenance and not more and (state.start, state.stop) in ((part.start, part.stop), (0, 0)):
        return part
    first, cosines, indices = state.start, state.cosines, state.indices
    if not in_place:
        cosines, indices = cosines.clone(), indices.clone()
    at_once = max(_MERGED // state.k, 1)
    for part in parts:
        for start in range(part.start, part.stop, at_once):
            stop = min(start + at_once, part.stop)
            ours, theirs = slice(start - first, stop - first), slice(start - part.start, stop - part.start)
            best = _lists(state, start, cosines[ours], indices[ours]).merge(
                _lists(state, start, part.cosines[theirs], part.indices[theirs])
            )
            cosines[ours], indices[ours] = best.cosines, best.indices
        # Of what is known about all rows, only counts and coverage are left to add: lists of no rows.
        state = replace(state, cosines=cosines[:0], indices=indices[:0]).merge(
            replace(part, cosines=part.cosines[:0], indices=part.indices[:0])
        )
    return replace(state, start=first, cosines=cosines, indices=indices)


def _lists(state: Neighbors, start: int, cosines: Tensor, indices: Tensor) -> Neighbors:
    """Lists of some rows without counts and coverage."""
    return replace(
        Neighbors.empty(state.dim, state.k, device=cosines.device, dtype=cosines.dtype),
        start=start,
        cosines=cosines,
        indices=indices,
    )
