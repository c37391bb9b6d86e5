"""Hugging Face data sets that are streamed: rows come once, in order, and nobody knows how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor

from fastaniso.rows import Rows
from fastaniso.sources.columns import Column, import_arrow
from fastaniso.sources.source import Source


def is_stream(dataset: Any) -> bool:
    """Whether something of the package datasets gives its rows one after another only."""
    return hasattr(dataset, "iter") and not hasattr(dataset, "num_rows") and not isinstance(dataset, dict)


class DatasetStream(Source):
    """A column of vectors of a ``datasets.IterableDataset``: for one linear pass.

    ``count`` is how many rows have come, 0 before the pass. Opening looks at the first row where the data set does not
    tell its columns, or the length of its lists.
    """

    is_remote = True
    is_stream = True

    def __init__(self, dataset: Any, column: str | None) -> None:
        """Find the column."""
        place = type(dataset).__name__
        arrow = import_arrow(place)
        self._dataset = dataset.with_format("arrow")
        schema = None if dataset.features is None else dataset.features.arrow_schema
        first = None
        if schema is None or Column(place, schema, column).dim is None:
            first = next(iter(self._dataset.iter(batch_size=1)), None)
            schema = (arrow.schema([]) if schema is None else schema) if first is None else first.schema
        self._column = Column(place, schema, column)
        self.dim = self._column.dim_of(first and first.column(self._column.name).chunk(0))
        self.dtype = self._column.dtype
        self.count = 0
        self.name = self._column.place

    @property
    def fingerprint(self) -> list[Any]:
        """Nothing tells that a stream is still the same: there is none."""
        self._refuse("its fingerprint")

    def rows(self, start: int, stop: int) -> Tensor:
        """Refused: rows come in order."""
        self._refuse("rows by their index")

    def blocks(self, size: int) -> Iterator[tuple[int, Rows]]:
        """All rows, from the first, in blocks of ``size``; the last one is smaller."""
        self.count = 0
        for table in self._dataset.iter(batch_size=size):
            start, pieces = self.count, []
            for array in table.column(self._column.name).chunks:
                pieces.append(self._column.rows(array, self.count))
                self.count += len(array)
            if self.count > start:
                yield start, Rows((pieces[0] if len(pieces) == 1 else torch.cat(pieces))[None], None)

    def _refuse(self, what: str) -> NoReturn:
        raise ValueError(
            f"path: {self.name} comes as a stream, once and in order, and {what} is not to be had: save it first "
            "(to_parquet, or save_to_disk of a Dataset), and measure the files"
        )
