"""``.parquet``: columns of vectors, decoded a batch at a time from the row groups that hold the block."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastaniso.sources.columns import Column, damaged, import_arrow
from fastaniso.sources.errors import CorruptFileError
from fastaniso.sources.locations import RemotePath
from fastaniso.sources.source import Source, file_fingerprint

BATCH_BYTES = 4 << 20
"""Bytes of rows decoded at once."""

_NOT_THERE = (FileNotFoundError, PermissionError, ConnectionError, TimeoutError)
"""Of the errors of reading, those that say nothing about what is in the file."""


class ParquetRows(Source):
    """A column of vectors of a Parquet file.

    Blocks in ascending order are decoded once; a block further back or in a later row group begins at its row group.
    Of a file elsewhere the column of one row group is fetched at a time, as it is stored, and memory is that and the
    block.
    """

    path: Path | RemotePath

    def __init__(self, path: Path | RemotePath, column: str | None) -> None:
        """Find the column and the row groups."""
        self._arrow = import_arrow(str(path))
        self.path = path
        self.is_remote = isinstance(path, RemotePath)
        try:
            file = self._open()
            self._column = Column(str(path), file.schema_arrow, column)
            groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            self._starts = list(accumulate(groups, initial=0))
            first = next(self._batches(file, 0, 1), None) if self._column.dim is None else None
            self.dim = self._column.dim_of(first)
        except _NOT_THERE:
            raise
        except (self._arrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise damaged(path, "Parquet", error) from error
        self.name = self._column.place
        self.count = self._starts[-1]
        self.dtype = self._column.dtype
        self._fingerprint = file_fingerprint(path)
        self._lock = threading.Lock()
        self._stream: Iterator[Any] = iter(())
        # The batch read last and the index of its first row; the stream goes on after it.
        self._held: Any = None
        self._at = self.count

    @property
    def fingerprint(self) -> list[Any]:
        """The file as it was when it was opened, and the column."""
        return [*self._fingerprint, self._column.name, self.count, self.dim, str(self.dtype).removeprefix("torch.")]

    def rows(self, start: int, stop: int) -> Tensor:
        """A copy of the block."""
        stop = min(stop, self.count)
        block = torch.empty(max(stop - start, 0), self.dim, dtype=self.dtype)
        with self._lock:
            filled = 0
            try:
                while filled < len(block):
                    array, at = self._batch_with(start + filled)
                    piece = array.slice(start + filled - at, len(block) - filled)
                    block[filled : filled + len(piece)] = self._column.rows(piece, start + filled)
                    filled += len(piece)
            except _NOT_THERE:
                raise
            except (self._arrow.ArrowException, OSError, UnicodeDecodeError) as error:
                raise damaged(self.path, "Parquet", error) from error
        return block

    def _batch_with(self, row: int) -> tuple[Any, int]:
        """The batch that holds a row, and the index of its first."""
        group = bisect_right(self._starts, row) - 1
        if row < self._at or self._held is None or self._starts[group] > self._at + len(self._held):
            size = max(BATCH_BYTES // (self.dim * self.dtype.itemsize), 1)
            self._stream = self._batches(self._open(), group, size)
            self._held, self._at = self._next(), self._starts[group]
        while row >= self._at + len(self._held):
            self._at += len(self._held)
            self._held = self._next()
        return self._held, self._at

    def _next(self) -> Any:
        batch = next(self._stream, None)
        if batch is None:
            raise CorruptFileError(f"{self.path}: holds fewer rows than the {self.count} it says")
        return batch

    def _open(self) -> Any:
        from pyarrow.parquet import ParquetFile

        if isinstance(self.path, RemotePath):
            return ParquetFile(self.path.open(), pre_buffer=True)
        # Through a small buffer: else a column of a row group is read whole before its first row is decoded.
        return ParquetFile(self.path, buffer_size=1 << 20, pre_buffer=False)

    def _batches(self, file: Any, group: int, size: int) -> Iterator[Any]:
        groups = range(group, file.metadata.num_row_groups)
        # What is fetched at once are the groups that are named at once.
        for some in ([one] for one in groups) if self.is_remote else (groups,):
            for batch in file.iter_batches(size, row_groups=some, columns=[self._column.name], use_threads=False):
                yield batch.column(0)
