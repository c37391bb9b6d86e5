"""The state of one linear pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from fastaniso.state.base import NO_ROW, State, filled
from fastaniso.state.coverage import Coverage


@dataclass(frozen=True, eq=False)
class Moments(State):
    """First and second moments of rows x and of unit rows u = x/‖x‖, one linear pass.

    ``counts``  int64 (5,): rows kept; rows dropped as masked, zero, non-finite; index of the first row that could
    not be normalised (``NO_ROW`` if none).
    ``totals``  float64 (6,): Σ‖x‖, Σ‖x‖², min ‖x‖, max ‖x‖, Σ‖u‖², Σ‖u‖⁴.
    ``sums``    float64 (4, d): Σx, Σx² , Σu, Σu², per dimension.
    """

    coverage: Coverage
    counts: Tensor
    totals: Tensor
    sums: Tensor

    _tensors = ("counts", "totals", "sums")

    def _shapes(self) -> dict[str, tuple[torch.dtype, tuple[int, ...], bool]]:
        return {
            "counts": (torch.int64, (5,), False),
            "totals": (torch.float64, (6,), False),
            "sums": (torch.float64, (4, self.dim), False),
        }

    @classmethod
    def empty(cls, dim: int, device: torch.device | str = "cpu") -> Self:
        """The state of no rows: the identity of ``merge``."""
        inf = float("inf")
        return cls(
            dim=dim,
            coverage=Coverage(),
            provenance=frozenset(),
            counts=filled((0, 0, 0, 0, NO_ROW), torch.int64, device),
            totals=filled((0.0, 0.0, inf, -inf, 0.0, 0.0), torch.float64, device),
            sums=torch.zeros(4, dim, dtype=torch.float64, device=device),
        )

    def merge(self, other: Self) -> Self:
        """The state of both sets of rows; refuses another dimension and rows that both have seen."""
        self._check_mergeable(other)
        a, b = self.totals, other.totals
        return replace(
            self,
            **self._joined(other),
            counts=torch.cat((self.counts[:4] + other.counts[:4], torch.minimum(self.counts[4:], other.counts[4:]))),
            totals=torch.cat(
                (a[:2] + b[:2], torch.minimum(a[2:3], b[2:3]), torch.maximum(a[3:4], b[3:4]), a[4:] + b[4:])
            ),
            sums=self.sums + other.sums,
        )

    @property
    def kept(self) -> Tensor:
        """Rows counted, a scalar on the device."""
        return self.counts[0]

    @property
    def sum(self) -> Tensor:
        """Σx (d,)."""
        return self.sums[0]

    @property
    def sum_squared(self) -> Tensor:
        """Σx² by dimension (d,)."""
        return self.sums[1]

    @property
    def unit_sum(self) -> Tensor:
        """Σu (d,)."""
        return self.sums[2]

    @property
    def unit_sum_squared(self) -> Tensor:
        """Σu² by dimension (d,)."""
        return self.sums[3]
