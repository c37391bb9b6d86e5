"""What a transform is fitted from: the Moments or the Gram of its rows, in float64 about an origin among them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import Self

import torch
from torch import Tensor

from fastaniso.ops import dispatch as ops
from fastaniso.rows import Rows
from fastaniso.state import Gram, Moments

# Blocks of rows in float64 that stay in a CPU's cache, or keep a GPU busy; and rows enough that adding a (d, d) scatter
# after each block is a fortieth of the work.
_NUMBERS_ON_CPU = 1 << 17
_NUMBERS_ELSEWHERE = 1 << 24
_ROWS_OF_A_SCATTER = 4096


@dataclass(frozen=True, eq=False)
class Sums:
    """The state of the rows x − origin, and the origin, float64 (d,).

    A row at the origin has no direction, so the state counts it as dropped; means and covariances here count it like
    any other row. The origin is a row of the data: a mean far from zero costs no digits, and a dimension that does
    not vary has a variance of exactly zero. A state made elsewhere has its origin at zero.
    """

    state: Moments | Gram
    origin: Tensor

    @classmethod
    def of_state(cls, state: Moments | Gram) -> Self:
        """A state made elsewhere."""
        return cls(state, state.sums.new_zeros(state.dim))

    @classmethod
    def of_rows(cls, rows: Rows, origin: Tensor, *, scatter: bool) -> Self:
        """The Gram of rows − origin or, without ``scatter``, the Moments; memory of one block beside the rows."""
        device = rows.values.device
        nothing = Gram.empty(rows.dim, device, unit=False) if scatter else Moments.empty(rows.dim, device)
        at_once = max(block_rows(rows), _ROWS_OF_A_SCATTER if scatter else 1)
        states = (_state(block, origin, scatter) for _, block in rows.blocks(at_once))
        return cls(reduce(_merge, states, nothing), origin)

    def merge(self, other: Self) -> Self:
        """The sums of both sets of rows, about one origin."""
        return replace(self, state=_merge(self.state, other.state))

    def to(self, device: torch.device | str) -> Self:
        """The same sums on another device."""
        return replace(self, state=self.state.to(device), origin=self.origin.to(device))

    @property
    def n(self) -> int:
        """Rows, those at the origin included; waits for the device."""
        kept, _, at_origin, _, _ = self.state.counts.tolist()
        return int(kept + at_origin)

    @property
    def nonfinite(self) -> int:
        """Rows left out because they hold NaN or Inf; waits for the device."""
        return int(self.state.counts[3])

    @property
    def finite(self) -> bool:
        """Whether every sum is a number: squares of float64 rows can leave float64; waits for the device."""
        return bool(self.state.sums[:2].isfinite().all())

    @property
    def mean(self) -> Tensor:
        """x̄, float64 (d,)."""
        return self.origin + self.state.sums[0] / self.n

    @property
    def mean_square(self) -> Tensor:
        """Mean of (x − origin)² by dimension, float64 (d,)."""
        return self.state.sums[1] / self.n

    @property
    def variance(self) -> Tensor:
        """Mean of (x − x̄)² by dimension, float64 (d,): of a Gram its own, else mean square minus squared mean."""
        if isinstance(self.state, Gram):
            return self.covariance.diagonal()
        return self.mean_square - (self.state.sums[0] / self.n).square()

    @property
    def covariance(self) -> Tensor:
        """C = Σ(x − x̄)(x − x̄)ᵀ/n, float64 (d, d)."""
        assert isinstance(self.state, Gram)
        assert self.state.scatter is not None
        kept, n = int(self.state.counts[0]), self.n
        # Rows at the origin are a set of their own with no scatter, merged by Chan's formula.
        weight = (n - kept) / max(kept, 1) / n**2
        return torch.addr(self.state.scatter / n, self.state.sums[0] * weight, self.state.sums[0])

    @property
    def rounding(self) -> float:
        """Unit in the last place of what the state was summed in: float64's, or float32's where any kernel used it."""
        exact = all("float64 rows" in part or "reference kernel" in part for part in self.state.provenance)
        return float(torch.finfo(torch.float64 if exact else torch.float32).eps)


def first_row(rows: Rows) -> Tensor:
    """The first row that the mask keeps, a float64 copy (d,)."""
    at = 0 if rows.mask is None else int(rows.mask.flatten().int().argmax())
    inner = rows.values.shape[1]
    # A copy: float64 rows would otherwise change the origin when the caller writes to them.
    return rows.values[at // inner, at % inner].to(torch.float64, copy=True)


def block_rows(rows: Rows) -> int:
    """How many of the rows to take at a time."""
    numbers = _NUMBERS_ON_CPU if rows.values.device.type == "cpu" else _NUMBERS_ELSEWHERE
    return max(numbers // rows.dim, 1)


def _state(rows: Rows, origin: Tensor, scatter: bool) -> Moments | Gram:
    # float32 − float64 is computed in float64, where the difference of two float32 numbers this close is exact.
    shifted = Rows(rows.values - origin, rows.mask)
    return ops.gram(shifted, unit=False) if scatter else ops.moments(shifted)


def _merge(a: Moments | Gram, b: Moments | Gram) -> Moments | Gram:
    return a.merge(b)  # type: ignore[arg-type]  # both of one kind, as the transform that made them
