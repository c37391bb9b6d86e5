"""Sequences put into padded batches, those of like length together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice

import torch
from torch import Tensor

from fastaniso.sources.chunks import Chunk

WINDOW = 16
"""Batches' worth of sequences that are sorted by length together."""


@dataclass(frozen=True)
class Batch:
    """``ids``, ``attention`` (int64) and ``keep`` (bool), each (sequences, tokens), and what was not kept and why."""

    ids: Tensor
    attention: Tensor
    keep: Tensor
    kept: int
    special: int
    padding: int
    over_limit: int
    bytes: float

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        ids, attention, keep = (t.to(device, non_blocking=True) for t in (self.ids, self.attention, self.keep))
        return Batch(ids, attention, keep, self.kept, self.special, self.padding, self.over_limit, self.bytes)


def batches(chunks: Iterable[Chunk], *, batch_size: int, pad_id: int | None) -> Iterator[Batch]:
    """Batches of up to ``batch_size`` sequences, padded on the right; ``pad_id=None`` batches equal lengths only.

    Sorting in windows makes padding rare while the text still streams; the same text gives the same batches.
    """
    stream = iter(chunks)
    while window := list(islice(stream, WINDOW * batch_size)):
        window.sort(key=lambda chunk: len(chunk.ids), reverse=True)
        runs = [window] if pad_id is not None else [list(run) for _, run in groupby(window, lambda c: len(c.ids))]
        for run in runs:
            for start in range(0, len(run), batch_size):
                yield _pad(run[start : start + batch_size], pad_id or 0)


def _pad(chunks: list[Chunk], pad_id: int) -> Batch:
    length = max(len(chunk.ids) for chunk in chunks)
    ids, attention, keep = [], [], []
    for chunk in chunks:
        missing = length - len(chunk.ids)
        ids.append(chunk.ids + [pad_id] * missing)
        attention.append([1] * len(chunk.ids) + [0] * missing)
        keep.append(chunk.keep + [False] * missing)
    read = sum(len(chunk.ids) for chunk in chunks)
    kept, special = sum(chunk.kept for chunk in chunks), sum(chunk.special for chunk in chunks)
    return Batch(
        ids=torch.tensor(ids, dtype=torch.int64),
        attention=torch.tensor(attention, dtype=torch.int64),
        keep=torch.tensor(keep, dtype=torch.bool),
        kept=kept,
        special=special,
        padding=length * len(chunks) - read,
        over_limit=read - kept - special,
        bytes=sum(chunk.bytes for chunk in chunks),
    )
