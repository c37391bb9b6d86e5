"""Sequences put into padded batches, those of like length together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice

import torch
from torch import Tensor

from fastaniso.models.masks import MEASURED, PADDING
from fastaniso.sources.chunks import Chunk

WINDOW = 16
"""Batches' worth of sequences that are sorted by length together."""


@dataclass(frozen=True)
class Batch:
    """``ids`` and ``attention`` (int64) and ``codes`` (int8: measured, or why not), each (sequences, tokens)."""

    ids: Tensor
    attention: Tensor
    codes: Tensor
    bytes: float

    @property
    def kept(self) -> int:
        """Tokens that will be measured."""
        return int((self.codes == MEASURED).sum())


def batches(chunks: Iterable[Chunk], *, batch_size: int, pad_id: int | None, multiple_of: int = 1) -> Iterator[Batch]:
    """Batches of up to ``batch_size`` sequences, padded on the right; ``pad_id=None`` batches equal lengths only.

    Sorting in windows makes padding rare while the text still streams; the same text gives the same batches.
    ``multiple_of`` pads further, for models that read so many tokens at a time.
    """
    stream = iter(chunks)
    while window := list(islice(stream, WINDOW * batch_size)):
        window.sort(key=lambda chunk: len(chunk.ids), reverse=True)
        runs = [window] if pad_id is not None else [list(run) for _, run in groupby(window, lambda c: len(c.ids))]
        for run in runs:
            for start in range(0, len(run), batch_size):
                yield _pad(run[start : start + batch_size], pad_id or 0, multiple_of)


def _pad(chunks: list[Chunk], pad_id: int, multiple_of: int) -> Batch:
    length = -(-max(len(chunk.ids) for chunk in chunks) // multiple_of) * multiple_of
    ids, attention, codes = [], [], []
    for chunk in chunks:
        missing = length - len(chunk.ids)
        ids.append(chunk.ids + [pad_id] * missing)
        attention.append([1] * len(chunk.ids) + [0] * missing)
        codes.append(chunk.codes + [PADDING] * missing)
    return Batch(
        ids=torch.tensor(ids, dtype=torch.int64),
        attention=torch.tensor(attention, dtype=torch.int64),
        codes=torch.tensor(codes, dtype=torch.int8),
        bytes=sum(chunk.bytes for chunk in chunks),
    )
