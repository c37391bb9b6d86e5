"""The moments of each head's queries or keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from fastaniso.state.base import State
from fastaniso.state.coverage import Coverage
from fastaniso.state.moments import Moments


@dataclass(frozen=True, eq=False)
class HeadMoments(State):
    """``Moments`` of H heads side by side, of the same rows and dimension: one file and one merge for all of them.

    ``counts`` int64 (H, 5), ``totals`` float64 (H, 6) and ``sums`` float64 (H, 4, d) are those of ``Moments``.
    """

    coverage: Coverage
    counts: Tensor
    totals: Tensor
    sums: Tensor

    _tensors = ("counts", "totals", "sums")
    _must_agree = ("heads",)

    @property
    def heads(self) -> int:
        """Number of heads H."""
        return self.counts.shape[0]

    def _shapes(self) -> dict[str, tuple[torch.dtype, tuple[int, ...], bool]]:
        heads = self.counts.shape[0] if isinstance(self.counts, Tensor) and self.counts.dim() == 2 else -1
        return {
            "counts": (torch.int64, (heads, 5), False),
            "totals": (torch.float64, (heads, 6), False),
            "sums": (torch.float64, (heads, 4, self.dim), False),
        }

    @classmethod
    def empty(cls, dim: int, heads: int, device: torch.device | str = "cpu") -> Self:
        """The state of no rows: the identity of ``merge``."""
        return cls.of([Moments.empty(dim, device)] * heads)

    @classmethod
    def of(cls, heads: Sequence[Moments]) -> Self:
        """The heads' own states side by side; all of the same rows."""
        return cls(
            dim=heads[0].dim,
            coverage=heads[0].coverage,
            provenance=heads[0].provenance,
            counts=torch.stack([head.counts for head in heads]),
            totals=torch.stack([head.totals for head in heads]),
            sums=torch.stack([head.sums for head in heads]),
        )

    def head(self, number: int) -> Moments:
        """The state of one head."""
        content: dict[str, Any] = {name: getattr(self, name)[number] for name in self._tensors}
        return Moments(self.dim, self.coverage, self.provenance, **content)

    def merge(self, other: Self) -> Self:
        """The state of both sets of rows; refuses another dimension or number of heads, and rows both have seen."""
        self._check_mergeable(other)
        a, b = self.totals, other.totals
        least, largest = torch.minimum(a[:, 2], b[:, 2]), torch.maximum(a[:, 3], b[:, 3])
        first = torch.minimum(self.counts[:, 4], other.counts[:, 4])
        return replace(
            self,
            **self._joined(other),
            counts=torch.cat((self.counts[:, :4] + other.counts[:, :4], first[:, None]), 1),
            totals=torch.cat((a[:, :2] + b[:, :2], least[:, None], largest[:, None], a[:, 4:] + b[:, 4:]), 1),
            sums=self.sums + other.sums,
        )
