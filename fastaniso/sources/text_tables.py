"""Texts in a column of a Parquet file, decoded a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fastaniso.sources.columns import damaged, import_arrow
from fastaniso.sources.errors import CorruptFileError

ROWS = 1024
"""Rows decoded at once."""


def parquet_texts(path: Path, field: str) -> Iterator[tuple[str | None, float]]:
    """The texts of a column, None where a row has none, and the bytes of the file that each stands for."""
    arrow = import_arrow(str(path))
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            if field not in file.schema_arrow.names:
                raise ValueError(f"field: {path} has no column {field!r}; it has {', '.join(file.schema_arrow.names)}")
            kind = file.schema_arrow.field(field).type
            if not (arrow.types.is_string(kind) or arrow.types.is_large_string(kind)):
                raise ValueError(f"field: column {field!r} of {path} is {kind}; expected strings")
            share = path.stat().st_size / max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(ROWS, columns=[field], use_threads=False):
                for text in batch.column(0).to_pylist():
                    yield text, share
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, CorruptFileError):
            raise
        raise damaged(path, "Parquet", error) from error
