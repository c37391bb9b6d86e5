"""Blocks of a stored source on the device that measures them; a GPU gets the next one while it works on this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from fastaniso.pairing.tiles import Block
from fastaniso.rows import Rows, as_rows
from fastaniso.sources import Source


@contextmanager
def blocks_on(device: torch.device, source: Source, size: int, *, triangle: bool = False) -> Iterator[Sequence[Block]]:
    """The rows of ``source`` in blocks of ``size`` that load on ``device``.

    On the CPU a block is a view of the file, and the system reads ahead. For a GPU the block that is likely to be next
    (after the last one, in a ``triangle``, that behind the row of tiles) is read into pinned memory and copied by a
    stream of its own while the kernels work.
    """
    ranges = [(start, min(start + size, source.count)) for start in range(0, source.count, size)]
    if device.type != "cuda":
        yield [_block(*edges, partial(_load, source, device, *edges)) for edges in ranges]
        return
    with Ahead(source, ranges, CudaCopies(device), triangle=triangle) as ahead:
        yield [_block(*edges, partial(ahead.load, number)) for number, edges in enumerate(ranges)]


def _block(start: int, stop: int, load: Callable[[], Tensor]) -> Block:
    def rows() -> Rows:
        return as_rows(load())

    return Block(start, stop, rows)


def _load(source: Source, device: torch.device, start: int, stop: int) -> Tensor:
    return source.rows(start, stop).to(device)


class Copies(Protocol):
    """Copies from the host to a device that go on while the host does something else."""

    def buffer(self, rows: int, dim: int, dtype: torch.dtype) -> Tensor:
        """Memory of the host that copies can be made from."""

    def begin(self, host: Tensor) -> tuple[Tensor, Any]:
        """Begin a copy: the tensor on the device, and a ticket that tells when it is there."""

    def join(self, tensor: Tensor, ticket: Any) -> None:
        """Let what comes next on the device wait for the copy."""

    def finish(self, ticket: Any) -> None:
        """Wait on the host until the copy is made."""


class CudaCopies:
    """Copies by a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        """Of the host to ``device``."""
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def buffer(self, rows: int, dim: int, dtype: torch.dtype) -> Tensor:
        """Pinned memory."""
        return torch.empty(rows, dim, dtype=dtype, pin_memory=True)

    def begin(self, host: Tensor) -> tuple[Tensor, Any]:
        """Queue the copy."""
        with torch.cuda.stream(self._stream):
            tensor = host.to(self._device, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        return tensor, event

    def join(self, tensor: Tensor, ticket: Any) -> None:
        """Let the current stream wait, and keep the memory until it is done with it."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(ticket)
        tensor.record_stream(stream)

    def finish(self, ticket: Any) -> None:
        """Wait for the event."""
        ticket.synchronize()


class Ahead:
    """Loads blocks and reads the one that is likely to be next, in two buffers that take turns.

    Another block than the likely one costs the time to read it, and nothing else.
    """

    def __init__(
        self, source: Source, ranges: Sequence[tuple[int, int]], copies: Copies, *, triangle: bool = False
    ) -> None:
        """Blocks of ``source`` from start to stop of each of ``ranges``."""
        self._source = source
        self._ranges = ranges
        self._copies = copies
        self._triangle = triangle
        self._buffers: list[Tensor] = []
        self._tickets: list[Any] = [None, None]
        self._turn = 0
        # One worker: reads come one after another, and a source is never asked by two threads.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fastaniso-read")
        self._next: tuple[int, Future[tuple[Tensor, Any]]] | None = None
        self._run = -1
        self._last = -2  # so that the first block of all begins a run

    def __enter__(self) -> Ahead:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what is being read."""
        self._next = None
        self._worker.shutdown(wait=True, cancel_futures=True)

    def load(self, number: int) -> Tensor:
        """The block of ``ranges[number]`` on the device."""
        expected, self._next = self._next, None
        if expected is not None and expected[0] == number:
            future = expected[1]
        else:
            future = self._worker.submit(self._read, number)
        tensor, ticket = future.result()
        following = self._following(number)
        if following is not None:
            self._next = following, self._worker.submit(self._read, following)
        self._copies.join(tensor, ticket)
        return tensor

    def _following(self, number: int) -> int | None:
        if number != self._last + 1:
            self._run = number
        self._last = number
        following = number + 1
        if following == len(self._ranges) and self._triangle:
            # A row of tiles is done that began at block ``run``; the next begins behind it.
            following = self._run + 1
        return following if following < len(self._ranges) else None

    def _read(self, number: int) -> tuple[Tensor, Any]:
        start, stop = self._ranges[number]
        if not self._buffers:
            largest = max(stop - start for start, stop in self._ranges)
            source = self._source
            self._buffers = [self._copies.buffer(largest, source.dim, source.dtype) for _ in range(2)]
        turn, self._turn = self._turn, 1 - self._turn
        if self._tickets[turn] is not None:
            self._copies.finish(self._tickets[turn])
        host = self._buffers[turn][: stop - start]
        host.copy_(self._source.rows(start, stop))
        tensor, self._tickets[turn] = self._copies.begin(host)
        return tensor, self._tickets[turn]
