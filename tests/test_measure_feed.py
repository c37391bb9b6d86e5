"""Blocks for a GPU: each as it is stored, whatever the order, and no buffer written while a copy reads it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastaniso.scanning.feed import Ahead, blocks_on
from fastaniso.sources import CorruptFileError, Source, open_source

ROWS = torch.randn(103, 8, generator=torch.Generator().manual_seed(0))
RANGES = [(start, min(start + 10, 103)) for start in range(0, 103, 10)]


class LateCopies:
    """Copies that are made as late as they may be: a buffer that was written meanwhile gives wrong rows."""

    def __init__(self) -> None:
        self.begun = 0
        self.joined: list[Any] = []
        self.buffers: list[Tensor] = []

    def buffer(self, rows: int, dim: int, dtype: torch.dtype) -> Tensor:
        self.buffers.append(torch.full((rows, dim), torch.nan, dtype=dtype))
        return self.buffers[-1]

    def begin(self, host: Tensor) -> tuple[Tensor, Any]:
        self.begun += 1
        tensor = torch.full_like(host, torch.nan)
        return tensor, {"host": host, "tensor": tensor}

    def join(self, tensor: Tensor, ticket: Any) -> None:
        assert ticket["tensor"] is tensor
        self.joined.append(ticket)

    def finish(self, ticket: Any) -> None:
        if (host := ticket.pop("host", None)) is not None:
            ticket["tensor"].copy_(host)


class Counted(Source):
    """A source that counts what it reads, and is never asked by two threads."""

    def __init__(self, source: Source) -> None:
        self.name, self.count, self.dim, self.dtype = source.name, source.count, source.dim, source.dtype
        self._source = source
        self.read: list[tuple[int, int]] = []
        self.threads: set[int] = set()

    @property
    def fingerprint(self) -> list[Any]:
        return self._source.fingerprint

    def rows(self, start: int, stop: int) -> Tensor:
        self.read.append((start, stop))
        self.threads.add(threading.get_ident())
        return self._source.rows(start, stop)


@pytest.fixture
def source(tmp_path: Path) -> Counted:
    np.save(tmp_path / "rows.npy", ROWS.numpy())
    return Counted(open_source(tmp_path / "rows.npy"))


def check(ahead: Ahead, copies: LateCopies, numbers: list[int]) -> None:
    """Load the blocks; each is looked at only after what follows it was read into the buffers."""
    loaded = []
    for number in numbers:
        loaded.append((number, ahead.load(number), copies.joined[-1]))
        wait(ahead)
        if len(loaded) > 1:
            look(copies, *loaded.pop(0))
    look(copies, *loaded.pop())


def look(copies: LateCopies, number: int, tensor: Tensor, ticket: Any) -> None:
    copies.finish(ticket)
    start, stop = RANGES[number]
    assert torch.equal(tensor, ROWS[start:stop]), number


def wait(ahead: Ahead) -> None:
    if ahead._next is not None:
        ahead._next[1].result(timeout=10)


def test_one_pass_reads_every_block_once(source: Counted) -> None:
    copies = LateCopies()
    with Ahead(source, RANGES, copies) as ahead:
        check(ahead, copies, list(range(11)))
    assert source.read == RANGES
    assert copies.begun == 11
    assert len(copies.buffers) == 2
    assert len(source.threads) == 1
    assert threading.get_ident() not in source.threads


def test_the_next_block_is_read_before_it_is_asked_for(source: Counted) -> None:
    copies = LateCopies()
    with Ahead(source, RANGES, copies) as ahead:
        check(ahead, copies, [0])
        wait(ahead)
        assert source.read == RANGES[:2]


def test_tiles_of_a_triangle_read_no_block_in_vain(source: Counted) -> None:
    order = [number for row in range(11) for number in range(row, 11)]
    copies = LateCopies()
    with Ahead(source, RANGES, copies, triangle=True) as ahead:
        check(ahead, copies, order)
    assert source.read == [RANGES[number] for number in order]


def test_blocks_in_any_order_are_right(source: Counted) -> None:
    """As when a run goes on in the middle of a row of tiles: what was read in vain is dropped."""
    copies = LateCopies()
    with Ahead(source, RANGES, copies, triangle=True) as ahead:
        check(ahead, copies, [3, 7, 8, 9, 10, 4, 5, 5, 0, 10, 2, 1])
    assert len(source.read) > 12


def test_an_error_of_the_source_is_the_callers(source: Counted, tmp_path: Path) -> None:
    copies = LateCopies()
    with Ahead(source, RANGES, copies) as ahead:
        check(ahead, copies, [0])
        with (tmp_path / "rows.npy").open("rb+") as file:
            file.truncate(1000)
        ahead.load(1)  # was read before
        with pytest.raises(CorruptFileError, match="cut short"):
            ahead.load(2)


@pytest.mark.parametrize("size", [1, 10, 50, 103, 500])
def test_blocks_on_the_cpu_are_views_of_the_file(source: Counted, size: int) -> None:
    with blocks_on(torch.device("cpu"), source, size) as blocks:
        assert [(block.start, block.stop) for block in blocks][-1][1] == 103
        for block in blocks:
            rows = block.load()
            assert torch.equal(rows.values[0], ROWS[block.start : block.stop])
            assert rows.mask is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_blocks_on_a_gpu(source: Counted) -> None:
    with blocks_on(torch.device("cuda"), source, 10, triangle=True) as blocks:
        for row in range(11):
            for block in blocks[row:]:
                assert torch.equal(block.load().values[0].cpu(), ROWS[block.start : block.stop])
