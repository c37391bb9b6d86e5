"""Rows at fixed places of a file elsewhere, read block by block as ranges of bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastaniso.sources.errors import CorruptFileError
from fastaniso.sources.locations import RemotePath
from fastaniso.sources.source import Source, as_matrix

_PIECE_BYTES = 8 << 20
_TOGETHER = 4
"""Pieces under way at once: one connection alone is slower than most networks."""


class RangeRows(Source):
    """An array ``[..., d]`` of ``dtype`` in C order that begins at byte ``offset`` of a file.

    Memory is that of the block, and of the pieces that are on their way.
    """

    path: RemotePath
    is_remote = True

    def __init__(
        self, path: RemotePath, dtype: torch.dtype, shape: tuple[int, ...], offset: int, *, tensor: str | None = None
    ) -> None:
        """``tensor`` names the array in the file."""
        self.path = path
        self.name = str(path) if tensor is None else f"{path}:{tensor}"
        self.count, self.dim = as_matrix(self.name, shape)
        self.dtype = dtype
        self._tensor = tensor
        self._offset = offset
        if path.size < offset + self.nbytes:
            raise CorruptFileError(
                f"{path}: cut short: {path.size} bytes, and its rows go to byte {offset + self.nbytes}"
            )

    @property
    def fingerprint(self) -> list[Any]:
        """The file as it was when it was opened, and the array in it."""
        dtype = str(self.dtype).removeprefix("torch.")
        return [*self.path.fingerprint, self._tensor, self.count, self.dim, dtype]

    def rows(self, start: int, stop: int) -> Tensor:
        """A copy of the block."""
        stop = min(stop, self.count)
        block = torch.empty(max(stop - start, 0), self.dim, dtype=self.dtype)
        content = block.view(torch.uint8).view(-1).numpy()
        begin = self._offset + start * self.dim * self.dtype.itemsize
        edges = [(at, min(at + _PIECE_BYTES, len(content))) for at in range(0, len(content), _PIECE_BYTES)]
        for first in range(0, len(edges), _TOGETHER):
            some = edges[first : first + _TOGETHER]
            found = self.path.read_several([(begin + low, begin + high) for low, high in some])
            for (low, high), piece in zip(some, found, strict=True):
                if len(piece) != high - low:
                    raise CorruptFileError(
                        f"{self.path}: gave {len(piece):,} bytes where {high - low:,} were asked for: it was cut short "
                        "since it was opened, or its server does not serve ranges of bytes"
                    )
                content[low:high] = np.frombuffer(piece, np.uint8)
        return block
