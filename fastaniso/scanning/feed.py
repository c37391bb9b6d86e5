"""Blocks of a stored source on the device that measures them: what takes its time is read while they are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import Tensor

from fastaniso.pairing.tiles import Block
from fastaniso.rows import Rows, as_rows
from fastaniso.sources import Source


class Waiting:
    """Seconds that a measurement waited for rows, and did nothing else."""

    def __init__(self) -> None:
        """None yet."""
        self.seconds = 0.0

    def until(self, read: Callable[[], Any]) -> Any:
        """What ``read`` gives, and the time it takes counted."""
        began = perf_counter()
        try:
            return read()
        finally:
            self.seconds += perf_counter() - began


@contextmanager
def blocks_on(
    device: torch.device, source: Source, size: int, *, triangle: bool = False, waiting: Waiting | None = None
) -> Iterator[Sequence[Block]]:
    """The rows of ``source`` in blocks of ``size`` that load on ``device``.

    On the CPU a block of a file here is a view of it, and the system reads ahead. Of a file elsewhere the block that is
    likely to be next (after the last one, in a ``triangle``, that behind the row of tiles) is read while the kernels
    work; for a GPU it is read into pinned memory and copied by a stream of its own.
    """
    ranges = [(start, min(start + size, source.count)) for start in range(0, source.count, size)]
    with _loads(device, source, ranges, triangle, waiting or Waiting()) as loads:
        yield [_block(*edges, load) for edges, load in zip(ranges, loads, strict=True)]


@contextmanager
def files_on(
    device: torch.device, source: Source, size: int, *, waiting: Waiting
) -> Iterator[Iterator[Iterable[Block]]]:
    """The same for each part of ``source``, counted from its own first row: no block is of two files."""
    if source.is_stream:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="fastaniso-read") as worker:
            yield iter([_streamed(device, source, size, worker, waiting)])
        return
    counts = [part.count for part in source.parts]
    edges = [[(start, min(start + size, count)) for start in range(0, count, size)] for count in counts]
    firsts = accumulate(counts, initial=0)
    ranges = [(first + start, first + stop) for first, some in zip(firsts, edges, strict=False) for start, stop in some]
    with _loads(device, source, ranges, False, waiting) as loads:
        following = iter(loads)
        yield ([_block(*each, next(following)) for each in some] for some in edges)


Load = Callable[[], Tensor]


@contextmanager
def _loads(
    device: torch.device, source: Source, ranges: Sequence[tuple[int, int]], triangle: bool, waiting: Waiting
) -> Iterator[Sequence[Load]]:
    """What loads each of ``ranges``."""
    if device.type != "cuda" and not source.is_remote:
        yield [partial(waiting.until, partial(_load, source, device, *edges)) for edges in ranges]
        return
    copies = CudaCopies(device) if device.type == "cuda" else None
    with Ahead(source, ranges, copies, triangle=triangle) as ahead:
        yield [partial(waiting.until, partial(ahead.load, number)) for number in range(len(ranges))]


def _streamed(
    device: torch.device, source: Source, size: int, worker: ThreadPoolExecutor, waiting: Waiting
) -> Iterator[Block]:
    """The blocks of a stream as they come, each read while the one before is measured."""
    blocks = source.blocks(size)
    following = worker.submit(next, blocks, None)
    while (found := waiting.until(following.result)) is not None:
        following = worker.submit(next, blocks, None)
        start, rows = found
        yield _block(start, start + rows.count, partial(rows.values[0].to, device))


def _block(start: int, stop: int, load: Load) -> Block:
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

    Another block than the likely one costs the time to read it, and nothing else. Without ``copies`` blocks are handed
    on as the source reads them, in memory of their own.
    """

    def __init__(
        self, source: Source, ranges: Sequence[tuple[int, int]], copies: Copies | None, *, triangle: bool = False
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
        if self._copies is not None:
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
        if self._copies is None:
            return self._source.rows(start, stop), None
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
