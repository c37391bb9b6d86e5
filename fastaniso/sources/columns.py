"""Columns of vectors, as Arrow has them: lists of floats, all of one length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastaniso.rows import as_tensor
from fastaniso.sources.errors import CorruptFileError
from fastaniso.sources.locations import RemotePath
from fastaniso.sources.source import choose


def import_arrow(place: str) -> Any:
    """The package pyarrow."""
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{place}: reading Arrow, Parquet and data sets needs pyarrow: pip install 'fastaniso[arrow]'"
        ) from error
    return pyarrow


class Column:
    """The column of vectors of a table: its name, place in the schema, dtype, and length if its type says it."""

    def __init__(self, place: str, schema: Any, wanted: str | None) -> None:
        """The column ``wanted``, or the only one of vectors; ``place`` is the file for messages."""
        arrow = import_arrow(place)
        known = {field.name: field.type for field in schema if _numbers(arrow, field.type) is not None}
        if wanted in schema.names and wanted not in known:
            raise ValueError(
                f"column: {wanted!r} of {place} is {schema.field(wanted).type}; expected a FixedSizeList or List of "
                "float16, float32 or float64"
            )
        self.name = choose(place, "column", list(known), wanted)
        self.index = schema.get_field_index(self.name)
        if self.index < 0:
            raise ValueError(f"column: {place} has several columns named {self.name!r}; rename them")
        kind = known[self.name]
        dtype = _numbers(arrow, kind)
        assert dtype is not None
        self.dtype: torch.dtype = dtype
        self.dim: int | None = kind.list_size if arrow.types.is_fixed_size_list(kind) else None
        self.place = f"{place}:{self.name}"

    def dim_of(self, first: Any) -> int:
        """Numbers a row: what the type says, or the length of the first row, of which ``first`` holds some."""
        if self.dim is None:
            if first is None or not len(first):
                raise ValueError(f"{self.place}: a column of lists without a row does not tell the dimension")
            if not first[0].is_valid:
                raise ValueError(self._null(0))
            self.dim = len(first[0])
        if not self.dim:
            raise ValueError(f"{self.place}: expected rows of at least one number, got lists of none")
        return self.dim

    def rows(self, array: Any, start: int) -> Tensor:
        """The lists of an Arrow array as (rows, d), without a copy; ``start`` is the index of the first of them."""
        dim = self.dim
        assert dim is not None
        array.validate()  # that offsets and lengths lie within what is stored
        if array.null_count:
            raise ValueError(self._null(start + _first(array.is_null())))
        if hasattr(array, "offsets"):
            lengths = np.diff(array.offsets.to_numpy())
            if (lengths != dim).any():
                at = int((lengths != dim).argmax())
                raise ValueError(
                    f"{self.place}: row {start + at} holds {lengths[at]} numbers and the rows before it {dim}; every "
                    "row needs as many: leave such rows out, or fill them"
                )
        numbers = array.flatten()
        if numbers.null_count:
            raise ValueError(self._null(start + _first(numbers.is_null()) // dim, "holds a null"))
        return as_tensor(numbers.to_numpy(zero_copy_only=True), self.place).view(-1, dim)

    def _null(self, row: int, what: str = "is null") -> str:
        return f"{self.place}: row {row} {what}; fill it, or leave such rows out (NaN is a number, null is none)"


def damaged(path: Path | RemotePath, kind: str, error: Exception) -> CorruptFileError:
    """What Arrow says of a file that it cannot read, in one line."""
    return CorruptFileError(f"{path}: cannot be read as {kind}: {str(error).partition(chr(10))[0][:200]}")


def _numbers(arrow: Any, kind: Any) -> torch.dtype | None:
    types = arrow.types
    if not (types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind)):
        return None
    floats = {arrow.float16(): torch.float16, arrow.float32(): torch.float32, arrow.float64(): torch.float64}
    return floats.get(kind.value_type)


def _first(mask: Any) -> int:
    return int(mask.to_numpy(zero_copy_only=False).argmax())
