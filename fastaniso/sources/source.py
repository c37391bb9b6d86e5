"""What every source of stored vectors gives: how many rows there are, of what, and any block of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastaniso.rows import DTYPES, Rows
from fastaniso.sources.locations import RemotePath

_READ_BYTES = 16 << 20
"""Read at once where smaller blocks are asked for: formats that decode a piece as a whole decode it once."""


class Source(ABC):
    """``count`` rows of ``dim`` numbers that stay where they are stored and are read a block at a time.

    ``name`` is that of the record: the ``path``, and what of the file it is where the file holds several things. Rows
    that are ``is_remote`` take their time to arrive: a block is read while the one before is measured. What
    ``is_stream`` gives each block once and in order, and ``count`` is what has come so far.
    """

    name: str
    path: Path | RemotePath | None = None
    count: int
    dim: int
    dtype: torch.dtype
    is_remote: bool = False
    is_stream: bool = False

    @abstractmethod
    def rows(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` (half-open) as (rows, dim), rows contiguous; memory is that of the block."""

    @property
    @abstractmethod
    def fingerprint(self) -> list[Any]:
        """What tells that these are still the same rows, as JSON would hold it: names, sizes, times, shape."""

    @property
    def parts(self) -> Sequence[Source]:
        """The sources that this one is put together from: itself, where it is one file."""
        return (self,)

    @property
    def device(self) -> torch.device:
        """Where blocks are read to."""
        return torch.device("cpu")

    def blocks(self, size: int) -> Iterator[tuple[int, Rows]]:
        """All rows in blocks of at most ``size`` rows, each with the index of its first row."""
        at_once = max(_READ_BYTES // (self.dim * self.dtype.itemsize), size)
        for start in range(0, self.count, at_once):
            read = Rows(self.rows(start, min(start + at_once, self.count))[None], None)
            for offset, block in read.blocks(size):
                yield start + offset, block

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.count * self.dim * self.dtype.itemsize


def file_fingerprint(path: Path | RemotePath) -> list[Any]:
    """Name, size and time of the last change; not the folder, which may be mounted elsewhere the next day."""
    if isinstance(path, RemotePath):
        return path.fingerprint
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns]


def float_dtype(place: str, dtype: torch.dtype | str) -> torch.dtype:
    """``dtype`` if rows can be of it; a file's own word for another dtype is for the message."""
    if isinstance(dtype, torch.dtype) and dtype in DTYPES:
        return dtype
    got = str(dtype).removeprefix("torch.")
    raise ValueError(f"{place}: expected float32, float64, float16 or bfloat16, got {got}")


def as_matrix(place: str, shape: Sequence[int]) -> tuple[int, int]:
    """Rows, and numbers a row, of an array ``[..., d]``."""
    if len(shape) < 2 or shape[-1] == 0:
        raise ValueError(
            f"{place}: expected rows of vectors, [..., d] with at least two axes and d > 0, got shape {tuple(shape)}"
        )
    count = 1
    for size in shape[:-1]:
        count *= size
    return count, shape[-1]


def choose(place: str, option: str, names: Sequence[str], wanted: str | None) -> str:
    """The name that is wanted, or the only one there is; ``option`` is what the caller names it by."""
    things = {"tensor": "tensors", "column": "columns of vectors"}[option]
    listed = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    if wanted is None:
        if len(names) == 1:
            return names[0]
        raise ValueError(f"{option}: {place} holds {len(names)} {things}; name one of {listed or 'none'}")
    if wanted not in names:
        raise ValueError(f"{option}: {place} holds no {wanted!r}; it has {listed or f'no {things}'}")
    return wanted
