"""``.arrow`` and ``.feather``: record batches, in Arrow's file format or its stream format (Hugging Face's)."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastaniso.sources.columns import Column, damaged, import_arrow
from fastaniso.sources.source import Source, file_fingerprint


class ArrowRows(Source):
    """A column of vectors of an Arrow file, mapped anew for every block.

    Opening looks at every batch once; of compressed files that means to decompress them once. Their batches are
    decompressed again for every block, one at a time.
    """

    path: Path

    def __init__(self, path: Path, column: str | None) -> None:
        """Find the column and where the batches are."""
        self._arrow = import_arrow(str(path))
        self.path = path
        try:
            batches = _open(self._arrow, path)
            self._column = Column(str(path), batches.schema, column)
            counts = batches.count(self._column.index)
            self._starts = list(accumulate(counts, initial=0))
            first = next((i for i, count in enumerate(counts) if count), None)
            self._places = batches.places
            self.dim = self._column.dim_of(None if first is None else batches.array(first, self._column.index))
        except (self._arrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise damaged(path, "Arrow", error) from error
        self.name = self._column.place
        self.count = self._starts[-1]
        self.dtype = self._column.dtype
        self._fingerprint = file_fingerprint(path)

    @property
    def fingerprint(self) -> list[Any]:
        """The file as it was when it was opened, and the column."""
        return [*self._fingerprint, self._column.name, self.count, self.dim, str(self.dtype).removeprefix("torch.")]

    def rows(self, start: int, stop: int) -> Tensor:
        """A view of the file where the block lies in one batch, else a copy of the block."""
        stop = min(stop, self.count)
        if stop <= start:
            return torch.empty(0, self.dim, dtype=self.dtype)
        try:
            batches = _open(self._arrow, self.path, self._places)
            pieces = []
            for number in range(bisect_right(self._starts, start) - 1, len(self._starts) - 1):
                first, last = self._starts[number], self._starts[number + 1]
                if first >= stop:
                    break
                low, high = max(start, first), min(stop, last)
                if high > low:
                    array = batches.array(number, self._column.index).slice(low - first, high - low)
                    pieces.append(self._column.rows(array, low))
        except (self._arrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise damaged(self.path, "Arrow", error) from error
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _open(arrow: Any, path: Path, places: list[int] | None = None) -> _File | _Stream:
    mapping = arrow.memory_map(str(path))
    is_file = mapping.read(6) == b"ARROW1"
    mapping.seek(0)
    return _File(arrow, mapping) if is_file else _Stream(arrow, mapping, places or [])


class _File:
    """Batches that a footer tells the places of."""

    def __init__(self, arrow: Any, mapping: Any) -> None:
        self._arrow = arrow
        self._mapping = mapping
        self._reader: Any = None
        self.schema = arrow.ipc.open_file(mapping).schema
        self.places: list[int] = []

    def count(self, column: int) -> list[int]:
        return [len(self.array(number, column)) for number in range(self._open(column).num_record_batches)]

    def array(self, number: int, column: int) -> Any:
        return self._open(column).get_batch(number).column(0)

    def _open(self, column: int) -> Any:
        if self._reader is None:
            options = self._arrow.ipc.IpcReadOptions(included_fields=[column])
            self._reader = self._arrow.ipc.open_file(self._mapping, options=options)
        return self._reader


class _Stream:
    """Batches one after another: ``places`` are the bytes where they begin, once ``count`` has gone through them."""

    def __init__(self, arrow: Any, mapping: Any, places: list[int]) -> None:
        self._arrow = arrow
        self._mapping = mapping
        self.schema = arrow.ipc.read_schema(mapping)
        self._begin = mapping.tell()
        # A batch holds of a dictionary-encoded column the places in its dictionary, and nobody asks for its words.
        self._stored = arrow.schema([_stored(arrow, field) for field in self.schema])
        self.places = places

    def count(self, column: int) -> list[int]:
        self._mapping.seek(self._begin)
        counts: list[int] = []
        while True:
            place = self._mapping.tell()
            try:
                message = self._arrow.ipc.read_message(self._mapping)
            except EOFError:
                return counts
            if message.type == "record batch":
                self.places.append(place)
                counts.append(self._arrow.ipc.read_record_batch(message, self._stored).num_rows)

    def array(self, number: int, column: int) -> Any:
        self._mapping.seek(self.places[number])
        message = self._arrow.ipc.read_message(self._mapping)
        return self._arrow.ipc.read_record_batch(message, self._stored).column(column)


def _stored(arrow: Any, field: Any) -> Any:
    return field.with_type(field.type.index_type) if arrow.types.is_dictionary(field.type) else field
