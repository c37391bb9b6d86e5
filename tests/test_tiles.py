"""Tiles of the pair grid: every pair once, whatever the blocks, stopped and continued or not."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from fastaniso.ops import dispatch as ops
from fastaniso.pairing.tiles import Block, blocks_of, rows_in_block, visit_neighbors, visit_pairs
from fastaniso.rows import Rows, as_rows
from fastaniso.state import Neighbors, Pairs, StateMismatchError

X = torch.randn(53, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randn(31, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
MASK = torch.arange(53) % 5 != 3
EXACT = ("counts", "histogram", "above", "extrema_at")
NAMES = {"source": "x", "other_source": "y"}


def _empty() -> Pairs:
    return Pairs.empty(7, bins=64, uniformity_t=(2.0,), thresholds=(0.1,))


def _whole(rows: Rows, other: Rows | None = None) -> Pairs:
    return ops.pairs(rows, other, bins=64, uniformity_t=(2.0,), thresholds=(0.1,), backend="reference")


def _last(states: object) -> Pairs | Neighbors:
    return list(states)[-1]  # type: ignore[call-overload, no-any-return]


def _same(a: Pairs, b: Pairs) -> None:
    for name in EXACT:
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    for name in ("moments", "exponentials", "extrema"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [5, 16, 52, 53, 100])
@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_tiles_add_up_to_all_pairs(size: int, mask: Tensor | None) -> None:
    x, y = as_rows(X, mask), as_rows(Y)
    blocks, others = blocks_of(x, size), blocks_of(y, 9)
    _same(_last(visit_pairs(_empty(), blocks, backend="reference")), _whole(x))
    _same(_last(visit_pairs(_empty(), blocks, others, backend="reference", **NAMES)), _whole(x, y))


@pytest.mark.parametrize("size", [7, 52, 53, 100])
@pytest.mark.parametrize("in_place", [False, True])
def test_neighbours_of_tiles_are_neighbours_of_the_whole(size: int, in_place: bool) -> None:
    x, y = as_rows(X, MASK), as_rows(Y)
    for others in (None, y):
        whole = ops.neighbors(x, others, k=4, backend="reference")
        start = Neighbors.empty(7, 4, 0, 53, dtype=torch.float64)
        tiles = None if others is None else blocks_of(others, 9)
        found = _last(
            visit_neighbors(start, blocks_of(x, size), tiles, backend="reference", in_place=in_place, **NAMES)
        )
        for name in ("counts", "indices"):
            assert torch.equal(getattr(found, name), getattr(whole, name)), name
        torch.testing.assert_close(found.cosines, whole.cosines, rtol=1e-14, atol=1e-14)
        if not in_place:
            assert start.cosines.eq(-torch.inf).all()


@pytest.mark.parametrize("stop", [1, 4, 9])
def test_a_run_goes_on_where_it_stopped(stop: int) -> None:
    loads: list[int] = []

    def load(block: Block) -> Rows:
        loads.append(block.start)
        return block.load()

    blocks = [Block(b.start, b.stop, lambda b=b: load(b)) for b in blocks_of(as_rows(X), 16)]  # 4 blocks, 10 tiles
    for empty, visit in (
        (_empty(), visit_pairs),
        (Neighbors.empty(7, 3, 0, 53, dtype=torch.float64), visit_neighbors),
    ):
        whole = _last(visit(empty, blocks, source="x", backend="reference"))
        first = _last(itertools.islice(visit(empty, blocks, source="x", backend="reference"), stop))
        rest = list(visit(first, blocks, source="x", backend="reference"))
        assert len(rest) == 10 - stop
        tensors = {name: getattr(whole, name) for name in whole._tensors}
        for name, tensor in tensors.items():
            assert torch.equal(getattr(rest[-1], name), tensor), name
        loads.clear()
        assert list(visit(rest[-1], blocks, source="x", backend="reference")) == []
        assert loads == []


def test_each_tile_loads_its_blocks_once() -> None:
    loads: list[int] = []

    def load(block: Block) -> Rows:
        loads.append(block.start)
        return block.load()

    blocks = [Block(b.start, b.stop, lambda b=b: load(b)) for b in blocks_of(as_rows(X), 20)]
    list(visit_pairs(_empty(), blocks, source="x", backend="reference"))
    assert loads == [0, 20, 40, 20, 40, 40]


def test_other_blocks_than_before_are_refused() -> None:
    rows = as_rows(X)
    first = next(visit_pairs(_empty(), blocks_of(rows, 16), source="x", backend="reference"))
    with pytest.raises(StateMismatchError, match=r"rows \(0, 20\) of 'x' .* covered in part: .* go on with the same"):
        next(visit_pairs(first, blocks_of(rows, 20), source="x", backend="reference"))


def test_blocks_are_cut_by_the_form_of_the_rows_alone() -> None:
    assert rows_in_block(768, torch.float32, "cpu") == 16_384
    assert rows_in_block(4096, torch.float32, "cpu") == 4096
    assert rows_in_block(10**6, torch.float64, "cpu") == 1024
    assert rows_in_block(768, torch.bfloat16, "triton") == 8 * 16_384
    assert rows_in_block(768, torch.float32, "reference") < 1024
    assert rows_in_block(768, torch.float32, "cpu", neighbors=True) == 65_536
