"""The state of one linear pass by group."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from fastaniso.state.base import NO_ROW, State, filled
from fastaniso.state.coverage import Coverage
from fastaniso.state.errors import StateMismatchError


@dataclass(frozen=True, eq=False)
class GroupMoments(State):
    """Sums of unit rows by group, one linear pass: what within- and between-group cosines need.

    ``counts``        int64 (G,): rows kept in each group.
    ``unit_sum``      float64 (G, d): Σu of each group.
    ``unit_squared``  float64 (G,): Σ‖u‖² of each group.
    ``dropped``       int64 (5,): rows dropped as masked, zero, non-finite, of a group outside 0..G−1; index of the
    first row that could not be normalised (``NO_ROW`` if none).
    """

    coverage: Coverage
    counts: Tensor
    unit_sum: Tensor
    unit_squared: Tensor
    dropped: Tensor

    _tensors = ("counts", "unit_sum", "unit_squared", "dropped")

    @property
    def groups(self) -> int:
        """Number of groups G."""
        return self.counts.shape[0]

    def _shapes(self) -> dict[str, tuple[torch.dtype, tuple[int, ...], bool]]:
        groups = self.counts.shape[0] if isinstance(self.counts, Tensor) and self.counts.dim() == 1 else -1
        return {
            "counts": (torch.int64, (groups,), False),
            "unit_sum": (torch.float64, (groups, self.dim), False),
            "unit_squared": (torch.float64, (groups,), False),
            "dropped": (torch.int64, (5,), False),
        }

    @classmethod
    def empty(cls, dim: int, groups: int, device: torch.device | str = "cpu") -> Self:
        """The state of no rows: the identity of ``merge``."""
        return cls(
            dim=dim,
            coverage=Coverage(),
            provenance=frozenset(),
            counts=torch.zeros(groups, dtype=torch.int64, device=device),
            unit_sum=torch.zeros(groups, dim, dtype=torch.float64, device=device),
            unit_squared=torch.zeros(groups, dtype=torch.float64, device=device),
            dropped=filled((0, 0, 0, 0, NO_ROW), torch.int64, device),
        )

    def merge(self, other: Self) -> Self:
        """The state of both sets of rows; refuses another dimension or number of groups, and rows both have seen."""
        self._check_mergeable(other)
        if other.groups != self.groups:
            raise StateMismatchError(f"states of {self.groups} and {other.groups} groups do not merge")
        return replace(
            self,
            **self._joined(other),
            counts=self.counts + other.counts,
            unit_sum=self.unit_sum + other.unit_sum,
            unit_squared=self.unit_squared + other.unit_squared,
            dropped=torch.cat(
                (self.dropped[:4] + other.dropped[:4], torch.minimum(self.dropped[4:], other.dropped[4:]))
            ),
        )
