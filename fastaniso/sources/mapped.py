"""Rows at fixed places of a file, mapped into memory block by block."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastaniso.rows import as_tensor
from fastaniso.sources.errors import CorruptFileError
from fastaniso.sources.source import Source, as_matrix, file_fingerprint


class MappedRows(Source):
    """An array ``[..., d]`` of ``dtype`` that begins at byte ``offset`` of a file, by default its last axis fastest.

    Only the block that is asked for is mapped, and unmapped when it is dropped: the file may be larger than memory, and
    pages of earlier blocks do not count as the process's own.
    """

    path: Path

    def __init__(
        self,
        path: Path,
        dtype: torch.dtype,
        shape: tuple[int, ...],
        offset: int,
        *,
        tensor: str | None = None,
        strides: tuple[int, ...] | None = None,
    ) -> None:
        """``tensor`` names the array in the file; ``strides`` are in numbers, as torch counts them."""
        self.path = path
        self.name = str(path) if tensor is None else f"{path}:{tensor}"
        self.count, self.dim = as_matrix(self.name, shape)
        self.dtype = dtype
        self._tensor = tensor
        self._offset = offset
        self._strides = (self.dim, 1) if strides is None else self._row_strides(shape, strides)
        self._fingerprint = file_fingerprint(path)
        self._check_size(path.stat().st_size)

    @property
    def fingerprint(self) -> list[Any]:
        """The file as it was when it was opened, and the array in it."""
        dtype = str(self.dtype).removeprefix("torch.")
        return [*self._fingerprint, self._tensor, self.count, self.dim, dtype]

    def rows(self, start: int, stop: int) -> Tensor:
        """A view of the file, or a copy of the block where columns are side by side or numbers across their bounds."""
        stop = min(stop, self.count)
        if stop <= start:
            return torch.empty(0, self.dim, dtype=self.dtype)
        down, across = self._strides
        size = self.dtype.itemsize
        span = (stop - start - 1) * down + (self.dim - 1) * across + 1
        data = self._map(self._offset + start * down * size, span * size)
        if data.data_ptr() % size:
            data = data.clone()
        block = data.view(self.dtype).as_strided((stop - start, self.dim), (down, across))
        # Columns side by side (Fortran order) are turned block by block: never the file as a whole.
        return block if across == 1 or self.dim == 1 else block.contiguous()

    def _map(self, offset: int, length: int) -> Tensor:
        begin = offset - offset % mmap.ALLOCATIONGRANULARITY
        with self.path.open("rb") as file:
            # Reading a mapping beyond the end of its file would kill the process.
            self._check_size(file.seek(0, 2))
            mapping = mmap.mmap(file.fileno(), length + offset - begin, access=mmap.ACCESS_READ, offset=begin)
        return as_tensor(np.frombuffer(mapping, np.uint8, length, offset - begin), self.name)

    def _check_size(self, size: int) -> None:
        down, across = self._strides
        numbers = (self.count - 1) * down + (self.dim - 1) * across + 1 if self.count else 0
        needed = self._offset + numbers * self.dtype.itemsize
        if size < needed:
            raise CorruptFileError(f"{self.path}: cut short: {size} bytes, and its rows go to byte {needed}")

    def _row_strides(self, shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, int]:
        """(row, number) strides of an array whose leading axes lie evenly behind each other."""
        down = reach = 0
        for size, stride in zip(shape[-2::-1], strides[-2::-1], strict=True):
            if size == 1:
                continue
            if down and stride != reach and self.count:
                raise ValueError(
                    f"{self.name}: its leading axes (shape {shape}, strides {strides}) do not lie behind each other as "
                    "rows; save it contiguous, or as [n, d]"
                )
            down = down or stride
            reach = stride * size
        return down or self.dim, strides[-1]
