"""Several sources as one: the rows of the first, then those of the second, and so on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastaniso.sources.locations import RemotePath
from fastaniso.sources.source import Source


class Shards(Source):
    """Sources of one dimension and dtype, one behind the other."""

    def __init__(self, name: str, parts: Sequence[Source]) -> None:
        """Check that the parts fit together and that none is there twice."""
        first = parts[0]
        seen: set[tuple[Path | RemotePath | None, str]] = set()
        for part in parts:
            if part.dim != first.dim:
                raise ValueError(
                    f"path: {part.name} holds vectors of {part.dim} numbers and {first.name} of {first.dim}; "
                    "measure them one by one"
                )
            if part.dtype != first.dtype:
                ours, theirs = (str(p.dtype).removeprefix("torch.") for p in (first, part))
                raise ValueError(
                    f"path: {part.name} holds {theirs} and {first.name} {ours}; convert one of them, or measure them "
                    "one by one"
                )
            place = _place(part)
            if place in seen:
                raise ValueError(f"path: {part.name} is there twice: its rows would count twice")
            seen.add(place)
        self.name = name
        self.is_remote = any(part.is_remote for part in parts)
        self.dim = first.dim
        self.dtype = first.dtype
        self._parts = tuple(parts)
        self._starts = list(accumulate((part.count for part in parts), initial=0))
        self.count = self._starts[-1]

    @property
    def parts(self) -> Sequence[Source]:
        """The sources, in order."""
        return self._parts

    @property
    def fingerprint(self) -> list[Any]:
        """Those of the parts, in order."""
        return [part.fingerprint for part in self._parts]

    def rows(self, start: int, stop: int) -> Tensor:
        """A view where the block lies in one part, else a copy of the block."""
        stop = min(stop, self.count)
        block: Tensor | None = None
        for number in range(max(bisect_right(self._starts, start) - 1, 0), len(self._parts)):
            first, last = self._starts[number], self._starts[number + 1]
            low, high = max(start, first), min(stop, last)
            if (low, high) == (start, stop):
                return self._parts[number].rows(low - first, high - first)
            if first >= stop:
                break
            if block is None:
                block = torch.empty(max(stop - start, 0), self.dim, dtype=self.dtype)
            block[low - start : high - start] = self._parts[number].rows(low - first, high - first)
        return torch.empty(0, self.dim, dtype=self.dtype) if block is None else block


def _place(part: Source) -> tuple[Path | RemotePath | None, str]:
    """The same for the same rows, however their path is spelt."""
    if part.path is None:
        return None, part.name
    return part.path.resolve(), part.name.removeprefix(str(part.path))
